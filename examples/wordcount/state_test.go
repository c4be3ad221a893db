package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"testing"
)

// A cut holds what was counted before it, and nothing that was counted after
// it; and one can go on from it.
func TestCut(t *testing.T) {
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first"), filepath.Join(dir, "second")
	s := mustOpen(t, filepath.Join(dir, "state"))
	want := make(map[string]uint64)
	add := func(s *state, n int) {
		for i := range n {
			word := fmt.Sprintf("word%d", i%1000)
			if err := s.add([]byte(word)); err != nil {
				t.Fatal(err)
			}
			want[word]++
		}
	}
	add(s, 50_500)
	if err := s.cut(first); err != nil {
		t.Fatal(err)
	}
	atFirst := maps.Clone(want)
	add(s, 30_000)
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	checkCounts(t, first, atFirst)

	want = maps.Clone(atFirst)
	s = mustOpen(t, first)
	add(s, 200)
	if err := s.cut(second); err != nil {
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	checkCounts(t, second, want)
}

func mustOpen(t *testing.T, dir string) *state {
	t.Helper()
	s, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func checkCounts(t *testing.T, dir string, want map[string]uint64) {
	t.Helper()
	got := make(map[string]uint64)
	for c, err := range counts(dir) {
		if err != nil {
			t.Fatal(err)
		}
		got[c.word] = c.n
	}
	if !maps.Equal(got, want) {
		t.Errorf("%s: %d words with wrong counts, such as word0 %d times; want %d", dir, len(got), got["word0"], want["word0"])
	}
}
