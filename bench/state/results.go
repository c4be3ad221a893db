package main

import (
	"fmt"
	"os"

	"github.com/holdfast-io/holdfast/bench/internal/proxy"
)

// A result is what one step took one contender in one round, as the JSON file
// has it.
type result struct {
	State     string   `json:"state"`
	Round     int      `json:"round"` // from 1
	Contender string   `json:"contender"`
	Step      string   `json:"step"`
	Command   []string `json:"command"`

	Wall     float64       `json:"wall"`      // seconds
	User     float64       `json:"user"`      // seconds of processor time
	System   float64       `json:"system"`    // likewise
	PeakRSS  int64         `json:"peak_rss"`  // bytes
	Traffic  *proxy.Counts `json:"traffic"`   // null if nothing was counted
	ProxyCPU float64       `json:"proxy_cpu"` // seconds of processor time that the proxy took meanwhile

	Verdict string `json:"verdict,omitempty"` // "failed", or "wrong" for a restore of something else
	Reason  string `json:"reason,omitempty"`  // of the verdict
}

func (r *result) cost(c cost) {
	r.Wall, r.User, r.System = c.Wall.Seconds(), c.User.Seconds(), c.System.Seconds()
	r.PeakRSS, r.Traffic, r.ProxyCPU = c.PeakRSS, c.traffic, c.proxy
}

// results are all so far. It says on the standard error what comes in.
type results struct {
	all []result
	bad int
}

func (rs *results) add(r result) {
	rs.all = append(rs.all, r)
	fmt.Fprintf(os.Stderr, "%s, round %d, %s, %s: %.2f s\n", r.State, r.Round, r.Contender, r.Step, r.Wall)
	if r.Traffic != nil && r.Traffic.Lost > 0 {
		fmt.Fprintf(os.Stderr, "the server did not answer %d requests: the figures are not to be used\n", r.Traffic.Lost)
	}
}

// fail gives the last result a verdict.
func (rs *results) fail(verdict string, reason error) {
	r := &rs.all[len(rs.all)-1]
	r.Verdict, r.Reason = verdict, reason.Error()
	rs.bad++
	fmt.Fprintf(os.Stderr, "%s: %s: %s\n", r.Contender, verdict, r.Reason)
}

// of returns the results of one step of one contender with one state.
func (rs *results) of(state, contender, step string) (found []result) {
	for _, r := range rs.all {
		if r.State == state && r.Contender == contender && r.Step == step {
			found = append(found, r)
		}
	}
	return found
}
