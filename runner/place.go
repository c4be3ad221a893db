package runner

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/holdfast-io/holdfast/backend"
)

// ErrNotState means that what is in the directory Spec.State is not known as the state of
// the task. It is neither changed nor removed.
var ErrNotState = errors.New("the directory is not known as the task's state")

// A place is a directory outside the run directory where a task's state is: one that a
// program or a person knows by name. A file in the run directory says which directory it
// is, by what no other directory has, and whose: only that one is ever replaced.
//
// The state is restored inside the run directory, as that of any task is, and moved to its
// place by a rename. Before that, the state of an earlier run is moved into the run
// directory, to be used again. So a process that is killed leaves it in one of the two.
type place struct {
	path  string
	dir   *runDir
	adopt bool
	aside string // see StateDir; "" for none
	moved string // where what was there was moved to, because of aside; "" for nowhere
	is    placed // what belongs there
}

// A placed is what the file says.
type placed struct {
	Job   string   `json:"job"`
	Task  string   `json:"task"`
	Path  string   `json:"path"`
	State identity `json:"state"` // of the directory
	Saved bool     `json:"saved"` // the task had a checkpoint
}

// An identity tells a directory from all others that there are or were on this machine.
type identity struct {
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
	Born   string `json:"born"` // inodes are used again; "" if the file system does not tell
}

// is reports whether two identities are known to be of one directory. The device's number may be
// another after a restart of the machine, so it is not compared: that it is the run directory's
// is found otherwise.
func (id identity) is(other identity) bool {
	return id.Inode == other.Inode && id.Born == other.Born && id.Born != ""
}

const placeName = "place.json"

// takePlace looks at what is at path, and refuses it unless it is absent, empty, or the
// state that this task had there before. Adopt accepts anything.
func (d *runDir) takePlace(s *StateDir, task string) (*place, error) {
	path, err := filepath.Abs(s.Path)
	if err != nil {
		return nil, err
	}
	p := &place{path: path, dir: d, adopt: s.Adopt, aside: s.Aside, is: placed{Job: s.Job, Task: task, Path: path}}
	known, err := d.readPlaced()
	if err != nil {
		return nil, err
	}
	if known.Job == s.Job && known.Task == task && known.Path == path {
		p.is = known
	}
	there, err := p.look()
	switch {
	case err != nil:
		return nil, err
	case there != foreign || s.Adopt:
		return p, nil
	case known.Task != "" && known != p.is:
		return nil, fmt.Errorf("%s: %w: it is that of task %q in %s; give this task another directory", path, ErrNotState, known.Task, known.Job)
	}
	if p.is.State.Inode != 0 && p.is.State.Born == "" {
		return nil, fmt.Errorf("%s: %w, because its file system does not tell when a directory was made; move it away, or give a directory on another file system", path, ErrNotState)
	}
	return nil, fmt.Errorf("%s: %w, and it is not empty; give another directory, or adopt it as the first checkpoint of a new task", path, ErrNotState)
}

func (d *runDir) readPlaced() (known placed, err error) {
	data, err := d.root.ReadFile(placeName)
	if errors.Is(err, fs.ErrNotExist) {
		return placed{}, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &known)
	}
	if err != nil {
		return placed{}, fmt.Errorf("%s: %w; remove that directory if nothing in it is needed", filepath.Join(d.path, placeName), err)
	}
	return known, nil
}

// What may be at a place.
type occupant int

const (
	nothing occupant = iota // or an empty directory
	own
	foreign
)

func (p *place) look() (occupant, error) {
	info, err := os.Lstat(p.path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nothing, nil
	case err != nil:
		return foreign, err
	case !info.IsDir():
		return foreign, backend.Invalidf("%s is no directory; give one, or the name of one that is to be made", p.path)
	}
	id, err := identify(p.path)
	if err != nil {
		return foreign, err
	}
	if home, err := identify(p.dir.path); err != nil || home.Device != id.Device {
		return foreign, errors.Join(err, backend.Invalidf("%s is a mount point, which cannot be replaced by a restored state; give a directory in it", p.path))
	}
	if id.is(p.is.State) {
		return own, nil
	}
	entries, err := os.ReadDir(p.path)
	if err != nil {
		return foreign, err
	}
	if len(entries) == 0 {
		return nothing, nil
	}
	return foreign, nil
}

// takeIn moves the state of an earlier run into the run directory, to be used again.
func (p *place) takeIn() error {
	inside := p.dir.store("")
	return errors.Join(removeTree(inside), os.Rename(p.path, inside))
}

// restored makes restore put a checkpoint's state at the place. warm says that the run
// directory has that state already: its standby has just restored it.
func (p *place) restored(warm bool, restore func() error) error {
	there, err := p.look() // again: a claim may take long
	if err != nil {
		return err
	}
	inside := p.dir.store("")
	switch there {
	case foreign:
		return fmt.Errorf("%s: %w, and the task has checkpoints already; give an absent or empty directory", p.path, ErrNotState)
	case own:
		warm = false
		if err := p.takeIn(); err != nil {
			return err
		}
	case nothing:
	}
	if warm {
		return p.putOut()
	}
	if err := restore(); err != nil {
		if there == own {
			err = errors.Join(err, os.Rename(inside, p.path))
		}
		return err
	}
	return p.putOut()
}

// putOut moves a checkpoint's state from the run directory to its place, where nothing is.
func (p *place) putOut() error {
	inside := p.dir.store("")
	if err := p.mark(inside, true); err != nil {
		return err
	}
	if err := os.Remove(p.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // it was empty
	}
	return os.Rename(inside, p.path)
}

// begun makes the place that of a task without a checkpoint: what is there stays.
func (p *place) begun() error {
	there, err := p.look()
	if err == nil && there == nothing {
		there, err = p.bringBack()
	}
	switch {
	case err != nil:
		return err
	case there == foreign && !p.adopt:
		return fmt.Errorf("%s: %w, and it is not empty any more", p.path, ErrNotState)
	case there == own && p.is.Saved && !p.adopt:
		return fmt.Errorf("%s is the state of a checkpoint of task %q, and the store %s has none: %w; look whether this is the right store, and whether it is mounted. To go on from the directory, adopt it",
			p.path, p.is.Task, p.is.Job, ErrNotState)
	}
	if there == own && p.aside != "" && !p.adopt {
		if err := p.moveAside(); err != nil {
			return err
		}
		there = nothing
	}
	if err := os.MkdirAll(p.path, 0o777); err != nil {
		return err
	}
	return p.mark(p.path, there == own && p.is.Saved) // what begins with nothing is of no checkpoint
}

// mostAside is how much may lie aside at once: a program that fails again and again, each time
// with something in its state, must not fill the disk.
const mostAside = 10

// moveAside moves what is at the place to where nothing is. What lies aside already is never
// removed: it may be the work of hours. An empty directory stays.
func (p *place) moveAside() error {
	if entries, err := os.ReadDir(p.path); err != nil || len(entries) == 0 {
		return err
	}
	for n := 1; n <= mostAside; n++ {
		to := p.aside
		if n > 1 {
			to = fmt.Sprintf("%s-%d", p.aside, n)
		}
		err := os.Rename(p.path, to)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			p.moved = to
		}
		return err
	}
	return fmt.Errorf("%s: it may be half written, and it cannot be moved aside, because %d others lie aside already: %s and so on; look whether something in them is needed, and remove them",
		p.path, mostAside, p.aside)
}

// bringBack puts back what a process that was killed has left in the run directory.
func (p *place) bringBack() (occupant, error) {
	inside := p.dir.store("")
	if id, err := identify(inside); err != nil || !id.is(p.is.State) {
		return nothing, nil
	}
	if err := os.Remove(p.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nothing, err
	}
	return own, os.Rename(inside, p.path)
}

// saved records that the task has a checkpoint.
func (p *place) saved() error {
	if p.is.Saved {
		return nil
	}
	p.is.Saved = true
	return p.write()
}

// mark records which directory is the state.
func (p *place) mark(dir string, saved bool) (err error) {
	if p.is.State, err = identify(dir); err != nil {
		return err
	}
	p.is.Saved = saved
	return p.write()
}

// write replaces the file. It is on the disk before the state moves: after a loss of power
// it must not say less than what is true.
func (p *place) write() error {
	data, err := json.Marshal(p.is)
	if err != nil {
		return err
	}
	f, err := p.dir.root.OpenFile(placeName+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return p.dir.root.Rename(placeName+".new", placeName)
}
