package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"strings"
	"testing"
)

var module = os.DirFS("../..")

// A mistake that does not apply any more, or whose tests are gone, would show
// nothing.
func TestMistakesApply(t *testing.T) {
	seen := make(map[string]bool)
	tests := make(map[string]map[string]bool)
	for _, m := range mistakes() {
		t.Run(path.Base(m.file)+": "+m.name, func(t *testing.T) {
			if key := m.file + m.name; seen[key] {
				t.Error("it is there twice")
			} else {
				seen[key] = true
			}
			source, err := fs.ReadFile(module, m.file)
			if err != nil {
				t.Fatal(err)
			}
			wrong, err := m.apply(string(source))
			if err != nil {
				t.Fatal(err)
			}
			if wrong == string(source) || m.name == "" || m.breaks == "" || len(m.tests) == 0 {
				t.Errorf("it is incomplete: %+v", m)
			}
			if _, err := parser.ParseFile(token.NewFileSet(), m.file, wrong, parser.SkipObjectResolution); err != nil {
				t.Error(err)
			}
			for _, f := range m.tests {
				if tests[f.pkg] == nil {
					tests[f.pkg] = testsOf(t, f.pkg)
				}
				for _, name := range f.names {
					if !tests[f.pkg][name] {
						t.Errorf("package %s has no %s", f.pkg, name)
					}
				}
			}
		})
	}
}

// All mistakes of a file can be made in one copy.
func TestMistakesCombine(t *testing.T) {
	byFile := make(map[string][]numbered)
	for i, m := range mistakes() {
		byFile[m.file] = append(byFile[m.file], numbered{m, i + 1})
	}
	for name, all := range byFile {
		t.Run(name, func(t *testing.T) {
			source, err := fs.ReadFile(module, name)
			if err != nil {
				t.Fatal(err)
			}
			combined, made, left, err := combine(string(source), all)
			if err != nil || len(made)+len(left) != len(all) {
				t.Fatalf("%d and %d of %d, %v", len(made), len(left), len(all), err)
			}
			if _, err := parser.ParseFile(token.NewFileSet(), name, combined, 0); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCombine(t *testing.T) {
	const source = `package p

import "fmt"

const limit = 3

// f adds.
func (s *sum[T]) f(a, b T, _ int, more ...T) (n T, err error) {
	return a + b, nil
}

func g[T any](T) { fmt.Println(limit) }
`
	combined, made, left, err := combine(source, []numbered{
		{mistake{old: "a + b", new: "a - b"}, 1},
		{mistake{old: "limit = 3", new: "limit = 4"}, 2},
		{mistake{old: "Println(limit)", new: "Print(limit)"}, 3},
		{mistake{old: ", nil", new: ", err"}, 7},
	})
	const want = `package p; import number_ "github.com/holdfast-io/holdfast/internal/mutate/number"

import "fmt"

const limit = 3

// f adds.
func (s *sum[T]) f_right(a, b T, _ int, more ...T) (n T, err error) {
	return a + b, nil
}

func g_right[T any](T) { fmt.Println(limit) }

func (s *sum[T]) f_wrong1(a, b T, _ int, more ...T) (n T, err error) {
	return a - b, nil
}

func (s *sum[T]) f_wrong7(a, b T, _ int, more ...T) (n T, err error) {
	return a + b, err
}

func (r_ *sum[T]) f(p0_ T, p1_ T, p2_ int, p3_ ...T) (n T, err error) {
	switch number_.Of {
	case 1:
		return r_.f_wrong1(p0_, p1_, p2_, p3_...)
	case 7:
		return r_.f_wrong7(p0_, p1_, p2_, p3_...)
	}
	return r_.f_right(p0_, p1_, p2_, p3_...)
}

func g_wrong3[T any](T) { fmt.Print(limit) }

func g[T any](p0_ T) {
	switch number_.Of {
	case 3:
		g_wrong3[T](p0_)
		return
	}
	g_right[T](p0_)
}
`
	if err != nil || len(made) != 3 || len(left) != 1 || left[0].new != "limit = 4" {
		t.Fatalf("%v, %v, %v", made, left, err)
	}
	if combined != want {
		t.Errorf("it is\n%s\nwant\n%s", combined, want)
	}
}

// testsOf returns the tests that a package declares.
func testsOf(t *testing.T, pkg string) map[string]bool {
	t.Helper()
	files, err := fs.Glob(module, pkg+"/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	tests := make(map[string]bool)
	for _, name := range files {
		source, err := fs.ReadFile(module, name)
		if err != nil {
			t.Fatal(err)
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && strings.HasPrefix(f.Name.Name, "Test") {
				tests[f.Name.Name] = true
			}
		}
	}
	return tests
}

func TestFirstFailure(t *testing.T) {
	for name, c := range map[string]struct{ output, test, said string }{
		"a test": {"--- FAIL: TestA (0.10s)\n    a_test.go:7: got 1\n    a_test.go:8: got 2\nFAIL\n", "TestA", "got 1"},
		"a subtest": {
			"--- FAIL: TestA (0.10s)\n    --- FAIL: TestA/b_c (0.00s)\n        a_test.go:7: got 1\n    --- FAIL: TestA/d (0.00s)\n        a_test.go:7: got 2\n",
			"TestA/b_c", "got 1",
		},
		"a panic":        {"--- FAIL: TestA (0.10s)\npanic: oh [recovered]\n\ngoroutine 7\n\ta.go:7 +0x1\n", "TestA", "panic: oh [recovered]"},
		"a bare panic":   {"panic: oh\n\ngoroutine 7 [running]:\nexample.org/a_test.TestA.func1(0x1)\n\ta.go:7 +0x1\n", "TestA", "panic: oh"},
		"a hang":         {"panic: test timed out after 3m0s\n\trunning tests:\n\t\tTestA (3m0s)\n\n", "TestA", "panic: test timed out after 3m0s"},
		"without a test": {"goleak: Errors on successful test run: found unexpected goroutines\n", "all", "goleak: Errors on successful test run: found unexpected goroutines"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := firstFailure(c.output); got.test != c.test || got.said != c.said {
				t.Errorf("%+v, want %s: %s", got, c.test, c.said)
			}
		})
	}
}

func TestCell(t *testing.T) {
	if got := cell("a|b\t<c>" + strings.Repeat("é", 200)); got != `a\|b \<c>`+strings.Repeat("é", 143)+"…" {
		t.Error(got)
	}
}
