//go:build !unix && !race

package checkpoint_test

import "time"

func processorTime() time.Duration { return 0 }
