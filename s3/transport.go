package s3

import (
	"net/http"

	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/holdfast-io/holdfast/internal/httpclient"
)

// StallTimeout is how long a request may go on without a byte moving in either
// direction, the wait for the response included. Then it is ended with a retryable
// error.
const StallTimeout = httpclient.StallTimeout

// LowestRate is the number of bytes per second that a request must move, on average
// over five minutes. A slower request is ended with a retryable error. On a slow
// link, run fewer requests at once.
const LowestRate = httpclient.LowestRate

// direct sends each request through a transport, and returns a redirect as the
// response. To follow it would be wrong: its target would not accept the signature,
// and Create must send only one request.
type direct struct{ transport *http.Transport }

func (d direct) Do(req *http.Request) (*http.Response, error) { return d.transport.RoundTrip(req) }

// watched is an HTTP client that ends requests which stall or are too slow.
type watched struct{ next sdk.HTTPClient }

func (w watched) Do(req *http.Request) (*http.Response, error) {
	return httpclient.Do(req, w.next.Do)
}
