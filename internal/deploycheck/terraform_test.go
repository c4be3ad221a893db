package deploycheck

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// parse returns the blocks of a Terraform module, each file of which must be formatted.
func parse(t *testing.T, module string) (blocks []*hclsyntax.Block) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, module, "*.tf"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %q, %v", module, files, err)
	}
	for _, path := range files {
		source := mustRead(t, path)
		parsed, diags := hclparse.NewParser().ParseHCL(source, path)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		if !bytes.Equal(hclwrite.Format(source), source) {
			t.Errorf("%s: run terraform fmt", path)
		}
		blocks = append(blocks, parsed.Body.(*hclsyntax.Body).Blocks...)
	}
	return blocks
}

// local returns the text of a local value, with values for its variables.
func local(t *testing.T, blocks []*hclsyntax.Block, name string, variables map[string]string) string {
	t.Helper()
	values := make(map[string]cty.Value)
	for k, v := range variables {
		values[k] = cty.StringVal(v)
	}
	for _, b := range blocks {
		if attr := b.Body.Attributes[name]; b.Type == "locals" && attr != nil {
			v, diags := attr.Expr.Value(&hcl.EvalContext{Variables: map[string]cty.Value{"var": cty.ObjectVal(values)}})
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			return v.AsString()
		}
	}
	t.Fatalf("there is no local value %q", name)
	return ""
}

// documented returns the JSON block below a heading.
func documented(t *testing.T, path, heading string) string {
	t.Helper()
	_, section, found := strings.Cut(string(file(t, path)), "\n### "+heading+"\n")
	_, block, fenced := strings.Cut(section, "```json\n")
	block, _, ended := strings.Cut(block, "```\n")
	if !found || !fenced || !ended {
		t.Fatalf("%s: no JSON under %q", path, heading)
	}
	return block
}

// TestPoliciesAreTheDocuments: the policies of Terraform are those of docs/deploy/aws.md,
// which TestPolicies of package s3 runs with MinIO.
func TestPoliciesAreTheDocuments(t *testing.T) {
	blocks := parse(t, "deploy/terraform/aws")
	names := map[string]string{"bucket": "example-checkpoints", "prefix": "jobs/orders"}
	for name, heading := range map[string]string{"owner": "Owner", "reader": "Reader", "collector": "Collector", "bucket_policy": "Bucket policy"} {
		if got, want := local(t, blocks, name, names), documented(t, "docs/deploy/aws.md", heading); got != want {
			t.Errorf("%s is\n%s\nand docs/deploy/aws.md has\n%s", name, got, want)
		}
	}
}

// TestTrust: the roles trust one service account, and nobody else.
func TestTrust(t *testing.T) {
	blocks := parse(t, "deploy/terraform/aws")
	names := map[string]string{
		"cluster": "c", "oidc_provider": "oidc.example.com/id/X", "account": "111122223333", "namespace": "n", "service_account": "s",
	}
	for name, want := range map[string][]string{
		"pod_identity_trust": {`"pods.eks.amazonaws.com"`, `"sts:TagSession"`, `"aws:RequestTag/eks-cluster-name": "c"`,
			`"aws:RequestTag/kubernetes-namespace": "n"`, `"aws:RequestTag/kubernetes-service-account": "s"`},
		"irsa_trust": {`"arn:aws:iam::111122223333:oidc-provider/oidc.example.com/id/X"`, `"oidc.example.com/id/X:aud": "sts.amazonaws.com"`,
			`"oidc.example.com/id/X:sub": "system:serviceaccount:n:s"`},
	} {
		got := local(t, blocks, name, names)
		if !json.Valid([]byte(got)) {
			t.Errorf("%s is no JSON: %s", name, got)
		}
		for _, part := range want {
			if !strings.Contains(got, part) {
				t.Errorf("%s lacks %s: %s", name, part, got)
			}
		}
	}
	principal := local(t, parse(t, "deploy/terraform/gcp"), "gke_principal", map[string]string{
		"project_number": "PROJECT_NUMBER", "project": "PROJECT_ID", "namespace": "NAMESPACE", "service_account": "SERVICE_ACCOUNT"})
	if !strings.Contains(string(file(t, "docs/deploy/gcp.md")), "--member="+principal+"\n") {
		t.Errorf("docs/deploy/gcp.md does not grant to %s", principal)
	}
}

// TestBuckets: no rule of a bucket touches an object that is current, and what is noncurrent
// goes after the time that the documents have.
func TestBuckets(t *testing.T) {
	aws := find(t, parse(t, "deploy/terraform/aws"), "aws_s3_bucket_lifecycle_configuration", "rule")
	if got := expirations(aws); !slices.Equal(got, []string{"expiration.expired_object_delete_marker=true", "noncurrent_version_expiration.noncurrent_days=7"}) {
		t.Errorf("the rule of S3 expires %q", got)
	}
	gcp := find(t, parse(t, "deploy/terraform/gcp"), "google_storage_bucket", "lifecycle_rule")
	if got := expirations(gcp); !slices.Equal(got, []string{"condition.days_since_noncurrent_time=7", `condition.with_state="ARCHIVED"`}) {
		t.Errorf("the rule of Cloud Storage deletes %q", got)
	}
	for path, days := range map[string]string{"docs/deploy/aws.md": `"NoncurrentDays": 7`, "docs/deploy/gcp.md": `"daysSinceNoncurrentTime": 7`} {
		if !strings.Contains(string(file(t, path)), days) {
			t.Errorf("%s lacks %s", path, days)
		}
	}
	role := find(t, parse(t, "deploy/terraform/gcp"), "google_project_iam_custom_role", "")
	granted, _ := role.Attributes["permissions"].Expr.Value(nil)
	var permissions []string
	for _, v := range granted.AsValueSlice() {
		permissions = append(permissions, v.AsString())
	}
	if !regexp.MustCompile(`--permissions=` + strings.Join(permissions, ",") + `\n`).Match(file(t, "docs/deploy/gcp.md")) {
		t.Errorf("docs/deploy/gcp.md has no role with %q", permissions)
	}
}

// find returns the only block of a kind in a resource, or the resource itself.
func find(t *testing.T, blocks []*hclsyntax.Block, resource, kind string) *hclsyntax.Body {
	t.Helper()
	var found []*hclsyntax.Body
	for _, b := range blocks {
		if b.Type != "resource" || b.Labels[0] != resource {
			continue
		}
		if kind == "" {
			found = append(found, b.Body)
		}
		for _, inner := range b.Body.Blocks {
			if inner.Type == kind {
				found = append(found, inner.Body)
			}
		}
	}
	if len(found) != 1 {
		t.Fatalf("%s has %d blocks %s; want one", resource, len(found), kind)
	}
	return found[0]
}

// expirations returns what the blocks in a rule say of when it applies, but for prefixes.
func expirations(rule *hclsyntax.Body) (all []string) {
	for _, b := range rule.Blocks {
		for name, attr := range b.Body.Attributes {
			v, diags := attr.Expr.Value(nil)
			if diags.HasErrors() || b.Type == "action" {
				continue // it has a variable, which is a prefix
			}
			all = append(all, b.Type+"."+name+"="+string(hclwrite.TokensForValue(v).Bytes()))
		}
	}
	slices.Sort(all)
	return all
}
