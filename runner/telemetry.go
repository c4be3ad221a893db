package runner

import (
	"context"
	"errors"
	"maps"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	nooptrace "go.opentelemetry.io/otel/trace/noop"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
)

const scope = "github.com/holdfast-io/holdfast/runner"

// kinds are those of failures.
var kinds = []string{
	"fenced", kindTimeout, "panic", "unknown", string(atSettle), string(atWait), string(atHook), string(atCut),
	string(atUpload), string(atComplete), "after", "startpoint", "heartbeat",
}

// telemetry is what a runner tells OpenTelemetry. docs/runner.md lists it.
type telemetry struct {
	tracer trace.Tracer
	traces bool // there is somebody to be told of spans

	commitTime   metric.Float64Histogram
	phaseTime    metric.Float64Histogram
	restoreTime  metric.Float64Histogram
	stateBytes   metric.Int64Histogram
	newBytes     metric.Int64Counter
	failures     metric.Int64Counter
	coalescings  metric.Int64Counter
	heldTime     metric.Float64Counter
	followFails  metric.Int64Counter
	registration metric.Registration
}

// seconds are the bounds of histograms of durations: a cut takes milliseconds, and
// an upload may take minutes.
var seconds = metric.WithExplicitBucketBoundaries(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)

// sizeBounds are the bounds of a histogram of sizes, from 1 KiB to 1 TiB.
var sizeBounds = metric.WithExplicitBucketBoundaries(1<<10, 1<<13, 1<<16, 1<<19, 1<<22, 1<<25, 1<<28, 1<<31, 1<<34, 1<<37, 1<<40)

func newTelemetry(r *Runner) (*telemetry, error) {
	meters, tracers := r.opts.MeterProvider, r.opts.TracerProvider
	if meters == nil {
		meters = noopmetric.NewMeterProvider()
	}
	if tracers == nil {
		tracers = nooptrace.NewTracerProvider()
	}
	t := &telemetry{tracer: tracers.Tracer(scope), traces: r.opts.TracerProvider != nil}
	return t, errors.Join(t.instruments(meters.Meter(scope)), t.observe(meters.Meter(scope), r))
}

// zero makes the counters be there before a task gives them anything to count. Prometheus
// sees no increase in a counter that first appears with its first failure.
func (t *telemetry) zero(ctx context.Context) {
	for _, kind := range kinds {
		t.failures.Add(ctx, 0, metric.WithAttributes(attribute.String("kind", kind)))
	}
	t.newBytes.Add(ctx, 0)
	t.coalescings.Add(ctx, 0)
	t.heldTime.Add(ctx, 0)
}

// zeroFollow is zero for what standbys count.
func (t *telemetry) zeroFollow(ctx context.Context) {
	for _, kind := range []string{"look", "restore"} {
		t.followFails.Add(ctx, 0, metric.WithAttributes(attribute.String("kind", kind)))
	}
}

// instruments makes the instruments that are told of what happens.
func (t *telemetry) instruments(m metric.Meter) error {
	var errs [9]error
	t.commitTime, errs[0] = m.Float64Histogram("holdfast.commit.duration", metric.WithUnit("s"), seconds,
		metric.WithDescription("Time from the beginning of a commit that succeeded to its end."))
	t.phaseTime, errs[1] = m.Float64Histogram("holdfast.commit.phase.duration", metric.WithUnit("s"), seconds,
		metric.WithDescription("Time of a commit's phase: wait, cut (the pause of the loop) or upload."))
	t.restoreTime, errs[2] = m.Float64Histogram("holdfast.restore.duration", metric.WithUnit("s"), seconds,
		metric.WithDescription("Time to restore all stores of a task."))
	t.stateBytes, errs[3] = m.Int64Histogram("holdfast.commit.state_size", metric.WithUnit("By"), sizeBounds,
		metric.WithDescription("Size of the state in a checkpoint."))
	t.newBytes, errs[4] = m.Int64Counter("holdfast.commit.stored", metric.WithUnit("By"),
		metric.WithDescription("Bytes stored for checkpoints."))
	t.failures, errs[5] = m.Int64Counter("holdfast.commit.failures", metric.WithUnit("{failure}"),
		metric.WithDescription("Commits that failed, by kind."))
	t.coalescings, errs[6] = m.Int64Counter("holdfast.commit.coalesced", metric.WithUnit("{trigger}"),
		metric.WithDescription("Triggers that came while a commit was due or under way, and made none of their own."))
	t.heldTime, errs[7] = m.Float64Counter("holdfast.backpressure.duration", metric.WithUnit("s"),
		metric.WithDescription("Time for which steps were held back because a commit was overdue."))
	t.followFails, errs[8] = m.Int64Counter("holdfast.standby.failures", metric.WithUnit("{failure}"),
		metric.WithDescription("Looks and restores of standbys that failed, by kind; they are made again."))
	return errors.Join(errs[:]...)
}

// observe makes the instruments that are looked at now and then.
func (t *telemetry) observe(m metric.Meter, r *Runner) error {
	var errs [6]error
	var age, lag metric.Float64ObservableGauge
	var requests, failed, io metric.Int64ObservableCounter
	age, errs[0] = m.Float64ObservableGauge("holdfast.checkpoint.age", metric.WithUnit("s"),
		metric.WithDescription("Time since the cut of a task's newest checkpoint: the work that a crash would repeat."))
	requests, errs[1] = m.Int64ObservableCounter("holdfast.store.requests", metric.WithUnit("{request}"),
		metric.WithDescription("Requests to the store, by verb, failed ones included."))
	failed, errs[2] = m.Int64ObservableCounter("holdfast.store.failures", metric.WithUnit("{request}"),
		metric.WithDescription("Requests to the store that failed, by verb; most are tried again."))
	io, errs[3] = m.Int64ObservableCounter("holdfast.store.io", metric.WithUnit("By"),
		metric.WithDescription("Bytes sent to the store and received from it, by verb."))
	lag, errs[4] = m.Float64ObservableGauge("holdfast.standby.lag", metric.WithUnit("s"),
		metric.WithDescription("By how much the directory of a standby is behind, at most."))
	t.registration, errs[5] = m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for name, d := range r.lags() {
			o.ObserveFloat64(lag, d.Seconds(), metric.WithAttributes(attribute.String("holdfast.task", name)))
		}
		for name, d := range r.ages(time.Now()) {
			o.ObserveFloat64(age, d.Seconds(), metric.WithAttributes(attribute.String("holdfast.task", name)))
		}
		for verb, u := range usage(r.job) {
			by := metric.WithAttributes(attribute.String("verb", verb))
			o.ObserveInt64(requests, u.Calls, by)
			o.ObserveInt64(failed, u.Failed, by)
			o.ObserveInt64(io, u.Bytes, by)
		}
		return nil
	}, age, lag, requests, failed, io)
	return errors.Join(errs[:]...)
}

// ages returns how old each running task's newest checkpoint is.
func (r *Runner) ages(now time.Time) map[string]time.Duration {
	ages := make(map[string]time.Duration)
	for _, t := range r.all() {
		t.mu.Lock()
		if t.schedule != nil {
			ages[t.name] = now.Sub(t.covered)
		}
		t.mu.Unlock()
	}
	return ages
}

// lags returns the lag of each standby.
func (r *Runner) lags() map[string]time.Duration {
	r.mu.Lock()
	standbys := maps.Clone(r.standbys)
	r.mu.Unlock()
	lags := make(map[string]time.Duration)
	for name, s := range standbys {
		lags[name] = s.Lag()
	}
	return lags
}

func (t *telemetry) close() error { return t.registration.Unregister() }

// begin begins a span, which the returned function ends.
func (t *telemetry) begin(ctx context.Context, name, task string) (context.Context, func(error)) {
	ctx, span := t.tracer.Start(ctx, name, trace.WithAttributes(attribute.String("holdfast.task", task)))
	if t.traces {
		ctx = backend.WithTrace(ctx, t.request)
	}
	return ctx, func(err error) { end(span, err) }
}

// request begins the span of a request to the store. A clean-up in the background is no part
// of a span that has ended: the trace of a claim would go on for as long as its owner lives.
func (t *telemetry) request(ctx context.Context, r backend.Request) (context.Context, func(keys, bytes int, err error)) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return ctx, func(int, int, error) {}
	}
	ctx, span := t.tracer.Start(ctx, "holdfast.store."+r.Verb, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		attribute.String("holdfast.key", r.Key), attribute.Int("holdfast.attempt", r.Attempt)))
	return ctx, func(keys, bytes int, err error) {
		span.SetAttributes(attribute.Int("holdfast.keys", keys), attribute.Int("holdfast.bytes", bytes))
		end(span, err)
	}
}

func end(span trace.Span, err error) {
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

func (t *telemetry) phase(ctx context.Context, phase string, d time.Duration) {
	t.phaseTime.Record(ctx, d.Seconds(), metric.WithAttributes(attribute.String("phase", phase)))
}

func (t *telemetry) committed(ctx context.Context, d time.Duration, c *checkpoint.Checkpoint) {
	t.commitTime.Record(ctx, d.Seconds())
	t.stored(ctx, c)
}

// stored counts what a checkpoint has stored.
func (t *telemetry) stored(ctx context.Context, c *checkpoint.Checkpoint) {
	t.stateBytes.Record(ctx, c.Bytes)
	t.newBytes.Add(ctx, c.NewBytes)
}

func (t *telemetry) failed(ctx context.Context, kind string) {
	t.failures.Add(ctx, 1, metric.WithAttributes(attribute.String("kind", kind)))
}

func (t *telemetry) followFailed(ctx context.Context, kind string) {
	t.followFails.Add(ctx, 1, metric.WithAttributes(attribute.String("kind", kind)))
}

func (t *telemetry) coalesced(ctx context.Context, n int) {
	if n > 0 {
		t.coalescings.Add(ctx, int64(n))
	}
}

func (t *telemetry) heldBack(ctx context.Context, d time.Duration) { t.heldTime.Add(ctx, d.Seconds()) }

func (t *telemetry) restored(ctx context.Context, d time.Duration) {
	t.restoreTime.Record(ctx, d.Seconds())
}
