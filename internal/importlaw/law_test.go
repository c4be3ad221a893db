package importlaw

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

func TestModule(t *testing.T) {
	for _, goos := range []string{"linux", "darwin", "windows"} {
		t.Run(goos, func(t *testing.T) {
			for _, v := range violations(law, bans, list(t, goos)) {
				t.Error(v)
			}
		})
	}
}

// TestRowsMatch keeps the rows honest: one for a tree that does not exist
// checks nothing. Trees still to come stand in .ci/pending.
func TestRowsMatch(t *testing.T) {
	exists := make(map[string]bool)
	for _, p := range list(t, "linux") {
		if dir, ours := dirOf(p.ImportPath); ours {
			tree, _ := treeOf(law, dir)
			exists[tree.dir] = true
		}
	}
	pending := readPending(t)
	for _, tree := range law {
		switch waiting := slices.Contains(pending, tree.dir); {
		case exists[tree.dir] && waiting:
			t.Errorf("%s exists: take it off .ci/pending", tree.dir)
		case !exists[tree.dir] && !waiting:
			t.Errorf("%s has a row in the law of imports but no packages", tree.dir)
		}
	}
}

// list returns the module's packages and all that they depend on.
func list(t *testing.T, goos string) []pkg {
	t.Helper()
	watchSources(t)
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Standard,Imports", "./...")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, &stderr)
	}
	var pkgs []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// watchSources reads the module's directories, so that go test does not answer
// from its cache once a file in them has changed: it cannot know what the go
// command reads on behalf of a test.
func watchSources(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == ".git" {
			return fs.SkipDir
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func readPending(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, ".ci", "pending"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // everything is there
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text))
}

func TestViolations(t *testing.T) {
	// A small law over a small module.
	small := []tree{
		{"base", nil, []string{everything}, "bare"},
		{"top", []string{"base"}, []string{"sdk.example"}, "no SDK"},
		{"side", nil, nil, "apart"},
		{"end", []string{"top"}, nil, "the end"},
	}
	smallBans := []ban{{"side", []string{"os"}, "no files"}}
	const base, top, side, end = module + "/base", module + "/top", module + "/side", module + "/end"
	outside := []pkg{
		{"io", true, []string{"vendor/x"}},
		{"os", true, nil},
		{"lib.example/a", false, []string{"lib.example/b", "io"}},
		{"lib.example/b", false, []string{"sdk.example/deep"}},
		{"sdk.example/deep", false, []string{"sdk.example/deeper"}},
		{"sdk.example/deeper", false, nil},
		{"sdk.example.org/other", false, nil},
	}
	for _, c := range []struct {
		name string
		pkgs []pkg
		want []string
	}{
		{"lawful", []pkg{
			{base, false, []string{"io"}},
			{base + "/sub", false, []string{base}},
			{top, false, []string{base + "/sub", "io", "C", "sdk.example.org/other"}},
			{end, false, []string{top}},
		}, nil},
		{"third party where only the standard library is allowed", []pkg{
			{base, false, []string{"sdk.example.org/other"}},
		}, []string{base + " -> sdk.example.org/other: bare"}},
		{"an SDK", []pkg{
			{top, false, []string{"sdk.example/deep"}},
		}, []string{top + " -> sdk.example/deep: no SDK"}},
		{"an SDK behind two libraries", []pkg{
			{top, false, []string{"lib.example/a"}},
		}, []string{top + " -> lib.example/a -> lib.example/b -> sdk.example/deep: no SDK"}},
		{"upwards", []pkg{
			{base, false, []string{top}},
			{top, false, nil},
		}, []string{base + " -> " + top + ": bare"}},
		{"an SDK behind two trees", []pkg{
			{top, false, []string{base}},
			{base, false, []string{"sdk.example/deep"}},
		}, []string{
			top + " -> " + base + " -> sdk.example/deep: no SDK",
			base + " -> sdk.example/deep: bare",
		}},
		{"a tree that only another may import", []pkg{
			{end, false, []string{base}},
			{base, false, nil},
		}, []string{end + " -> " + base + ": the end"}},
		{"an end of the graph", []pkg{
			{top, false, []string{end + "/sub"}},
			{end + "/sub", false, nil},
		}, []string{top + " -> " + end + "/sub: no SDK"}},
		{"sideways and upwards", []pkg{
			{side, false, []string{base}},
			{base, false, []string{top}},
			{top, false, nil},
		}, []string{side + " -> " + base + ": apart", base + " -> " + top + ": bare"}},
		{"a package of the standard library that is banned", []pkg{
			{side + "/sub", false, []string{"io", "os"}},
			{top, false, []string{"os"}},
		}, []string{side + "/sub -> os: no files"}},
		{"a package without a row", []pkg{
			{module + "/basement", false, nil},
		}, []string{module + "/basement has no row in the law of imports: add one"}},
		{"use of a package without a row", []pkg{
			{top, false, []string{module}},
		}, []string{top + " -> " + module + ": no SDK"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := violations(small, smallBans, slices.Concat(c.pkgs, outside))
			if !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

// TestPrograms says the same of whole programs: one that takes the engine and
// a driver links no SDK but that driver's.
func TestPrograms(t *testing.T) {
	pkgs := make(map[string]pkg)
	for _, p := range list(t, "linux") {
		pkgs[p.ImportPath] = p
	}
	for _, c := range []struct {
		imports []string
		no      []string
	}{
		{[]string{"backend/mem"}, []string{everything}},
		{[]string{"checkpoint", "local"}, sdks},
		{[]string{"checkpoint", "s3"}, slices.Concat(google, gocloud)},
		{[]string{"checkpoint", "gcs"}, aws},
	} {
		program := pkg{ImportPath: module + "/program"}
		for _, dir := range c.imports {
			path := module + "/" + dir
			if _, ok := pkgs[path]; !ok {
				t.Fatalf("there is no package %s", path)
			}
			program.Imports = append(program.Imports, path)
		}
		pkgs[program.ImportPath] = program
		anyOfOurs := tree{not: c.no}
		var rows []tree
		for path := range pkgs {
			if dir, ours := dirOf(path); ours {
				rows = append(rows, tree{dir: dir})
				anyOfOurs.may = append(anyOfOurs.may, dir)
			}
		}
		for _, chain := range anyOfOurs.forbidden(rows, program, pkgs) {
			t.Errorf("a program that imports %s links %s", strings.Join(c.imports, " and "), strings.Join(chain, " -> "))
		}
	}
}

// TestLaw states what the table must come to, in case a row is edited.
func TestLaw(t *testing.T) {
	for i, row := range law {
		if first := slices.IndexFunc(law, func(r tree) bool { return r.dir == row.dir }); first != i {
			t.Errorf("%s has two rows", row.dir)
		}
		for _, dir := range row.may {
			if !slices.ContainsFunc(law, func(r tree) bool { return r.dir == dir }) {
				t.Errorf("%s may import %s, which has no row", row.dir, dir)
			}
		}
	}
	const aws, google = "github.com/aws/aws-sdk-go-v2/service/s3", "cloud.google.com/go/storage"
	for _, c := range []struct {
		from, to string
		allowed  bool
	}{
		{"s3", aws, true},
		{"s3", google, false},
		{"s3", "google.golang.org/grpc", false},
		{"s3", "gocloud.dev/blob", false},
		{"s3", "github.com/googleapis/gax-go/v2", false},
		{"gcs", google, true},
		{"gcs", "gocloud.dev/blob/gcsblob", true},
		{"gcs", aws, false},
		{"local", aws, false},
		{"local", google, false},
		{"local", "golang.org/x/sys/unix", true},
		{"backend", "golang.org/x/sys/unix", false},
		{"checkpoint", aws, false},
		{"runner", google, false},
		{"runner", "go.opentelemetry.io/otel/trace", true},
		{"runner", "go.opentelemetry.io/otel/sdk/metric", false},
		{"runner", "go.opentelemetry.io/otel/exporters/prometheus", false},
		{"checkpoint", "github.com/prometheus/client_golang/prometheus", false},
		{"cmd", "go.opentelemetry.io/otel/exporters/prometheus", true},
		{"checkpoint/internal/history", module + "/checkpoint", false},
		{"checkpoint/internal/history", module + "/checkpoint/internal/catalog", false},
		{"checkpoint/internal/history", module + "/checkpoint/internal/cut", false},
		{"checkpoint/internal/segment", module + "/checkpoint/internal/history", false},
		{"checkpoint", "gocloud.dev/blob", false},
		{"s3", module + "/checkpoint", false},
		{"gcs", module + "/s3", false},
		{"local", module + "/runner", false},
		{"checkpoint", module + "/local", false},
		{"checkpoint", module + "/runner", false},
		{"runner", module + "/checkpoint", true},
		{"cmd", module + "/examples/wordcount", false},
		{"examples", module + "/cmd/holdfast/cli", false},
		{"internal", module + "/cmd/holdfast/cli", false},
		{"cmd", module + "/s3", true},
	} {
		from, ok := treeOf(law, c.from)
		if !ok {
			t.Errorf("%s has no row", c.from)
			continue
		}
		if got := from.allows(law, c.to); got != c.allowed {
			t.Errorf("%s may import %s: %v, want %v", c.from, c.to, got, c.allowed)
		}
	}
}
