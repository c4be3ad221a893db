package checkpoint

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
)

func TestCorrectTimes(t *testing.T) {
	// Times are hours. A list has the last commit first, unless it says otherwise.
	const year = 365 * 24
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	hour := func(h float64) time.Time { return start.Add(time.Duration(h * float64(time.Hour))) }
	for _, c := range []struct {
		name    string
		times   []float64 // the times of the commits, the last one first
		machine float64
		from    []float64 // the times from which the ages count
		now     float64
	}{
		{"in order", []float64{3, 2, 1}, 3.1, []float64{3, 2, 1}, 3},
		{"the task stands still", []float64{3, 2, 1}, year, []float64{3, 2, 1}, 3},
		{"all at once", []float64{1, 1, 1}, 1, []float64{1, 1, 1}, 1},
		{"only one", []float64{1}, 2, []float64{1}, 1},
		{"only one, the machine is behind", []float64{3}, 2, []float64{3}, 2},

		{"the last is ahead", []float64{year, 2, 1}, 3, []float64{year, 2, 1}, 3},
		{"the last is ahead, and so is the machine", []float64{year, 2, 1}, year, []float64{year, 2, 1}, year},
		{"the last is ahead, the machine is behind", []float64{year, 2, 1}, -year, []float64{year, 2, 1}, 2},
		{"the machine is behind", []float64{3, 2, 1}, -year, []float64{3, 2, 1}, 2},
		{"the machine is a little behind", []float64{3, 2, 1}, 2.9, []float64{3, 2, 1}, 2.9},
		{"the machine is ahead", []float64{3, 2, 1}, year, []float64{3, 2, 1}, 3},

		{"the one before is ahead", []float64{4, year, 2, 1}, 4.1, []float64{4, 4, 2, 1}, 4},
		{"all before are ahead", []float64{4, year + 2, year + 1}, 4.1, []float64{4, 4, 4}, 4},
		{"the last is behind", []float64{-year, 3, 2}, 4.1, []float64{4.1, 3, 2}, 4.1},
		{"the last is behind, by little", []float64{2.8, 3, 2}, 4.1, []float64{2.8, 3, 2}, 3},
		{"the last is behind, by a little more", []float64{2.7, 3, 2}, 4.1, []float64{4.1, 3, 2}, 4.1},
		{"the last is behind, and so is the machine", []float64{-year, 3, 2}, -year + 1, []float64{-year, -year, -year}, -year},
		{"the last is behind, the machine is ahead", []float64{-year, 3, 2}, year, []float64{year, 3, 2}, year},
	} {
		t.Run(c.name, func(t *testing.T) {
			list := make([]format.Retained, len(c.times))
			for i, h := range c.times {
				list[i] = format.Retained{Seq: uint64(len(list) - i), Time: hour(h)}
			}
			for rotated := range list { // as after a rollback
				given := slices.Clone(list)
				got, now := correctTimes(given, hour(c.machine))
				if !now.Equal(hour(c.now)) {
					t.Errorf("ages count from %v, want %v", now, hour(c.now))
				}
				for i, r := range got {
					want := hour(c.from[(i+rotated)%len(list)])
					if !r.From().Equal(want) || !r.Time.Equal(given[i].Time) || given[i].CountsFrom != (time.Time{}) {
						t.Errorf("checkpoint %d, rotated by %d, counts from %v, want %v", r.Seq, rotated, r.From(), want)
					}
				}
				list = append(list[1:], list[0])
			}
		})
	}
	if list, now := correctTimes(nil, start); list != nil || !now.IsZero() {
		t.Errorf("of nothing: %v, %v", list, now)
	}
}

// A life is that of a task by an ideal clock, in which the store gave one commit a
// wrong time.
type life struct {
	keep  Retention
	times []time.Time // the right times of its commits
	told  []time.Time
	wrong int

	ideal, real []format.Retained

	// hidden says that the wrong time is too early, and that the retained checkpoints
	// do not show it: it is not before the time of an earlier one, or it is the only
	// one.
	hidden bool
}

func drawLife(t *rapid.T) *life {
	l := &life{keep: Retention{
		Last:   rapid.IntRange(1, 3).Draw(t, "last"),
		Within: rapid.SampledFrom([]time.Duration{0, time.Hour, 30 * time.Hour, 9 * 24 * time.Hour}).Draw(t, "within"),
	}}
	gaps := rapid.SampledFrom([]time.Duration{time.Second, 10 * time.Minute, time.Hour, 24 * time.Hour, 20 * 24 * time.Hour})
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for range rapid.IntRange(2, 25).Draw(t, "commits") {
		now = now.Add(gaps.Draw(t, "gap"))
		l.times = append(l.times, now)
	}
	l.told = slices.Clone(l.times)
	l.wrong = rapid.IntRange(0, len(l.times)-1).Draw(t, "which")
	by := rapid.SampledFrom([]time.Duration{
		time.Second, 10 * time.Minute, 16 * time.Minute, time.Hour, 5 * time.Hour, 26 * time.Hour, 8 * 24 * time.Hour, 50 * 24 * time.Hour,
		400 * 24 * time.Hour, 36500 * 24 * time.Hour,
	}).Draw(t, "by")
	if rapid.Bool().Draw(t, "too early") {
		by = -by
	}
	l.told[l.wrong] = l.told[l.wrong].Add(by)
	return l
}

// commit makes commit n in both histories, and applies retention to each.
func (l *life) commit(t *rapid.T, n int) {
	r := format.Retained{Seq: uint64(n + 1)}
	if rapid.IntRange(0, 4).Draw(t, "named") == 0 {
		r.Savepoint = fmt.Sprint("n", n)
		r.ExpiresAfter = rapid.SampledFrom([]int64{0, 1, 7200, 10 * 24 * 3600}).Draw(t, "expires")
	}
	if n == l.wrong+1 {
		shown := slices.ContainsFunc(l.real[1:], func(r format.Retained) bool { return l.told[l.wrong].Before(r.Time.Add(-outOfOrder)) })
		l.hidden = l.told[l.wrong].Before(l.times[l.wrong]) && !shown
	}
	list, now := correctTimes(l.real, l.times[n])
	real := l.keep.pick(list, now, nil)
	r.Time = l.told[n]
	l.real = append([]format.Retained{r}, real...)

	// The ideal clock knows the time of the new commit, and may be as late as A4
	// allows.
	ideal := l.keep.pick(l.ideal, l.times[n].Add(outOfOrder), nil)
	r.Time = l.times[n]
	l.ideal = append([]format.Retained{r}, ideal...)
}

// Whichever time of a history is wrong, no checkpoint is removed by age that would be
// kept if it were right. Exception: if the wrong time is too early and nothing shows
// it, its own checkpoint may be removed.
func TestOneWrongTimeDropsNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLife(t)
		for n := range l.times {
			l.commit(t, n)
			for _, want := range l.ideal {
				found := slices.ContainsFunc(l.real, func(r format.Retained) bool { return r.Seq == want.Seq })
				excused := l.hidden && want.Seq == uint64(l.wrong+1)
				if !found && !excused {
					t.Fatalf("after commit %d, %d is gone; number %d is %v, told as %v", n+1, want.Seq,
						l.wrong+1, l.times[l.wrong], l.told[l.wrong])
				}
			}
		}
	})
}

// A wrong time keeps nothing for ever: when all ages have passed and a few more
// commits were made, the kept checkpoints are those of a history with right times.
func TestOneWrongTimeKeepsNothingForEver(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLife(t)
		for n := range l.times {
			l.commit(t, n)
		}
		end := l.times[len(l.times)-1]
		for _, later := range []time.Duration{1, 2, 40 * 24, 40*24 + 1, 40*24 + 2, 40*24 + 3, 40*24 + 4} { // hours
			l.times = append(l.times, end.Add(later*time.Hour))
			l.told = append(l.told, end.Add(later*time.Hour))
			l.commit(t, len(l.times)-1)
		}
		for _, r := range l.real {
			old := int(r.Seq) <= len(l.times)-5
			if named := r.Savepoint != "" && r.ExpiresAfter == 0; old && !named {
				t.Fatalf("number %d is still there: %+v", r.Seq, r)
			}
		}
	})
}

// Of the hours or days, a wrong time takes one away from the others, and no more.
func TestOneWrongTimeTakesOnePeriod(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := drawLife(t)
		l.keep = Retention{Last: 1}
		n := rapid.IntRange(1, 5).Draw(t, "periods")
		rapid.SampledFrom([]func(){
			func() { l.keep.Hourly = n }, func() { l.keep.Daily = n }, func() { l.keep.Weekly = n }, func() { l.keep.Monthly = n },
		}).Draw(t, "rule")()
		for n := range l.times {
			l.commit(t, n)
			var gone []uint64
			for _, want := range l.ideal {
				if want.Savepoint == "" && want.Seq != uint64(l.wrong+1) &&
					!slices.ContainsFunc(l.real, func(r format.Retained) bool { return r.Seq == want.Seq }) {
					gone = append(gone, want.Seq)
				}
			}
			if len(gone) > 1 {
				t.Fatalf("after commit %d, %v are gone", n+1, gone)
			}
		}
	})
}
