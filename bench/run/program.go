package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// programArg as the first argument makes a process the program that is run.
const programArg = "run.program"

const (
	fileSize = 4 << 20
	replaces = 300 * time.Millisecond // one of its files
	still    = 5 * time.Millisecond   // a step that takes longer stood still
)

// A program computes, and replaces its files.
type program struct {
	state  string
	begin  string // a file that begins the window
	end    string // a file that ends the program
	window time.Duration
	asks   bool // for checkpoints

	chance  *rand.ChaCha8
	files   int
	work    [256 << 10]byte
	written time.Time // last
	asked   time.Time // last
}

// A said is what a program prints of its window.
type said struct {
	Steps   int
	Took    time.Duration
	Longest time.Duration // that a step took
	Still   time.Duration // sum of steps that took long
}

// isProgram is what the process does: args are the state, the file that begins the window, the
// one that ends the program, how many files there are, the window, and whether it asks.
func isProgram(args []string) error {
	files, err1 := strconv.Atoi(args[3])
	window, err2 := time.ParseDuration(args[4])
	p := &program{state: args[0], begin: args[1], end: args[2], files: files, window: window, asks: args[5] == "asks", chance: rand.NewChaCha8([32]byte{1})}
	if err := errors.Join(err1, err2, os.MkdirAll(p.state, 0o700)); err != nil {
		return err
	}
	for i := range files {
		if err := p.write(i); err != nil {
			return err
		}
	}
	fmt.Println("filled")
	if err := p.stepUntil(p.begin); err != nil {
		return err
	}
	var s said
	began := time.Now()
	for s.Took < p.window {
		if err := p.timedStep(&s); err != nil {
			return err
		}
		s.Took = time.Since(began)
	}
	line, err := json.Marshal(s)
	if err != nil {
		return err
	}
	fmt.Println(string(line))
	p.asks = false
	return p.stepUntil(p.end)
}

// timedStep takes a step, and replaces a file before that if it is time, which is not timed.
func (p *program) timedStep(s *said) error {
	if err := p.replace(); err != nil {
		return err
	}
	began := time.Now()
	err := p.step()
	took := time.Since(began)
	s.Steps++
	s.Longest = max(s.Longest, took)
	if took > still {
		s.Still += took
	}
	return err
}

// stepUntil takes steps until a file is there.
func (p *program) stepUntil(file string) error {
	for {
		if _, err := os.Stat(file); err == nil {
			return nil
		}
		if err := errors.Join(p.replace(), p.step()); err != nil {
			return err
		}
	}
}

// step computes for less than a millisecond, and asks for a checkpoint when it is time.
func (p *program) step() error {
	sum := sha256.Sum256(p.work[:])
	copy(p.work[:], sum[:])
	if p.asks && time.Since(p.asked) >= every {
		p.asked = time.Now()
		if err := commit(); err != nil {
			return err
		}
	}
	return nil
}

// replace replaces a file if it is time.
func (p *program) replace() error {
	if time.Since(p.written) < replaces {
		return nil
	}
	p.written = time.Now()
	return p.write(int(p.chance.Uint64() % uint64(p.files)))
}

// write replaces a file by a rename.
func (p *program) write(i int) error {
	data := make([]byte, fileSize)
	_, _ = p.chance.Read(data) // never fails
	path := filepath.Join(p.state, fmt.Sprintf("%03d", i))
	if err := os.WriteFile(path+".tmp", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

// commit asks run for a checkpoint, and waits for it.
func commit() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, os.Getenv("HOLDFAST_RUN_URL")+"/commit", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(strings.TrimSpace("the checkpoint: " + resp.Status))
	}
	return nil
}
