package restored

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHolds(t *testing.T) {
	const file = "state.mine"
	for _, c := range []struct {
		name  string
		files []string
		want  bool
		fails string
	}{
		{name: "a new task"},
		{name: "its file", files: []string{file}, want: true},
		{name: "its file and another", files: []string{"a", file}, want: true},
		{name: "the file of another engine", files: []string{"state.other"}, fails: "state.other is, so the state is not of this engine"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range c.files {
				if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := Holds(dir, file)
			if got != c.want || (err != nil) != (c.fails != "") || err != nil && !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%t, %v; want %t and %q", got, err, c.want, c.fails)
			}
		})
	}
	if got, err := Holds(filepath.Join(t.TempDir(), "absent"), file); got || err != nil {
		t.Errorf("an absent directory: %t, %v", got, err)
	}
	if _, err := Holds("", file); err == nil {
		t.Error("a directory without a name is taken")
	}
}
