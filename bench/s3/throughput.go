package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/internal/gobuild"
)

const fileSize = 32 << 20

// makeFiles writes what is copied. It stays in the page cache, if that is
// large enough.
func (b *bench) makeFiles() error {
	if err := os.MkdirAll(b.source, 0o755); err != nil {
		return err
	}
	data := make([]byte, fileSize)
	for i := range b.files {
		if _, err := rand.Read(data); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(b.source, fmt.Sprintf("file-%03d", i)), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// A contender is a program that copies a directory to the server and back.
type contender struct {
	name     string
	put, get func(ctx context.Context, from, to string) (*exec.Cmd, error) // one of them a directory, one a path in the bucket
}

// own returns this program, run as a child like the others, with URL
// parameters.
func (b *bench) own(parameters ...string) []contender {
	var cs []contender
	for _, p := range parameters {
		command := func(verb string) func(context.Context, string, string) (*exec.Cmd, error) {
			return func(ctx context.Context, from, to string) (*exec.Cmd, error) {
				self, err := os.Executable()
				place, dir := to, from
				if verb == "get" {
					place, dir = from, to
				}
				url := b.server.URL(bucket, place) + p
				return exec.CommandContext(ctx, self, "-parallel", fmt.Sprint(b.parallel), verb, url, dir), err
			}
		}
		cs = append(cs, contender{strings.TrimSpace("holdfast " + strings.TrimPrefix(p, "&")), command("put"), command("get")})
	}
	return cs
}

// others returns the programs to compare with, each with as many transfers at
// a time as this one, except for mc, which chooses for itself, and with its
// defaults otherwise.
func (b *bench) others() []contender {
	return []contender{
		b.other(rclone, "", func(from, to string) []string { return b.rcloneArgs(from, ":s3:"+bucket+"/"+to) },
			func(from, to string) []string { return b.rcloneArgs(":s3:"+bucket+"/"+from, to) }),
		b.other(rclone, " without hashes", func(from, to string) []string {
			return append(b.rcloneArgs(from, ":s3:"+bucket+"/"+to), rcloneBare...)
		}, func(from, to string) []string { return append(b.rcloneArgs(":s3:"+bucket+"/"+from, to), rcloneBare...) }),
		b.other(s5cmd, "", func(from, to string) []string { return b.s5cmdArgs(from+"/*", "s3://"+bucket+"/"+to+"/") },
			func(from, to string) []string { return b.s5cmdArgs("s3://"+bucket+"/"+from+"/*", to+"/") }),
		b.other(mc, "", func(from, to string) []string { return b.mcArgs(from+"/", "bench/"+bucket+"/"+to+"/") },
			func(from, to string) []string { return b.mcArgs("bench/"+bucket+"/"+from+"/", to+"/") }),
	}
}

var (
	rclone = gobuild.Program{Name: "rclone", Package: "github.com/rclone/rclone", Version: "v1.76.0"}
	s5cmd  = gobuild.Program{Name: "s5cmd", Package: "github.com/peak/s5cmd/v2", Version: "v2.3.0"}
	mc     = gobuild.Program{Name: "mc", Package: "github.com/minio/mc", Version: "v0.0.0-20250313080218-cf909e1063a9"}
)

func (b *bench) other(p gobuild.Program, variant string, put, get func(from, to string) []string) contender {
	command := func(args func(from, to string) []string) func(context.Context, string, string) (*exec.Cmd, error) {
		return func(ctx context.Context, from, to string) (*exec.Cmd, error) {
			executable, err := p.Build(ctx)
			if err != nil {
				return nil, err
			}
			return exec.CommandContext(ctx, executable, args(from, to)...), nil
		}
	}
	return contender{p.Name + variant, command(put), command(get)}
}

func (b *bench) rcloneArgs(from, to string) []string {
	return []string{"--config", os.DevNull, "--ca-cert", b.server.CAFile, "--s3-provider", "Minio", "--s3-env-auth",
		"--s3-endpoint", b.server.Endpoint, "--s3-no-check-bucket", "--transfers", fmt.Sprint(b.parallel), "copy", from, to}
}

var rcloneBare = []string{"--ignore-checksum", "--s3-disable-checksum", "--s3-use-unsigned-payload", "true"}

func (b *bench) s5cmdArgs(from, to string) []string {
	return []string{"--endpoint-url", b.server.Endpoint, "--no-verify-ssl", "--log", "error",
		"--numworkers", fmt.Sprint(b.parallel), "cp", "--concurrency", "1", from, to}
}

func (b *bench) mcArgs(from, to string) []string {
	return []string{"--config-dir", filepath.Join(b.dir, "mc"), "--insecure", "--quiet",
		"cp", "--recursive", from, to}
}

// A cost is what one copy took.
type cost struct{ seconds, cpu float64 }

// throughput lets each contender copy all files there and back, in rounds, so
// that a machine's bad moment does not hit one of them alone.
func (b *bench) throughput(ctx context.Context, title string, contenders []contender) error {
	if err := setenv(b.mcHost()); err != nil {
		return err
	}
	puts, gets := make([][]cost, len(contenders)), make([][]cost, len(contenders))
	for round := range b.rounds {
		for n := range contenders {
			i := (n + round*len(contenders)/b.rounds) % len(contenders) // no one is always the first
			c := contenders[i]
			put, get, err := b.round(ctx, c, fmt.Sprintf("copy-%d-%d", round, i)) // a new place: some skip what is there
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			puts[i], gets[i] = append(puts[i], put), append(gets[i], get)
			fmt.Fprintf(os.Stderr, "%s: put %.1f s, get %.1f s\n", c.name, put.seconds, get.seconds)
		}
	}
	gib := float64(b.files) * fileSize / (1 << 30)
	fmt.Printf("### %s, %d at a time, %.1f GiB, median of %d rounds\n\n", title, b.parallel, gib, b.rounds)
	fmt.Println("| client | put MB/s | put CPU s/GiB | get MB/s | get CPU s/GiB |\n| --- | --- | --- | --- | --- |")
	for i, c := range contenders {
		fmt.Printf("| %s | %s | %s |\n", c.name, row(puts[i], gib), row(gets[i], gib))
	}
	fmt.Println()
	return nil
}

// mcHost is the server as mc wants it: with credentials in the URL.
func (b *bench) mcHost() string {
	scheme, host, _ := strings.Cut(b.server.Endpoint, "://")
	return fmt.Sprintf("MC_HOST_bench=%s://%s:%s@%s", scheme, b.server.AccessKey, b.server.SecretKey, host)
}

func row(costs []cost, gib float64) string {
	rate := median(costs, func(c cost) float64 { return gib * (1 << 30) / 1e6 / c.seconds })
	cpu := median(costs, func(c cost) float64 { return c.cpu / gib })
	return fmt.Sprintf("%.0f | %.2f", math.Round(rate), cpu)
}

func median(costs []cost, value func(cost) float64) float64 {
	var values []float64
	for _, c := range costs {
		values = append(values, value(c))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func (b *bench) round(ctx context.Context, c contender, place string) (put, get cost, err error) {
	copied := filepath.Join(b.dir, "copied")
	if err := os.MkdirAll(copied, 0o755); err != nil {
		return put, get, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(copied)) }()
	if put, err = measure(c.put(ctx, b.source, place)); err != nil {
		return put, get, fmt.Errorf("put: %w", err)
	}
	if get, err = measure(c.get(ctx, place, copied)); err != nil {
		return put, get, fmt.Errorf("get: %w", err)
	}
	return put, get, errors.Join(b.checkCopy(copied), b.remove(ctx, place))
}

// remove makes room for the next copy.
func (b *bench) remove(ctx context.Context, place string) (err error) {
	store, err := backend.Open(ctx, b.server.URL(bucket, place))
	if err != nil {
		return err
	}
	defer store.Close()
	names, err := list(ctx, store, "get", "")
	if err != nil {
		return err
	}
	return store.Delete(ctx, names...)
}

// measure runs a command and returns what it took: of this process's children,
// the one that ran.
func measure(cmd *exec.Cmd, err error) (cost, error) {
	if err != nil {
		return cost{}, err
	}
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return cost{}, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	took := time.Since(began)
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return cost{took.Seconds(), cpu.Seconds()}, nil
}

// checkCopy makes sure that everything came back: a client that skips work
// would win.
func (b *bench) checkCopy(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) != b.files {
		return fmt.Errorf("%d files came back, want %d", len(entries), b.files)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if info.Size() != fileSize {
			return fmt.Errorf("%s came back with %d bytes", entry.Name(), info.Size())
		}
	}
	return nil
}

func setenv(pair string) error {
	name, value, _ := strings.Cut(pair, "=")
	return os.Setenv(name, value)
}
