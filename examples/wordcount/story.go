package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/examples/internal/cli"
)

// A story is how the job lives and is killed, again and again, and what came
// of it.
type story struct {
	*options
	out    account
	rnd    *rand.Rand
	corpus *corpus
	tasks  map[string]*track
	usual  map[op]time.Duration // how long each took when it last ended

	killed   int
	struck   map[op]int // kills that struck in the midst of each
	commits  int        // that the job was told of
	unheard  int        // that it was not told of, since it was killed first
	replayed int64      // bytes that were counted again
	lost     []string   // checkpoints that the job was told of, and did not find
}

// A track is what the parent knows of a task.
type track struct {
	acked   checkpointed // the newest that the job was told of
	reached int64        // bytes that the job had counted when it was last heard of
	inDoubt bool         // a commit was begun, and the job was told nothing yet
}

// checkpointed is a checkpoint, and how many bytes were counted by it.
type checkpointed struct {
	seq uint64
	at  int64
}

func newStory(o *options, out io.Writer) *story {
	return &story{
		options: o, out: account{w: out}, rnd: rand.New(rand.NewPCG(o.seed, 0)),
		tasks: make(map[string]*track), usual: make(map[op]time.Duration),
		struck: make(map[op]int),
	}
}

var errDiffers = errors.New("the checkpoints do not hold what was counted")

func (s *story) tell(ctx context.Context) error {
	var err error
	if s.corpus, err = findTexts(s.Paths); err != nil {
		return err
	}
	done, err := s.begin(ctx)
	if err != nil {
		return err
	}
	s.out.printf("Counting the words of %s, %s, below %s.\n",
		cli.Number(s.corpus.texts, "file"), bytesOf(s.corpus.size), strings.Join(s.Paths, ", "))
	s.out.printf("They arrive over %v, in %s; each is checkpointed every %v to\n%s (seed %d).\n\n",
		s.Over, cli.Number(len(s.corpus.partitions), "partition"), s.Interval, s.URL, s.seed)
	if done {
		s.out.printf("The job was done by an earlier run: there is nothing to kill.\n\n")
		s.kills = 0
	}
	if err := s.live(ctx); err != nil {
		return err
	}
	s.sumUp()
	v, err := verify(ctx, s.URL, s.corpus, s.Dir)
	if err != nil {
		return err
	}
	s.out.printf("\n%s", v)
	if v.differences > 0 || len(s.lost) > 0 {
		return errDiffers
	}
	return s.out.err
}

// An account is what the reader is told.
type account struct {
	w   io.Writer
	err error // the first
}

func (a *account) printf(format string, args ...any) {
	if a.err == nil {
		_, a.err = fmt.Fprintf(a.w, format, args...)
	}
}

// begin finds out what an earlier run has left at the URL, and whether that is
// all there is to do.
func (s *story) begin(ctx context.Context) (bool, error) {
	job, err := checkpoint.Open(ctx, s.URL, checkpoint.Options{})
	if err != nil {
		return false, err
	}
	defer func() { _ = job.Close(context.WithoutCancel(ctx)) }()
	done := 1.0
	for _, p := range s.corpus.partitions {
		seq, r, err := newest(ctx, job, s.corpus, p)
		if err != nil {
			return false, err
		}
		s.tasks[p.name] = &track{acked: checkpointed{seq, r.before}, reached: r.before}
		if p.size > 0 {
			done = min(done, float64(r.before)/float64(p.size))
		}
	}
	s.Start = time.Now().Add(-time.Duration(done * float64(s.Over)))
	return done == 1, nil
}

// newest returns the number of a task's newest checkpoint and a reader that
// goes on from there, or zero and one that begins at the beginning.
func newest(ctx context.Context, job *checkpoint.Job, texts *corpus, p *partition) (uint64, *reader, error) {
	task, err := job.Task(p.name)
	if err != nil {
		return 0, nil, err
	}
	c, err := task.Latest(ctx)
	if errors.Is(err, checkpoint.ErrNoCheckpoint) {
		r, err := p.read("")
		return 0, r, err
	}
	if err != nil {
		return 0, nil, err
	}
	offset, err := texts.offsetIn(c, p.name)
	if err != nil {
		return 0, nil, err
	}
	r, err := p.read(offset)
	return c.Seq, r, err
}

// live starts the job again until it is done.
func (s *story) live(ctx context.Context) error {
	s.out.printf("life  restored              of text  counted again  commits  end\n")
	for n := 1; ; n++ {
		s.Open = s.killed < s.kills
		l, err := s.start(ctx)
		if err != nil {
			return err
		}
		if err := l.watch(s.aim()); err != nil {
			return err
		}
		s.out.printf("%4d  %-20s %8s  %13s  %7d  %s\n", n,
			l.restored(), l.resumedAt(), bytesOf(l.replayed), l.commits, l.fate())
		if l.done {
			return nil
		}
		s.killed++
		for _, op := range l.struck() {
			s.struck[op]++
		}
	}
}

// resumed is told that a task goes on from a checkpoint. It returns how much
// will be counted again.
func (s *story) resumed(task string, from checkpointed) int64 {
	t := s.tasks[task]
	if from.seq < t.acked.seq || from.at < t.acked.at {
		s.lost = append(s.lost, fmt.Sprintf("%s #%d", task, t.acked.seq))
	}
	if t.inDoubt && from.seq > t.acked.seq {
		s.unheard++
	}
	replayed := max(0, t.reached-from.at)
	s.replayed += replayed
	*t = track{acked: from, reached: from.at}
	return replayed
}

// An aim says when a life is to be ended.
type aim struct {
	op    op        // in the midst of which; "" if the life is spared
	due   time.Time // not earlier, unless op comes at the start of a life only
	late  time.Time // then in any case
	point float64   // the part of the op's usual duration that is to have passed
}

// targets are what kills are aimed at, in turn.
var targets = []op{commit, manifest, resume, segment, cut, cleanUp}

// aim returns when the next life is to be ended. The kills are spread over the
// time in which the texts arrive.
func (s *story) aim() aim {
	if s.killed == s.kills {
		return aim{}
	}
	at := (float64(s.killed) + 0.5 + s.rnd.Float64()/2) / float64(s.kills+1)
	due := s.Start.Add(time.Duration(at * float64(s.Over)))
	if soonest := time.Now().Add(s.Interval); due.Before(soonest) {
		due = soonest // so that there is something to lose
	}
	return aim{
		op: targets[s.killed%len(targets)], due: due, late: due.Add(3 * s.Interval),
		point: s.rnd.Float64(),
	}
}

// matches reports whether an event is what the aim was waiting for.
func (a *aim) matches(e event) bool {
	if e.End {
		return false
	}
	atStart := a.op == resume
	if atStart && e.Op == commit {
		a.op, atStart = commit, false // the start is over, or there was nothing to restore
	}
	return e.Op == a.op && (atStart || time.Now().After(a.due))
}

// sumUp says what happened before the verdict.
func (s *story) sumUp() {
	var during []string
	for _, op := range ops {
		if n := s.struck[op]; n > 0 {
			during = append(during, fmt.Sprintf("%s (%d)", op, n))
		}
	}
	s.out.printf("\nThe job was killed %s; what was under way: %s.\n", cli.Times(s.killed), cmp.Or(strings.Join(during, ", "), "nothing"))
	s.out.printf("It was told of %s, and killed before it could be told of %d more that stood.\n", cli.Number(s.commits, "commit"), s.unheard)
	s.out.printf("%s were counted again.\n", bytesOf(s.replayed))
	if len(s.lost) > 0 {
		s.out.printf("LOST, although the job was told that they were committed: %s.\n", strings.Join(s.lost, ", "))
	}
}

func bytesOf(n int64) string {
	if n < 1e6 {
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}
