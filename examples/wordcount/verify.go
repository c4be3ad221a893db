package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/examples/internal/cli"
)

// A verdict is what came of comparing the newest checkpoints to a straight
// pass.
type verdict struct {
	words       uint64 // in the texts
	distinct    int    // sum over the partitions
	differences int
	some        []string // of the differences
}

// maxShown is how many differences are shown.
const maxShown = 10

// verify restores the newest checkpoint of every task from the store, and
// compares its counts to those of a straight pass: every word of every
// partition.
func verify(ctx context.Context, url string, texts *corpus, dir string) (verdict, error) {
	job, err := checkpoint.Open(ctx, url, checkpoint.Options{})
	if err != nil {
		return verdict{}, err
	}
	defer func() { _ = job.Close(context.WithoutCancel(ctx)) }()
	if err := os.RemoveAll(dir); err != nil {
		return verdict{}, err
	}
	var parts [len(texts.partitions)]verdict
	group, ctx := errgroup.WithContext(ctx)
	for i, p := range texts.partitions {
		group.Go(func() (err error) {
			parts[i], err = verifyPartition(ctx, job, texts, p, filepath.Join(dir, fmt.Sprint(i)))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return verdict{}, err
	}
	var v verdict
	for _, part := range parts {
		v.words += part.words
		v.distinct += part.distinct
		v.differences += part.differences
		v.some = append(v.some, part.some...)
	}
	return v, nil
}

func verifyPartition(ctx context.Context, job *checkpoint.Job, texts *corpus, p *partition, dir string) (v verdict, err error) {
	task, err := job.Task(p.name)
	if err != nil {
		return v, err
	}
	c, err := task.Latest(ctx)
	if err != nil {
		return v, err
	}
	if err := c.Restore(ctx, dir, checkpoint.RestoreOptions{}); err != nil {
		return v, err
	}
	at, err := texts.offsetIn(c, p.name)
	if err != nil {
		return v, err
	}
	if at != end {
		v.differs("%s: checkpoint %d is at %q, not at the end", p.name, c.Seq, at)
	}
	straight, err := straightPass(p)
	if err != nil {
		return v, err
	}
	v.distinct = len(straight)
	for _, n := range straight {
		v.words += n
	}
	return v, v.compare(p.name, straight, dir)
}

// compare counts the differences between a straight pass and the state in
// dir. It empties straight.
func (v *verdict) compare(partition string, straight map[string]uint64, dir string) error {
	for c, err := range counts(dir) {
		if err != nil {
			return err
		}
		if want := straight[c.word]; c.n != want {
			v.differs("%s: %q was counted %s; it is there %s", partition, c.word, cli.Times(int(c.n)), cli.Times(int(want)))
		}
		delete(straight, c.word)
	}
	for word, n := range straight {
		v.differs("%s: %q was not counted; it is there %s", partition, word, cli.Times(int(n)))
	}
	return nil
}

func (v *verdict) differs(format string, args ...any) {
	v.differences++
	if len(v.some) < maxShown {
		v.some = append(v.some, fmt.Sprintf(format, args...))
	}
}

// straightPass counts the words of a partition: whole files, no offsets, no
// database, no checkpoints.
func straightPass(p *partition) (map[string]uint64, error) {
	counts := make(map[string]uint64)
	for _, t := range p.texts {
		data, err := os.ReadFile(t.path)
		if err != nil {
			return nil, err
		}
		for word := range words(data) {
			counts[string(word)]++
		}
	}
	return counts, nil
}

func (v verdict) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "The newest checkpoints, restored from the store, and a straight pass over the same\n"+
		"texts: %s, %s compared, ", cli.Number(int(v.words), "word"), cli.Number(v.distinct, "count"))
	if v.differences == 0 {
		b.WriteString("all equal.\n")
		return b.String()
	}
	fmt.Fprintf(&b, "DIFFERENCES: %d\n", v.differences)
	for _, d := range v.some[:min(len(v.some), maxShown)] {
		fmt.Fprintln(&b, "  ", d)
	}
	return b.String()
}
