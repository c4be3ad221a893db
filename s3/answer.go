package s3

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// To the SDK, whatever a 2xx answer lacks is absent. So it takes a proxy's login page
// for an empty listing, and the start page of a web server for the reply to a
// successful PutObject. The functions below check an answer before the SDK decodes
// it: it must have what every service that speaks S3's protocol sends.

// A notS3Error says that a 2xx answer does not come from S3. It is unknown who sent
// it and what happened to the request. It is retryable, because a proxy's page may be
// gone by the next attempt.
type notS3Error struct{ what string }

func (e *notS3Error) Error() string { return "the answer is not one of S3: " + e.what }

func notS3(r *smithyhttp.Response, what string) error {
	if kind := r.Header.Get("Content-Type"); kind != "" {
		what += fmt.Sprintf(", but content of type %q", kind)
	}
	return &notS3Error{what}
}

// checked makes check inspect a 2xx answer before the SDK decodes it.
func checked(check func(*smithyhttp.Response) error) func(*sdk.Options) {
	inspect := func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (
		middleware.DeserializeOutput, middleware.Metadata, error,
	) {
		out, metadata, err := next.HandleDeserialize(ctx, in)
		if r, ok := out.RawResponse.(*smithyhttp.Response); err == nil && ok && r.StatusCode/100 == 2 {
			err = check(r)
		}
		return out, metadata, err
	}
	return func(o *sdk.Options) {
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("HoldfastCheckAnswer", inspect), middleware.After)
		})
	}
}

func checkListAnswer(r *smithyhttp.Response) error {
	root, _, err := rootElement(r)
	switch {
	case err != nil || root == errorElement:
		return err
	case r.StatusCode != http.StatusOK || root != "ListBucketResult":
		return notS3(r, "it has no listing")
	}
	return nil
}

func checkWriteAnswer(r *smithyhttp.Response) error {
	root, empty, err := rootElement(r)
	switch {
	case err != nil || root == errorElement:
		return err
	case r.Header.Get("ETag") == "":
		return notS3(r, "it has no ETag, by which a service says what it has stored")
	case r.StatusCode != http.StatusOK || !empty:
		return notS3(r, "it does not say that the object is stored")
	}
	return nil
}

func checkReadAnswer(r *smithyhttp.Response) error {
	whole := r.StatusCode == http.StatusOK
	part := r.StatusCode == http.StatusPartialContent && r.Header.Get("Content-Range") != ""
	page := strings.HasPrefix(strings.ToLower(r.Header.Get("Content-Type")), "text/html")
	if r.Header.Get("ETag") == "" || !whole && !part || whole && page {
		return notS3(r, "it has no object")
	}
	return nil
}

// checkDeleteAnswer accepts an answer without a body, although S3 answers a batch
// with a result: no guarantee depends on a deletion.
func checkDeleteAnswer(r *smithyhttp.Response) error {
	root, empty, err := rootElement(r)
	if err != nil || empty || root == errorElement || root == "DeleteResult" {
		return err
	}
	return notS3(r, "it does not say what was deleted")
}

// errorElement is the root element of an error, which may come with status 200. The
// SDK turns it into an error.
const errorElement = "Error"

// maxProlog is the number of bytes in which the root element must begin. S3 sends
// only an XML declaration of about 40 bytes before it.
const maxProlog = 64 << 10

// rootElement returns the name of the root element of the answer's body ("" if it is
// not XML), and whether the body is empty. Afterwards the body can be read from its
// beginning.
func rootElement(r *smithyhttp.Response) (name string, empty bool, err error) {
	var read bytes.Buffer
	body := r.Body
	defer func() {
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(&read, body), body}
	}()
	decoder := xml.NewDecoder(io.TeeReader(io.LimitReader(body, maxProlog), &read))
	for {
		token, err := decoder.Token()
		if start, ok := token.(xml.StartElement); ok {
			return start.Name.Local, false, nil
		}
		if errors.Is(err, io.EOF) || errors.As(err, new(*xml.SyntaxError)) {
			return "", len(bytes.TrimSpace(read.Bytes())) == 0, nil
		}
		if err != nil {
			return "", false, err
		}
	}
}
