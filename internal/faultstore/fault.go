package faultstore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/backend"
)

// ErrInjected is what a call fails with unless its Fault says otherwise. It is
// worth trying again, as a network error is.
var ErrInjected = errors.New("injected fault")

// ErrCrashed is what every call fails with after a crash.
var ErrCrashed = fmt.Errorf("injected crash: %w", backend.ErrClosed)

// Kind says what goes wrong.
type Kind string

// The kinds of fault. A late request is applied at [Store.Land].
const (
	FailBefore Kind = "fail before" // the request is not applied
	LoseReply  Kind = "lose reply"  // it is applied, and the caller sees an error
	Zombie     Kind = "zombie"      // the caller sees an error, and it is applied late

	// Delay applies the request after Fault.For, or never if its context ends
	// first.
	Delay Kind = "delay"

	// Truncate halves: what a get reads, what a create or a put stores, without
	// a word; the keys of a list or a delete, which then fails. A get of one
	// byte, say, has no half: it meets its end at once.
	Truncate Kind = "truncate"

	// Corrupt changes one bit of what a get reads or a create or a put stores.
	// It matches no other verb, and no call that has no data.
	Corrupt Kind = "corrupt"

	// After a crash every call fails: the process has died. The request itself
	// is not applied, or applied, or applied late.
	CrashFirst  Kind = "crash before"
	CrashAfter  Kind = "crash after"
	CrashZombie Kind = "crash, zombie"
)

func (k Kind) crash() bool { return k == CrashFirst || k == CrashAfter || k == CrashZombie }

// A Fault is one thing that goes wrong. It is a plain value: the same one goes
// wrong in the same way each time.
type Fault struct {
	Kind Kind
	Verb string // "create", "put", "get", "list", "delete"; "" is any
	Key  string // a part of the key; "" is any
	On   int    // which of the calls that match, from 1; 0 is every one

	// OneIn, if it is not 0, is used instead of On: about one in so many of the
	// calls that match, drawn by Seed. Seed also says which bit Corrupt changes.
	OneIn int
	Seed  uint64

	For time.Duration // how long a Delay is
	Err error         // instead of ErrInjected
}

func (f Fault) String() string {
	verb, key, which := f.Verb, "", "every call"
	if verb == "" {
		verb = "any verb"
	}
	if f.Key != "" {
		key = fmt.Sprintf(" on %q", f.Key)
	}
	switch {
	case f.OneIn > 0:
		which = fmt.Sprintf("one call in %d by seed %d", f.OneIn, f.Seed)
	case f.On > 0:
		which = fmt.Sprintf("call %d", f.On)
	}
	return fmt.Sprintf("%s: %s of %s%s", f.Kind, which, verb, key)
}

// armed is a Fault and how often it has matched and fired.
type armed struct {
	Fault
	chance         *rand.Rand
	matched, fired int
}

func arm(f Fault) *armed { return &armed{Fault: f, chance: rand.New(rand.NewPCG(f.Seed, 0))} }

// strikes counts a call, and reports whether the fault strikes it.
func (a *armed) strikes(r *request) bool {
	if a.Verb != "" && a.Verb != r.verb || !strings.Contains(r.key, a.Key) {
		return false
	}
	if a.Kind == Corrupt && !r.hasData {
		return false
	}
	a.matched++
	switch {
	case a.OneIn > 0 && a.chance.IntN(a.OneIn) != 0:
		return false
	case a.OneIn == 0 && a.On != 0 && a.On != a.matched:
		return false
	}
	a.fired++
	return true
}

// damage returns what Truncate or Corrupt makes of data, in memory of its own.
func (f *Fault) damage(data []byte) []byte {
	if f.Kind == Truncate {
		return append([]byte(nil), data[:len(data)/2]...)
	}
	bad := append([]byte(nil), data...)
	if len(bad) > 0 {
		bit := rand.New(rand.NewPCG(f.Seed, 1)).IntN(8 * len(bad))
		bad[bit/8] ^= 1 << (bit % 8)
	}
	return bad
}
