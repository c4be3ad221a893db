package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/holdfast-io/holdfast/bench/internal/measure"
	"github.com/holdfast-io/holdfast/bench/internal/proxy"
	"github.com/holdfast-io/holdfast/bench/internal/rival"
	"github.com/holdfast-io/holdfast/internal/testserver"
)

// A site is where a contender takes its turn: a directory, and a server that
// nobody has used before. So none of them waits for what the server still
// tidies up behind another.
type site struct {
	dir    string
	server rival.Server       // as contenders see it; zero at a local site
	minio  *testserver.Server // nil at a local site
	proxy  *proxy.Proxy       // nil if nothing is counted
}

// openSite opens a site in dir, which must not exist. The caller closes it.
func openSite(ctx context.Context, dir string, local, counted bool, link proxy.Link) (s *site, err error) {
	s = &site{dir: dir}
	for _, d := range []string{"home", "tmp", "server"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	if local {
		return s, nil
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.minio, err = testserver.Start(ctx, testserver.MinIO, testserver.Config{Dir: filepath.Join(dir, "server")}); err != nil {
		return s, err
	}
	if err := s.minio.MakeBucket(ctx, bucket); err != nil {
		return s, err
	}
	s.server = rival.Server{Endpoint: s.minio.Endpoint, AccessKey: s.minio.AccessKey, SecretKey: s.minio.SecretKey}
	if !counted {
		return s, nil
	}
	if s.proxy, err = proxy.Start(s.minio.Endpoint, link); err != nil { //nolint:contextcheck // each request has its own
		return s, err
	}
	s.server.Endpoint = s.proxy.Endpoint
	return s, nil
}

// close ends everything, and removes the directory.
func (s *site) close() error {
	var errs []error
	if s.proxy != nil {
		errs = append(errs, s.proxy.Close())
	}
	if s.minio != nil {
		errs = append(errs, s.minio.Stop())
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// url is the place to save to, for holdfast.
func (s *site) url() string { return s.urlOf(place) }

func (s *site) urlOf(place string) string {
	if s.minio == nil {
		return "file://" + filepath.Join(s.dir, "store")
	}
	return "s3://" + bucket + "/" + place + "?endpoint=" + s.server.Endpoint
}

// env is what contenders see of the environment: nothing of this user's own
// configuration.
func (s *site) env() []string {
	env := []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + filepath.Join(s.dir, "home"),
		"TMPDIR=" + filepath.Join(s.dir, "tmp"),
	}
	if s.minio != nil {
		env = append(env, s.minio.Env()...)
	}
	return env
}

// A cost is what one command took.
type cost struct {
	measure.Usage
	traffic *proxy.Counts // nil if nothing was counted
	proxy   float64       // seconds of processor time that this process, and so the proxy, used meanwhile
}

// measure runs a command here.
func (s *site) measure(ctx context.Context, c measure.Command) (cost, error) {
	c.Env = append(s.env(), c.Env...)
	before := measure.Self()
	usage, err := measure.Run(ctx, c)
	took := cost{Usage: usage, proxy: (measure.Self() - before).Seconds()}
	if err != nil || s.proxy == nil {
		return took, err
	}
	counts, err := s.proxy.Take(ctx)
	took.traffic = &counts
	return took, err
}
