package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/otlptranslator"
	"go.opentelemetry.io/otel/attribute"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/runner"
)

// A monitor is what others can ask a run by HTTP: its metrics, for Prometheus, and whether it
// is ready, for Kubernetes.
type monitor struct {
	provider *sdkmetric.MeterProvider
	listener net.Listener
	server   *http.Server
	served   chan struct{} // closed when the server has ended

	following   atomic.Pointer[runner.Standby] // nil for none
	ready       atomic.Bool                    // the program runs on the restored state
	epoch       atomic.Uint64
	restoreTest atomic.Pointer[checkpoint.RestoreTest] // the last one; nil if none is known
}

// openMonitor listens at an address, and answers from then on.
func openMonitor(address, task string) (*monitor, error) {
	registry := prometheus.NewRegistry()
	reader, err := exporter.New(exporter.WithRegisterer(registry), exporter.WithoutScopeInfo(), exporter.WithoutTargetInfo(),
		exporter.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes)) // names that every Prometheus can query
	if err != nil {
		return nil, err
	}
	m := &monitor{provider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), served: make(chan struct{})}
	if err := m.observe(task); err != nil {
		return nil, err
	}
	if m.listener, err = net.Listen("tcp", address); err != nil {
		return nil, advice{fmt.Errorf("--metrics: %w", err), "give it another address"}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /ready", m.answerReady)
	m.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(m.served)
		_ = m.server.Serve(m.listener) // until it is closed
	}()
	return m, nil
}

// observe makes the instruments that are this command's, and not the runner's.
func (m *monitor) observe(task string) error {
	meter := m.provider.Meter("github.com/holdfast-io/holdfast/cmd/holdfast")
	by := metric.WithAttributes(attribute.String("holdfast.task", task))
	ready, err1 := meter.Int64ObservableGauge("holdfast.run.ready",
		metric.WithDescription("1 while the program runs on the restored state, and 0 before and after that."))
	following, err5 := meter.Int64ObservableGauge("holdfast.run.following",
		metric.WithDescription("1 while another run owns the task, and this one keeps a copy to take over with; else 0."))
	epoch, err2 := meter.Int64ObservableGauge("holdfast.run.epoch", metric.WithUnit("{claim}"),
		metric.WithDescription("How often the task was claimed, up to the claim of this run."))
	age, err3 := meter.Float64ObservableGauge("holdfast.restore_test.age", metric.WithUnit("s"),
		metric.WithDescription("Time since a restore of the task was last tested, with success; absent if it never was."))
	_, err4 := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(ready, number(m.ready.Load()), by)
		o.ObserveInt64(following, number(m.following.Load() != nil), by)
		if n := m.epoch.Load(); n > 0 {
			o.ObserveInt64(epoch, int64(n), by) // below 2^63, as all numbers in manifests
		}
		if last := m.restoreTest.Load(); last != nil {
			o.ObserveFloat64(age, max(0, time.Since(last.At).Seconds()), by)
		}
		return nil
	}, ready, following, epoch, age)
	return errors.Join(err1, err2, err3, err4, err5)
}

func number(is bool) int64 {
	if is {
		return 1
	}
	return 0
}

// answerReady answers whether the program runs on the restored state.
func (m *monitor) answerReady(w http.ResponseWriter, _ *http.Request) {
	if standby := m.following.Load(); standby != nil {
		http.Error(w, "another run owns the task, and this one follows it: "+standing(standby), http.StatusServiceUnavailable)
		return
	}
	if !m.ready.Load() {
		http.Error(w, "the program does not run: its state is restored, or its last checkpoint saved", http.StatusServiceUnavailable)
		return
	}
	_, _ = fmt.Fprintln(w, "the program runs on the restored state")
}

// standing says how far a standby is.
func standing(s *runner.Standby) string {
	c := s.Checkpoint()
	if c == nil {
		return "it has no checkpoint yet"
	}
	return fmt.Sprintf("it has checkpoint %d, and all that was saved until %v ago", c.Seq, s.Lag().Round(time.Millisecond))
}

// close ends the server.
func (m *monitor) close() {
	_ = m.server.Close()
	<-m.served
}

// listenAddress returns a flag's function that takes where to listen.
func listenAddress(dst *string) func(string) error {
	return func(v string) error {
		_, port, err := net.SplitHostPort(v)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if err != nil {
			return errors.New("it must be HOST:PORT, such as 127.0.0.1:9464, or :9464 for all addresses of this machine")
		}
		*dst = v
		return nil
	}
}
