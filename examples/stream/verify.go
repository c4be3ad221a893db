package main

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/examples/internal/clicks"
)

// verify restores the newest checkpoint of each partition and compares every count with the
// truth.
func (s *story) verify(ctx context.Context) (v clicks.Verdict, err error) {
	job, err := checkpoint.Open(ctx, s.url, checkpoint.Options{})
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, job.Close(context.WithoutCancel(ctx))) }()
	last, err := s.broker.last(ctx, s.partitions)
	if err != nil {
		return v, err
	}
	for p, want := range clicks.Truth(s.seed, s.events, s.partitions) {
		end, dir := strconv.FormatUint(last[p]+1, 10), filepath.Join(s.dir, "verify", strconv.Itoa(p))
		if err := v.Compare(ctx, job, taskOf(p), end, want, dir); err != nil {
			return v, err
		}
	}
	return v, nil
}
