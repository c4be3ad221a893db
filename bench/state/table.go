package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/bench/internal/measure"
	"github.com/holdfast-io/holdfast/bench/internal/proxy"
)

const (
	columns = "| wall s | CPU s | peak MiB | requests | sent MiB | fetched MiB | which requests |\n"
	rules   = "| --: | --: | --: | --: | --: | --: | --- |\n"
)

// writeTable prints what a state's steps took, one line for each contender.
func (b *bench) writeTable(w io.Writer, s stateInfo) {
	_, _ = fmt.Fprintf(w, "### %s: %d files, %.1f MiB, of which the change makes %.1f MiB new; median of %d\n\n",
		s.Name, s.Files, mib(s.Bytes), mib(s.Changed), b.rounds)
	_, _ = fmt.Fprint(w, "| step | contender ", columns, "| --- | --- ", rules)
	for _, step := range steps {
		for _, c := range b.contenders {
			if runs := b.results.of(s.Name, c.name, step); len(runs) > 0 {
				_, _ = fmt.Fprintf(w, "| %s | %s | %s |\n", step, c.name, figures(runs, b.document.Machine.MinPeak))
			}
		}
	}
	_, _ = fmt.Fprintln(w)
}

// writeHistory prints what it takes to find the newest checkpoint in histories
// of these lengths.
func (b *bench) writeHistory(w io.Writer, lengths []int) {
	_, _ = fmt.Fprintf(w, "### %s: the newest of many checkpoints; median of %d\n\n", historyName, b.rounds)
	_, _ = fmt.Fprint(w, "| holdfast: what, and how many checkpoints ", columns, "| --- ", rules)
	for _, step := range historySteps {
		for _, n := range lengths {
			_, _ = fmt.Fprintf(w, "| %s | %s |\n", step.of(n), figures(b.results.of(historyName, "holdfast", step.of(n)), b.document.Machine.MinPeak))
		}
	}
	_, _ = fmt.Fprintln(w)
}

// figures returns the cells of one line.
func figures(runs []result, least int64) string {
	for _, r := range runs {
		if r.Verdict != "" {
			return strings.ToUpper(r.Verdict) + " | | | | | | "
		}
	}
	median := func(figure func(result) float64) float64 { return measure.Median(runs, figure) }
	line := fmt.Sprintf("%.2f | %.2f | %s", median(func(r result) float64 { return r.Wall }),
		median(func(r result) float64 { return r.User + r.System }),
		peak(median(func(r result) float64 { return float64(r.PeakRSS) }), least))
	if runs[0].Traffic == nil {
		return line + " | - | - | - | -"
	}
	return line + fmt.Sprintf(" | %.0f | %.2f | %.2f | %s",
		median(func(r result) float64 { return float64(r.Traffic.Requests()) }),
		median(func(r result) float64 { return mib(r.Traffic.Up) }),
		median(func(r result) float64 { return mib(r.Traffic.Down) }),
		kinds(runs))
}

// kinds says how many requests of which kind there were, most first.
func kinds(runs []result) string {
	seen := make(map[proxy.Kind]float64)
	for _, r := range runs {
		for kind := range r.Traffic.Kinds {
			seen[kind] = measure.Median(runs, func(r result) float64 { return float64(r.Traffic.Kinds[kind]) })
		}
	}
	order := slices.SortedFunc(maps.Keys(seen), func(a, b proxy.Kind) int {
		return cmp.Or(cmp.Compare(seen[b], seen[a]), cmp.Compare(a, b))
	})
	var parts []string
	for _, kind := range order {
		parts = append(parts, fmt.Sprintf("%s %.0f", kind, math.Ceil(seen[kind])))
	}
	return strings.Join(parts, ", ")
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// peak prints a peak of memory, which is 0 where the system does not tell.
// Below least, every peak looks like least, more or less.
func peak(bytes float64, least int64) string {
	switch {
	case bytes == 0:
		return "-"
	case bytes < 1.1*float64(least):
		return fmt.Sprintf("≤ %.0f", mib(int64(bytes)))
	}
	return fmt.Sprintf("%.0f", mib(int64(bytes)))
}
