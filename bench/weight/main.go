// Command weight says what each driver adds to a program: packages that it
// links, outside the standard library, and bytes. It prints a table in
// Markdown, whose first row is the program without any:
//
//	go run ./bench/weight
//
// The first run compiles everything, which takes some minutes.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
)

const module = "github.com/holdfast-io/holdfast"

// programs take the engine and what they import, and do nothing with it.
var programs = []struct {
	name    string
	imports []string
	tags    string
}{
	{"engine", nil, ""},
	{"engine, `local`", []string{"local"}, ""},
	{"engine, `s3`", []string{"s3"}, ""},
	{"engine, `gcs`", []string{"gcs"}, ""},
	{"engine, `gcs`, `-tags disable_grpc_modules`", []string{"gcs"}, "disable_grpc_modules"},
	{"engine, all three", []string{"local", "s3", "gcs"}, ""},
	{"engine, all three, `-tags disable_grpc_modules`", []string{"local", "s3", "gcs"}, "disable_grpc_modules"},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "weight:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "holdfast-weight-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	fmt.Println("| program | packages | MiB | MiB with `-ldflags='-s -w'` |\n| --- | --- | --- | --- |")
	for _, p := range programs {
		packages, whole, stripped, err := weigh(ctx, dir, p.imports, p.tags)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Printf("| %s | %d | %.1f | %.1f |\n", p.name, packages, whole, stripped)
	}
	return nil
}

// weigh builds a program that exists in an overlay of this module alone.
func weigh(ctx context.Context, dir string, imports []string, tags string) (packages int, whole, stripped float64, err error) {
	overlay, err := lay(ctx, dir, imports)
	if err != nil {
		return 0, 0, 0, err
	}
	flags := []string{"-overlay=" + overlay, "-tags=" + tags}
	const program = module + "/bench/weight/program"
	out, err := goCommand(ctx, append(append([]string{"list", "-deps", "-f={{if not .Standard}}{{.ImportPath}}{{end}}"}, flags...), program))
	if err != nil {
		return 0, 0, 0, err
	}
	packages = len(strings.Fields(out)) - 1 // the program itself
	for _, build := range []struct {
		ldflags string
		size    *float64
	}{{"", &whole}, {"-s -w", &stripped}} {
		file := filepath.Join(dir, "program")
		if _, err := goCommand(ctx, append(append([]string{"build", "-trimpath", "-ldflags=" + build.ldflags, "-o", file}, flags...), program)); err != nil {
			return 0, 0, 0, err
		}
		info, err := os.Stat(file)
		if err != nil {
			return 0, 0, 0, err
		}
		*build.size = float64(info.Size()) / (1 << 20)
	}
	return packages, whole, stripped, nil
}

func lay(ctx context.Context, dir string, imports []string) (overlay string, err error) {
	source := "package main\n\nimport (\n\t\"context\"\n\t\"os\"\n\t\"" + module + "/checkpoint\"\n"
	for _, i := range imports {
		source += "\t_ \"" + module + "/" + i + "\"\n"
	}
	source += ")\n\nfunc main() { checkpoint.Open(context.Background(), os.Args[1], checkpoint.Options{}) }\n"
	file, overlay := filepath.Join(dir, "main.go"), filepath.Join(dir, "overlay.json")
	root, err := goCommand(ctx, []string{"list", "-m", "-f={{.Dir}}"})
	if err != nil {
		return "", err
	}
	place := filepath.Join(strings.TrimSpace(root), "bench", "weight", "program", "main.go")
	text, err := json.Marshal(map[string]map[string]string{"Replace": {place: file}})
	if err != nil {
		return "", err
	}
	return overlay, errors.Join(os.WriteFile(file, []byte(source), 0o600), os.WriteFile(overlay, text, 0o600))
}

func goCommand(ctx context.Context, args []string) (string, error) {
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, &stderr)
	}
	return string(out), nil
}
