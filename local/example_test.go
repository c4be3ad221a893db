package local_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/local"
)

// Most programs import this package only for its URL scheme, as in
// checkpoint.Open(ctx, "file:///var/lib/orders", ...). A program that chooses the
// directory itself calls New.
func ExampleNew() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "orders-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	store, err := local.New(dir)
	if err != nil {
		log.Fatal(err)
	}
	job, err := checkpoint.New(store, checkpoint.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer job.Close(context.Background())

	task, err := job.Task("orders/7")
	if err != nil {
		log.Fatal(err)
	}
	made, err := task.Save(ctx, checkpoint.Snapshot{Offsets: map[string]string{"orders/7": "4711"}}, checkpoint.SaveOptions{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(made.Seq, made.Offsets)
	// Output:
	// 1 map[orders/7:4711]
}
