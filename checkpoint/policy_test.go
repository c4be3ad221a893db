package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
)

var keepAll = checkpoint.Options{Memory: 1 << 20, Retention: checkpoint.Retention{Last: checkpoint.KeepAll}}

// The clock of a dated world stands still until the test sets it.
type dated struct {
	*world
	now time.Time
}

func inDatedWorld(t tester, f func(*dated)) {
	run(t, func(w *world) {
		d := &dated{w, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
		w.bucket = mem.NewBucket(func() time.Time { return d.now })
		w.machine = func() time.Time { return d.now }
		f(d)
	})
}

// save saves a checkpoint with its own segment. It retains what keep says.
func (d *dated) save(n int, keep checkpoint.Retention, savepoint string, expires time.Duration) {
	d.Helper()
	task, _, _ := d.open(checkpoint.Options{Retention: keep})
	s := with(n, 20<<10)
	s.Savepoint, s.SavepointExpiresAfter = savepoint, expires
	if _, err := task.Save(d.Context(), s, checkpoint.SaveOptions{}); err != nil {
		d.Fatal(err)
	}
}

// saveAll saves checkpoints 1, 2, 3 ... at the given times. A time with the suffix s
// makes a savepoint, which expires after the duration that follows the s.
func (d *dated) saveAll(times string) {
	d.Helper()
	for n, word := range strings.Fields(times) {
		at, expiry, named := strings.Cut(word, "s")
		var expires time.Duration
		var err error
		if expiry != "" {
			if expires, err = time.ParseDuration(expiry); err != nil {
				d.Fatal(err)
			}
		}
		if d.now, err = time.Parse("2006-01-02T15:04Z07:00", at); err != nil {
			d.Fatal(err)
		}
		savepoint := ""
		if named {
			savepoint = fmt.Sprint("savepoint ", n+1)
		}
		d.save(n+1, keepAll.Retention, savepoint, expires)
	}
}

// wantPruned prunes the task and compares what is kept, and why, with a list such as
// "7:current,last 5:daily". Afterwards the store contains only what the kept
// checkpoints need.
func (w *world) wantPruned(keep checkpoint.Retention, want string) {
	w.Helper()
	task, _, _ := w.process()
	var before int64
	for _, o := range w.objects(segments) {
		before += o.Size
	}
	objects := len(w.objects(""))
	dry, err := task.Prune(w.Context(), keep, checkpoint.PruneOptions{DryRun: true})
	if err != nil {
		w.Fatal(err)
	}
	if got := verdicts(dry); got != want {
		w.Errorf("a dry run keeps %q, want %q", got, want)
	}
	if n := len(w.objects("")); n != objects {
		w.Errorf("a dry run leaves %d objects of %d", n, objects)
	}
	done, err := task.Prune(w.Context(), keep, checkpoint.PruneOptions{})
	if err != nil {
		w.Fatal(err)
	}
	if got := verdicts(done); got != want || done.Segments != dry.Segments || done.Bytes != dry.Bytes {
		w.Errorf("pruned to %q, %d segments of %d bytes less; a dry run says %+v", got, done.Segments, done.Bytes, dry)
	}
	var stay []uint64
	for _, v := range done.Checkpoints {
		if !v.Removed() {
			stay = append(stay, v.Seq)
		}
	}
	w.wantCheckpoints(stay...)
	w.wantObjects(segments, len(stay))
	for _, o := range w.objects(segments) {
		before -= o.Size
	}
	if before != done.Bytes {
		w.Errorf("%d bytes are gone; it says %d", before, done.Bytes)
	}
}

func verdicts(p checkpoint.PruneResult) string {
	var words []string
	for _, v := range p.Checkpoints {
		if !v.Removed() {
			words = append(words, fmt.Sprintf("%d:%s", v.Seq, strings.Join(v.KeptBy, ",")))
		}
	}
	return strings.Join(words, " ")
}

func TestPolicies(t *testing.T) {
	const (
		hours = "2026-11-22T08:10Z 2026-11-22T08:50Z 2026-11-22T09:00Z 2026-11-22T09:59Z 2026-11-22T11:30Z 2026-11-22T11:45Z"
		// 22 November 2026 is a Sunday.
		days = "2026-09-30T23:59Z 2026-10-01T00:00Z 2026-10-31T12:00Z 2026-11-01T12:00Z " +
			"2026-11-02T00:00Z 2026-11-22T23:00Z 2026-11-23T01:00Z 2026-11-23T02:00Z"
	)
	type keep = checkpoint.Retention
	for _, c := range []struct {
		name  string
		times string
		keep  keep
		want  string
	}{
		{"default", hours, keep{}, "6:current,last 5:last 4:last 3:last 2:last 1:last"},
		{"all", hours, keep{Last: checkpoint.KeepAll}, "6:current,last 5:last 4:last 3:last 2:last 1:last"},
		{"last", hours, keep{Last: 1}, "6:current,last"},
		{"last three", hours, keep{Last: 3}, "6:current,last 5:last 4:last"},

		{"within", hours, keep{Within: 2 * time.Hour}, "6:current,within 5:within 4:within"},
		{"within, to the second", hours, keep{Within: 165 * time.Minute}, "6:current,within 5:within 4:within 3:within"},
		{"within, a second less", hours, keep{Within: 165*time.Minute - time.Second}, "6:current,within 5:within 4:within"},
		{"within a moment", hours, keep{Within: 1}, "6:current,within"},

		{"hourly, one", hours, keep{Hourly: 1}, "6:current,hourly"},
		{"hourly skips hours without one", hours, keep{Hourly: 2}, "6:current,hourly 4:hourly"},
		{"hourly, all", hours, keep{Hourly: 3}, "6:current,hourly 4:hourly 2:hourly"},
		{"hourly, more than there are", hours, keep{Hourly: 9}, "6:current,hourly 4:hourly 2:hourly"},
		{"hourly without end", hours, keep{Hourly: checkpoint.KeepAll}, "6:current,hourly 4:hourly 2:hourly"},

		{"daily", days, keep{Daily: 3}, "8:current,daily 6:daily 5:daily"},
		{"weeks begin on Monday", days, keep{Weekly: 3}, "8:current,weekly 6:weekly 5:weekly"},
		{"a week of two months", days, keep{Weekly: 4}, "8:current,weekly 6:weekly 5:weekly 4:weekly"},
		{"monthly", days, keep{Monthly: 2}, "8:current,monthly 3:monthly"},
		{"monthly, to the minute", days, keep{Monthly: 3}, "8:current,monthly 3:monthly 1:monthly"},
		{"a week of two years", "2026-12-28T00:00Z 2026-12-31T12:00Z 2027-01-01T12:00Z", keep{Weekly: 2, Monthly: 1}, "3:current,weekly,monthly"},
		{"months of two years", "2025-12-01T00:00Z 2026-12-31T12:00Z 2027-01-01T12:00Z", keep{Monthly: 9}, "3:current,monthly 2:monthly 1:monthly"},
		{"days of UTC", "2026-11-22T20:00Z 2026-11-23T00:30+02:00 2026-11-23T09:30+10:00 2026-11-23T00:00Z", keep{Daily: 2}, "4:current,daily 3:daily"},

		{"any of several", days, keep{Last: 2, Within: 26 * time.Hour, Daily: 2, Weekly: 3, Monthly: 2},
			"8:current,last,within,daily,weekly,monthly 7:last,within 6:within,daily,weekly 5:weekly 3:monthly"},

		{"savepoints stay", "2026-11-22T08:00Zs 2026-11-22T09:00Z 2026-11-23T09:00Z", keep{Last: 1}, "3:current,last 1:savepoint"},
		{"and count", "2026-11-22T08:00Z 2026-11-22T09:00Zs 2026-11-23T09:00Z", keep{Last: 1, Daily: 2}, "3:current,last,daily 2:savepoint,daily"},
		{"until they expire", "2026-11-22T08:00Zs2h 2026-11-22T09:00Z 2026-11-22T09:59Z", keep{Last: 1}, "3:current,last 1:savepoint"},
		{"which they do to the second", "2026-11-22T08:00Zs2h 2026-11-22T09:00Z 2026-11-22T10:00Z", keep{Last: 1}, "3:current,last"},
		{"seconds are rounded up", "2026-11-22T08:00Zs7199.5s 2026-11-22T09:59Z", keep{Last: 1}, "2:current,last 1:savepoint"},
		{"then they are like others", "2026-11-21T08:00Zs2h 2026-11-22T09:00Z 2026-11-22T10:00Z", keep{Daily: 2}, "3:current,daily 1:daily"},
		{"the current checkpoint has expired", "2026-11-22T08:00Z 2026-11-22T08:00Zs1ns", keep{Within: 1}, "2:current,savepoint,within 1:within"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inDatedWorld(t, func(d *dated) {
				d.saveAll(c.times)
				d.wantPruned(c.keep, c.want)
				// The task stands still: nothing more is removed, however much time
				// passes.
				d.now = d.now.AddDate(1, 0, 0)
				d.wantPruned(c.keep, c.want)
			})
		})
	}
}

// With commits, a policy keeps what it would have kept from the beginning. What was
// made in the last period is kept only until the next commit.
func TestPoliciesAtCommit(t *testing.T) {
	type keep = checkpoint.Retention
	for _, c := range []struct {
		name string
		keep keep
		want []string // after each of the commits at 8:00, 8:20, 8:40, 9:00, ... 10:00
	}{
		{"hourly", keep{Hourly: 2}, []string{"1", "2 1", "3 2", "4 3", "5 4 3", "6 5 3", "7 6 3"}},
		{"within", keep{Within: 20 * time.Minute}, []string{"1", "2 1", "3 2 1", "4 3 2", "5 4 3", "6 5 4", "7 6 5"}},
		{"last", keep{Last: 2}, []string{"1", "2 1", "3 2", "4 3", "5 4", "6 5", "7 6"}},
		{"last or daily", keep{Last: 1, Daily: 5}, []string{"1", "2 1", "3 2", "4 3", "5 4", "6 5", "7 6"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inDatedWorld(t, func(d *dated) {
				d.now = time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
				for n, want := range c.want {
					d.save(n+1, c.keep, "", 0)
					d.wantHistory(want)
					d.wantObjects(segments, len(strings.Fields(want)))
					d.wantReadable()
					d.now = d.now.Add(20 * time.Minute)
				}
			})
		})
	}
}

func TestSavepointExpiresByCommits(t *testing.T) {
	inDatedWorld(t, func(d *dated) {
		d.save(1, lastOne.Retention, "night", 90*time.Minute)
		task, _, _ := d.process()
		expires := d.now.Add(90 * time.Minute)
		for n, want := range []string{"2 1", "3 1", "4"} { // 2 and 3 are made when the latest is not so old
			d.now = d.now.Add(time.Hour)
			if c, err := task.Get(d.Context(), checkpoint.Savepoint("night")); err != nil || !c.SavepointExpires.Equal(expires) {
				t.Errorf("before commit %d, the savepoint expires at %v, %v; want %v", n+2, c.SavepointExpires, err, expires)
			}
			o, _ := d.ownerWith(lastOne) // a claim repeats it
			commit(d, o, with(n+2, 20<<10))
			if err := o.Release(d.Context()); err != nil {
				t.Fatal(err)
			}
			if err := o.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			d.wantHistory(want)
			d.wantObjects(segments, len(strings.Fields(want)))
		}
		if _, err := task.Get(d.Context(), checkpoint.Savepoint("night")); !errors.Is(err, checkpoint.ErrNoCheckpoint) {
			t.Errorf("after it was dropped: %v", err)
		}
		d.save(5, lastOne.Retention, "night", 0) // the name can be used again
		if c, err := task.Get(d.Context(), checkpoint.Savepoint("night")); err != nil || !c.SavepointExpires.IsZero() {
			t.Errorf("%+v, %v; want a savepoint that does not expire", c, err)
		}
	})
}

// A rollback changes the order in which checkpoints count: the one that was rolled
// back to comes before those that were left behind.
func TestPolicyAfterARollback(t *testing.T) {
	for _, c := range []struct {
		name string
		keep checkpoint.Retention
		want string
	}{
		{"last", checkpoint.Retention{Last: 2}, "6:current,last 2:last"},
		{"daily", checkpoint.Retention{Daily: 2}, "6:current,daily 2:daily"},
		{"daily, three", checkpoint.Retention{Daily: 3}, "6:current,daily 2:daily 4:daily"},
		{"hourly", checkpoint.Retention{Hourly: 3}, "6:current,hourly 2:hourly 4:hourly"},
		{"within", checkpoint.Retention{Within: time.Hour}, "6:current,within"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inDatedWorld(t, func(d *dated) {
				d.saveAll("2026-11-19T08:00Z 2026-11-20T08:00Z 2026-11-21T08:00Z 2026-11-21T09:00Z")
				task, _, _ := d.process()
				d.now = d.now.Add(time.Hour)
				if _, err := task.Rollback(d.Context(), checkpoint.Seq(2), checkpoint.RollbackOptions{}); err != nil { // manifest 5
					t.Fatal(err)
				}
				d.now = d.now.Add(24 * time.Hour)
				d.save(6, keepAll.Retention, "", 0)
				d.wantCheckpoints(6, 2, 4, 3, 1)
				d.wantPruned(c.keep, c.want)
			})
		})
	}
	t.Run("at once", func(t *testing.T) {
		inDatedWorld(t, func(d *dated) {
			d.saveAll("2026-11-19T08:00Z 2026-11-20T08:00Z 2026-11-21T08:00Z")
			task, _, _ := d.process()
			if _, err := task.Rollback(d.Context(), checkpoint.Seq(1), checkpoint.RollbackOptions{}); err != nil {
				t.Fatal(err)
			}
			d.wantPruned(checkpoint.Retention{Last: 1}, "1:current,last")
		})
	})
}

// Ages count from the latest checkpoint, even if the task was rolled back to an older
// one.
func TestAgesCountFromTheLatest(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.ownerWith(keepAll)
		for n, pause := range []time.Duration{0, time.Hour, 2 * time.Hour} {
			time.Sleep(pause)
			commit(w, o, with(n, 20<<10)) // 2, 3 and 4
		}
		synctest.Wait()
		task, _, _ := w.process()
		if _, err := task.Rollback(w.Context(), checkpoint.Seq(3), checkpoint.RollbackOptions{Fence: true}); err != nil {
			t.Fatal(err)
		}
		w.wantPruned(checkpoint.Retention{Within: 90 * time.Minute}, "3:current 4:within")
	})
}

// Days are days of UTC, in whatever time zone the store gives its times.
func TestDaysAreThoseOfUTC(t *testing.T) {
	inWorld(t, func(w *world) {
		zone := time.FixedZone("far in the east", 14*60*60)
		w.bucket = mem.NewBucket(func() time.Time { return time.Now().In(zone) })
		for n := range 3 {
			task, _, _ := w.open(checkpoint.Options{Retention: checkpoint.Retention{Last: 1, Daily: 2, Monthly: 2}})
			if _, err := task.Save(w.Context(), at(n), checkpoint.SaveOptions{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
		}
		w.wantHistory("2 1") // the third, and the last of the day before
	})
}

func TestInvalidPoliciesAreRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		bad := checkpoint.Retention{Within: -time.Second}
		_, newErr := checkpoint.New(w.bucket.Open(), checkpoint.Options{Retention: bad})
		task, _, _ := w.process()
		claim(w, task)
		_, pruneErr := task.Prune(w.Context(), bad, checkpoint.PruneOptions{})
		for what, err := range map[string]error{"new": newErr, "prune": pruneErr} {
			if !errors.Is(err, backend.ErrInvalid) || !strings.Contains(err.Error(), "within -1s") {
				t.Errorf("%s: %v, want ErrInvalid", what, err)
			}
		}
		for _, keep := range []checkpoint.Retention{{Last: -2}, {Hourly: -2}, {Daily: -2}, {Weekly: -2}, {Monthly: -2}} {
			if _, err := task.Prune(w.Context(), keep, checkpoint.PruneOptions{}); !errors.Is(err, backend.ErrInvalid) || !strings.Contains(err.Error(), "-2 checkpoints") {
				t.Errorf("%+v: %v, want ErrInvalid", keep, err)
			}
		}
		for name, s := range map[string]checkpoint.Snapshot{
			"what is to expire after 1h0m0s is no savepoint": {SavepointExpiresAfter: time.Hour},
			"expire after -1ns; that must not be negative":   {Savepoint: "s", SavepointExpiresAfter: -1},
		} {
			if _, err := task.Save(w.Context(), s, checkpoint.SaveOptions{}); !errors.Is(err, backend.ErrInvalid) || !strings.Contains(err.Error(), name) {
				t.Errorf("save: %v; want %s", err, name)
			}
		}
		w.wantObjects(manifests, 1) // the claim
		s := at(1)
		s.Savepoint, s.SavepointExpiresAfter = "for long", 1<<63-1 // rounded down
		if c := commit(w, mustClaim(w), s); c.SavepointExpires.Sub(c.Time) < 290*365*24*time.Hour {
			t.Errorf("it expires at %v", c.SavepointExpires)
		}
		w.wantCheckpoints(3)
	})
}

func mustClaim(w *world) *checkpoint.Owner {
	o, _ := w.owner()
	return o
}

// A dot is a checkpoint in the model.
type dot struct {
	seq       uint64
	time      time.Time
	savepoint bool
	expires   time.Duration // 0 means never
}

// modelKeeps is a literal and slow implementation of a policy: is list[i] kept by r?
func modelKeeps(r checkpoint.Retention, list []dot, i int) bool {
	c, before := list[i], list[:i]
	now := slices.MaxFunc(list, func(a, b dot) int { return a.time.Compare(b.time) }).time
	if c.savepoint && (c.expires == 0 || now.Sub(c.time) < c.expires) {
		return true
	}
	if r.Last < 0 || len(before) < r.Last {
		return true
	}
	if r.Within > 0 && !c.time.Before(now.Add(-r.Within)) {
		return true
	}
	for _, p := range []struct {
		n    int
		name func(time.Time) string
	}{
		{r.Hourly, func(t time.Time) string { return t.UTC().Format("2006-01-02 15") }},
		{r.Daily, func(t time.Time) string { return t.UTC().Format("2006-01-02") }},
		{r.Weekly, func(t time.Time) string { year, week := t.UTC().ISOWeek(); return fmt.Sprint(year, week) }},
		{r.Monthly, func(t time.Time) string { return t.UTC().Format("2006-01") }},
	} {
		names := make(map[string]bool)
		for _, b := range before {
			names[p.name(b.time)] = true
		}
		if !names[p.name(c.time)] && (p.n < 0 || len(names) < p.n) {
			return true
		}
	}
	return false
}

func modelKept(r checkpoint.Retention, list []dot) (kept []dot) {
	for i, c := range list {
		if modelKeeps(r, list, i) {
			kept = append(kept, c)
		}
	}
	return kept
}

func drawRetention(t *rapid.T) checkpoint.Retention {
	count := rapid.SampledFrom([]int{0, 0, 0, 1, 2, 3, 7, checkpoint.KeepAll})
	r := checkpoint.Retention{
		Last:   count.Draw(t, "last"),
		Within: rapid.SampledFrom([]time.Duration{0, 0, time.Second, 90 * time.Minute, 50 * time.Hour}).Draw(t, "within"),
		Hourly: count.Draw(t, "hourly"), Daily: count.Draw(t, "daily"), Weekly: count.Draw(t, "weekly"), Monthly: count.Draw(t, "monthly"),
	}
	if r == (checkpoint.Retention{}) {
		r.Last = 1
	}
	return r
}

// Commits, rollbacks and prunes in any order keep what the model keeps, and never
// remove what the policy keeps once the time of the new one is known.
func TestPoliciesAreTheModels(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { inDatedWorld(t, policiesAreTheModels) })
}

func policiesAreTheModels(d *dated) {
	t := d.tester.(*rapid.T)
	gaps := rapid.SampledFrom([]time.Duration{0, time.Second, 20 * time.Minute, time.Hour, 25 * time.Hour, 6 * 24 * time.Hour, 20 * 24 * time.Hour})
	var list []dot // the current one first
	step := uint64(0)
	for n := range rapid.IntRange(1, 25).Draw(t, "steps") {
		d.now = d.now.Add(gaps.Draw(t, "gap"))
		switch do := rapid.IntRange(0, 9).Draw(t, "do"); {
		case do < 7 || len(list) == 0:
			r, c := drawRetention(t), dot{seq: step + 1, time: d.now}
			savepoint := ""
			if rapid.IntRange(0, 4).Draw(t, "named") == 0 {
				c.savepoint, savepoint = true, fmt.Sprint("n", n)
				c.expires = rapid.SampledFrom([]time.Duration{0, time.Second, 26 * time.Hour}).Draw(t, "expires")
			}
			d.save(n, r, savepoint, c.expires)
			beside := r
			if r.Last > 0 {
				beside.Last--
			}
			exact := modelKept(r, append([]dot{c}, list...))
			list = append([]dot{c}, modelKept(beside, list)...)
			for _, e := range exact {
				if !slices.Contains(list, e) {
					t.Errorf("%+v drops %+v, which it keeps", r, e)
				}
			}
			step++
		case do < 8:
			i := rapid.IntRange(0, len(list)-1).Draw(t, "to")
			task, _, _ := d.process()
			if _, err := task.Rollback(d.Context(), checkpoint.Seq(list[i].seq), checkpoint.RollbackOptions{}); err != nil {
				t.Fatal(err)
			}
			c := list[i]
			list = append([]dot{c}, slices.Delete(slices.Clone(list), i, i+1)...)
			step++
		default:
			r := drawRetention(t)
			task, _, _ := d.process()
			p, err := task.Prune(d.Context(), r, checkpoint.PruneOptions{})
			if err != nil {
				t.Fatal(err)
			}
			kept := modelKept(r, list)
			if len(kept) == 0 || kept[0] != list[0] {
				kept = append([]dot{list[0]}, kept...)
			}
			if len(p.Checkpoints) != len(list) {
				t.Errorf("it speaks of %d checkpoints, and there were %d", len(p.Checkpoints), len(list))
			}
			if len(kept) < len(list) {
				step++
			}
			list = kept
		}
	}
	var want []uint64
	for _, c := range list {
		want = append(want, c.seq)
	}
	d.wantCheckpoints(want...)
	d.wantObjects(segments, len(list))
	if len(want) == 0 {
		t.Error("there is no current checkpoint")
	}
}
