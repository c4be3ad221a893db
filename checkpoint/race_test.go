//go:build race

package checkpoint_test

// raceDetector says that everything takes many times as long.
const raceDetector = true

// raceShare is by how much the long tests of histories are shorter with the race detector. They
// are about what is stored, and have one goroutine most of the time; CI runs them in full without it.
const raceShare = 4
