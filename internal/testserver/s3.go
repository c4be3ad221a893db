package testserver

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/holdfast-io/holdfast/internal/gobuild"
)

// MinIO is the store that most people run themselves. No build of its last
// versions is published, so it is built from its module; this is the newest
// that the module proxy has.
var MinIO = Program{
	Program: gobuild.Program{
		Name:    "minio",
		Package: "github.com/minio/minio",
		Version: "v0.0.0-20260212201848-7aac2a2c5b7c",
	},
	health: "/minio/health/cluster",
	command: func(s *Server) ([]string, []string) {
		args := []string{"server", "--quiet", "--address", s.address, "--certs-dir", s.certs(), s.data()}
		env := []string{"MINIO_ROOT_USER=" + s.AccessKey, "MINIO_ROOT_PASSWORD=" + s.SecretKey, "MINIO_REGION=" + region, "MINIO_BROWSER=off", "MINIO_UPDATE=off"}
		return args, env
	},
}

// VersityGW is an independent implementation of the protocol, over a local
// directory. It needs a file system with user attributes.
var VersityGW = Program{
	Program: gobuild.Program{
		Name:    "versitygw",
		Package: "github.com/versity/versitygw/cmd/versitygw",
		Version: "v1.8.0",
	},
	health: "/health",
	command: func(s *Server) ([]string, []string) {
		args := []string{"--port", s.address, "--health", "/health", "--keep-alive", "--quiet"}
		if s.CAFile != "" {
			args = append(args, "--cert", filepath.Join(s.certs(), certFile), "--key", filepath.Join(s.certs(), keyFile))
		}
		return append(args, "posix", s.data()), []string{"ROOT_ACCESS_KEY=" + s.AccessKey, "ROOT_SECRET_KEY=" + s.SecretKey}
	},
}

// Client returns a client of another SDK than the driver's: the independent
// eye.
func (s *Server) Client() (*minio.Client, error) {
	transport, err := s.Transport()
	if err != nil {
		return nil, err
	}
	return minio.New(s.address, &minio.Options{
		Creds:     credentials.NewStaticV4(s.AccessKey, s.SecretKey, ""),
		Secure:    s.CAFile != "",
		Region:    region,
		Transport: transport,
	})
}

const region = "us-east-1"

// MakeBucket makes a bucket.
func (s *Server) MakeBucket(ctx context.Context, bucket string) error {
	client, err := s.Client()
	if err != nil {
		return err
	}
	return client.MakeBucket(ctx, bucket, minio.MakeBucketOptions{Region: region})
}

// URL returns the URL of a place on this server, for processes with [Server.Env].
func (s *Server) URL(bucket, path string) string {
	return "s3://" + bucket + "/" + strings.TrimPrefix(path, "/") + "?endpoint=" + s.Endpoint
}

// Env returns the environment in which an AWS SDK uses this server's
// credentials and nothing of this machine's own configuration.
func (s *Server) Env() []string {
	return []string{
		"AWS_ACCESS_KEY_ID=" + s.AccessKey,
		"AWS_SECRET_ACCESS_KEY=" + s.SecretKey,
		"AWS_CA_BUNDLE=" + s.CAFile,
		"AWS_REGION=" + region,
		"AWS_CONFIG_FILE=" + os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull,
		"AWS_EC2_METADATA_DISABLED=true",
		"AWS_SESSION_TOKEN=", "AWS_PROFILE=", "AWS_DEFAULT_PROFILE=", "AWS_DEFAULT_REGION=",
		"AWS_ENDPOINT_URL=", "AWS_ENDPOINT_URL_S3=", "AWS_ROLE_ARN=", "AWS_WEB_IDENTITY_TOKEN_FILE=",
		"HTTP_PROXY=", "HTTPS_PROXY=", "http_proxy=", "https_proxy=",
	}
}
