package natsleases_test

import (
	"context"
	"os/signal"
	"syscall"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/natsleases"
	"github.com/holdfast-io/holdfast/runner"
)

// Eight tasks are divided among all processes that run this.
func ExampleAssign() {
	run := func(job *checkpoint.Job, open func(context.Context, string, *runner.Restored) (runner.Worker, error)) error {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		conn, err := nats.Connect("nats://127.0.0.1:4222", nats.MaxReconnects(-1))
		if err != nil {
			return err
		}
		defer conn.Close()
		js, err := jetstream.New(conn)
		if err != nil {
			return err
		}
		kv, err := js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "orders-leases", Replicas: 1})
		if err != nil {
			return err
		}
		tasks := []string{"orders/0", "orders/1", "orders/2", "orders/3", "orders/4", "orders/5", "orders/6", "orders/7"}
		return runner.Run(ctx, runner.RunOptions{
			Job: job, Dir: "/var/lib/orders",
			Assign: natsleases.Assign(kv, natsleases.Options{Tasks: tasks}),
			Ended:  natsleases.Fenced(nil),
		}, open)
	}
	_ = run
}
