package powerloss

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
)

// text describes a tree in the form "a/ a/f=data".
func text(t Tree) string {
	var words []string
	for _, e := range t {
		if e.Dir {
			words = append(words, e.Path+"/")
		} else {
			words = append(words, fmt.Sprintf("%s=%s", e.Path, strings.ReplaceAll(string(e.Data), "\x00", "0")))
		}
	}
	return strings.Join(words, " ")
}

func texts(trees iter.Seq[Tree]) []string {
	var list []string
	for t := range trees {
		list = append(list, text(t))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func old(path, data string) Entry { return Entry{Path: path, Data: []byte(data)} }

func TestLosses(t *testing.T) {
	for _, c := range []struct {
		name                 string
		old                  Tree
		do                   func(*Disk)
		ordered, independent string // the expected states, separated by "|"
	}{
		{"nothing", Tree{old("f", "x")}, func(*Disk) {}, "f=x", "f=x"},
		{"data", Tree{old("f", "x")}, func(d *Disk) {
			d.Write("f", []byte("ab"))
			d.Write("f", []byte("c"))
		}, "f=x|f=x000|f=xab|f=xabc", "f=x|f=x000|f=xab|f=xabc"},
		{"data, durable", Tree{old("f", "x")}, func(d *Disk) {
			d.Write("f", []byte("a"))
			d.Sync("f")
			d.Write("f", []byte("b"))
		}, "f=xa|f=xa0|f=xab", "f=xa|f=xa0|f=xab"},
		{"the fsync of a file does not cover its name", nil, func(d *Disk) {
			d.Create("f")
			d.Write("f", []byte("x"))
			d.Sync("f")
		}, "|f=x", "|f=x"},
		{"the fsync of a directory does not cover the data of its files", nil, func(d *Disk) {
			d.Create("f")
			d.Write("f", []byte("x"))
			d.SyncDir("")
		}, "f=|f=0|f=x", "f=|f=0|f=x"},
		{"one operation after the other", Tree{old("f", "x")}, func(d *Disk) {
			d.Link("f", "g")
			d.Remove("f")
		}, "f=x|f=x g=x|g=x", "|f=x|f=x g=x|g=x"},
		{"rename over another", Tree{old("f", "x"), old("g", "y")}, func(d *Disk) {
			d.Rename("f", "g")
		}, "f=x g=y|g=x", "f=x g=x|f=x g=y|g=x|g=y"},
		{"rename, durable", Tree{old("f", "x")}, func(d *Disk) {
			d.Rename("f", "g")
			d.SyncDir(".")
		}, "g=x", "g=x"},
		{"across directories", Tree{{Path: "a", Dir: true}, {Path: "b", Dir: true}, old("b/f", "x")}, func(d *Disk) {
			d.Rename("b/f", "a/f")
			d.SyncDir("a")
		}, "a/ a/f=x b/", "a/ a/f=x b/|a/ a/f=x b/ b/f=x"},
		{"an fsync in a journal", Tree{{Path: "a", Dir: true}, {Path: "b", Dir: true}}, func(d *Disk) {
			d.Create("a/1")
			d.Create("b/2")
			d.Create("a/3")
			d.SyncDir("b")
		}, "a/ a/1= a/3= b/ b/2=|a/ a/1= b/ b/2=", "a/ a/1= a/3= b/ b/2=|a/ a/1= b/ b/2=|a/ a/3= b/ b/2=|a/ b/ b/2="},
		{"the fsync of a directory does not cover its own name", nil, func(d *Disk) {
			d.Mkdir("a")
			d.Create("a/f")
			d.SyncDir("a")
		}, "a/ a/f=", "|a/ a/f="},
		{"exchange", Tree{{Path: "a", Dir: true}, old("a/f", "x"), {Path: "b", Dir: true}}, func(d *Disk) {
			d.Exchange("a", "b")
		}, "a/ a/f=x b/|a/ b/ b/f=x", "a/ a/f=x b/|a/ a/f=x b/ b/f=x|a/ b/|a/ b/ b/f=x"},
		{"a name that was used twice", nil, func(d *Disk) {
			d.Create("f")
			d.Write("f", []byte("x"))
			d.Sync("f")
			d.Remove("f")
			d.Create("f")
		}, "|f=|f=x", "|f=|f=x"},
		{"two names of one file", nil, func(d *Disk) {
			d.Create("f")
			d.SyncDir("")
			d.Write("f", []byte("x"))
			d.Link("f", "g")
			d.SyncDir("")
		}, "f= g=|f=0 g=0|f=x g=x", "f= g=|f=0 g=0|f=x g=x"},
		{"together", Tree{{Path: "t", Dir: true}, old("t/0", "x")}, func(d *Disk) {
			d.Together("t")
			d.Create("t/1")
			d.Remove("t/0")
			d.Create("t/2")
			d.Write("t/2", []byte("y"))
			d.Remove("t/1")
		}, "", "t/ t/0=x|t/ t/0=x t/1= t/2=y|t/ t/2=y"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := New(c.old)
			c.do(d)
			for m, want := range map[Model]string{Ordered: c.ordered, Independent: c.independent} {
				if c.name == "together" && m == Ordered {
					continue
				}
				if got := strings.Join(texts(d.Losses(m)), "|"); got != want {
					t.Errorf("model %d: %s\nwant %s", m, got, want)
				}
			}
		})
	}
}

// Each state that Ordered can leave, Independent can leave as well.
func TestOrderedIsOneOfIndependent(t *testing.T) {
	d := New(Tree{{Path: "a", Dir: true}, {Path: "b", Dir: true}, old("b/f", "x")})
	d.Link("b/f", "a/f")
	d.Create("a/g")
	d.SyncDir("b")
	d.Rename("a/g", "b/g")
	d.Remove("b/f")
	d.Write("b/g", []byte("z"))
	all := texts(d.Losses(Independent))
	for _, s := range texts(d.Losses(Ordered)) {
		if !slices.Contains(all, s) {
			t.Errorf("%s", s)
		}
	}
}

func TestMakeAndRead(t *testing.T) {
	want := New(Tree{{Path: "a", Dir: true}, old("a/f", "x"), {Path: "a-b", Dir: true}, old("c", "")}).Now()
	dir := t.TempDir()
	if err := want.Make(dir); err != nil {
		t.Fatal(err)
	}
	got, err := Read(dir)
	if err != nil || got.Key() != want.Key() {
		t.Errorf("%s, %v; want %s", text(got), err, text(want))
	}
	if got := text(want.Without("a")); got != "a-b/ c=" {
		t.Errorf("without a: %s", got)
	}
}

// If a recorder missed an operation, a later one panics.
func TestNonsensePanics(t *testing.T) {
	for name, do := range map[string]func(*Disk){
		"removed twice":                            func(d *Disk) { d.Remove("f"); d.Remove("f") },
		"made twice":                               func(d *Disk) { d.Create("f") },
		"fsync of a missing directory":             func(d *Disk) { d.SyncDir("x") },
		"removal of a directory that is not empty": func(d *Disk) { d.Remove("a") },
		"write to a directory":                     func(d *Disk) { d.Write("a", nil) },
		"creation below a file":                    func(d *Disk) { d.Create("f/x") },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			do(New(Tree{{Path: "a", Dir: true}, old("a/f", ""), old("f", "")}))
		})
	}
}
