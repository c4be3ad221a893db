package proxy

import (
	"net/http"
	"strings"
)

// A Kind is what a request is for.
type Kind string

// The kinds of request.
const (
	List      Kind = "list"      // the objects, versions or uploads of a bucket
	Get       Kind = "get"       // an object, or a range of one
	Put       Kind = "put"       // a whole object, or a copy of one
	Head      Kind = "head"      // an object or a bucket
	Delete    Kind = "delete"    // one object, or many
	Multipart Kind = "multipart" // a step of an upload in parts: begin, part, complete, abort
	Other     Kind = "other"     // the rest: the bucket's region and settings, buckets themselves
)

// kindOf tells the kind of a request that names its bucket in the path.
func kindOf(r *http.Request) Kind {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	query := r.URL.Query()
	if key == "" {
		return kindOfBucket(r.Method, bucket, query.Has)
	}
	if query.Has("uploads") || query.Has("uploadId") {
		return Multipart
	}
	for _, setting := range []string{"acl", "tagging", "attributes", "retention", "legal-hold"} {
		if query.Has(setting) {
			return Other
		}
	}
	switch r.Method {
	case http.MethodGet:
		return Get
	case http.MethodPut:
		return Put
	case http.MethodHead:
		return Head
	case http.MethodDelete:
		return Delete
	}
	return Other
}

func kindOfBucket(method, bucket string, has func(string) bool) Kind {
	switch {
	case bucket == "":
		return Other
	case method == http.MethodHead:
		return Head
	case method == http.MethodPost && has("delete"):
		return Delete
	case method != http.MethodGet:
		return Other
	}
	// A bucket's objects are listed by parameters of which none is needed. So
	// it is what asks for a setting that has to be known.
	for _, setting := range []string{"location", "versioning", "object-lock", "policy", "lifecycle", "tagging",
		"encryption", "acl", "cors", "notification", "replication", "website", "logging", "accelerate", "requestPayment"} {
		if has(setting) {
			return Other
		}
	}
	return List
}
