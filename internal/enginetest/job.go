package enginetest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// A record adds one to a counter, and puts itself among the newest ones.
const (
	counters = 500
	newest   = 100
)

func counterOf(record uint64) string {
	return fmt.Sprintf("count/%03d", record*0x9e3779b97f4a7c15>>32%counters)
}

func newestKey(record uint64) string { return fmt.Sprintf("newest/%012d", record) }

func newestValue(record uint64) string { return strings.Repeat(fmt.Sprint(record, " "), 40) }

// A tally is the state after so many records, kept in memory.
type tally struct {
	records uint64
	state   map[string]string
}

// advance adds records up to n.
func (m *tally) advance(n uint64) {
	for ; m.records < n; m.records++ {
		key := counterOf(m.records)
		count, _ := strconv.ParseUint(m.state[key], 10, 64) // of an empty text it is 0
		m.state[key] = strconv.FormatUint(count+1, 10)
		m.state[newestKey(m.records)] = newestValue(m.records)
		if m.records >= newest {
			delete(m.state, newestKey(m.records-newest))
		}
	}
}

// A killedJob is a job that is killed.
type killedJob struct {
	db         DB
	owner      *checkpoint.Owner
	records    uint64
	committing chan error
}

func (k Kind) live(url string, at place) error {
	ctx := context.Background()
	job, err := checkpoint.Open(ctx, url, checkpoint.Options{
		Memory: 1 << 20, Retention: checkpoint.Retention{Last: 2},
		// What a killed life has left is told of as it is deleted, and is no failure.
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		return err
	}
	task, err := job.Task(taskName)
	if err != nil {
		return err
	}
	j := &killedJob{}
	if j.owner, err = task.Claim(ctx, checkpoint.ClaimOptions{}); err != nil {
		return err
	}
	fmt.Println("resume")
	newest, err := j.owner.Resume(ctx, at.dir)
	if err != nil {
		return err
	}
	if newest.Seq > 0 {
		if j.records, err = strconv.ParseUint(newest.Offsets["in"], 10, 64); err != nil {
			return err
		}
	}
	fmt.Println("open")
	if j.db, err = k.open(at); err != nil {
		return err
	}
	for {
		if err := j.step(ctx); err != nil {
			return err
		}
	}
}

// step processes some records, and cuts when the commit before has returned.
func (j *killedJob) step(ctx context.Context) error {
	set, remove := make(map[string]string), []string(nil)
	for range 10 {
		key := counterOf(j.records)
		if set[key] == "" {
			value, err := j.db.Get(key)
			if err != nil {
				return err
			}
			set[key] = value
		}
		count, _ := strconv.ParseUint(set[key], 10, 64) // of an empty text it is 0
		set[key] = strconv.FormatUint(count+1, 10)
		set[newestKey(j.records)] = newestValue(j.records)
		if j.records >= newest {
			remove = append(remove, newestKey(j.records-newest))
		}
		j.records++
	}
	if err := j.db.Write(set, remove); err != nil {
		return err
	}
	if j.committing != nil {
		select {
		case err := <-j.committing:
			if err != nil {
				return err
			}
		default:
			return nil
		}
	}
	return j.cut(ctx)
}

// cut cuts, and commits beside the loop; then it prepares the next cut.
func (j *killedJob) cut(ctx context.Context) error {
	n := j.records
	fmt.Println("cut", n)
	src, remove, err := j.db.Cut(ctx)
	if err != nil {
		return err
	}
	j.committing = make(chan error, 1)
	fmt.Println("commit", n)
	go func() {
		_, err := j.owner.Commit(ctx, checkpoint.Snapshot{Offsets: map[string]string{"in": fmt.Sprint(n)}, State: src})
		if err == nil {
			fmt.Println("committed", n)
		}
		err = errors.Join(err, remove())
		fmt.Println("removed", n)
		if p, ok := j.db.(preparer); ok {
			err = errors.Join(err, p.Prepare(ctx))
		}
		j.committing <- err
	}()
	return nil
}
