package soak

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/testserver"
	_ "github.com/holdfast-io/holdfast/s3"
)

var (
	soakFor  = flag.Duration("soak.for", 15*time.Second, "how long TestSoak goes on; less than half the fence window")
	soakSeed = flag.Uint64("soak.seed", 1, "seed of its faults and of what its processes do")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	tasks   = 8
	owners  = 2 // of each
	readers = 3
	// every is how many requests there are for each that meets a fault.
	every = 8
)

// TestSoak lets two owners compete for each of eight tasks, beside a collector, readers, one
// who adds and removes savepoints, annotates and prunes, and one who forks the tasks and
// deletes the forks, each behind a network of its own that fails. In the end nothing
// that was acknowledged is missing, nothing that was refused is there, at no time
// could two owners commit, and what is stored is what is needed.
func TestSoak(t *testing.T) {
	if *soakFor > checkpoint.FenceWindow/2 {
		t.Fatal("-soak.for is too long: manifests would be deleted, and the history could not be read to its beginning")
	}
	server := testserver.Run(t, "s3", testserver.MinIO, false)
	server.Setenv(t)
	if err := server.MakeBucket(t.Context(), "soak"); err != nil {
		t.Fatal(err)
	}
	l, err := newLAN(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer l.transport.CloseIdleConnections()
	s := &soak{T: t, lan: l, tally: &tally{n: make(map[string]int64)}, endpoint: server.Endpoint, root: t.TempDir()}
	for i := range tasks {
		s.records = append(s.records, newRecord(t, fmt.Sprintf("orders/%d", i)))
	}
	s.run()
	s.conclude()
}

// A soak is one run.
type soak struct {
	*testing.T
	*lan
	*tally
	endpoint string // of the server itself
	root     string // of the processes' directories
	records  []*record
}

// run lets all processes do what they do until the time is over, and then finish.
func (s *soak) run() {
	over := make(chan struct{})
	truth := s.job()
	defer truth.Close(context.Background())
	var group errgroup.Group
	seed := *soakSeed << 16
	start := func(name string, do func(*process)) {
		seed++
		p := &process{
			T: s.T, tally: s.tally, name: name, net: s.open(seed, every), rnd: rand.New(rand.NewPCG(seed, 2)),
			dir: filepath.Join(s.root, name), over: over, records: s.records, truth: truth,
			troubles: int(seed), // so that they do not begin with the same one
		}
		p.url = s.urlOf(p.net.server.URL)
		group.Go(func() error {
			defer p.net.close()
			do(p)
			return nil
		})
	}
	for i, r := range s.records {
		for n := range owners {
			start(fmt.Sprintf("owner-%d-%d", i, n), func(p *process) { p.own(s.Context(), r) })
		}
	}
	for n := range readers {
		start(fmt.Sprintf("reader-%d", n), func(p *process) { p.read(s.Context()) })
	}
	start("collector", func(p *process) { p.collect(s.Context()) })
	start("amender", func(p *process) { p.amend(s.Context()) })
	start("forker", func(p *process) { p.fork(s.Context()) })
	group.Go(func() error {
		defer close(over)
		s.watch()
		return nil
	})
	_ = group.Wait()
}

// patience is how much longer a soak goes on until all that it is for has
// happened: where others keep the machine busy that may take a while.
const patience = 3 * time.Minute

// watch returns when the soak is over, or has failed.
func (s *soak) watch() {
	end := time.Now().Add(*soakFor)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for now := range tick.C {
		all := len(s.unfired()) == 0 && len(s.never()) == 0
		if now.After(end) && all || now.After(end.Add(patience)) || s.Failed() {
			return
		}
	}
}

// job opens the job by a network without faults.
func (s *soak) job() *checkpoint.Job {
	job, err := checkpoint.Open(s.Context(), s.urlOf(s.endpoint), options)
	if err != nil {
		s.Fatal(err)
	}
	return job
}

func (s *soak) urlOf(endpoint string) string { return "s3://soak/job?endpoint=" + endpoint }

// conclude judges what has happened.
func (s *soak) conclude() {
	job := s.job()
	defer job.Close(context.Background())
	store, err := backend.Open(s.Context(), s.urlOf(s.endpoint))
	if err != nil {
		s.Fatal(err)
	}
	defer store.Close()
	s.endForks(job)
	for _, r := range s.records {
		s.settle(r, job)
		task, err := job.Task(r.task)
		if err != nil {
			s.Fatal(err)
		}
		s.cleanUp(r, task)
		s.judge(r, store, task)
	}
	s.add("objects in all", s.objects(store))
	for _, f := range s.unfired() {
		s.Errorf("this fault never fired: %s", f)
	}
	for _, what := range s.never() {
		s.Errorf("this never happened: %s", what)
	}
	s.summary()
}

func claim(ctx context.Context, job *checkpoint.Job, name string) (*checkpoint.Owner, error) {
	task, err := job.Task(name)
	if err != nil {
		return nil, err
	}
	return task.Claim(ctx, checkpoint.ClaimOptions{})
}

// settle makes one more owner, who commits: what earlier ones have left is
// garbage then.
func (s *soak) settle(r *record, job *checkpoint.Job) {
	dir := filepath.Join(s.root, "last")
	o, err := claim(s.Context(), job, r.task)
	if err != nil {
		s.Fatal(err)
	}
	defer o.Close(context.Background())
	c, err := o.Resume(s.Context(), dir)
	if err != nil {
		s.Fatal(err)
	}
	last := new(state)
	if c.Seq > 0 {
		if last, err = readState(os.DirFS(dir)); err != nil {
			s.Fatal(err)
		}
	}
	a := &attempt{name: "last of " + r.task, on: last.Attempt, epoch: o.Epoch()}
	last.change(rand.New(rand.NewPCG(1, 1)), a.name)
	if err := last.write(dir, nil); err != nil {
		s.Fatal(err)
	}
	r.begin(a)
	c, err = o.Commit(s.Context(), checkpoint.Snapshot{Offsets: map[string]string{"in": a.name}, State: checkpoint.Dir(dir)})
	r.tell(a, c, err)
	if err != nil {
		s.Fatal(err)
	}
}

// cleanUp collects, and makes sure that nothing is damaged and nothing needless
// is left.
func (s *soak) cleanUp(r *record, task *checkpoint.Task) {
	done, err := task.Collect(s.Context(), checkpoint.CollectOptions{})
	if err != nil {
		s.Fatal(err)
	}
	s.add("segments collected in the end", int64(done.Segments))
	report, err := task.Verify(s.Context(), checkpoint.VerifyOptions{Data: true})
	if err != nil {
		s.Fatal(err)
	}
	none := checkpoint.CollectResult{}
	if report.Err() != nil || report.Intact != report.Checkpoints ||
		report.Garbage != none || report.InFlight != none || report.Unclear != none || len(report.OtherObjects) > 0 {
		r.badf("verified in the end: %+v", report)
	}
	s.add("checkpoints retained in the end, all whole", int64(report.Intact))
	s.add("bytes of data verified in the end", report.DataRead)
}

func (s *soak) judge(r *record, store backend.Store, task *checkpoint.Task) {
	dir, err := format.EscapeTask(r.task)
	if err != nil {
		s.Fatal(err)
	}
	j := newJudge(r, store, dir)
	if err := j.load(s.Context()); err != nil {
		s.Fatal(err)
	}
	j.history()
	j.checkpoints(s.Context(), task)
	stored, live := j.space(s.Context())
	s.add("manifests, all within the fence window", int64(len(j.manifests)))
	s.add("bytes in them", j.bytes)
	s.add("segments", int64(len(j.segments)))
	s.add("bytes in segments", stored)
	s.add("bytes in segments that retained checkpoints need", live)
}

// objects counts what is left in the bucket, of which each task has its manifests
// and segments, and each fork that was deleted its manifests.
func (s *soak) objects(store backend.Store) (n int64) {
	for o, err := range store.List(s.Context(), "", "") {
		if err != nil {
			s.Fatal(err)
		}
		if dir, _, ok := format.ParseManifestKey(o.Key); ok && s.isForkDir(dir) {
			s.add("manifests of forks that were deleted", 1)
			continue
		}
		if strings.HasSuffix(o.Key, "/announced") { // of an amender whose last request was lost
			continue
		}
		n++
	}
	if of := s.get("manifests, all within the fence window") + s.get("segments"); n != of {
		s.Errorf("there are %d objects, of which tasks have %d", n, of)
	}
	return n
}

// isForkDir reports whether dir is a fork's, in keys.
func (s *soak) isForkDir(dir string) bool {
	for i := range forks {
		if of, err := format.EscapeTask(forkName(i)); err == nil && of == dir {
			return true
		}
	}
	return false
}

// never returns what a soak is for and has not happened.
func (s *soak) never() (list []string) {
	must := []string{"claims", "takeovers", "commits", "fenced", "commits of unknown outcome", "restores", "reads of older checkpoints", "collections", "verifications",
		"savepoints added by others", "savepoints removed by others", "notes", "prunings", "forks", "commits in forks", "deletions of forks"}
	for _, tr := range troubles {
		must = append(must, string(tr))
	}
	for _, what := range must {
		if s.get(what) == 0 {
			list = append(list, what)
		}
	}
	return list
}

func (s *soak) summary() {
	var b strings.Builder
	fired := s.faults()
	for _, f := range append(slices.Clone(drawn), offline) {
		fmt.Fprintf(&b, "%12d %s\n", fired[f], f)
	}
	s.Logf("%v, seed %d: %d tasks, %d owners each, %d readers, a collector, an amender, a forker\n%s"+
		"Requests that reached the server: %d, with %d bytes of bodies up and %d down. Requests that met a fault:\n%s",
		*soakFor, *soakSeed, tasks, owners, readers, s.tally, s.requests.Load(), s.sent.Load(), s.received.Load(), &b)
}
