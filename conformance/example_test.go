package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/backend/mem"
	"github.com/holdfast-io/holdfast/conformance"
)

// A driver uses the suite in one test of its own package. Each call of the function
// returns a new handle on the given namespace.
func ExampleRun() {
	var buckets sync.Map // here, a namespace is a bucket in memory

	TestConformance := func(t *testing.T) {
		conformance.Run(t, func(_ context.Context, namespace string) (backend.Store, error) {
			b, _ := buckets.LoadOrStore(namespace, mem.NewBucket(time.Now))
			return b.(*mem.Bucket).Open(), nil
		})
	}
	_ = TestConformance
}

// The cases need no test: a program may check a bucket before it relies on it.
func ExampleCases() {
	ctx := context.Background()
	bucket := mem.NewBucket(time.Now)
	open := func(_ context.Context, namespace string) (backend.Store, error) {
		return backend.Prefix(bucket.Open(), namespace+"/"), nil
	}
	for _, c := range conformance.Cases()[:3] {
		var broken *conformance.Violation
		switch err := c.Run(ctx, open); {
		case errors.As(err, &broken):
			fmt.Println(c.Name, "does not hold:", broken.Contract)
		case err != nil:
			fmt.Println(c.Name, "could not be checked:", err)
		default:
			fmt.Println(c.Name, "holds")
		}
	}
	// Output:
	// untouched holds
	// create holds
	// put-replaces holds
}
