package s3_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/internal/testserver"
)

// The policies in docs/deploy/aws.md, tested with credentials that they limit.
func TestPolicies(t *testing.T) {
	doc, err := os.ReadFile("../docs/deploy/aws.md")
	if err != nil {
		t.Fatal(err)
	}
	server := testserver.Run(t, suite, testserver.MinIO, false)
	if err := server.MakeBucket(t.Context(), "example-checkpoints"); err != nil {
		t.Fatal(err)
	}
	for role, allowed := range map[string][]string{
		"Owner":     {"create", "put", "get", "list", "delete"},
		"Reader":    {"get", "list"},
		"Collector": {"get", "list", "delete"},
	} {
		t.Run(role, func(t *testing.T) {
			server.Setenv(t)
			populate(t, server)
			limitTo(t, server, policy(t, string(doc), role))
			store := open(t, server, "jobs/orders")
			for verb, err := range try(t.Context(), store) {
				switch {
				case slices.Contains(allowed, verb) && err != nil:
					t.Errorf("%s: %v, must be allowed", verb, err)
				case !slices.Contains(allowed, verb):
					wantDenied(t, verb, err)
				}
			}
			// An absent object is distinguished from a forbidden one.
			if _, err := store.Get(t.Context(), "absent", 0, make([]byte, 1)); !errors.Is(err, backend.ErrNotExist) {
				t.Errorf("get of an absent object: %v", err)
			}
			for verb, err := range try(t.Context(), open(t, server, "jobs/others")) {
				if verb != "list" { // a list shows the names of the whole bucket
					wantDenied(t, verb, err)
				}
			}
		})
	}
}

// Who may only read and delete learns from the replies that a bucket keeps versions.
func TestVersionedBucketIsSeen(t *testing.T) {
	doc, err := os.ReadFile("../docs/deploy/aws.md")
	if err != nil {
		t.Fatal(err)
	}
	server := testserver.Run(t, suite, testserver.MinIO, false)
	if err := server.MakeBucket(t.Context(), "example-checkpoints"); err != nil {
		t.Fatal(err)
	}
	client, err := server.Client()
	if err != nil {
		t.Fatal(err)
	}
	for _, versions := range []bool{false, true} {
		if versions {
			if err := client.EnableVersioning(t.Context(), "example-checkpoints"); err != nil {
				t.Fatal(err)
			}
		}
		server.Setenv(t)
		populate(t, server)
		limitTo(t, server, policy(t, string(doc), "Collector"))
		store := open(t, server, "jobs/orders")
		for o, err := range store.List(t.Context(), "", "") {
			if err != nil {
				t.Fatal(err)
			}
			if _, err := store.Get(t.Context(), o.Key, 0, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		if got := store.(backend.Versioned).KeepsVersions(); got != versions {
			t.Errorf("versions: %t; seen: %t", versions, got)
		}
	}
}

// policy returns the JSON block below a heading.
func policy(t *testing.T, doc, heading string) string {
	t.Helper()
	_, section, found := strings.Cut(doc, "\n### "+heading+"\n")
	_, block, fenced := strings.Cut(section, "```json\n")
	block, _, ended := strings.Cut(block, "```\n")
	if !found || !fenced || !ended {
		t.Fatalf("no policy under %q", heading)
	}
	return block
}

// limitTo puts temporary credentials into the environment that a policy limits.
func limitTo(t *testing.T, server *testserver.Server, policy string) {
	t.Helper()
	session, err := credentials.NewSTSAssumeRole(server.Endpoint, credentials.STSAssumeRoleOptions{
		AccessKey: server.AccessKey, SecretKey: server.SecretKey, Location: "us-east-1", Policy: policy,
	})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := session.GetWithContext(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", keys.AccessKeyID)
	t.Setenv("AWS_SECRET_ACCESS_KEY", keys.SecretAccessKey)
	t.Setenv("AWS_SESSION_TOKEN", keys.SessionToken)
}

func open(t *testing.T, server *testserver.Server, path string) backend.Store {
	t.Helper()
	s, err := backend.Open(t.Context(), server.URL("example-checkpoints", path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// populate makes the objects that try uses, with all permissions.
func populate(t *testing.T, server *testserver.Server) {
	t.Helper()
	for _, path := range []string{"jobs/orders", "jobs/others"} {
		s := open(t, server, path)
		if err := s.Delete(t.Context(), "new"); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"old", "garbage-1", "garbage-2"} {
			if _, err := s.Put(t.Context(), key, []byte("data")); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// try calls each method once.
func try(ctx context.Context, s backend.Store) map[string]error {
	errs := map[string]error{}
	_, errs["create"] = s.Create(ctx, "new", nil)
	_, errs["put"] = s.Put(ctx, "new", nil)
	_, errs["get"] = s.Get(ctx, "old", 0, make([]byte, 4))
	errs["list"] = nil
	for _, err := range s.List(ctx, "", "") {
		errs["list"] = err
	}
	errs["delete"] = s.Delete(ctx, "garbage-1", "garbage-2")
	return errs
}

func wantDenied(t *testing.T, verb string, err error) {
	t.Helper()
	action := map[string]string{
		"create": "s3:PutObject", "put": "s3:PutObject", "get": "s3:GetObject", "list": "s3:ListBucket", "delete": "s3:DeleteObject",
	}[verb]
	if !errors.Is(err, backend.ErrPermission) || errors.Is(err, backend.ErrNotExist) || !strings.Contains(err.Error(), "allow "+action) {
		t.Errorf("%s: got %v, want a denial that names %s", verb, err, action)
	}
}
