package checkpoint_test

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/holdfast-io/holdfast/checkpoint"
)

// openFS calls a function before it opens a file.
type openFS struct {
	fstest.MapFS
	before func(name string)
}

func (o openFS) Open(name string) (fs.File, error) {
	o.before(name)
	return o.MapFS.Open(name)
}

// Of many files the second listing compares some at a time. What happens to any of them is seen all the
// same, also at both ends of such a part.
func TestManyFilesThatChangeWhileAnotherIsRead(t *testing.T) {
	const files = 2100
	name := func(i int) string { return fmt.Sprintf("f%04d", i) }
	file := func(time time.Time) *fstest.MapFile { return &fstest.MapFile{Data: []byte("1"), ModTime: time} }
	old, now := time.Unix(1e9, 0), time.Unix(1e9, 1)
	for _, c := range []struct {
		want   string
		change func(state fstest.MapFS, i int) (name string)
	}{
		{"it was removed", func(state fstest.MapFS, i int) string { delete(state, name(i)); return name(i) }},
		{"it was written to", func(state fstest.MapFS, i int) string { state[name(i)] = file(now); return name(i) }},
		{"it was added", func(state fstest.MapFS, i int) string { state[name(i)+"+"] = file(now); return name(i) + "+" }},
		{"", func(fstest.MapFS, int) string { return "" }},
	} {
		for _, i := range []int{1, 998, 999, 1000, 1998, 1999, files - 2} { // the root is found, too
			t.Run(fmt.Sprintf("%d of %d, %q", i, files, c.want), func(t *testing.T) {
				state, changed := fstest.MapFS{}, ""
				for k := range files {
					state[name(k)] = file(old)
				}
				hooked := openFS{state, func(opened string) {
					if opened == name(files-1) && changed == "" { // it is the last to be read
						changed = c.change(state, i)
					}
				}}
				_, err := newTask(t).Save(t.Context(), checkpoint.Snapshot{State: checkpoint.FS(hooked)}, checkpoint.SaveOptions{})
				if c.want == "" {
					if err != nil {
						t.Error(err)
					}
				} else if !errors.Is(err, checkpoint.ErrChanged) || !strings.HasPrefix(err.Error(), changed+": ") || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v; want that %s %s", err, changed, c.want)
				}
			})
		}
	}
}
