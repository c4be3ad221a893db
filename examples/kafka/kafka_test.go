package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	_ "github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/examples/internal/clicks"
	"github.com/holdfast-io/holdfast/runner"
)

// spoilEnv names the spoiler that a worker runs with, when the test binary is started as one.
const spoilEnv = "HOLDFAST_KAFKA_SPOIL"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-brokers" {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr, newSpoiler(os.Getenv(spoilEnv))))
	}
	goleak.VerifyTestMain(m)
}

// spoilers are mistakes that a worker can make.
var spoilers = map[string]func() spoiler{
	"offset without state": func() spoiler {
		return func(c *runner.Cut) { c.Stores[""] = checkpoint.Source{} }
	},
	"state with the offset before": func() spoiler {
		var mu sync.Mutex
		before := make(map[string]string) // by task
		return func(c *runner.Cut) {
			mu.Lock()
			defer mu.Unlock()
			for task, now := range c.Offsets {
				c.Offsets[task] = cmp.Or(before[task], now)
				before[task] = now
			}
		}
	},
}

func newSpoiler(name string) spoiler {
	if spoil := spoilers[name]; spoil != nil {
		return spoil()
	}
	return nil
}

func runForTest(t *testing.T, args ...string) (code int, account string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	args = append([]string{"-dir", t.TempDir(), "-events", "20000", "-partitions", "4", "-interval", "100ms", "-session", "1s", "-seed", "7"}, args...)
	code = run(args, &stdout, &stderr, nil)
	t.Logf("%s%s", &stdout, &stderr)
	return code, stdout.String() + stderr.String()
}

// The whole story: members of the group join, leave and are killed.
func TestStory(t *testing.T) {
	dir := t.TempDir()
	// The first run leaves its directory behind, and the second one has nothing to do with it.
	if code, _ := runForTest(t, "-dir", dir, "-kills", "0", "-moves", "0", "-events", "1000"); code != 0 {
		t.Fatalf("exit code %d; want 0", code)
	}
	code, account := runForTest(t, "-dir", dir, "-kills", "2", "-moves", "3")
	if code != 0 {
		t.Errorf("exit code %d; want 0", code)
	}
	for want, times := range map[string]int{"is killed": 2, "all equal.": 1, "20000 events,": 1} {
		if n := strings.Count(account, want); n != times {
			t.Errorf("%q is told %d times; want %d", want, n, times)
		}
	}
	if n := strings.Count(account, " joins.") + strings.Count(account, " leaves."); n != 3 {
		t.Errorf("%d workers join or leave; want 3", n)
	}
}

// The comparison is worth something only if it fails when a worker is wrong.
func TestSpoiledWorkersAreSeen(t *testing.T) {
	for name := range spoilers {
		t.Run(name, func(t *testing.T) {
			t.Setenv(spoilEnv, name)
			code, account := runForTest(t, "-kills", "1", "-moves", "0", "-workers", "2")
			if code != 1 || !strings.Contains(account, "DIFFERENCES") {
				t.Errorf("exit code %d; want 1, and differences", code)
			}
		})
	}
}

// A job without checkpoints begins at the beginning, whatever the broker has been told before of
// how far the group is.
func TestOffsetsOfTheBrokerPlayNoPart(t *testing.T) {
	o, err := parse([]string{"-dir", t.TempDir(), "-events", "5000", "-partitions", "2", "-interval", "50ms", "-kills", "0"}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	o.url = fileURL(t.TempDir())
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, o.topic), kfake.GroupMinSessionTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	o.brokers = broker.ListenAddrs()[0]
	var account bytes.Buffer
	s := &story{options: &o, out: &account, broker: broker, sent: make([]int64, 2)}
	if err := s.produce(t.Context(), 0, nil, nil); err != nil {
		t.Fatal(err)
	}
	commitEnd(t, s)
	ctx, stop := context.WithCancel(t.Context())
	worked := make(chan error, 1)
	go func() { worked <- o.work(ctx, io.Discard, os.Stderr) }()
	err = s.finish(t.Context())
	stop()
	if err := <-worked; err != nil {
		t.Error(err)
	}
	if err != nil || !strings.Contains(account.String(), "5000 events,") {
		t.Errorf("%v, %s; want 5000 events, all equal", err, &account)
	}
}

// commitEnd tells the broker that the group has read all that there is.
func commitEnd(t *testing.T, s *story) {
	t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(s.brokers))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	offsets := make(kadm.Offsets)
	for p, n := range s.sent {
		offsets.AddOffset(s.topic, int32(p), n, -1)
	}
	if err := kadm.NewClient(client).CommitAllOffsets(t.Context(), s.group, offsets); err != nil {
		t.Fatal(err)
	}
}

// Whoever takes from a queue gets all that is put into it, in its order, however the two meet.
func TestQueue(t *testing.T) {
	const n = 20_000
	q := newQueue()
	go func() {
		for i := range n {
			q.put([]*kgo.Record{{Offset: int64(i)}})
		}
	}()
	for next := int64(0); next < n; {
		records, _, err := q.take(t.Context(), 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if r.Offset != next {
				t.Fatalf("record %d; want %d", r.Offset, next)
			}
			next++
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q = newQueue()
	if records, _, err := q.take(ctx, 3); err == nil {
		t.Errorf("%d records of an empty queue; want an error, since nobody waits any more", len(records))
	}
}

func TestWhatARunEndsWith(t *testing.T) {
	for _, test := range []struct {
		name     string
		kills    int
		restores string
		differ   int
		want     error
	}{
		{"all is well", 1, "clicks/1 goes on\n", 0, nil},
		{"a count differs", 1, "clicks/1 goes on\n", 1, errWrong},
		{"nobody has gone on", 1, "", 0, errNoRestore},
		{"nobody was killed", 0, "", 0, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &story{options: &options{kills: test.kills}}
			if _, err := s.restores.Write([]byte(test.restores)); err != nil {
				t.Fatal(err)
			}
			if err := s.judge(clicks.Verdict{Differences: test.differ}); !errors.Is(err, test.want) {
				t.Errorf("%v; want %v", err, test.want)
			}
		})
	}
}

// A record that was counted before is not counted again.
func TestRecordBeforeTheNextOne(t *testing.T) {
	c := &counter{task: "clicks/0", queue: newQueue(), next: 5}
	c.queue.put([]*kgo.Record{{Offset: 4}})
	if err := c.Process(t.Context()); err == nil || !strings.Contains(err.Error(), "offset 4, and 5 is next") {
		t.Errorf("%v; want an error that names both offsets", err)
	}
}

// What comes with an error is not delivered.
func TestFailedFetchIsNotDelivered(t *testing.T) {
	s := &share{task: "clicks/0", queue: newQueue(), reading: true}
	m := &member{shares: map[string]*share{s.task: s}}
	fetched := kgo.FetchTopicPartition{FetchPartition: kgo.FetchPartition{Err: errors.New("torn"), Records: []*kgo.Record{{}}}}
	m.deliver(fetched)
	if n := len(s.queue.records); n > 0 {
		t.Errorf("%d records are delivered", n)
	}
	fetched.Err = nil
	m.deliver(fetched)
	if n := len(s.queue.records); n != 1 {
		t.Errorf("%d records are delivered; want 1", n)
	}
}

// A partition that is back before its last commit is over waits for that.
func TestPartitionThatComesBackEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		job, err := checkpoint.Open(ctx, "mem://"+t.Name(), checkpoint.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = job.Close(context.Background()) }()
		client, err := kgo.NewClient()
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		m := &member{topic: "clicks", client: client}
		opened, before := make(chan struct{}), &share{ended: make(chan struct{})}
		opts := runner.RunOptions{Job: job, Dir: t.TempDir()}
		opts.Assign = func(ctx context.Context, w *runner.Workers) error {
			m.begins(w)
			m.last["clicks/0"] = before
			m.assigned(ctx, client, map[string][]int32{"clicks": {0}})
			<-ctx.Done()
			return nil
		}
		ran := make(chan error, 1)
		go func() {
			ran <- runner.Run(ctx, opts, func(context.Context, string, *runner.Restored) (runner.Worker, error) {
				close(opened)
				return idle{}, nil
			})
		}()
		synctest.Wait()
		select {
		case <-opened:
			t.Error("it was begun before it had ended")
		default:
		}
		close(before.ended)
		<-opened
		stop()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
}

// An idle worker has nothing to do, and no state.
type idle struct{}

func (idle) Process(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (idle) Cut(context.Context, string) (runner.Cut, error) {
	return runner.Cut{Offsets: map[string]string{}, Stores: map[string]checkpoint.Source{"": {}}}, nil
}

func (idle) Close() error { return nil }

// A worker of a story ends when the story is gone. One that hangs as it leaves is killed.
func TestWorkersEnd(t *testing.T) {
	for name, end := range map[string]func(context.Context, *worker, io.Closer) error{
		"its parent is gone": func(_ context.Context, w *worker, stdin io.Closer) error {
			err := stdin.Close()
			<-w.ended
			return err
		},
		"nobody waits any more": func(ctx context.Context, w *worker, _ io.Closer) error {
			ctx, cancel := context.WithCancelCause(ctx)
			cancel(errNoRestore)
			if err := w.leave(ctx); !errors.Is(err, errNoRestore) {
				return fmt.Errorf("%w; want %w", err, errNoRestore)
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(ctx, self, "-brokers", "127.0.0.1:1", "-checkpoint", fileURL(t.TempDir()), "-dir", t.TempDir())
			cmd.Env = append(os.Environ(), storyEnv+"=1")
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			w := &worker{cmd: cmd, ended: make(chan struct{})}
			go func() { _ = cmd.Wait(); close(w.ended) }()
			if err := end(ctx, w, stdin); err != nil {
				t.Error(err)
			}
			<-w.ended
			if ctx.Err() != nil {
				t.Error("it did not end by itself")
			}
		})
	}
}

func TestBadUsage(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"unknown flag", []string{"-kill", "5"}, 2, "flag provided but not defined"},
		{"an argument", []string{"now"}, 2, `unexpected argument "now"`},
		{"no events", []string{"-events", "0"}, 2, "-events is 0; set 1 or more"},
		{"less than no kills", []string{"-kills", "-1"}, 2, "-kills is -1; set 0 or more"},
		{"no interval", []string{"-interval", "0"}, 2, "-interval is 0s; set 1ms or more"},
		{"a worker without a store", []string{"-brokers", "127.0.0.1:9"}, 2, "set -checkpoint and -dir"},
		{"unknown scheme", []string{"-checkpoint", "ftp://host/x"}, 1, `unknown scheme "ftp"`},
		{"no broker", []string{"-brokers", "127.0.0.1:1,127.0.0.1:2", "-checkpoint", "mem://" + t.Name()}, 1, "no broker can be reached at 127.0.0.1:1,127.0.0.1:2"},
		{"a broker that says nothing", []string{"-brokers", silent(t), "-checkpoint", "mem://" + t.Name()}, 1, "no answer within 5s"},
	} {
		t.Run(test.name, func(t *testing.T) {
			began := time.Now()
			code, account := runForTest(t, test.args...)
			if lines := strings.Count(account, "\n"); code != test.code || lines != 1 || !strings.Contains(account, test.want) {
				t.Errorf("exit code %d and %d lines; want %d and one with %q", code, lines, test.code, test.want)
			}
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("it was found out after %v", took)
			}
		})
	}
}

// silent returns the address of a broker that takes connections, and does not answer.
func silent(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// A story that nobody reads any more ends, and leaves nothing behind.
func TestUnreadStoryEnds(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	if os.TempDir() != tmp {
		t.Skip("this system has another variable for it")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	code := run(nil, w, &stderr, nil)
	if code != 1 || !strings.Contains(stderr.String(), "the output cannot be written") {
		t.Errorf("exit code %d, %q; want 1, and why", code, &stderr)
	}
	left, err := os.ReadDir(tmp)
	if err != nil || len(left) > 0 {
		t.Errorf("%v are left, %v; want nothing", left, err)
	}
}
