package local

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func BenchmarkCreate2KiB(b *testing.B) {
	s := openStore(b, b.TempDir())
	data := make([]byte, 2<<10)
	b.SetBytes(int64(len(data)))
	for i := 0; b.Loop(); i++ {
		if _, err := s.Create(b.Context(), fmt.Sprintf("task/manifests/%016x", i), data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPut16MiB(b *testing.B) {
	s := openStore(b, b.TempDir())
	data := make([]byte, 16<<20)
	b.SetBytes(int64(len(data)))
	for i := 0; b.Loop(); i++ {
		if _, err := s.Put(b.Context(), fmt.Sprintf("task/segments/%d", i%8), data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet2KiB(b *testing.B) {
	s := openStore(b, b.TempDir())
	p := make([]byte, 2<<10)
	if _, err := s.Create(b.Context(), "task/manifests/1", p); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if _, err := s.Get(b.Context(), "task/manifests/1", 0, p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkListOneOf100000(b *testing.B) {
	dir := b.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "task/manifests"), 0o777); err != nil {
		b.Fatal(err)
	}
	for i := range 100_000 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("task/manifests/%016x", i)), nil, 0o666); err != nil {
			b.Fatal(err)
		}
	}
	s := openStore(b, dir)
	for b.Loop() {
		for o, err := range s.List(b.Context(), "task/manifests/", "") {
			if err != nil || o.Key != "task/manifests/0000000000000000" {
				b.Fatal(o, err)
			}
			break
		}
	}
}
