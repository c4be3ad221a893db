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
