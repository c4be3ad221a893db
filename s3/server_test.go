package s3_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/url"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/conformance"
	"github.com/holdfast-io/holdfast/internal/testreq"
	"github.com/holdfast-io/holdfast/internal/testserver"
	_ "github.com/holdfast-io/holdfast/s3"
)

const (
	suite  = "s3"
	bucket = "holdfast-test"
)

// TestConformance runs against the bucket in HOLDFAST_TEST_S3_URL, or against two
// servers that share no code, over HTTP and over TLS.
func TestConformance(t *testing.T) {
	testreq.Suite(t, suite)
	if root := os.Getenv("HOLDFAST_TEST_S3_URL"); root != "" {
		conformance.Run(t, below(t, root))
		return
	}
	onServers(t, func(t *testing.T, s *testserver.Server) {
		// These characters are allowed in a prefix, but not in a key.
		conformance.Run(t, below(t, s.URL(bucket, "jobs/A b+c=ü&'(1)")))
	})
}

// onServers runs test against each server, over HTTP and over TLS.
func onServers(t *testing.T, test func(*testing.T, *testserver.Server)) {
	for _, p := range []testserver.Program{testserver.MinIO, testserver.VersityGW} {
		for scheme, tls := range map[string]bool{"http": false, "https": true} {
			t.Run(p.Name+"/"+scheme, func(t *testing.T) {
				s := testserver.Run(t, suite, p, tls)
				s.Setenv(t)
				if err := s.MakeBucket(t.Context(), bucket); err != nil {
					t.Fatal(err)
				}
				test(t, s)
			})
		}
	}
}

// below opens namespaces as paths below a URL.
func below(t *testing.T, root string) conformance.Open {
	u, err := url.Parse(root)
	if err != nil {
		t.Fatal(err)
	}
	return func(ctx context.Context, namespace string) (backend.Store, error) {
		place := *u
		place.Path = path.Join("/", u.Path, namespace)
		place.RawPath = ""
		return backend.Open(ctx, place.String())
	}
}

// Another SDK reads what the driver wrote.
func TestOtherClientReads(t *testing.T) {
	onServers(t, func(t *testing.T, server *testserver.Server) {
		eye, err := server.Client()
		if err != nil {
			t.Fatal(err)
		}
		for _, checksum := range []string{"crc32c", "sha256", "none"} {
			t.Run(checksum, func(t *testing.T) {
				store, err := backend.Open(t.Context(), server.URL(bucket, "eye/"+checksum)+"&checksum="+checksum)
				if err != nil {
					t.Fatal(err)
				}
				defer store.Close()
				for name, data := range map[string][]byte{
					"empty": {}, "small": []byte("123456789"), "large": random(5<<20 + 1),
				} {
					created, err := store.Create(t.Context(), name, data)
					if err != nil {
						t.Fatal(err)
					}
					wantObject(t, eye, "eye/"+checksum+"/"+name, data, created, checksum)
				}
			})
		}
		t.Run("read", func(t *testing.T) {
			data := random(1 << 20)
			_, err := eye.PutObject(t.Context(), bucket, "eye/theirs", bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{})
			if err != nil {
				t.Fatal(err)
			}
			store, err := backend.Open(t.Context(), server.URL(bucket, "eye"))
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			p := make([]byte, 1000)
			n, err := store.Get(t.Context(), "theirs", 1<<20-500, p)
			if err != nil || !bytes.Equal(p[:n], data[1<<20-500:]) {
				t.Errorf("read %d bytes, %v", n, err)
			}
		})
	})
}

func random(n int) []byte {
	p := make([]byte, n)
	rand.Read(p)
	return p
}

func wantObject(t *testing.T, eye *minio.Client, key string, data []byte, created backend.Object, checksum string) {
	t.Helper()
	object, err := eye.GetObject(t.Context(), bucket, key, minio.GetObjectOptions{Checksum: true})
	if err != nil {
		t.Fatal(err)
	}
	defer object.Close()
	got, err := io.ReadAll(object)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%s: %d bytes, %v, want %d", key, len(got), err, len(data))
	}
	info, err := eye.StatObject(t.Context(), bucket, key, minio.StatObjectOptions{Checksum: true})
	if err != nil {
		t.Fatal(err)
	}
	if info.ContentType != "application/octet-stream" || info.Metadata.Get("Content-Encoding") != "" {
		t.Errorf("%s: type %q, encoding %q", key, info.ContentType, info.Metadata.Get("Content-Encoding"))
	}
	if d := info.LastModified.Sub(created.ModTime).Abs(); d.Seconds() > 2 {
		t.Errorf("%s: LastModified is %v away from what Create returned", key, d)
	}
	if checksum == "crc32c" && info.ChecksumCRC32C == "" {
		t.Errorf("%s: the server keeps no CRC32C", key)
	}
	if key == "eye/crc32c/small" && info.ChecksumCRC32C != "4waSgw==" {
		t.Errorf("%s: CRC32C %q, want 4waSgw==", key, info.ChecksumCRC32C)
	}
}

// The error messages for typical mistakes, from real servers.
func TestServersErrors(t *testing.T) {
	onServers(t, func(t *testing.T, server *testserver.Server) {
		tests := []struct {
			name, url, env string
			kind           error
			text           string
		}{
			{"missing bucket", server.URL("no-such-bucket", ""), "", backend.ErrNoStore, "create the bucket"},
			{"wrong key", server.URL(bucket, ""), "AWS_ACCESS_KEY_ID=WRONG", backend.ErrPermission, "check the credentials"},
			{"wrong secret", server.URL(bucket, ""), "AWS_SECRET_ACCESS_KEY=WRONG", backend.ErrPermission, "SignatureDoesNotMatch"},
			{"no credentials", server.URL(bucket, ""), "AWS_ACCESS_KEY_ID=", backend.ErrPermission, "no credentials"},
			{"wrong region", server.URL(bucket, "") + "&region=eu-west-3", "", backend.ErrNoStore, "region"},
		}
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				if name, value, ok := strings.Cut(test.env, "="); ok {
					t.Setenv(name, value)
				}
				s, err := backend.Open(t.Context(), test.url)
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				_, created := s.Create(t.Context(), "key", []byte("data"))
				_, got := s.Get(t.Context(), "key", 0, make([]byte, 1))
				var listed error
				for _, err := range s.List(t.Context(), "", "") {
					listed = err
				}
				deleted := s.Delete(t.Context(), "key", "other")
				for verb, err := range map[string]error{"create": created, "get": got, "list": listed, "delete": deleted} {
					if !errors.Is(err, test.kind) || errors.Is(err, backend.ErrNotExist) {
						t.Errorf("%s: got %v, want %v", verb, err, test.kind)
					} else if !strings.Contains(err.Error(), test.text) {
						t.Errorf("%s: %q is missing from %q", verb, test.text, err)
					}
				}
				t.Log(created)
			})
		}
	})
}
