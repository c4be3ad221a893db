package checkpoint

import "time"

// SetClock makes now the clock of the machine that j runs on.
func SetClock(j *Job, now func() time.Time) { j.clock = now }
