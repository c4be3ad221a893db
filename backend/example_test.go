package backend_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/holdfast-io/holdfast/backend"
	_ "github.com/holdfast-io/holdfast/backend/mem" // mem://; real programs import local, s3 or gcs
)

// One URL says where objects are stored. The program's imports decide which drivers
// exist.
func Example() {
	ctx := context.Background()
	store, err := backend.Open(ctx, "mem://example/jobs/orders")
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	if _, err := store.Create(ctx, "a/1", []byte("first")); err != nil {
		log.Fatal(err)
	}
	_, err = store.Create(ctx, "a/1", []byte("second"))
	fmt.Println("taken:", errors.Is(err, backend.ErrExist))

	data := make([]byte, 16)
	n, err := store.Get(ctx, "a/1", 0, data)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", data[:n])

	for o, err := range store.List(ctx, "a/", "") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(o.Key, o.Size)
	}
	// Output:
	// taken: true
	// first
	// a/1 5
}

// A Meter counts requests, also failed ones, so that a program knows what its
// checkpoints cost.
func ExampleMeter() {
	ctx := context.Background()
	store, err := backend.Open(ctx, "mem://example-meter")
	if err != nil {
		log.Fatal(err)
	}
	var meter backend.Meter
	counted := meter.Wrap(store)
	defer counted.Close()

	_, _ = counted.Put(ctx, "a", []byte("data"))
	_, _ = counted.Get(ctx, "b", 0, make([]byte, 1))
	stats := meter.Stats()
	fmt.Printf("put: %d call, %d bytes; get: %d call, %d failed\n",
		stats.Put.Calls, stats.Put.Bytes, stats.Get.Calls, stats.Get.Failed)
	// Output:
	// put: 1 call, 4 bytes; get: 1 call, 1 failed
}

// An error names the operation, the store and the key. If the driver has advice, it
// can be shown separately.
func ExampleError() {
	err := error(&backend.Error{
		Op: "list", Store: "s3://bucket/jobs", Err: backend.ErrNoStore,
		Advice: "create the bucket, or correct its name in the URL",
	})
	var e *backend.Error
	if errors.As(err, &e) {
		fmt.Println(e.Advice)
	}
	fmt.Println(errors.Is(err, backend.ErrNoStore), backend.Retryable(err))
	// Output:
	// create the bucket, or correct its name in the URL
	// true false
}
