package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// A child is this program, run again to be killed or measured.
type child struct {
	Config config
	Part   string // "life", "standby" or "tasks"
	Host   string // for a life
	Every  time.Duration
	Report string // file for what the tasks took
}

// childArg as the first argument makes a process a child; the second one says which.
const childArg = "runner.child"

var errNoChild = errors.New("it is no child")

// isChild does what a child is for.
func isChild(ctx context.Context) error {
	if len(os.Args) != 3 || os.Args[1] != childArg {
		return errNoChild
	}
	var c child
	if err := json.Unmarshal([]byte(os.Args[2]), &c); err != nil {
		return err
	}
	switch c.Part {
	case "life":
		return c.live(ctx)
	case "standby":
		return c.standBy(ctx)
	}
	return c.own(ctx)
}

func (c *child) args() ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	encoded, err := json.Marshal(c)
	return []string{self, childArg, string(encoded)}, err
}

// live works until it is killed, or has no parent any more.
func (c *child) live(ctx context.Context) error {
	ctx, orphaned := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // it ends with the parent
		orphaned()
	}()
	fmt.Println("begun")
	j, err := openJob(ctx, &c.Config, c.Config.hostDir(c.Host), every, func() { fmt.Println("restored") }, func() { fmt.Println("committed") })
	if err != nil {
		return err
	}
	step := j.write()
	for n := 0; ctx.Err() == nil; n++ {
		if _, err := j.step(ctx, step); err != nil {
			return err
		}
		if n == 0 {
			fmt.Println("processing")
		}
		<-time.After(3 * time.Millisecond) // about 8 MiB/s
	}
	return j.close(ctx)
}

// A victim is a child that is to be killed.
type victim struct {
	cmd   *exec.Cmd
	stdin io.Closer
	said  *bufio.Scanner
}

func start(ctx context.Context, c *config, host string) (*victim, error) {
	return startChild(ctx, &child{Config: *c, Part: "life", Host: host})
}

func startChild(ctx context.Context, c *child) (*victim, error) {
	args, err := c.args()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &victim{cmd, stdin, bufio.NewScanner(stdout)}, cmd.Start()
}

// wait waits until the victim has said something so many times.
func (v *victim) wait(what string, times int) (time.Time, error) {
	for times > 0 {
		if !v.said.Scan() {
			return time.Time{}, errors.Join(fmt.Errorf("it ended before it was %s", what), v.said.Err(), v.cmd.Wait())
		}
		if v.said.Text() == what {
			times--
		}
	}
	return time.Now(), nil
}

// kill kills the victim, and returns when it was gone.
func (v *victim) kill() time.Time {
	at := time.Now()
	_ = v.cmd.Process.Kill() // it fails if the process has ended, which Wait tells
	_ = v.cmd.Wait()
	_ = v.stdin.Close()
	return at
}

// A comeback is how long it took from a kill until a process had begun, had restored
// the state, and had processed something.
type comeback struct{ begun, restored, processing time.Duration }

func measureKills(ctx context.Context, c *config) error {
	host := 0
	v, err := start(ctx, c, fmt.Sprint(host))
	if err != nil {
		return err
	}
	defer func() { v.kill() }()
	back := make(map[bool][]comeback)
	for n := range 2 * c.Kills {
		if _, err := v.wait("committed", 4); err != nil { // so that there is something new since the state was restored
			return err
		}
		<-time.After(every / 3) // somewhere in the midst
		killed := v.kill()
		warm := n%2 == 0
		if !warm {
			host++
		}
		if v, err = start(ctx, c, fmt.Sprint(host)); err != nil {
			return err
		}
		b, err := v.comeback(killed)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "warm %v: %v\n", warm, b)
		back[warm] = append(back[warm], b)
		if !warm {
			if err := os.RemoveAll(c.hostDir(fmt.Sprint(host - 1))); err != nil {
				return err
			}
		}
	}
	fmt.Printf("From SIGKILL, with a state of %d MiB, medians of %d:\n\n", c.Size, c.Kills)
	fmt.Println("| where | a process has begun, s | the state is restored, s | it processes, s | longest, s |")
	fmt.Println("| --- | --: | --: | --: | --: |")
	for _, warm := range []bool{true, false} {
		all := back[warm]
		half := func(of func(comeback) time.Duration) float64 { return percentile(figures(all, of), 50).Seconds() }
		name := map[bool]string{true: "same host", false: "new host"}[warm]
		processing := func(b comeback) time.Duration { return b.processing }
		fmt.Printf("| %s | %.2f | %.2f | %.2f | %.2f |\n", name, half(func(b comeback) time.Duration { return b.begun }),
			half(func(b comeback) time.Duration { return b.restored }), half(processing), percentile(figures(all, processing), 100).Seconds())
	}
	fmt.Println()
	return nil
}

// comeback waits until the victim processes.
func (v *victim) comeback(killed time.Time) (b comeback, err error) {
	for _, e := range []struct {
		said string
		took *time.Duration
	}{{"begun", &b.begun}, {"restored", &b.restored}, {"processing", &b.processing}} {
		at, err := v.wait(e.said, 1)
		if err != nil {
			return b, err
		}
		*e.took = at.Sub(killed)
	}
	return b, nil
}
