package deploycheck

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/yaml"
)

// A query is one of the dashboard or of an alert.
type query struct{ from, expr string }

// TestQueries: each query can be parsed, and names only metrics and labels that a real run
// exports. Prometheus answers others with nothing, so a panel would stay empty and an alert
// silent.
func TestQueries(t *testing.T) {
	metrics := exported(t)
	queries := append(dashboard(t), alerts(t)...)
	if len(queries) < 20 {
		t.Fatalf("%d queries were found", len(queries))
	}
	for _, q := range queries {
		if err := checkQuery(metrics, q.expr); err != "" {
			t.Errorf("%s: %s: %s", q.from, q.expr, err)
		}
	}
}

// TestQueriesThatAreWrong: the check finds what it is there for.
func TestQueriesThatAreWrong(t *testing.T) {
	metrics := map[string]metric{"a_total": {map[string]bool{"verb": true}}}
	for expr, want := range map[string]string{
		`rate(a_total{verb="get", job="j"}[5m])`: "",
		`sum by (verb, instance) (a_total)`:      "",
		`rate(b_total[5m])`:                      "no metric b_total",
		`a_total and on () max(c{verb="x"})`:     "no metric c",
		`{verb="get"}`:                           "no metric",
		`a_total{kind="x"}`:                      "a_total has no label kind",
		`sum by (kind) (a_total)`:                "no metric in it has a label kind",
		`a_total + on (kind) a_total`:            "no metric in it has a label kind",
		`rate(a_total)`:                          "expected type range vector",
	} {
		if got := checkQuery(metrics, expr); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q; want %q", expr, got, want)
		}
	}
}

// target are labels that Prometheus adds when it scrapes.
var target = map[string]bool{"job": true, "instance": true}

// checkQuery returns what is wrong with a query; "" if nothing is.
func checkQuery(metrics map[string]metric, expr string) string {
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		return err.Error()
	}
	known := make(map[string]bool) // labels of any metric in it
	var names []string             // labels that it groups or matches by
	wrong := ""
	parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			m, ok := metrics[n.Name]
			if !ok {
				wrong = "there is no metric " + n.Name
				return nil
			}
			for l := range m.labels {
				known[l] = true
			}
			for _, matcher := range n.LabelMatchers {
				if l := matcher.Name; l != "__name__" && !m.labels[l] && !target[l] {
					wrong = n.Name + " has no label " + l
				}
			}
		case *parser.AggregateExpr:
			names = append(names, n.Grouping...)
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				names = append(names, n.VectorMatching.MatchingLabels...)
			}
		}
		return nil
	})
	for _, l := range names {
		if wrong == "" && !known[l] && !target[l] {
			wrong = "no metric in it has a label " + l
		}
	}
	return wrong
}

// dashboard returns the queries of the dashboard, with values for Grafana's variables.
func dashboard(t *testing.T) (queries []query) {
	t.Helper()
	var doc struct {
		Templating struct {
			List []struct{ Name, Type, Query string }
		}
		Panels []struct {
			ID      int
			Title   string
			Targets []struct{ Expr string }
		}
	}
	const path = "deploy/grafana/holdfast.json"
	if err := json.Unmarshal(file(t, path), &doc); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$__rate_interval", "5m")
	ids := make(map[int]bool)
	for _, p := range doc.Panels {
		if ids[p.ID] || len(p.Targets) == 0 {
			t.Errorf("%s: panel %q has the number of another, or no query", path, p.Title)
		}
		ids[p.ID] = true
		for _, q := range p.Targets {
			queries = append(queries, query{path + ", " + p.Title, variables.Replace(q.Expr)})
		}
	}
	values := regexp.MustCompile(`^label_values\((.*), ([a-z_]+)\)$`)
	for _, v := range doc.Templating.List {
		if v.Type != "query" {
			continue
		}
		m := values.FindStringSubmatch(v.Query)
		if m == nil {
			t.Errorf("%s: variable %s: %q is no label_values(metric, label)", path, v.Name, v.Query)
			continue
		}
		queries = append(queries, query{path + ", variable " + v.Name, "sum by (" + m[2] + ") (" + m[1] + ")"})
	}
	return queries
}

// alerts returns the expressions of the alerts.
func alerts(t *testing.T) (queries []query) {
	t.Helper()
	var doc struct {
		Groups []struct {
			Name  string `json:"name"`
			Rules []struct {
				Alert string `json:"alert"`
				Expr  string `json:"expr"`
			} `json:"rules"`
		} `json:"groups"`
	}
	const path = "deploy/prometheus/alerts.yml"
	if err := yaml.Unmarshal(file(t, path), &doc); err != nil {
		t.Fatal(err)
	}
	for _, g := range doc.Groups {
		for _, r := range g.Rules {
			queries = append(queries, query{path + ", " + r.Alert, r.Expr})
		}
	}
	return queries
}

// TestPromtool checks the alerts, and runs their tests: each alert comes when it should, and
// stays away when it should not.
func TestPromtool(t *testing.T) {
	promtool := filepath.Join(t.TempDir(), "promtool")
	build := command(t, "go", "build", "-tags", "remove_all_sd", "-o", promtool, "github.com/prometheus/prometheus/cmd/promtool")
	build.Dir = "." // its version stands in this module
	mustRun(t, build)
	mustRun(t, command(t, promtool, "check", "rules", "--lint=all", "--lint-fatal", "deploy/prometheus/alerts.yml"))
	const tests = "deploy/prometheus/tests/alerts_test.yml"
	mustRun(t, command(t, promtool, "test", "rules", tests))
	for _, q := range alerts(t) {
		_, alert, _ := strings.Cut(q.from, ", ")
		text := string(file(t, tests))
		if !regexp.MustCompile(`alertname: `+alert+`\n\s+exp_alerts:\n\s+- exp_labels`).MatchString(text) ||
			!strings.Contains(text, "alertname: "+alert+", exp_alerts: []") {
			t.Errorf("%s does not show when %s comes, and when it does not", tests, alert)
		}
	}
}
