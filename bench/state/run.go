package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/holdfast-io/holdfast/bench/internal/proxy"
)

// bench is one run.
type bench struct {
	config
	dir        string // for everything
	holdfast   string // the command's executable
	contenders []contender
	results    results
	document   document
}

// historyName stands among the states for a long history, which is none.
const historyName = "history"

func run(ctx context.Context, c config) (err error) {
	dir, err := os.MkdirTemp(c.dir, "holdfast-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, name := range c.states {
		if name == historyName {
			continue
		}
		if err := c.checkRoom(name, dir); err != nil {
			return err
		}
	}
	file, err := createDocument(c.json)
	if err != nil {
		return err
	}
	b := &bench{config: c, dir: dir, document: document{LeftOut: []leftOut{}, States: []stateInfo{}}}
	defer func() { err = errors.Join(err, file.write(b)) }()
	if err := b.open(ctx); err != nil {
		return err
	}
	for _, name := range c.states {
		if err := b.measure(ctx, name); err != nil {
			return err
		}
	}
	if b.results.bad > 0 {
		return fmt.Errorf("%d steps failed or gave back something else; see above", b.results.bad)
	}
	b.document.Complete = true
	return nil
}

// open makes the contenders ready.
func (b *bench) open(ctx context.Context) (err error) {
	if b.document.Machine, err = describeMachine(ctx); err != nil {
		return err
	}
	if b.link != (proxy.Link{}) {
		if b.document.Link, err = checkLink(ctx, b.link); err != nil {
			return err
		}
		fmt.Fprintln(os.Stderr, b.document.Link)
	}
	if b.holdfast, err = buildHoldfast(ctx, b.dir); err != nil {
		return err
	}
	for _, name := range contenderNames {
		if b.config.contenders != nil && !slices.Contains(b.config.contenders, name) {
			continue
		}
		c, err := open(ctx, name, b.holdfast)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			fmt.Fprintf(os.Stderr, "%s is left out: %v\n", name, err)
			b.document.LeftOut = append(b.document.LeftOut, leftOut{name, err.Error()})
			continue
		}
		b.contenders = append(b.contenders, c)
		b.document.Contenders = append(b.document.Contenders, participant{c.name, c.version})
	}
	return nil
}

func (b *bench) measure(ctx context.Context, name string) error {
	if name == historyName {
		return b.measureHistory(ctx)
	}
	return b.measureState(ctx, name)
}

func (b *bench) measureState(ctx context.Context, name string) (err error) {
	dir := filepath.Join(b.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	fmt.Fprintf(os.Stderr, "making state %s\n", name)
	s, err := recipes[name].make(ctx, b.scale, dir)
	if err != nil {
		return err
	}
	info := stateInfo{name, s.Files, s.Bytes, s.Changed}
	b.document.States = append(b.document.States, info)
	for round := range b.rounds {
		for n := range b.contenders {
			c := b.contenders[(n+round)%len(b.contenders)] // no one is always the first
			t := turn{bench: b, name: name, state: s, contender: c, round: round + 1, over: recipes[name].over}
			if err := b.take(ctx, &t); err != nil {
				return err
			}
		}
	}
	b.writeTable(os.Stdout, info)
	return nil
}

// take lets a contender take its turn, at a site of its own.
func (b *bench) take(ctx context.Context, t *turn) (err error) {
	if t.site, err = openSite(ctx, filepath.Join(b.dir, "site"), t.contender.local, !b.noProxy, b.link); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.site.close()) }()
	if err := t.run(ctx); !errors.Is(err, errGaveUp) {
		return err
	}
	return nil
}
