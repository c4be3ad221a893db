package testreq

import (
	"os"
	"path/filepath"
	"testing"
)

// fakeT records what is done to it; unlike a real test it goes on after Fatalf
// and Skipf.
type fakeT struct {
	testing.TB
	failed, skipped bool
	cleanup         []func()
}

func (t *fakeT) Helper()               {}
func (t *fakeT) Fatalf(string, ...any) { t.failed = true }
func (t *fakeT) Skipf(string, ...any)  { t.skipped = true }
func (t *fakeT) Failed() bool          { return t.failed }
func (t *fakeT) Skipped() bool         { return t.skipped }
func (t *fakeT) Cleanup(f func())      { t.cleanup = append(t.cleanup, f) }

func (t *fakeT) end() {
	for _, f := range t.cleanup {
		f()
	}
}

func TestSkip(t *testing.T) {
	for _, c := range []struct {
		name, require string
		fails         bool
	}{
		{"nothing required", "", false},
		{"another required", "local,mem", false},
		{"a longer name required", "s3express", false},
		{"the only one required", "s3", true},
		{"one of several required", "local,s3,mem", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(requireVar, c.require)
			fake := &fakeT{}
			Skip(fake, "s3", "no server")
			if fake.failed != c.fails {
				t.Errorf("failed = %v, want %v", fake.failed, c.fails)
			}
			if !c.fails && !fake.skipped {
				t.Error("neither failed nor skipped")
			}
		})
	}
}

func TestSuite(t *testing.T) {
	for _, c := range []struct {
		name string
		t    fakeT
		want string
	}{
		{"passed", fakeT{}, "mem\ns3\n"},
		{"failed", fakeT{failed: true}, "mem\n"},
		{"skipped", fakeT{skipped: true}, "mem\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "ran")
			t.Setenv(ranVar, file)
			if err := note(file, "mem"); err != nil {
				t.Fatal(err)
			}
			Suite(&c.t, "s3")
			c.t.end()
			got, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.want {
				t.Errorf("noted %q, want %q", got, c.want)
			}
		})
	}
}
