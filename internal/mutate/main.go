// Command mutate shows that the tests find mistakes: it makes one mistake at a
// time in a copy of the module, of those that a good engineer could make, and
// runs the tests that are to find it.
//
//	go run ./internal/mutate [-run REGEXP] [-list]
//
// It prints a Markdown table: the mistake, where it is, which invariant of
// docs/protocol.md it breaks, the first test that went red, and what that said.
// It fails if a mistake is not found, which means that a test is missing or that
// the code is needless. A test that was ended because it took more than three minutes counts as
// red: on a busy machine, look whether the table says "timed out".
//
// Run it from the module's root, with Go and git. Nothing is written outside a
// temporary directory and the build cache.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"time"
)

func main() {
	only := flag.String("run", "", "make only the mistakes whose name or file matches this regular `expression`")
	list := flag.Bool("list", false, "print the mistakes, and make none")
	build := flag.Bool("build", false, "only find out which mistakes do not compile, which takes a second each")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *only, *list, *build)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only string, list, build bool) error {
	wanted, err := regexp.Compile(only)
	if err != nil {
		return err
	}
	all := slices.DeleteFunc(mistakes(), func(m mistake) bool {
		return !wanted.MatchString(m.name) && !wanted.MatchString(m.file)
	})
	switch {
	case len(all) == 0:
		return fmt.Errorf("no mistake matches %q", only)
	case list:
		for _, m := range all {
			fmt.Printf("%s: %s (%s)\n", m.file, m.name, m.breaks)
		}
		return nil
	}
	w, err := copyModule(ctx, ".")
	if err != nil {
		return err
	}
	if build {
		return errors.Join(w.buildAll(ctx, all), w.remove())
	}
	return errors.Join(w.try(ctx, all), w.remove())
}

// try makes sure that the tests are green, and then makes one mistake after the
// other: first those that are in one copy, and then the others.
func (w *workspace) try(ctx context.Context, all []mistake) error {
	together, others, err := w.makeAll(all)
	if err != nil {
		return err
	}
	if err := w.wantGreen(ctx, all); err != nil {
		return err
	}
	for _, m := range others {
		together = append(together, numbered{m, 0})
	}
	fmt.Println("| mistake | where | breaks | found by | which said | s |")
	fmt.Println("| --- | --- | --- | --- | --- | --: |")
	began, found := time.Now(), 0
	for _, m := range together {
		start := time.Now()
		red, err := w.find(ctx, m)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			red = &failure{"**none**", err.Error()}
		case red == nil:
			red = &failure{"**none**", "it survives"}
		default:
			found++
		}
		fmt.Printf("| %s | %s | %s | %s | %s | %.0f |\n",
			cell(m.name), m.file, m.breaks, red.test, cell(red.said), time.Since(start).Seconds())
	}
	fmt.Printf("\n%d mistakes, %d found, in %.0f s.\n", len(all), found, time.Since(began).Seconds())
	if found < len(all) {
		return fmt.Errorf("%d mistakes were not found", len(all)-found)
	}
	return nil
}

// buildAll makes one mistake after the other, and returns those that do not compile.
func (w *workspace) buildAll(ctx context.Context, all []mistake) error {
	var bad []error
	for _, m := range all {
		undo, err := w.make(m)
		if err == nil {
			err = errors.Join(w.build(ctx, m.file), undo())
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			bad = append(bad, fmt.Errorf("%s: %s: %w", m.file, m.name, err))
		}
	}
	return errors.Join(bad...)
}

// wantGreen runs the tests of all mistakes on the copy as it is: a test that is
// red anyway finds nothing.
func (w *workspace) wantGreen(ctx context.Context, all []mistake) error {
	tests := make(map[string][]string) // by package
	for _, m := range all {
		for _, f := range m.tests {
			tests[f.pkg] = append(tests[f.pkg], f.names...)
		}
	}
	for pkg, names := range tests {
		slices.Sort(names)
		red, err := w.test(ctx, finder{pkg, slices.Compact(names)}, 0, greenTimeout)
		if err != nil {
			return err
		}
		if red != nil {
			return fmt.Errorf("%s: %s is red without any mistake: %s", pkg, red.test, red.said)
		}
	}
	return nil
}

// find makes a mistake, and returns what the first test said that went red, or
// nil if none did.
func (w *workspace) find(ctx context.Context, m numbered) (red *failure, err error) {
	undo := func() error { return nil }
	if m.n == 0 {
		if undo, err = w.make(m.mistake); err != nil {
			return nil, err
		}
	}
	for _, f := range m.tests {
		if red, err = w.test(ctx, f, m.n, timeout); red != nil || err != nil {
			break
		}
	}
	return red, errors.Join(err, undo())
}

// cell makes a text fit for a cell of a Markdown table.
func cell(text string) string {
	const most = 150
	if r := []rune(text); len(r) > most {
		text = string(r[:most]) + "…"
	}
	return strings.NewReplacer("|", `\|`, "<", `\<`, "\t", " ", "\n", " ").Replace(text)
}
