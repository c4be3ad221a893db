package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sync/errgroup"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/bench/internal/measure"
	"github.com/holdfast-io/holdfast/checkpoint"
)

// historyTask is the task whose history is long.
const historyTask = "orders/7"

// measureHistory measures what it takes to find and open the newest of many
// checkpoints, beside the same for a single one.
func (b *bench) measureHistory(ctx context.Context) (err error) {
	s, err := openSite(ctx, filepath.Join(b.dir, "site"), false, !b.noProxy, b.link)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	lengths := slices.Compact([]int{1, b.history})
	for _, n := range lengths {
		fmt.Fprintf(os.Stderr, "making a history of %d checkpoints\n", n)
		if err := makeHistory(ctx, s, n); err != nil {
			return fmt.Errorf("making a history of %d checkpoints: %w", n, err)
		}
	}
	for round := range b.rounds {
		for _, n := range lengths {
			for _, step := range historySteps {
				if err := b.historyStep(ctx, s, n, step, round+1); err != nil {
					return err
				}
			}
		}
	}
	b.writeHistory(os.Stdout, lengths)
	return nil
}

// A historyStep is a command that finds the newest checkpoint.
type historyStep struct {
	name string
	args func(url string) []string
}

var historySteps = []historyStep{
	{"show the newest", func(url string) []string { return []string{"show", url, historyTask} }},
	{"list the tasks", func(url string) []string { return []string{"ls", url} }},
}

func (s historyStep) of(n int) string { return fmt.Sprintf("%s, of %d", s.name, n) }

func (b *bench) historyStep(ctx context.Context, s *site, n int, step historyStep, round int) error {
	r := result{
		State: historyName, Round: round, Contender: "holdfast", Step: step.of(n),
		Command: append([]string{b.holdfast}, step.args(s.urlOf(historyPlace(n)))...),
	}
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	took, err := s.measure(ctx, measure.Command{Args: r.Command})
	if err != nil {
		return err
	}
	r.cost(took)
	b.results.add(r)
	return nil
}

func historyPlace(n int) string { return "history-" + strconv.Itoa(n) }

// makeHistory commits n checkpoints, with the library and in memory, where that
// takes no time, and copies the objects to the site's server. The task retains
// the last ten, as is the default. The manifests of the others are there all
// the same, since none is deleted in its first hour.
func makeHistory(ctx context.Context, s *site, n int) error {
	bucket := mem.NewBucket(time.Now)
	if err := commitMany(ctx, bucket.Open(), n); err != nil {
		return err
	}
	return copyObjects(ctx, bucket.Open(), s, historyPlace(n))
}

func commitMany(ctx context.Context, store backend.Store, n int) (err error) {
	job, err := checkpoint.New(store, checkpoint.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, job.Close(context.WithoutCancel(ctx))) }()
	task, err := job.Task(historyTask)
	if err != nil {
		return err
	}
	owner, err := task.Claim(ctx, checkpoint.ClaimOptions{})
	if err != nil {
		return err
	}
	for i := range n {
		snapshot := checkpoint.Snapshot{Offsets: map[string]string{historyTask: strconv.Itoa(i)}}
		if _, err := owner.Commit(ctx, snapshot); err != nil {
			return errors.Join(err, owner.Close(ctx))
		}
	}
	return owner.Close(ctx)
}

// copyObjects copies all of a store to a place on the site's server, past the
// proxy.
func copyObjects(ctx context.Context, from backend.Store, s *site, place string) error {
	const parallel = 16
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = parallel
	defer transport.CloseIdleConnections()
	client, err := minio.New(strings.TrimPrefix(s.minio.Endpoint, "http://"), &minio.Options{
		Creds:     credentials.NewStaticV4(s.minio.AccessKey, s.minio.SecretKey, ""),
		Transport: transport,
	})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for o, err := range from.List(ctx, "", "") {
		if err != nil {
			return errors.Join(err, g.Wait())
		}
		g.Go(func() error {
			data := make([]byte, o.Size)
			if _, err := from.Get(ctx, o.Key, 0, data); err != nil {
				return err
			}
			_, err := client.PutObject(ctx, bucket, place+"/"+o.Key, bytes.NewReader(data), o.Size, minio.PutObjectOptions{DisableMultipart: true})
			return err
		})
	}
	return g.Wait()
}
