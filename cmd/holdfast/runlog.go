package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// A runLog makes notes of what the runner logs, without the words that only a program with a runner
// in it knows: kinds, stages, and which task it is of those that there are.
type runLog struct {
	noteHandler
	voice *voice
}

func (h runLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	kept := h.noteHandler
	kept.attrs = append(kept.attrs[:len(kept.attrs):len(kept.attrs)], withoutTask(attrs)...)
	return runLog{kept, h.voice}
}

func withoutTask(attrs []slog.Attr) (kept []slog.Attr) {
	for _, a := range attrs {
		if a.Key != "task" {
			kept = append(kept, a)
		}
	}
	return kept
}

func (h runLog) Handle(ctx context.Context, r slog.Record) error {
	if h.toldElsewhere(r) {
		return nil
	}
	plain := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	stage := ""
	r.Attrs(func(a slog.Attr) bool {
		switch err, isErr := a.Value.Any().(error); {
		case a.Key == "kind":
			stage = a.Value.String() + ": "
		case a.Key == "final":
		case isErr:
			plain.AddAttrs(slog.Any(a.Key, said{strings.TrimPrefix(err.Error(), stage), err}))
		default:
			plain.AddAttrs(a)
		}
		return true
	})
	return h.noteHandler.Handle(ctx, plain)
}

// toldElsewhere reports whether a record is of what the user learns otherwise: run itself says that
// the task is lost, and who has asked for a savepoint learns by the answer that its name is taken.
func (h runLog) toldElsewhere(r slog.Record) (told bool) {
	look := func(a slog.Attr) bool {
		err, _ := a.Value.Any().(error)
		lost := errors.Is(err, checkpoint.ErrFenced) || errors.Is(err, checkpoint.ErrLost)
		told = told || lost || errors.Is(err, checkpoint.ErrConflict) && h.voice.wantsSavepoint()
		return true
	}
	for _, a := range h.attrs {
		look(a)
	}
	r.Attrs(look)
	return told
}
