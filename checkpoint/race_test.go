//go:build race

package checkpoint_test

// raceDetector says that everything takes many times as long.
const raceDetector = true
