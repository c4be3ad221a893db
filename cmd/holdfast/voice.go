package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"mime"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/runner"
)

// The environment variables by which a program speaks to run.
const (
	runURLVariable  = "HOLDFAST_RUN_URL"     // with the secret in it
	addressVariable = "HOLDFAST_RUN_ADDRESS" // a URL without it
	headerVariable  = "HOLDFAST_RUN_HEADER"  // a file with the header that has it
)

// headerFile is where a program finds the header with the secret.
func (o *runFlags) headerFile() string { return filepath.Join(o.runDir, "header") }

// A voice is how a program that is run says when it is consistent, and hears what to go on
// from: HTTP on a port of this machine alone, with a secret that only who can read the program's
// environment, or a file beside its state, knows. It is in the path of a URL; or it is in a
// header, because a command line with that URL is shown to all users of the machine.
type voice struct {
	s       *supervisor
	task    *runner.Task
	address string // a URL without the secret
	secret  string
	server  *http.Server
	ready   chan struct{} // closed when task is set
	served  chan struct{} // closed when the server has ended

	asking chan struct{} // full while a commit is asked for: labels and offsets are those of one

	mu    sync.Mutex
	waits *asked                 // the request that waits for a commit, with its offsets in place; nil for none
	last  *checkpoint.Checkpoint // that was committed; nil for none
	err   error                  // of the last commit, if it has failed
	ended bool                   // the checkpoint after the program's end is saved
	told  bool                   // that the last checkpoint is tried again
	heard bool                   // a request for a commit
}

func openVoice(s *supervisor) (*voice, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	v := &voice{s: s, secret: rand.Text(), asking: make(chan struct{}, 1), ready: make(chan struct{}), served: make(chan struct{})}
	v.address = fmt.Sprintf("http://%s", l.Addr())
	if err := writeSecret(s.o.headerFile(), v.header()+"\n"); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	v.server = &http.Server{Handler: v, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(v.served)
		_ = v.server.Serve(l) // until it is closed
	}()
	return v, nil
}

// writeSecret writes a file that only this user can read.
func writeSecret(path, text string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // what an earlier run has left has its permissions
	}
	return os.WriteFile(path, []byte(text), 0o600)
}

func (v *voice) header() string { return "Authorization: Bearer " + v.secret }

// environment is what the program finds of it.
func (v *voice) environment() []string {
	return []string{
		runURLVariable + "=" + v.address + "/" + v.secret, addressVariable + "=" + v.address, headerVariable + "=" + v.s.o.headerFile(),
	}
}

// open lets the program speak.
func (v *voice) open() { close(v.ready) }

func (v *voice) close() {
	_ = v.server.Close()              // those who still ask have no answer to come
	_ = os.Remove(v.s.o.headerFile()) // which is of no use any more
	<-v.served
}

// waiting returns the request that waits for a commit now, or nil. It is the same one for as long as
// it waits. While it does, the program does not write.
func (v *voice) waiting() *asked {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.waits == nil || v.waits.ctx.Err() != nil {
		return nil
	}
	return v.waits
}

// setWaits says which request waits. It is called in a step, so that a cut finds a request with its
// own offsets.
func (v *voice) setWaits(a *asked) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.waits = a
}

// stopsWaiting says that a request has its answer, or wants none any more.
func (v *voice) stopsWaiting(a *asked) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.waits == a {
		v.waits = nil
	}
}

// committed and failed are the runner's hooks.
func (v *voice) committed(_ context.Context, c *checkpoint.Checkpoint) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.last, v.err = c, nil
	v.ended = v.s.last.Load()
	return nil
}

func (v *voice) failed(_ context.Context, err error) {
	if errors.Is(err, checkpoint.ErrConflict) && v.wantsSavepoint() {
		return // the name is taken: that is the fault of whoever asked
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.err = err
	if v.s.last.Load() && !v.told {
		v.told = true
		v.s.p.note("the program has ended; its last checkpoint is tried again until it is saved, or until run is asked to end")
	}
}

// savedNothing reports whether no checkpoint was saved since the start, and none was asked for.
func (v *voice) savedNothing() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.last == nil && !v.heard
}

// wantsSavepoint reports whether the request that waits is for a savepoint.
func (v *voice) wantsSavepoint() bool {
	a := v.waiting()
	return a != nil && a.savepoint != ""
}

// hasEnded reports whether the checkpoint after the program's end is saved.
func (v *voice) hasEnded() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.ended
}

// ServeHTTP answers the program.
func (v *voice) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	secret, what := secretOf(r)
	if subtle.ConstantTimeCompare([]byte(secret), []byte(v.secret)) != 1 {
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, "the secret is missing or wrong: send the header that is in the file which "+headerVariable+" names", http.StatusUnauthorized)
		return
	}
	select {
	case <-v.ready:
	case <-r.Context().Done():
		return
	}
	method := methods[what]
	switch {
	case method == "":
		http.Error(w, "ask for POST commit, GET resume or GET health", http.StatusNotFound)
		return
	case r.Method != method:
		w.Header().Set("Allow", method)
		http.Error(w, fmt.Sprintf("%s is asked for by %s, and this is %s", what, method, r.Method), http.StatusMethodNotAllowed)
		return
	}
	switch what {
	case "commit":
		v.commit(w, r)
	case "resume":
		answer(w, http.StatusOK, v.resume())
	case "health":
		v.health(w)
	}
}

// methods says by which method each thing is asked for.
var methods = map[string]string{"commit": http.MethodPost, "resume": http.MethodGet, "health": http.MethodGet}

// secretOf returns the secret that a request has, and what it asks for.
func secretOf(r *http.Request) (secret, what string) {
	path := strings.TrimPrefix(r.URL.Path, "/")
	if secret, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return secret, path
	}
	secret, what, _ = strings.Cut(path, "/")
	return secret, what
}

func answer(w http.ResponseWriter, code int, doc any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(doc) // whoever asked may have gone
}

// resumeDoc is what to go on from.
type resumeDoc struct {
	Task       string            `json:"task"`
	State      string            `json:"state"`
	Checkpoint uint64            `json:"checkpoint"` // 0 for none
	Offsets    map[string]string `json:"offsets"`
	Labels     map[string]string `json:"labels"`
}

func (v *voice) resume() resumeDoc {
	doc := resumeDoc{Task: v.s.o.task, State: v.s.o.stateDir, Offsets: map[string]string{}, Labels: map[string]string{}}
	if c := v.task.Restored().Checkpoint; c != nil {
		doc.Checkpoint = c.Seq
		maps.Copy(doc.Offsets, c.Offsets)
		maps.Copy(doc.Labels, c.Labels)
	}
	return doc
}

// healthDoc is how it goes.
type healthDoc struct {
	Checkpoint uint64    `json:"checkpoint"` // the last one; 0 for none
	Time       time.Time `json:"time,omitzero"`
	Error      string    `json:"error"` // of the last attempt; empty if it has succeeded
}

func (v *voice) health(w http.ResponseWriter) {
	v.mu.Lock()
	last, err := v.last, v.err
	v.mu.Unlock()
	if last == nil {
		last = v.task.Restored().Checkpoint
	}
	var doc healthDoc
	if last != nil {
		doc.Checkpoint, doc.Time = last.Seq, last.Time
	}
	code := http.StatusOK
	if err != nil {
		code, doc.Error = http.StatusServiceUnavailable, oneLine(err.Error())
	}
	answer(w, code, doc)
}

// An asked is what a program asks for with a commit.
type asked struct {
	ctx             context.Context // ends when it does not wait any more
	offsets, labels map[string]string
	savepoint       string
}

func (v *voice) commit(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	v.heard = true
	v.mu.Unlock()
	r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
	a, err := v.parse(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c, err := v.do(a)
	if err != nil {
		code, text := refusal(err)
		http.Error(w, text, code)
		return
	}
	answer(w, http.StatusOK, c)
}

// refusal returns what is answered when a commit has failed.
func refusal(err error) (code int, text string) {
	text = oneLine(err.Error())
	switch {
	case errors.Is(err, checkpoint.ErrFenced), errors.Is(err, checkpoint.ErrLost):
		return http.StatusConflict, text
	case errors.Is(err, checkpoint.ErrUnknown):
		return http.StatusGatewayTimeout, "it is not known whether the checkpoint was saved: ask again before you rely on either; " + text
	case errors.Is(err, checkpoint.ErrUnsettled):
		return http.StatusGatewayTimeout, "nothing was saved, and it is not known whether an earlier checkpoint was: ask again before you rely on either; " + text
	case isUsage(err), errors.Is(err, checkpoint.ErrConflict):
		return http.StatusBadRequest, text
	}
	return http.StatusServiceUnavailable, text
}

// parse takes what is asked for from the query or a form in the body.
func (v *voice) parse(r *http.Request) (*asked, error) {
	a := &asked{ctx: r.Context(), offsets: map[string]string{}, labels: map[string]string{}}
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if r.ContentLength != 0 && kind != "application/x-www-form-urlencoded" {
		return a, backend.Invalidf("the body must be a form (application/x-www-form-urlencoded), and it is %q", kind)
	}
	if err := r.ParseForm(); err != nil {
		return a, err
	}
	takes := map[string]func(string) error{
		"offset": pairs(a.offsets), "label": pairs(a.labels), "savepoint": savepointName(&a.savepoint),
	}
	if names := r.Form["savepoint"]; len(names) > 1 {
		return a, backend.Invalidf("savepoint=%s: it is given %d times, and a checkpoint has one name", names[0], len(names))
	}
	for _, key := range slices.Sorted(maps.Keys(r.Form)) {
		take := takes[key]
		if take == nil {
			return a, backend.Invalidf("%q is not known: give offset=KEY=VALUE, label=KEY=VALUE or savepoint=NAME", key)
		}
		for _, value := range r.Form[key] {
			if key == "label" && strings.HasPrefix(value, "runner.") {
				return a, backend.Invalidf("%s=%s: labels that begin with runner. are taken; use another name", key, value)
			}
			if !utf8.ValidString(value) { // nothing is cut for what cannot be saved
				return a, backend.Invalidf("%s=%q is not valid UTF-8", key, value)
			}
			if err := take(value); err != nil {
				return a, backend.Invalidf("%s=%s: %v", key, value, err)
			}
		}
	}
	if len(a.offsets) > 0 && !v.s.o.whenAsked {
		return a, backend.Invalidf("offsets need --when-asked: a checkpoint by time would put them beside a later state")
	}
	return a, nil
}

// do commits, and returns when that is durable.
func (v *voice) do(a *asked) (*checkpoint.Checkpoint, error) {
	ctx := a.ctx
	select {
	case v.asking <- struct{}{}:
		defer func() { <-v.asking }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer v.stopsWaiting(a)
	err := v.task.Step(ctx, func(p *runner.Position) error {
		v.setWaits(a)
		for key, offset := range a.offsets {
			p.Advance(key, offset)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if a.savepoint != "" {
		return v.task.Savepoint(ctx, a.savepoint, 0)
	}
	return v.task.Commit(ctx)
}
