//go:build !race

package checkpoint_test

const (
	raceDetector = false
	raceShare    = 1
)
