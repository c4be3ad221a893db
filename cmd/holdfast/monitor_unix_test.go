//go:build linux || darwin

package main

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// startMonitored starts a shell command under holdfast run with --metrics, and returns where
// it answers.
func (r *runTest) startMonitored(store, command string, flags ...string) (x *running, url string) {
	r.t.Helper()
	x = r.startOn(store, command, append([]string{"--metrics", "127.0.0.1:0"}, flags...)...)
	note := regexp.MustCompile(`metrics are at (http://\S+)/metrics\n`)
	eventually(r.t, "the address", func() bool {
		if m := note.FindStringSubmatch(x.said()); m != nil {
			url = m[1]
		}
		return url != ""
	})
	return x, url
}

// ask returns what is answered at an address.
func ask(t *testing.T, url string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// scrape returns the samples at an address, by name and labels, and the names of the metrics.
func scrape(t *testing.T, url string) (samples map[string]float64, metrics []string) {
	t.Helper()
	status, body := ask(t, url+"/metrics")
	if status != http.StatusOK {
		t.Fatalf("%d, %s", status, body)
	}
	samples = make(map[string]float64)
	for lines := bufio.NewScanner(strings.NewReader(body)); lines.Scan(); {
		if typed, ok := strings.CutPrefix(lines.Text(), "# TYPE "); ok {
			metrics = append(metrics, strings.Fields(typed)[0])
		}
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		at := strings.LastIndex(lines.Text(), " ")
		v, err := strconv.ParseFloat(lines.Text()[at+1:], 64)
		if err != nil {
			t.Fatalf("%v in %q", err, lines.Text())
		}
		samples[lines.Text()[:at]] = v
	}
	slices.Sort(metrics)
	return samples, metrics
}

// TestRunMetrics: a run has all metrics that docs/run.md names, and no other, with values
// that can be true.
func TestRunMetrics(t *testing.T) {
	doc, err := os.ReadFile("../../docs/run.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(holdfast_[a-z_]+)` \\|").FindAllStringSubmatch(string(doc), -1) {
		if !strings.HasPrefix(row[1], "holdfast_standby_") { // TestStandbyMetrics
			documented = append(documented, row[1])
		}
	}
	slices.Sort(documented)
	r := newRunTest(t)
	r.start(`echo 1 >"$HOLDFAST_STATE/n"`).wantEnd(0, "")
	ok(t, "verify", fileURL(r.store), "--restorable")
	x, url := r.startMonitored(fileURL(r.store), count, "--every", "50ms", "--exclude", "*.tmp")
	var got map[string]float64
	var metrics []string
	eventually(t, "the metrics of two checkpoints, and of a restore test", func() bool {
		got, metrics = scrape(t, url)
		_, tested := got[`holdfast_restore_test_age_seconds{holdfast_task="a"}`]
		return tested && got["holdfast_commit_duration_seconds_count"] >= 2
	})
	if !slices.Equal(metrics, documented) {
		t.Errorf("docs/run.md has\n%q\nrun has\n%q", documented, metrics)
	}
	for name, most := range map[string]float64{ // each is above 0
		`holdfast_checkpoint_age_seconds{holdfast_task="a"}`:   60,
		`holdfast_restore_test_age_seconds{holdfast_task="a"}`: 60,
		`holdfast_commit_duration_seconds_sum`:                 60,
		`holdfast_restore_duration_seconds_count`:              1,
		`holdfast_commit_stored_bytes_total`:                   1e6,
		`holdfast_store_requests_total{verb="create"}`:         1e6,
		`holdfast_store_io_bytes_total{verb="create"}`:         1e9,
		`holdfast_run_ready{holdfast_task="a"}`:                1,
	} {
		if v, ok := got[name]; !ok || v <= 0 || v > most {
			t.Errorf("%s is %v (there: %t); want more than 0, up to %v", name, v, ok, most)
		}
	}
	if epoch := got[`holdfast_run_epoch{holdfast_task="a"}`]; epoch != float64(r.status().Epoch) {
		t.Errorf("epoch %v; it is %d", epoch, r.status().Epoch)
	}
	if v, ok := got[`holdfast_commit_failures_total{kind="fenced"}`]; !ok || v != 0 {
		t.Errorf("fenced: %v, there: %t; it must begin at 0", v, ok)
	}
	if status, _ := ask(t, url+"/"); status != http.StatusNotFound {
		t.Errorf("/ answers %d", status)
	}
	x.signal(syscall.SIGTERM)
	x.end()
}

// TestRunIsReady: /ready answers 503 while the state is restored, 200 while the program runs,
// and 503 from the moment at which it is asked to end.
func TestRunIsReady(t *testing.T) {
	wantStatus := func(url string, want int, when string) {
		t.Helper()
		if got, body := ask(t, url+"/ready"); got != want {
			t.Errorf("/ready answers %d (%s) %s; want %d", got, body, when, want)
		}
	}
	asked, answer := make(chan struct{}, 100), make(chan struct{})
	store := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		select {
		case <-answer:
		case <-r.Context().Done():
		}
	}))
	defer store.Close()
	defer close(answer)
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	r := newRunTest(t)
	x, url := r.startMonitored("s3://bucket/jobs?endpoint="+store.URL, "true")
	<-asked // it waits for the store's answer
	wantStatus(url, http.StatusServiceUnavailable, "before the state is restored")
	x.signal(syscall.SIGKILL)
	x.end()

	r = newRunTest(t)
	x, url = r.startMonitored(fileURL(r.store), `trap 'touch "$HOLDFAST_STATE/../told"' TERM; touch "$HOLDFAST_STATE/ready"
		while ! [ -e "$HOLDFAST_STATE/../end" ]; do sleep 0.01; done`, "--grace", "1m")
	eventually(t, "the program", r.hasFile("ready"))
	eventually(t, "readiness", func() bool {
		status, _ := ask(t, url+"/ready")
		return status == http.StatusOK
	})
	x.signal(syscall.SIGTERM)
	eventually(t, "the signal", r.hasFile("../told"))
	wantStatus(url, http.StatusServiceUnavailable, "while the program ends")
	mustWrite(t, filepath.Join(filepath.Dir(r.dir), "end"), "")
	x.end()
}

// TestRunTellsThatItWasFenced: until its program has ended, a run that was fenced says so, and
// is not ready. Its successor has a higher epoch.
func TestRunTellsThatItWasFenced(t *testing.T) {
	r := newRunTest(t)
	x, url := r.startMonitored(fileURL(r.store), `trap : TERM; touch "$HOLDFAST_STATE/ready"
		while ! [ -e "$HOLDFAST_STATE/../end" ]; do sleep 0.01; done`, "--every", "100ms", "--grace", "1m")
	eventually(t, "the program", r.hasFile("ready"))
	before, _ := scrape(t, url)
	second := &runTest{t, r.store, r.dir + "2"}
	second.start("true", "--take-over").wantEnd(0, "")
	eventually(t, "the fence in the metrics", func() bool {
		got, _ := scrape(t, url)
		return got[`holdfast_commit_failures_total{kind="fenced"}`] == 1 && got[`holdfast_run_ready{holdfast_task="a"}`] == 0
	})
	if epoch := before[`holdfast_run_epoch{holdfast_task="a"}`]; epoch == 0 || float64(r.status().Epoch) <= epoch {
		t.Errorf("the fenced run had epoch %v, and now it is %d", epoch, r.status().Epoch)
	}
	mustWrite(t, filepath.Join(filepath.Dir(r.dir), "end"), "")
	if code := x.end(); code != 124 {
		t.Errorf("exit code %d", code)
	}
}
