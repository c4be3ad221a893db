package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
)

// A program that does not run yet gets no signals: what came while its state was restored is not
// about it. So before the start a signal is for run itself.

// An early is a signal that asked run to end before the program was started.
type early struct {
	sig os.Signal
	err error // of what it has ended, or nil
}

func (e early) Error() string {
	return fmt.Sprintf("stopped (%v signal received) before the program was started", e.sig)
}

func (e early) Unwrap() error { return e.err }

// untilAsked calls do with a context that ends when a signal asks this process to end. All other
// signals that come meanwhile are dropped.
func untilAsked(ctx context.Context, signals <-chan os.Signal, do func(context.Context) error) error {
	asked, end := context.WithCancelCause(ctx)
	var hearing sync.WaitGroup
	hearing.Go(func() {
		for {
			select {
			case sig := <-signals:
				if asksToEnd(sig) {
					end(early{sig: sig})
				}
			case <-asked.Done():
				return
			}
		}
	})
	err := do(asked)
	end(nil)
	hearing.Wait()
	if e := (early{}); err != nil && ctx.Err() == nil && errors.As(context.Cause(asked), &e) {
		return early{e.sig, err}
	}
	return err
}

// dropEarly drops the signals that came before the program is started. Its error is one that asks
// this process to end.
func dropEarly(signals <-chan os.Signal) error {
	for {
		select {
		case sig := <-signals:
			if asksToEnd(sig) {
				return early{sig: sig}
			}
		default:
			return nil
		}
	}
}
