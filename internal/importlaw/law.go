// Package importlaw holds the law of which packages may import which, and what
// they may reach through others. Its test checks the module against it, for
// each operating system that is supported. Test code is not bound by it.
//
// A program links what its imports reach. So the law also says that a program
// which imports only one driver links no SDK but that driver's.
package importlaw

import (
	"fmt"
	"slices"
	"strings"
)

const module = "github.com/holdfast-io/holdfast"

// A tree is a directory below the module's root with all packages in it,
// except those below a directory that is a tree of its own.
type tree struct {
	dir string
	may []string // trees that it may import besides itself; what these import is theirs to answer for
	not []string // what it may not reach outside the module, through whatever: paths, each with all below it
	why string
}

const everything = "*" // as an element of not

var (
	aws     = []string{"github.com/aws"}
	google  = []string{"cloud.google.com", "google.golang.org", "github.com/googleapis", "github.com/GoogleCloudPlatform"}
	clients = []string{"cloud.google.com", "google.golang.org/api", "google.golang.org/grpc", "github.com/googleapis"} // of google
	gocloud = []string{"gocloud.dev"}
	sdks    = slices.Concat(aws, google, gocloud)

	// The second is OpenTelemetry's registry of global providers, which logs and
	// speaks HTTP.
	otelSDK = []string{"go.opentelemetry.io/otel/sdk", "go.opentelemetry.io/otel/internal/global"}

	// How metrics leave a program is the program's to choose. (Google's SDK and Pebble have
	// something of both.)
	exporters = []string{"go.opentelemetry.io/otel/exporters", "github.com/prometheus"}

	databases = []string{"github.com/cockroachdb", "go.etcd.io/bbolt"}
	heavy     = slices.Concat(sdks, databases, otelSDK, exporters)
)

// law has a row for every tree of the module: an idea without a place in the
// layers is one that nobody has thought about. That cmd and examples appear
// under no other tree's may makes them the ends of the graph.
var law = []tree{
	{"backend", nil, []string{everything},
		"the contract takes nothing but the standard library with it"},
	{"s3", []string{"backend", "internal/httpclient"}, slices.Concat(google, gocloud, databases),
		"a driver knows its own SDK, the contract and nothing else of this module"},
	{"gcs", []string{"backend", "internal/httpclient"}, slices.Concat(aws, databases), // its SDK comes with gocloud.dev's wrapper
		"a driver knows its own SDK, the contract and nothing else of this module"},
	{"internal/httpclient", nil, []string{everything},
		"what the drivers share is HTTP alone: no vendor, and no store"},
	{"local", []string{"backend", "internal/filelock"}, heavy,
		"a program that keeps its checkpoints on disk links no cloud SDK"},
	{"conformance", []string{"backend"}, heavy,
		"the suite knows the contract, and no driver"},
	{"checkpoint", append([]string{"backend", "internal/atomicdir", "internal/filelock", "internal/filetimes", "internal/holes"}, rooms...), heavy,
		"the engine sees stores through the contract alone"},
	{"checkpoint/internal/history", []string{"backend", "checkpoint/internal/cause", "checkpoint/internal/clock", "checkpoint/internal/format", "checkpoint/internal/segment"}, heavy,
		"the chain of manifests knows no files, and not what a checkpoint's data is"},
	{"checkpoint/internal/segment", []string{"backend", "checkpoint/internal/codec", "checkpoint/internal/format"}, heavy,
		"it reads what lies in segments, and knows neither histories nor files"},
	{"checkpoint/internal/catalog", []string{"checkpoint/internal/format"}, heavy,
		"it holds where chunks lie, in memory"},
	{"checkpoint/internal/cause", []string{"checkpoint/internal/format"}, heavy,
		"the errors of all rooms stand below all of them"},
	{"checkpoint/internal/clock", nil, []string{everything},
		"times are compared, whatever they are of"},
	{"checkpoint/internal/codec", []string{"checkpoint/internal/format"}, heavy,
		"it compresses bytes"},
	{"checkpoint/internal/cut", []string{"checkpoint/internal/format"}, heavy,
		"it cuts bytes"},
	{"checkpoint/internal/format", []string{"backend"}, heavy,
		"what is in the store is described without the code that puts it there"},
	{"internal/atomicdir", []string{"internal/filelock"}, heavy,
		"directories are the operating system's"},
	{"runner", []string{"checkpoint", "backend", "internal/filelock"}, heavy,
		"it stands on the engine and locks its run directories; of OpenTelemetry it knows the API, and the program chooses the SDK"},
	{"engines", []string{"runner", "checkpoint", "internal/filelock", "internal/filetimes", "internal/holes"}, slices.Concat(aws, clients, gocloud), // Pebble takes protobuf along
		"an engine knows its database and no store; only a program that uses that database links it"},
	{"cmd", []string{"engines", "runner", "checkpoint", "conformance", "backend", "s3", "gcs", "local", "internal", "internal/filelock", "internal/filetimes"}, databases,
		"a command stands on the layers, not on examples, and knows no database; it alone chooses how metrics leave the program"},
	{"examples", []string{"engines", "runner", "checkpoint", "backend", "s3", "gcs", "local"}, nil,
		"an example uses what any host program may use"},
	{"bench", []string{"engines", "runner", "checkpoint", "backend", "s3", "gcs", "local", "internal", "internal/filelock"}, nil,
		"a benchmark compares with other people's programs; nothing imports it"},
	{"internal/filetimes", nil, heavy,
		"when a file's times can be relied on is the file system's to say"},
	{"internal/holes", []string{"internal/filetimes"}, heavy,
		"which parts of a file have no data is the file system's to say"},
	{"internal/filelock", nil, heavy,
		"a lock on a file is of use below every layer, so it knows none of them"},
	{"internal", []string{"internal/filelock", "internal/filetimes", "runner", "checkpoint", "conformance", "backend", "s3", "gcs", "local"}, databases,
		"what the layers may use of internal, they name"},
}

// rooms are the packages inside the engine.
var rooms = []string{
	"checkpoint/internal/catalog", "checkpoint/internal/cause", "checkpoint/internal/clock", "checkpoint/internal/codec",
	"checkpoint/internal/cut", "checkpoint/internal/format", "checkpoint/internal/history", "checkpoint/internal/segment",
}

// A ban keeps packages of the standard library out of a directory. It is about what the
// packages there import themselves: in the end, everything imports os.
type ban struct {
	dir string
	not []string
	why string
}

var bans = []ban{
	{"checkpoint/internal/history", []string{"os", "path/filepath"}, "the chain of manifests knows no files"},
	{"checkpoint/internal/segment", []string{"os", "path/filepath"}, "segments are in the store"},
}

// A pkg is what `go list -json` says of a package.
type pkg struct {
	ImportPath string
	Standard   bool
	Imports    []string
}

// violations returns one line for each way in which pkgs, which must be
// complete with their dependencies, break the law.
func violations(law []tree, bans []ban, pkgs []pkg) []string {
	byPath := make(map[string]pkg)
	for _, p := range pkgs {
		byPath[p.ImportPath] = p
	}
	var found []string
	for _, p := range pkgs {
		dir, ours := dirOf(p.ImportPath)
		if !ours {
			continue
		}
		t, ok := treeOf(law, dir)
		if !ok {
			found = append(found, fmt.Sprintf("%s has no row in the law of imports: add one", p.ImportPath))
			continue
		}
		for _, chain := range t.forbidden(law, p, byPath) {
			found = append(found, strings.Join(chain, " -> ")+": "+t.why)
		}
		for _, b := range bans {
			for _, path := range p.Imports {
				if within(dir, b.dir) && slices.Contains(b.not, path) {
					found = append(found, fmt.Sprintf("%s -> %s: %s", p.ImportPath, path, b.why))
				}
			}
		}
	}
	return found
}

// forbidden returns the shortest chains of imports that lead from p, a package
// of t, to what t forbids. It does not look beyond: an SDK has a hundred
// packages, and the first says enough.
func (t tree) forbidden(law []tree, p pkg, byPath map[string]pkg) (chains [][]string) {
	seen := map[string]bool{p.ImportPath: true}
	queue := [][]string{{p.ImportPath}}
	for len(queue) > 0 {
		chain := queue[0]
		queue = queue[1:]
		for _, path := range byPath[chain[len(chain)-1]].Imports {
			if seen[path] || path == "C" || byPath[path].Standard {
				continue
			}
			seen[path] = true
			next := append(slices.Clip(chain), path)
			// Another tree's import of a third one is judged by its own row.
			_, ours := dirOf(path)
			if ours && len(chain) > 1 || t.allows(law, path) {
				queue = append(queue, next)
			} else {
				chains = append(chains, next)
			}
		}
	}
	return chains
}

// allows reports whether packages of t may import the package at path, which is
// not in the standard library.
func (t tree) allows(law []tree, path string) bool {
	if dir, ours := dirOf(path); ours {
		other, ok := treeOf(law, dir)
		return ok && (other.dir == t.dir || slices.Contains(t.may, other.dir))
	}
	return !slices.ContainsFunc(t.not, func(root string) bool {
		return root == everything || within(path, root)
	})
}

// treeOf returns the tree to which a directory of this module belongs: the row
// that matches the longest part of it.
func treeOf(law []tree, dir string) (best tree, ok bool) {
	for _, t := range law {
		if within(dir, t.dir) && len(t.dir) > len(best.dir) {
			best, ok = t, true
		}
	}
	return best, ok
}

// dirOf returns the directory of a package of this module, below its root.
func dirOf(path string) (dir string, ours bool) {
	if path == module {
		return "", true
	}
	return strings.CutPrefix(path, module+"/")
}

func within(path, root string) bool {
	return path == root || strings.HasPrefix(path, root+"/")
}
