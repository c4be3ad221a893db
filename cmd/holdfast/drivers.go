package main

// The stores that this program can use. Importing a driver registers it.
import (
	"github.com/holdfast-io/holdfast/backend"
	_ "github.com/holdfast-io/holdfast/gcs"
	_ "github.com/holdfast-io/holdfast/local"
	_ "github.com/holdfast-io/holdfast/s3"
)

// advised lists, by scheme, the kinds of error of which the driver itself says
// what to do, or the service in its own words.
var advised = map[string][]error{
	"gs": {backend.ErrNoStore, backend.ErrPermission},
	"s3": {backend.ErrNoStore, backend.ErrPermission, backend.ErrNoSpace},
}
