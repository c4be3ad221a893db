// Package testserver runs real servers for tests and benchmarks: it builds them
// the first time, starts them on a free port of the loopback interface, and
// ends them with the test. It needs no Docker.
package testserver

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/holdfast-io/holdfast/internal/gobuild"
)

// A Program is a server that this package can build and run.
type Program struct {
	gobuild.Program
	health  string // a path that answers with success when the server is ready
	command func(*Server) (args, env []string)
}

// Config says how to start a server.
type Config struct {
	Dir string // holds all files of the server; empty when it starts
	TLS bool
}

// A Server is a running server.
type Server struct {
	Endpoint             string // as in "http://127.0.0.1:34567"
	AccessKey, SecretKey string // made up for this server
	CAFile               string // PEM file by which to trust it; empty without TLS

	dir     string
	address string // host:port
	process *exec.Cmd
	output  *os.File
	ended   chan struct{} // closed when the process has ended
	exit    error         // how; set before ended is closed
}

// Transport returns a transport that trusts the server and leaves no connection
// behind.
func (s *Server) Transport() (*http.Transport, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableKeepAlives = true
	if s.CAFile == "" {
		return t, nil
	}
	authority, err := os.ReadFile(s.CAFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	t.TLSClientConfig = &tls.Config{RootCAs: pool}
	return t, nil
}

func (s *Server) data() string  { return filepath.Join(s.dir, "data") }
func (s *Server) certs() string { return filepath.Join(s.dir, "certs") }

// startTime is how long a server may take to become ready.
const startTime = time.Minute

// errPortTaken means that another process took the port between its choice and
// the server's start.
var errPortTaken = errors.New("port taken")

// Start builds p if need be, starts it, and waits until it is ready. The
// caller ends it with [Server.Stop].
func Start(ctx context.Context, p Program, c Config) (*Server, error) {
	executable, err := p.Build(ctx)
	if err != nil {
		return nil, err
	}
	s := &Server{dir: c.Dir, AccessKey: rand.Text()[:20], SecretKey: rand.Text()}
	for _, dir := range []string{s.data(), s.certs()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if c.TLS {
		s.CAFile = filepath.Join(s.certs(), certFile)
		if err := writeCertificate(s.certs()); err != nil {
			return nil, err
		}
	}
	for {
		err := s.start(ctx, p, executable)
		if err == nil {
			return s, nil
		}
		if !errors.Is(err, errPortTaken) {
			return nil, err
		}
	}
}

func (s *Server) start(ctx context.Context, p Program, executable string) error {
	if err := s.choosePort(); err != nil {
		return err
	}
	output, err := os.Create(filepath.Join(s.dir, "output"))
	if err != nil {
		return err
	}
	args, env := p.command(s)
	cmd := exec.Command(executable, args...)
	cmd.Dir = s.dir
	cmd.Env = append([]string{"HOME=" + s.dir, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + s.dir}, env...)
	cmd.Stdout, cmd.Stderr = output, output
	endWithParent(cmd)
	if err := cmd.Start(); err != nil {
		return errors.Join(err, output.Close())
	}
	s.process, s.output, s.ended = cmd, output, make(chan struct{})
	go func() {
		defer close(s.ended)
		s.exit = cmd.Wait()
	}()
	if err := s.waitReady(ctx, p.health); err != nil {
		return errors.Join(s.startError(p, err), s.Stop())
	}
	return nil
}

func (s *Server) choosePort() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.address = l.Addr().String()
	s.Endpoint = "http://" + s.address
	if s.CAFile != "" {
		s.Endpoint = "https://" + s.address
	}
	return l.Close()
}

func (s *Server) waitReady(ctx context.Context, health string) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // tells nothing, trusts nothing
	}}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Endpoint+health, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err == nil {
			if resp.StatusCode == http.StatusOK {
				return resp.Body.Close()
			}
			err = errors.Join(errors.New(resp.Status), resp.Body.Close())
		}
		select {
		case <-s.ended:
			return errors.Join(errors.New("it ended"), s.exit)
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

func (s *Server) startError(p Program, err error) error {
	out := s.Output()
	for _, text := range []string{"address already in use", "port is already in use"} {
		if bytes.Contains(out, []byte(text)) {
			return errPortTaken
		}
	}
	return fmt.Errorf("%s did not become ready: %w\n%s", p.Name, err, out)
}

// Output returns the end of what the server printed.
func (s *Server) Output() []byte {
	out, err := os.ReadFile(s.output.Name())
	if err != nil {
		return []byte(err.Error())
	}
	return out[max(0, len(out)-4<<10):]
}

// Stop kills the server and waits until it has ended. What it stored stays in
// the directory. A second Stop does nothing.
func (s *Server) Stop() error {
	if err := s.process.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-s.ended
	if err := s.output.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
