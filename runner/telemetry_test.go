package runner

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/holdfast-io/holdfast/backend"
	"github.com/holdfast-io/holdfast/checkpoint"
	"github.com/holdfast-io/holdfast/internal/faultstore"
)

// metrics are what a reader collects: sums, counts and gauges, by name and
// attributes.
func metrics(t *testing.T, reader sdkmetric.Reader) map[string]float64 {
	t.Helper()
	var data metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &data); err != nil {
		t.Fatal(err)
	}
	found := make(map[string]float64)
	for _, scope := range data.ScopeMetrics {
		for _, m := range scope.Metrics {
			add := func(set attribute.Set, v float64) {
				name := m.Name
				for _, kv := range set.ToSlice() {
					name += " " + kv.Value.AsString()
				}
				found[name] = v
			}
			switch d := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range d.DataPoints {
					add(p.Attributes, float64(p.Value))
				}
			case metricdata.Sum[float64]:
				for _, p := range d.DataPoints {
					add(p.Attributes, p.Value)
				}
			case metricdata.Gauge[float64]:
				for _, p := range d.DataPoints {
					add(p.Attributes, p.Value)
				}
			case metricdata.Histogram[int64]:
				for _, p := range d.DataPoints {
					add(p.Attributes, float64(p.Sum))
				}
			case metricdata.Histogram[float64]:
				for _, p := range d.DataPoints {
					add(p.Attributes, p.Sum)
				}
			default:
				t.Errorf("%s is a %T", m.Name, d)
			}
		}
	}
	return found
}

// docs/runner.md names each instrument, with its unit, and no other. A unit in braces is
// a count, which needs none there.
func TestMetricsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/runner.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `(holdfast\\.[^`]*)` \\|([^|]*)\\|").FindAllStringSubmatch(string(doc), -1) {
		unit, _, _ := strings.Cut(strings.TrimSpace(row[2]), ",")
		if strings.Contains(unit, "`") {
			unit = "" // an attribute
		}
		documented[row[1]] = unit
	}
	made := make(map[string]string)
	note := func(i sdkmetric.Instrument) (sdkmetric.Stream, bool) {
		if i.Description == "" || i.Unit == "" {
			t.Errorf("%s lacks a unit or a description", i.Name)
		}
		made[i.Name] = regexp.MustCompile(`^\{.*\}$`).ReplaceAllString(i.Unit, "")
		return sdkmetric.Stream{}, false
	}
	inWorld(t, func(t *testing.T, w *world) {
		provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()), sdkmetric.WithView(note))
		w.runner(w.job(), Options{MeterProvider: provider})
	})
	if !maps.Equal(documented, made) {
		t.Errorf("docs/runner.md has %q\nthe runner makes  %q", documented, made)
	}
}

func TestMetricsAndSpans(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		reader, spans := sdkmetric.NewManualReader(), tracetest.NewSpanRecorder()
		var store *faultstore.Store
		r := w.runner(w.job(faulty(&store)), Options{
			Interval: Manual, MaxDelay: 2 * time.Second, CommitTimeout: 10 * time.Second,
			MeterProvider:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)),
			TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)),
		})
		task, h := w.own(r, "a")
		h.cutTakes(3 * time.Second)
		if _, err := task.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(7 * time.Second)
		h.cutTakes(0)
		h.failWith(func() error { return errHost })
		_, _ = task.Commit(t.Context())
		h.failWith(func() error { panic("oh") })
		_, _ = task.Commit(t.Context())
		h.failWith(nil)
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "create", For: time.Hour})
		go func() {
			time.Sleep(5 * time.Second)
			_ = h.add(t.Context(), task) // held back
		}()
		_, _ = task.Commit(t.Context())
		store.Disarm()
		time.Sleep(time.Second)

		got := metrics(t, reader)
		for name, want := range map[string]float64{
			"holdfast.checkpoint.age a":             3 + 7 + 10 + 1,
			"holdfast.commit.duration":              3,
			"holdfast.commit.phase.duration cut":    3,
			"holdfast.commit.state_size":            1,
			"holdfast.commit.failures cut":          1,
			"holdfast.commit.failures panic":        1,
			"holdfast.commit.failures timeout":      1,
			"holdfast.backpressure.duration":        5,
			"holdfast.restore.duration":             0,
			"holdfast.commit.phase.duration wait":   0,
			"holdfast.commit.phase.duration upload": 10,
		} {
			if v, ok := got[name]; !ok || v != want {
				t.Errorf("%s is %v (there: %v); expected %v", name, v, ok, want)
			}
		}
		for _, name := range []string{"holdfast.commit.stored", "holdfast.store.requests create", "holdfast.store.requests list",
			"holdfast.store.io create", "holdfast.store.failures create"} {
			if got[name] <= 0 {
				t.Errorf("%s is %v", name, got[name])
			}
		}
		var ended []string
		requests := make(map[string]int64)
		for _, s := range spans.Ended() {
			if verb, ok := strings.CutPrefix(s.Name(), "holdfast.store."); ok {
				requests[verb+" of "+parentOf(s, spans.Ended())] += attributesOf(s)["holdfast.bytes"].AsInt64()
				continue
			}
			ended = append(ended, s.Name()+" "+strings.ToLower(s.Status().Code.String()))
		}
		if requests["create of holdfast.own"] <= 0 || requests["create of holdfast.commit"] <= 0 {
			t.Errorf("bytes of the requests that spans tell of: %v", requests)
		}
		want := []string{"holdfast.own unset", "holdfast.commit unset", "holdfast.commit error", "holdfast.commit error", "holdfast.commit error"}
		if !slices.Equal(ended, want) {
			t.Errorf("spans: %q", ended)
		}

		// What the runner no longer has, it no longer tells of.
		if err := task.Release(within(t, time.Minute)); err != nil && !errors.Is(err, errHost) {
			t.Error(err)
		}
		if age, ok := metrics(t, reader)["holdfast.checkpoint.age a"]; ok {
			t.Errorf("a released task is %v s old", age)
		}
		if err := r.Drain(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
		if _, ok := metrics(t, reader)["holdfast.store.requests list"]; ok {
			t.Error("a drained runner is still observed")
		}
	})
}

func attributesOf(s sdktrace.ReadOnlySpan) map[attribute.Key]attribute.Value {
	found := make(map[attribute.Key]attribute.Value)
	for _, kv := range s.Attributes() {
		found[kv.Key] = kv.Value
	}
	return found
}

// parentOf returns the name of the span in which s is.
func parentOf(s sdktrace.ReadOnlySpan, all []sdktrace.ReadOnlySpan) string {
	for _, p := range all {
		if p.SpanContext().SpanID() == s.Parent().SpanID() {
			return p.Name()
		}
	}
	return "none"
}

// A request that is tried again has a span for each attempt, which says which one it is.
func TestRequestsThatAreRepeated(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		spans := tracetest.NewSpanRecorder()
		var store *faultstore.Store
		r := w.runner(w.job(faulty(&store)), Options{
			Interval: Manual, TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)),
		})
		task, _ := w.own(r, "a")
		before := len(spans.Ended())
		store.Arm(faultstore.Fault{Kind: faultstore.FailBefore, Verb: "create", On: 1})
		if _, err := task.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range spans.Ended()[before:] {
			if s.Name() == "holdfast.store.create" {
				got = append(got, fmt.Sprint(attributesOf(s)["holdfast.attempt"].AsInt64(), " ", s.Status().Code, " ", attributesOf(s)["holdfast.bytes"].AsInt64() > 0))
			}
		}
		if want := []string{"1 Error true", "2 Unset true"}; !slices.Equal(got, want) {
			t.Errorf("attempts %q; want %q", got, want)
		}
	})
}

// A clean-up goes on after the claim or the commit that has begun it. Its requests are no
// part of a trace that would never end.
func TestRequestsAfterTheirSpan(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		spans := tracetest.NewSpanRecorder()
		r := w.runner(w.job(), Options{TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))})
		ctx, ended := r.telemetry.begin(t.Context(), "holdfast.own", "a")
		_, end := r.telemetry.request(ctx, backend.Request{Verb: "get", Key: "during", Attempt: 1})
		end(1, 0, nil)
		ended(nil)
		_, end = r.telemetry.request(ctx, backend.Request{Verb: "delete", Key: "after", Attempt: 1})
		end(1, 0, nil)
		var got []string
		for _, s := range spans.Ended() {
			got = append(got, s.Name())
		}
		if want := []string{"holdfast.store.get", "holdfast.own"}; !slices.Equal(got, want) {
			t.Errorf("spans %q; want %q", got, want)
		}
	})
}

// The counter of each documented kind of failure is there before the first one, because
// Prometheus does not see an increase in a counter that is new.
func TestFailuresAreCountedFromZero(t *testing.T) {
	doc, err := os.ReadFile("../docs/runner.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `holdfast.commit.failures` \\| `kind` \\|([^|]*)\\|").FindStringSubmatch(string(doc))
	if row == nil {
		t.Fatal("docs/runner.md has no row for holdfast.commit.failures")
	}
	var documented []string
	for _, m := range regexp.MustCompile("`([a-z]+)`").FindAllStringSubmatch(row[1], -1) {
		documented = append(documented, m[1])
	}
	inWorld(t, func(t *testing.T, w *world) {
		reader := sdkmetric.NewManualReader()
		w.own(w.runner(w.job(), Options{Interval: Manual, MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))}), "a")
		var counted []string
		for name, v := range metrics(t, reader) {
			if kind, ok := strings.CutPrefix(name, "holdfast.commit.failures "); ok && v == 0 {
				counted = append(counted, kind)
			}
		}
		slices.Sort(documented)
		slices.Sort(counted)
		if !slices.Equal(counted, documented) {
			t.Errorf("counted from zero: %q\ndocumented:        %q", counted, documented)
		}
	})
}

// A histogram of sizes tells states of different sizes apart. OpenTelemetry's own bounds end
// at 10,000.
func TestBoundsOfSizes(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		reader := sdkmetric.NewManualReader()
		r := w.runner(w.job(), Options{Interval: Manual, MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))})
		for _, size := range []int64{100, 100 << 10, 100 << 20, 100 << 30, 100 << 40} {
			r.telemetry.stored(t.Context(), &checkpoint.Checkpoint{Bytes: size})
		}
		var data metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &data); err != nil {
			t.Fatal(err)
		}
		for _, m := range data.ScopeMetrics[0].Metrics {
			if h, ok := m.Data.(metricdata.Histogram[int64]); ok && slices.Max(h.DataPoints[0].BucketCounts) != 1 {
				t.Errorf("%s: %v in %v", m.Name, h.DataPoints[0].BucketCounts, h.DataPoints[0].Bounds)
			}
		}
	})
}

// The age survives a restart: a job that crashes before its first commit looks as
// old as its checkpoint.
func TestAgeSurvivesARestart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		r := w.runner(w.job(), Options{Interval: Manual})
		task, _ := w.own(r, "a")
		if err := task.Release(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		w.own(r, "a")
		if age := r.ages(time.Now())["a"]; age != time.Hour {
			t.Errorf("%v", age)
		}
	})
}

func TestCoalescedTriggersAreCounted(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		reader := sdkmetric.NewManualReader()
		var store *faultstore.Store
		r := w.runner(w.job(faulty(&store)), Options{Interval: Manual, MeterProvider: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))})
		task, _ := w.own(r, "a")
		store.Arm(faultstore.Fault{Kind: faultstore.Delay, Verb: "create", For: 5 * time.Second})
		done := make(chan error)
		for range 4 { // one, one that waits for the next, and two that come to that
			go func() {
				_, err := task.Commit(t.Context())
				done <- err
			}()
			time.Sleep(time.Second)
		}
		for range 4 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if n := metrics(t, reader)["holdfast.commit.coalesced"]; n != 2 {
			t.Errorf("%v triggers were coalesced; expected 2", n)
		}
	})
}
