package s3

import (
	"net/http"

	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/holdfast-io/holdfast/internal/httpclient"
)

// StallTimeout is how long a request may go without a byte moving in either
// direction, waiting for the response included, before it is ended with an
// error that is worth another attempt.
const StallTimeout = httpclient.StallTimeout

// LowestRate is how many bytes a second a request moves at the least, taken over
// five minutes, before it is ended in the same way. A link so slow that it does
// not give that to each request wants fewer at once.
const LowestRate = httpclient.LowestRate

// direct sends requests through a transport as they are. A redirect is the
// answer: its target would not accept the signature, and Create sends one
// request at most.
type direct struct{ transport *http.Transport }

func (d direct) Do(req *http.Request) (*http.Response, error) { return d.transport.RoundTrip(req) }

// watched is an HTTP client whose requests end in time.
type watched struct{ next sdk.HTTPClient }

func (w watched) Do(req *http.Request) (*http.Response, error) {
	return httpclient.Do(req, w.next.Do)
}
