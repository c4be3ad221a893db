package soak

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// A state is what a job keeps. Each commit is of another attempt, whose name is
// in it: what is read back is the state of one attempt, or it is wrong.
type state struct {
	Attempt  string
	Versions []int // of the files
}

// sizes are those of the files, in bytes. The last has more chunks than an entry
// of the list of files takes.
var sizes = []int{700, 3 << 10, 9 << 10, 20 << 10, 48 << 10, 130 << 10}

const (
	block = 4 << 10
	index = "state.json"
)

// change makes the next state: of a file, one block is another with each
// version.
func (s *state) change(rnd *rand.Rand, attempt string) {
	s.Attempt = attempt
	if s.Versions == nil {
		s.Versions = make([]int, len(sizes))
	}
	switch rnd.IntN(20) {
	case 0: // much of everything
		for i := range s.Versions {
			s.Versions[i] += 1 + rnd.IntN(9)
		}
	case 1, 2, 3, 4, 5, 6, 7: // so little that it rides in the manifest
		s.Versions[0]++
	default:
		for range 1 + rnd.IntN(3) {
			s.Versions[rnd.IntN(len(sizes))] += 1 + rnd.IntN(2)
		}
	}
}

func fileName(i int) string { return fmt.Sprintf("file-%d", i) }

// content is a file in a version.
func content(i, version int) []byte {
	var data []byte
	blocks := (sizes[i] + block - 1) / block
	for b := range blocks {
		last := max(0, version-(version-b+blocks)%blocks) // the version that has changed this block
		var seed [32]byte
		binary.LittleEndian.PutUint64(seed[0:], uint64(i))
		binary.LittleEndian.PutUint64(seed[8:], uint64(b))
		binary.LittleEndian.PutUint64(seed[16:], uint64(last))
		noise := make([]byte, min(block, sizes[i]-b*block))
		_, _ = rand.NewChaCha8(seed).Read(noise) // never fails
		data = append(data, noise...)
	}
	return data
}

// write makes dir, which holds the state before, this one.
func (s *state) write(dir string, before []int) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, index), data, 0o644); err != nil {
		return err
	}
	for i, v := range s.Versions {
		if before != nil && before[i] == v {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, fileName(i)), content(i, v), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// readState reads a state to its last byte, and makes sure that it is all of one
// attempt, and nothing else.
func readState(fsys fs.FS) (*state, error) {
	data, err := fs.ReadFile(fsys, index)
	if err != nil {
		return nil, err
	}
	s := new(state)
	if err := json.Unmarshal(data, s); err != nil || len(s.Versions) != len(sizes) {
		return nil, errTorn{fmt.Sprintf("%s is %q (%v)", index, data, err)}
	}
	for i, v := range s.Versions {
		data, err := fs.ReadFile(fsys, fileName(i))
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(data, content(i, v)) {
			return nil, errTorn{fmt.Sprintf("%s is not version %d, as %s of attempt %s says", fileName(i), v, index, s.Attempt)}
		}
	}
	list, err := fs.ReadDir(fsys, ".")
	if err == nil && len(list) != len(sizes)+1 {
		err = errTorn{fmt.Sprintf("attempt %s has %d files", s.Attempt, len(list))}
	}
	return s, err
}

// errTorn means that what was read was never a state.
type errTorn struct{ what string }

func (e errTorn) Error() string { return "no state of any attempt: " + e.what }
