package main

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/bench/internal/measure"
	"github.com/holdfast-io/holdfast/bench/internal/rival"
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
		if _, err := crand.Read(data); err != nil {
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
	put, get command // one of them a directory, one a path in the bucket
}

// A command copies from one place to another.
type command func(ctx context.Context, from, to string) (measure.Command, error)

// own returns this program, run as a child like the others, with URL
// parameters.
func (b *bench) own(parameters ...string) []contender {
	var cs []contender
	for _, p := range parameters {
		copying := func(verb string) command {
			return func(_ context.Context, from, to string) (measure.Command, error) {
				self, err := os.Executable()
				place, dir := to, from
				if verb == "get" {
					place, dir = from, to
				}
				url := b.server.URL(bucket, place) + p
				return measure.Command{Args: []string{self, "-parallel", fmt.Sprint(b.parallel), verb, url, dir}}, err
			}
		}
		cs = append(cs, contender{strings.TrimSpace("holdfast " + strings.TrimPrefix(p, "&")), copying("put"), copying("get")})
	}
	return cs
}

// others returns the programs to compare with, each with as many transfers at
// a time as this one, except for mc, which chooses for itself, and with its
// defaults otherwise.
func (b *bench) others() []contender {
	return []contender{
		other(rival.Rclone, "", func(from, to string) []string { return b.rclone(from, ":s3:"+bucket+"/"+to) },
			func(from, to string) []string { return b.rclone(":s3:"+bucket+"/"+from, to) }),
		other(rival.Rclone, " without hashes", func(from, to string) []string {
			return b.rclone(from, ":s3:"+bucket+"/"+to, rcloneBare...)
		}, func(from, to string) []string { return b.rclone(":s3:"+bucket+"/"+from, to, rcloneBare...) }),
		other(rival.S5cmd, "", func(from, to string) []string { return b.s5cmd(from+"/*", "s3://"+bucket+"/"+to+"/") },
			func(from, to string) []string { return b.s5cmd("s3://"+bucket+"/"+from+"/*", to+"/") }),
		other(rival.MC, "", func(from, to string) []string { return b.mc(from+"/", "bench/"+bucket+"/"+to+"/") },
			func(from, to string) []string { return b.mc("bench/"+bucket+"/"+from+"/", to+"/") }),
	}
}

func other(p gobuild.Program, variant string, put, get func(from, to string) []string) contender {
	copying := func(args func(from, to string) []string) command {
		return func(ctx context.Context, from, to string) (measure.Command, error) {
			executable, err := p.Build(ctx)
			return measure.Command{Args: append([]string{executable}, args(from, to)...)}, err
		}
	}
	return contender{p.Name + variant, copying(put), copying(get)}
}

func (b *bench) rival() rival.Server {
	s := b.server
	return rival.Server{Endpoint: s.Endpoint, AccessKey: s.AccessKey, SecretKey: s.SecretKey, CAFile: s.CAFile}
}

func (b *bench) rclone(from, to string, more ...string) []string {
	return slices.Concat(b.rival().RcloneArgs(), []string{"--transfers", fmt.Sprint(b.parallel), "copy", from, to}, more)
}

var rcloneBare = []string{"--ignore-checksum", "--s3-disable-checksum", "--s3-use-unsigned-payload", "true"}

func (b *bench) s5cmd(from, to string) []string {
	return append(b.rival().S5cmdArgs(), "--numworkers", fmt.Sprint(b.parallel), "cp", "--concurrency", "1", from, to)
}

func (b *bench) mc(from, to string) []string {
	return append(b.rival().MCArgs(filepath.Join(b.dir, "mc")), "cp", "--recursive", from, to)
}

// throughput lets each contender copy all files there and back, in rounds, so
// that a machine's bad moment does not hit one of them alone, and in an order by
// chance, so that none always follows the same other.
func (b *bench) throughput(ctx context.Context, title string) error {
	contenders := append(b.own("", "&checksum=sha256", "&checksum=none"), b.others()...)
	if err := setenv(b.rival().MCEnv("bench")); err != nil {
		return err
	}
	puts, gets := make([][]measure.Usage, len(contenders)), make([][]measure.Usage, len(contenders))
	for round := range b.rounds {
		for _, i := range rand.Perm(len(contenders)) {
			c := contenders[i]
			put, get, err := b.round(ctx, c, fmt.Sprintf("copy-%d-%d", round, i)) // a new place: some skip what is there
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			puts[i], gets[i] = append(puts[i], put), append(gets[i], get)
			fmt.Fprintf(os.Stderr, "%s: put %.1f s, get %.1f s\n", c.name, put.Wall.Seconds(), get.Wall.Seconds())
		}
	}
	gib := float64(b.files) * fileSize / (1 << 30)
	fmt.Printf("### %s, %d at a time, %.1f GiB, median of %d rounds and the best of them\n\n", title, b.parallel, gib, b.rounds)
	fmt.Println("| client | put MB/s | put CPU s/GiB | get MB/s | get CPU s/GiB |\n| --- | --- | --- | --- | --- |")
	for i, c := range contenders {
		fmt.Printf("| %s | %s | %s |\n", c.name, row(puts[i], gib), row(gets[i], gib))
	}
	fmt.Println()
	return nil
}

// row has the best round beside the median: a program may be as fast as that,
// and the machine made it slower in the others.
func row(copies []measure.Usage, gib float64) string {
	rate := func(u measure.Usage) float64 { return gib * (1 << 30) / 1e6 / u.Wall.Seconds() }
	cpu := func(u measure.Usage) float64 { return u.CPU().Seconds() / gib }
	fastest := slices.MinFunc(copies, func(a, b measure.Usage) int { return cmp.Compare(a.Wall, b.Wall) })
	least := slices.MinFunc(copies, func(a, b measure.Usage) int { return cmp.Compare(a.CPU(), b.CPU()) })
	return fmt.Sprintf("%.0f (%.0f) | %.2f (%.2f)", measure.Median(copies, rate), rate(fastest), measure.Median(copies, cpu), cpu(least))
}

func (b *bench) round(ctx context.Context, c contender, place string) (put, get measure.Usage, err error) {
	copied := filepath.Join(b.dir, "copied")
	if err := os.MkdirAll(copied, 0o755); err != nil {
		return put, get, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(copied)) }()
	if put, err = b.timed(ctx, c.put, b.source, place); err != nil {
		return put, get, fmt.Errorf("put: %w", err)
	}
	if get, err = b.timed(ctx, c.get, place, copied); err != nil {
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
	objects, err := list(ctx, store)
	if err != nil {
		return err
	}
	keys := make([]string, len(objects))
	for i, o := range objects {
		keys[i] = o.Key
	}
	return store.Delete(ctx, keys...)
}

// timed runs a copy, which fills memory twice: with what one end reads and what
// the other writes.
func (b *bench) timed(ctx context.Context, copying command, from, to string) (measure.Usage, error) {
	c, err := copying(ctx, from, to)
	if err != nil {
		return measure.Usage{}, err
	}
	if err := measure.Settle(ctx, 2*int64(b.files)*fileSize); err != nil {
		return measure.Usage{}, err
	}
	return measure.Run(ctx, c)
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
