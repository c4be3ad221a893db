package s3

import (
	"net/http"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// What a reply says of versions is remembered, at the cost of no request.
func TestVersionsAreSeen(t *testing.T) {
	for name, c := range map[string]struct {
		id   *string
		want bool
	}{
		"no versions":                        {nil, false},
		"suspended, or older than that":      {aws.String("null"), false},
		"enabled when the object was stored": {aws.String("3HL4kqtJlcpXroDTDmJ.rmSpXd3dIbrHY"), true},
	} {
		for verb, call := range map[string]func(*Store) error{
			"get": func(s *Store) error { _, err := s.Get(t.Context(), "k", 0, make([]byte, 4)); return err },
			"put": func(s *Store) error { _, err := s.Put(t.Context(), "k", []byte("data")); return err },
		} {
			t.Run(name+"/"+verb, func(t *testing.T) {
				w := &wire{answer: func(r *request) (*http.Response, error) {
					body := ""
					if r.Method == http.MethodGet {
						body = "data"
					}
					resp := respond(http.StatusOK, body)
					if c.id != nil {
						resp.Header.Set("X-Amz-Version-Id", *c.id)
					}
					return resp, nil
				}}
				s := w.open(t, Options{})
				if s.KeepsVersions() {
					t.Error("before anything was asked")
				}
				if err := call(s); err != nil {
					t.Fatal(err)
				}
				if got := s.KeepsVersions(); got != c.want || w.count() != 1 {
					t.Errorf("%t after %d requests", got, w.count())
				}
			})
		}
	}
}
