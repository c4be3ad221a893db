package checkpoint_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/checkpoint/internal/format"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// A forest is a live state of so many files that they take several leaves, and that there is
// no memory for the list of all.
type forest struct {
	*live
	world *world
	files []string
}

func newForest(w *world, files int) *forest {
	f := &forest{live: newLive(w), world: w}
	for i := range files {
		name := fmt.Sprintf("d%02d/f%04d", i/100, i)
		f.files = append(f.files, name)
		f.write(name, fmt.Append(nil, "file ", i))
	}
	settle(w, f.path(f.files[len(f.files)-1]))
	return f
}

// touch writes to a file, or makes it, and waits until the next write has another time.
func (f *forest) touch(name, text string) {
	f.Helper()
	f.write(name, []byte(text))
	settle(f.tester, f.path(name))
}

// save makes a checkpoint of a source, without anything in memory of those before.
func (f *forest) save(from checkpoint.Source) (*checkpoint.Checkpoint, backend.Stats, error) {
	task, job, _ := f.world.open(checkpoint.Options{Memory: 1 << 20, Retention: checkpoint.Retention{Last: checkpoint.KeepAll}})
	c, err := task.Save(f.Context(), checkpoint.Snapshot{State: from}, checkpoint.SaveOptions{})
	return c, job.Stats(), err
}

func (f *forest) mustSave() (*checkpoint.Checkpoint, backend.Stats) {
	f.Helper()
	c, stats, err := f.save(f.source())
	f.must(err)
	return c, stats
}

// leaves returns the leaves of a checkpoint, of which it checks all that is stored.
func (f *forest) leaves(c *checkpoint.Checkpoint) []format.Leaf {
	f.Helper()
	f.wantBack(c)
	s := takeInventory(f.world, f.world.bucket)
	leaves, err := s.account(f.world, c.Seq).leaves(s, f.world.manifest(c.Seq).Checkpoint)
	f.must(err)
	return leaves
}

// inLeaf returns the files of a leaf.
func (f *forest) inLeaf(leaves []format.Leaf, i int) (names []string) {
	for _, name := range f.files {
		if format.ComparePaths(name, leaves[i].First) >= 0 && (i == len(leaves)-1 || format.ComparePaths(name, leaves[i+1].First) < 0) {
			names = append(names, name)
		}
	}
	return names
}

// A save after one of many files has changed reads and stores little of the list of files.
func TestCostFollowsTheChange(t *testing.T) {
	inWorld(t, func(w *world) {
		f := newForest(w, 1500)
		first, _ := f.mustSave()
		leaves := f.leaves(first)
		list := int64(0)
		for _, l := range leaves {
			for _, c := range l.Chunks {
				list += c.Size
			}
		}
		if len(leaves) < 8 || list < 100<<10 {
			t.Fatalf("%d leaves of %d bytes", len(leaves), list)
		}
		f.opened.take()
		same, stats := f.mustSave()
		f.wantOpened()
		if same.NewBytes > 0 || stats.Get.Bytes > 16<<10 {
			t.Errorf("with nothing changed, %d bytes were stored, and %d read", same.NewBytes, stats.Get.Bytes)
		}
		f.touch("d07/f0777", "changed")
		second, stats := f.mustSave()
		f.wantOpened("d07/f0777")
		if second.NewBytes > 20<<10 || stats.Get.Bytes > 40<<10 {
			t.Errorf("after one file changed, %d bytes were stored, and %d read", second.NewBytes, stats.Get.Bytes)
		}
		if now := f.leaves(second); len(now) != len(leaves) {
			t.Errorf("%d leaves, and %d before", len(now), len(leaves))
		}
	})
}

// Whatever is added and removed, leaves begin where those of a first save of the same state
// would begin, and the others are not read.
func TestLeavesBeginWhereTheyBegan(t *testing.T) {
	for name, change := range map[string]func(f *forest, leaves []format.Leaf){
		"the first file of a leaf is removed": func(f *forest, leaves []format.Leaf) { f.must(os.Remove(f.path(f.inLeaf(leaves, 3)[0]))) },
		"a leaf is removed": func(f *forest, leaves []format.Leaf) {
			for _, name := range f.inLeaf(leaves, 3) {
				f.must(os.Remove(f.path(name)))
			}
		},
		"the last leaf is removed": func(f *forest, leaves []format.Leaf) {
			for _, name := range f.inLeaf(leaves, len(leaves)-1) {
				f.must(os.Remove(f.path(name)))
			}
		},
		"a directory is removed": func(f *forest, _ []format.Leaf) { f.must(os.RemoveAll(f.path("d07"))) },
		"all is removed but one file": func(f *forest, _ []format.Leaf) {
			for n := range 15 {
				if n != 7 {
					f.must(os.RemoveAll(f.path(fmt.Sprintf("d%02d", n))))
				}
			}
			for _, name := range f.files[701:800] {
				f.must(os.Remove(f.path(name)))
			}
		},
		"many files are added": func(f *forest, _ []format.Leaf) {
			for n := range 500 {
				f.write(fmt.Sprintf("d07/g%03d", n), fmt.Append(nil, n))
			}
		},
		"files are added before all, and after all": func(f *forest, _ []format.Leaf) {
			f.write("a", []byte("a"))
			f.write("z/z", []byte("z"))
		},
		"a file becomes a directory": func(f *forest, leaves []format.Leaf) {
			name := f.inLeaf(leaves, 3)[0]
			f.must(os.Remove(f.path(name)))
			f.write(name+"/in it", []byte("x"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				f := newForest(w, 1500)
				first, _ := f.mustSave()
				change(f, f.leaves(first))
				f.touch("last", "")
				second, _ := f.mustSave()
				now := f.leaves(second)
				again, _, err := f.save(f.source().Full())
				f.must(err)
				want := f.leaves(again)
				if len(now) != len(want) {
					t.Fatalf("%d leaves; a first save of the same makes %d", len(now), len(want))
				}
				for i := range want {
					if now[i].First != want[i].First || now[i].Files != want[i].Files || now[i].Fingerprint != want[i].Fingerprint {
						t.Errorf("leaf %d is %+v; want %+v", i, now[i], want[i])
					}
				}
			})
		})
	}
}

// What a save does not read is the same at its end, too.
func TestLeavesThatChangeWhileAnotherIsRead(t *testing.T) {
	const other = "d03/f0333" // in a leaf that is not read
	for name, c := range map[string]struct {
		change func(f *forest) error
		want   string // the error; "" for none
	}{
		"a file is written": {func(f *forest) error { return os.WriteFile(f.path(other), []byte("another"), 0o644) }, other + ": changed while it was saved: it was written to"},
		"a file is written in place, and gets its time back": {func(f *forest) error {
			info, err := os.Stat(f.path(other))
			return errors.Join(err, os.WriteFile(f.path(other), []byte("file XXX"), 0o644), os.Chtimes(f.path(other), time.Time{}, info.ModTime()))
		}, other + ": changed while it was saved: it was written to"},
		"a file is removed": {func(f *forest) error { return os.Remove(f.path(other)) }, other + ": changed while it was saved: it was removed"},
		"a file is replaced": {func(f *forest) error {
			return errors.Join(os.WriteFile(f.path("../other"), []byte("file 333"), 0o644), os.Rename(f.path("../other"), f.path(other)))
		}, other + ": changed while it was saved: it was replaced"},
		"a file is added":      {func(f *forest) error { return os.WriteFile(f.path(other+"-"), nil, 0o644) }, other + "-: changed while it was saved: it was added"},
		"a directory is added": {func(f *forest) error { return os.Mkdir(f.path(other+"-"), 0o755) }, other + "-: changed while it was saved: it was added"},
		"a file comes and goes": {func(f *forest) error {
			return errors.Join(os.WriteFile(f.path(other+"-"), nil, 0o644), os.Remove(f.path(other+"-")))
		}, ""},
		"a file gets another name beside its own": {func(f *forest) error { return os.Link(f.path(other), f.path("../linked")) }, ""},
		"a file gets another mode":                {func(f *forest) error { return os.Chmod(f.path(other), 0o600) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				f := newForest(w, 1500)
				f.dir = f.path("state")
				f.must(os.Mkdir(f.dir, 0o755))
				for n := range 15 {
					d := fmt.Sprintf("d%02d", n)
					f.must(os.Rename(f.path("../"+d), f.path(d)))
				}
				f.opened.FS = &agedFS{FS: os.DirFS(f.dir)}
				settle(t, f.dir)
				f.mustSave()
				f.touch("d07/f0777", "another")
				var failed error
				once := func() { failed, c.change = errors.Join(failed, c.change(f)), func(*forest) error { return nil } }
				made, _, err := f.save(checkpoint.FS(whileReading{&agedFS{FS: os.DirFS(f.dir)}, once}))
				f.must(failed)
				if c.want == "" {
					f.must(err)
					f.leaves(made)
					return
				}
				if !errors.Is(err, checkpoint.ErrChanged) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v; want ErrChanged, %q", err, c.want)
				}
			})
		})
	}
}

// If a leaf that a save needs is damaged, or the list of leaves, everything is stored anew.
func TestDamagedLeaves(t *testing.T) {
	for name, chunks := range map[string]func(c *format.Content, leaves []format.Leaf) []format.Chunk{
		"the leaf":           func(_ *format.Content, leaves []format.Leaf) []format.Chunk { return leaves[len(leaves)/2].Chunks },
		"the list of leaves": func(c *format.Content, _ []format.Leaf) []format.Chunk { return c.TreeAt },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				f := newForest(w, 4000)
				first, _ := f.mustSave()
				leaves := f.leaves(first)
				at := chunks(w.manifest(first.Seq).Checkpoint.Content, leaves)[0]
				w.flip(at)
				f.touch(f.inLeaf(leaves, len(leaves)/2)[1], "another")
				second, _ := f.mustSave()
				f.leaves(second)
				if second.NewBytes < first.NewBytes*9/10 {
					t.Errorf("%d bytes were stored anew of %d", second.NewBytes, first.NewBytes)
				}
			})
		})
	}
}

// A file that was renamed is found again, however large the state is.
func TestRenamedFileInAForest(t *testing.T) {
	inWorld(t, func(w *world) {
		f := newForest(w, 1500)
		f.touch("d03/large", string(noise(1<<20)))
		f.mustSave()
		f.must(os.Rename(f.path("d03/large"), f.path("d11/renamed")))
		settle(t, f.path("d11"))
		second, _ := f.mustSave()
		f.leaves(second)
		if second.NewBytes > 64<<10 {
			t.Errorf("%d bytes were stored for a file that was renamed", second.NewBytes)
		}
	})
}

// What is in the manifest of one checkpoint cannot be in the next one's, so the leaves that
// lie there are stored again, and those that refer to it.
func TestLeavesInManifests(t *testing.T) {
	inWorld(t, func(w *world) {
		f := newForest(w, 1500)
		o, _ := w.ownerWith(checkpoint.Options{Memory: 1 << 20, Retention: checkpoint.Retention{Last: checkpoint.KeepAll}})
		commit(w, o, f.snapshot())
		inline := 0
		for n := range 20 {
			f.touch(f.files[n*70], fmt.Sprint("another ", n))
			made := commit(w, o, f.snapshot())
			f.leaves(made)
			if len(w.manifest(made.Seq).Checkpoint.Content.Inline) > 0 {
				inline++
			}
		}
		if inline < 10 {
			t.Errorf("%d of 20 commits have inline data", inline)
		}
	})
}

// The table of a large file that did not change is not read, and its data stays.
func TestTableThatIsNotRead(t *testing.T) {
	inWorld(t, func(w *world) {
		f := newForest(w, 1500)
		f.touch("d03/large", string(noise(4<<20)))
		f.mustSave()
		f.touch("d03/largf", "beside it")
		second, stats := f.mustSave()
		f.leaves(second)
		if table := int64(4 << 20 / (16 << 10) * 36); stats.Get.Bytes > 40<<10 || second.NewBytes > 20<<10 {
			t.Errorf("%d bytes were read and %d stored; the table has %d", stats.Get.Bytes, second.NewBytes, table)
		}
	})
}

// A save relies on what leaves say of their files, so verify looks at it.
func TestVerifyLeavesThatSayTooLittle(t *testing.T) {
	inWorld(t, func(w *world) {
		o, _ := w.owner()
		made := commit(w, o, with(1, 100<<10))
		m := w.manifest(made.Seq)
		leaves, err := format.DecodeLeaves(m.Checkpoint.Content.Tree, m.Checkpoint.Files, m.Checkpoint.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		leaves[0].Uses = nil
		m.Checkpoint.Content.Tree = oneLeaf(w, leaves[0])
		m.Seq, m.Checkpoint.Seq = m.Seq+1, m.Seq+1
		w.put(m)
		r, _ := w.verify(structure)
		if len(r.Damaged) != 1 || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].Error, `leaf "s" has data in segment`) {
			t.Errorf("%+v", r)
		}
	})
}

// What a leaf that is not read needs stays, as long as it is worth keeping. If it is not, the
// leaf is read late, and what it needs is stored again. If that commit fails, the next one
// knows nothing of it. If the leaf turns out to be damaged then, everything is stored anew.
func TestDataOfLeavesThatAreNotRead(t *testing.T) {
	for _, name := range []string{"intact", "damaged"} {
		t.Run(name, func(t *testing.T) { dataOfLeaves(t, name) })
	}
}

func dataOfLeaves(t *testing.T, name string) {
	inWorld(t, func(w *world) {
		f := newForest(w, 1500)
		var leaves []format.Leaf
		var o *checkpoint.Owner
		var store *faultstore.Store
		anew := func() { // an owner that has nothing in memory
			o, store = w.ownerWith(checkpoint.Options{Memory: 1 << 20, Retention: checkpoint.Retention{Last: checkpoint.KeepAll}})
		}
		made := func() *checkpoint.Checkpoint {
			f.Helper()
			c := commit(w, o, f.snapshot())
			leaves = f.leaves(c)
			return c
		}
		data := noise(112 << 10)
		anew()
		made()
		f.touch("d03/gone", string(data[:40<<10]))
		f.touch("d11/stays", string(data[40<<10:52<<10]))
		made() // both are in one segment
		f.touch("d11/other", string(data[82<<10:]))
		made() // and now the leaf of the second one is in another
		f.must(os.Chmod(f.path("d11/other"), 0o600))
		f.touch("d13/third", string(data[52<<10:82<<10]))
		made() // and that one has nothing but what the leaf says that it uses
		anew()
		f.touch("d07/f0777", "beside both")
		made()
		anew()
		f.must(os.Remove(f.path("d03/gone")))
		settle(t, f.path("d03"))
		store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "create", Err: backend.ErrPermission})
		if _, err := o.Commit(w.Context(), f.snapshot()); !errors.Is(err, backend.ErrPermission) {
			t.Fatalf("%v; want ErrPermission", err)
		}
		synctest.Wait()
		store.Disarm()
		if name != "intact" {
			for _, l := range leaves {
				for _, c := range l.Chunks {
					if l.First < "d11/stays" && "d11/stays" < after(leaves, l.First) {
						w.flip(c)
					}
				}
			}
		}
		last := made()
		w.wantWorthKeeping(last.Seq)
		if everything := last.NewBytes > 100<<10; everything != (name != "intact") {
			t.Errorf("%d bytes were stored", last.NewBytes)
		}
		if name != "intact" {
			f.touch("d07/f0777", "and again")
			made()
		}
	})
}

// flip changes a byte of a chunk.
func (w *world) flip(c format.Chunk) {
	key := format.SegmentKey(dir, c.Segment)
	data := w.read(key)
	data[c.Offset] ^= 1
	w.write(key, data)
}

// after returns where the leaf after one begins.
func after(leaves []format.Leaf, first string) string {
	for _, l := range leaves {
		if format.ComparePaths(l.First, first) > 0 {
			return l.First
		}
	}
	return "~"
}

// A leaf that lies in a manifest is stored again with the next checkpoint, though nothing in
// it has changed, and though none of its files lies there.
func TestLeafInAManifest(t *testing.T) {
	inWorld(t, func(w *world) {
		f := newForest(w, 1500)
		first, _ := f.mustSave()
		f.leaves(first)
		f.must(os.Chmod(f.path("d03/f0333"), 0o600))
		settle(t, f.path("d03/f0333"))
		second, _ := f.mustSave()
		f.leaves(second)
		if c := w.manifest(second.Seq).Checkpoint.Content; len(c.Inline) == 0 {
			t.Fatalf("it has no inline data: %+v", c)
		}
		f.must(os.Chmod(f.path("d11/f1111"), 0o600))
		settle(t, f.path("d11/f1111"))
		third, _ := f.mustSave()
		f.leaves(third)
	})
}

// A state that is too large to be known as a whole is restored in parts.
func TestRestoreInParts(t *testing.T) {
	inWorld(t, func(w *world) {
		f := newForest(w, 1500)
		f.touch("d03/large", string(noise(3<<20))) // more than a part
		f.must(os.Symlink("f1111", f.path("d11/link")))
		f.must(os.Mkdir(f.path("d11/none"), 0o555))
		f.touch("d11/empty", "")
		f.must(os.Chtimes(f.path("d05"), time.Time{}, time.Unix(1e9, 5)))
		f.must(os.Chmod(f.path("d05"), 0o500))
		first, _ := f.mustSave()
		f.leaves(first)
		get := func() (*checkpoint.Checkpoint, *checkpoint.Job) {
			task, job, _ := w.open(checkpoint.Options{Memory: 1 << 20})
			c, err := task.Latest(w.Context())
			f.must(err)
			return c, job
		}
		target := filepath.Join(tempDir(w), "state")
		var last checkpoint.Progress
		c, _ := get()
		f.must(c.Restore(w.Context(), target, checkpoint.RestoreOptions{Progress: func(p checkpoint.Progress) { last = p }}))
		wantSame := func(got, want string) {
			f.Helper()
			if got, want := digest(w, os.DirFS(got)), digest(w, os.DirFS(want)); got != want {
				t.Errorf("it is\n%s\nwant\n%s", got, want)
			}
		}
		wantSame(target, f.dir)
		if last.Files != c.Files || last.AllFiles != c.Files || last.Bytes != c.Bytes || last.AllBytes != c.Bytes {
			t.Errorf("%+v, for %d files of %d bytes", last, c.Files, c.Bytes)
		}

		f.must(os.WriteFile(filepath.Join(target, "d03/f0333"), []byte("spoilt"), 0o644))
		f.must(os.Remove(filepath.Join(target, "d03/f0334")))
		f.must(os.WriteFile(filepath.Join(target, "d03/more"), []byte("more"), 0o644))
		c, job := get()
		f.must(c.Restore(w.Context(), target, checkpoint.RestoreOptions{Replace: true}))
		wantSame(target, f.dir)
		if n := job.Stats().Get.Bytes; n > 512<<10 {
			t.Errorf("%d bytes were fetched over the state before", n)
		}

		part := filepath.Join(tempDir(w), "part")
		c, _ = get()
		f.must(c.Restore(w.Context(), part, checkpoint.RestoreOptions{Sub: "d11", Progress: func(p checkpoint.Progress) { last = p }}))
		wantSame(part, f.path("d11"))
		if last.Files != 101 || last.AllFiles != 101 {
			t.Errorf("%+v, want 101 files", last)
		}
		if err := c.Restore(w.Context(), part, checkpoint.RestoreOptions{Sub: "d99", Replace: true}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v; want that there is no such directory", err)
		}
		if err := c.Restore(w.Context(), part, checkpoint.RestoreOptions{FileOwners: true, Replace: true}); !errors.Is(err, checkpoint.ErrFileOwners) {
			t.Errorf("%v; want ErrFileOwners", err)
		}
		wantSame(part, f.path("d11"))

		owned, _, err := f.save(f.source().FileOwners())
		f.must(err)
		f.must(owned.Restore(w.Context(), part, checkpoint.RestoreOptions{FileOwners: true, Replace: true}))
		wantSame(part, f.dir)
	})
}

// After any read of the checkpoint before has failed, the next commit is complete. Beside a
// stream, everything of the one before is read; the table of the large file in two parts.
func TestCommitAfterAReadFailed(t *testing.T) {
	for name, parts := range map[string]func(f *forest, n int) checkpoint.Source{
		"a directory": func(f *forest, n int) checkpoint.Source {
			f.writeAt("d03/large", int64(n)<<20, []byte(fmt.Sprint("changed ", n)))
			return f.source()
		},
		"beside a stream": func(f *forest, n int) checkpoint.Source {
			return checkpoint.Join(map[string]checkpoint.Source{"d": f.source(), "s": checkpoint.Stream("s", strings.NewReader(fmt.Sprint(n)))})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				f := newForest(w, 500)
				f.touch("d03/large", string(noise(24<<20)))
				opts := checkpoint.Options{Memory: 1 << 20, Retention: checkpoint.Retention{Last: 1}}
				made := func(o *checkpoint.Owner, n int) {
					c := commit(w, o, checkpoint.Snapshot{State: parts(f, n)})
					synctest.Wait()
					takeInventory(w, w.bucket).account(w, c.Seq)
				}
				first, _ := w.ownerWith(opts)
				made(first, 0)
				failed := 0
				for n := 1; ; n++ {
					o, store := w.ownerWith(opts)
					f.touch(f.files[400+n], fmt.Sprint("changed ", n))
					store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "get", On: n, Err: backend.ErrPermission})
					_, err := o.Commit(w.Context(), checkpoint.Snapshot{State: parts(f, n)})
					synctest.Wait()
					store.Disarm()
					if err == nil {
						break
					}
					if !errors.Is(err, backend.ErrPermission) {
						t.Fatal(err)
					}
					failed++
					made(o, n)
				}
				if failed < 4 {
					t.Errorf("%d reads have failed", failed)
				}
			})
		})
	}
}

// A large file that is not read, beside one that has changed, is written to during the save.
func TestTabledFileThatChangesBesideAnother(t *testing.T) {
	inWorld(t, func(w *world) {
		f := newForest(w, 1500)
		large := f.files[777] + "-large"
		f.touch(large, string(noise(1<<20)))
		first, _ := f.mustSave()
		f.leaves(first)
		f.touch(f.files[777], "another")
		var failed error
		once := func() {
			info, err := os.Stat(f.path(large))
			failed = errors.Join(failed, err)
			f.writeAt(large, 500<<10, []byte("changed"))
			failed = errors.Join(failed, os.Chtimes(f.path(large), time.Time{}, info.ModTime()))
		}
		state := whileReading{&agedFS{FS: os.DirFS(f.dir)}, func() {
			if once != nil {
				do := once
				once = nil
				do()
			}
		}}
		_, _, err := f.save(checkpoint.FS(state))
		f.must(failed)
		if want := large + ": changed while it was saved: it was written to"; !errors.Is(err, checkpoint.ErrChanged) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want ErrChanged, %q", err, want)
		}
	})
}
