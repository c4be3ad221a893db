package runner

import (
	"errors"
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
		for _, s := range spans.Ended() {
			ended = append(ended, s.Name()+" "+strings.ToLower(s.Status().Code.String()))
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
