// Package rival knows the programs that benchmarks compare with: at which
// version, and how each is told where the server is and who asks.
package rival

import (
	"fmt"
	"os"
	"strings"

	"github.com/holdfast-io/holdfast/internal/gobuild"
)

// The programs that copy files to S3 and back, and build with the Go command
// alone.
var (
	Rclone = gobuild.Program{Name: "rclone", Package: "github.com/rclone/rclone", Version: "v1.76.0"}
	S5cmd  = gobuild.Program{Name: "s5cmd", Package: "github.com/peak/s5cmd/v2", Version: "v2.3.0"}
	MC     = gobuild.Program{Name: "mc", Package: "github.com/minio/mc", Version: "v0.0.0-20250313080218-cf909e1063a9"}
)

// A Server is an S3 server that speaks for itself, or a proxy before one.
type Server struct {
	Endpoint             string // as in "http://127.0.0.1:34567"
	AccessKey, SecretKey string
	CAFile               string // PEM file by which to trust it; empty without TLS
}

// RcloneArgs are rclone's arguments before the command. The remote is then
// ":s3:bucket/path". The credentials are those of the environment.
func (s Server) RcloneArgs() []string {
	return []string{"--config", os.DevNull, "--ca-cert", s.CAFile, "--s3-provider", "Minio", "--s3-env-auth",
		"--s3-endpoint", s.Endpoint, "--s3-no-check-bucket"}
}

// S5cmdArgs are s5cmd's arguments before the command. The credentials are
// those of the environment.
func (s Server) S5cmdArgs() []string {
	return []string{"--endpoint-url", s.Endpoint, "--no-verify-ssl", "--log", "error"}
}

// MCArgs are mc's arguments before the command. It keeps its own files in dir.
func (s Server) MCArgs(dir string) []string {
	return []string{"--config-dir", dir, "--insecure", "--quiet"}
}

// MCEnv is the environment variable that gives mc the server, by a name: paths
// on it begin with "name/bucket".
func (s Server) MCEnv(name string) string {
	scheme, host, _ := strings.Cut(s.Endpoint, "://")
	return fmt.Sprintf("MC_HOST_%s=%s://%s:%s@%s", name, scheme, s.AccessKey, s.SecretKey, host)
}
