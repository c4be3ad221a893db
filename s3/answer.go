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

// The SDK takes whatever a 2xx answer lacks for absent. So the login page of a
// proxy is an empty listing to it, and a web server that answers every request
// with its start page has stored what was put. What follows looks at an answer
// before the SDK does, for what every service sends that speaks S3's protocol.

// A notS3Error says that an answer with a good status is not one of S3. Who
// gave it, and what became of the request, is unknown, so that it is worth
// another attempt: a proxy's page may be gone by then.
type notS3Error struct{ what string }

func (e *notS3Error) Error() string { return "the answer is not one of S3: " + e.what }

func notS3(r *smithyhttp.Response, what string) error {
	if kind := r.Header.Get("Content-Type"); kind != "" {
		what += fmt.Sprintf(", but content of type %q", kind)
	}
	return &notS3Error{what}
}

// checked makes check look at a 2xx answer before the SDK decodes it.
func checked(check func(*smithyhttp.Response) error) func(*sdk.Options) {
	look := func(ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler) (
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
			return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("HoldfastCheckAnswer", look), middleware.After)
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

// checkDeleteAnswer lets an answer without a body pass, though S3 sends a
// result for a batch: nothing is built on a deletion.
func checkDeleteAnswer(r *smithyhttp.Response) error {
	root, empty, err := rootElement(r)
	if err != nil || empty || root == errorElement || root == "DeleteResult" {
		return err
	}
	return notS3(r, "it does not say what was deleted")
}

// errorElement is the root of an error, which may come with status 200. The SDK
// makes an error of it.
const errorElement = "Error"

// maxProlog is how far into an answer its root element is looked for, in bytes.
// S3 sends an XML declaration before it, of about 40.
const maxProlog = 64 << 10

// rootElement returns the name of the root element of the answer's body, "" if
// it is no XML, and whether there is no body at all. It leaves the body to be
// read from its beginning.
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
