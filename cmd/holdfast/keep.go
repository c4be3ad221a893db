package main

import (
	"errors"
	"regexp"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// keepFlags adds the flags that say which checkpoints stay.
func keepFlags(cmd *cobra.Command, keep *checkpoint.Retention) {
	f := cmd.Flags()
	for _, c := range []struct {
		name  string
		count *int
		usage string
	}{
		{"keep-last", &keep.Last, "keep the last `N` checkpoints, the new one included"},
		{"keep-hourly", &keep.Hourly, "keep the newest checkpoint of each of the last `N` hours that have one"},
		{"keep-daily", &keep.Daily, "keep the newest checkpoint of each of the last `N` days that have one (UTC)"},
		{"keep-weekly", &keep.Weekly, "keep the newest checkpoint of each of the last `N` weeks that have one (from Monday)"},
		{"keep-monthly", &keep.Monthly, "keep the newest checkpoint of each of the last `N` months that have one"},
	} {
		f.Func(c.name, c.usage, func(v string) (err error) {
			*c.count, err = strconv.Atoi(v)
			if err != nil || *c.count < 1 {
				return errors.New("it must be a whole number of at least 1")
			}
			return nil
		})
	}
	f.Func("keep-within", "keep checkpoints that are at most `D` older than the newest: 36h, 7d, 2w", duration(&keep.Within))
}

// withWeeks takes the weeks and days, which are a week's and a day's hours, off
// the front of a duration.
var withWeeks = regexp.MustCompile(`^(?:(\d+)w)?(?:(\d+)d)?(.*)$`)

// duration returns a flag's function that takes a duration of Go's, before which
// weeks and days may stand.
func duration(dst *time.Duration) func(string) error {
	return func(v string) error {
		m := withWeeks.FindStringSubmatch(v)
		if m == nil || v == "" {
			return errDuration
		}
		var sum time.Duration
		for i, unit := range []time.Duration{7 * 24 * time.Hour, 24 * time.Hour} {
			if m[i+1] == "" {
				continue
			}
			n, err := strconv.ParseInt(m[i+1], 10, 64)
			if err != nil || n > int64(maxDuration/unit) {
				return errDuration
			}
			sum += time.Duration(n) * unit
			if sum < 0 {
				return errDuration
			}
		}
		if m[3] != "" {
			rest, err := time.ParseDuration(m[3])
			if err != nil || rest < 0 || sum+rest < 0 {
				return errDuration
			}
			sum += rest
		}
		if sum == 0 {
			return errDuration
		}
		*dst = sum
		return nil
	}
}

// maxDuration is about 292 years.
const maxDuration = time.Duration(1<<63 - 1)

var errDuration = errors.New("it must be a duration of more than nothing and less than 290 years, such as 90m, 36h, 7d, 2w or 1w2d12h")
