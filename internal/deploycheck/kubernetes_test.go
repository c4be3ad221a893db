package deploycheck

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// kinds are the types of what is in deploy/kubernetes.
var kinds = map[string]func() any{
	"v1 ConfigMap":                  func() any { return new(corev1.ConfigMap) },
	"v1 Secret":                     func() any { return new(corev1.Secret) },
	"v1 Service":                    func() any { return new(corev1.Service) },
	"v1 ServiceAccount":             func() any { return new(corev1.ServiceAccount) },
	"apps/v1 StatefulSet":           func() any { return new(appsv1.StatefulSet) },
	"policy/v1 PodDisruptionBudget": func() any { return new(policyv1.PodDisruptionBudget) },
}

// decode returns the objects in a document. A field that the API does not have is an error.
func decode(document []byte) (objects []any, err error) {
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(document)))
	for {
		one, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		var is metav1.TypeMeta
		if err := yaml.Unmarshal(one, &is); err != nil {
			return nil, err
		}
		make := kinds[is.APIVersion+" "+is.Kind]
		if make == nil {
			return nil, fmt.Errorf("%s %s is of no known kind", is.APIVersion, is.Kind)
		}
		object := make()
		if err := yaml.UnmarshalStrict(one, object); err != nil {
			return nil, fmt.Errorf("%s: %w", is.Kind, err)
		}
		objects = append(objects, object)
	}
}

// TestKubernetesFiles: each document has only fields that Kubernetes knows.
func TestKubernetesFiles(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "deploy/kubernetes/*.yaml"))
	if err != nil || len(files) != 3 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, path := range files {
		if objects, err := decode(mustRead(t, path)); err != nil || len(objects) < 2 {
			t.Errorf("%s: %d objects, %v", path, len(objects), err)
		}
	}
	wrong := bytes.Replace(file(t, "deploy/kubernetes/persistent.yaml"), []byte("readinessProbe:"), []byte("readyProbe:"), 1)
	if _, err := decode(wrong); err == nil {
		t.Error("a field that does not exist is not found")
	}
}

// A statefulSet is one of the two, and the command line in it.
type statefulSet struct {
	*appsv1.StatefulSet
	pod      *corev1.PodSpec
	holdfast corev1.Container
}

func loadSet(t *testing.T, name string) statefulSet {
	t.Helper()
	objects, err := decode(file(t, "deploy/kubernetes/"+name))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if s, ok := o.(*appsv1.StatefulSet); ok {
			return statefulSet{s, &s.Spec.Template.Spec, s.Spec.Template.Spec.Containers[0]}
		}
	}
	t.Fatalf("%s has no StatefulSet", name)
	panic("unreachable")
}

// flag returns the value of --name=value.
func (s statefulSet) flag(name string) string {
	for _, arg := range s.holdfast.Command {
		if v, ok := strings.CutPrefix(arg, "--"+name+"="); ok {
			return v
		}
	}
	return ""
}

// TestStatefulSets: what belongs together does.
func TestStatefulSets(t *testing.T) {
	for _, name := range []string{"persistent.yaml", "emptydir.yaml"} {
		t.Run(name, func(t *testing.T) {
			s := loadSet(t, name)
			grace, err := time.ParseDuration(s.flag("grace"))
			if err != nil {
				t.Fatal(err)
			}
			if pod, least := *s.pod.TerminationGracePeriodSeconds, int64((2*grace + 15*time.Second).Seconds()); pod != least {
				t.Errorf("the pod has %d s to end; twice --grace and 15 s are %d", pod, least)
			}
			probe := s.holdfast.ReadinessProbe
			port := s.holdfast.Ports[0]
			if probe.HTTPGet.Path != "/ready" || probe.HTTPGet.Port.StrVal != port.Name || s.flag("metrics") != fmt.Sprintf(":%d", port.ContainerPort) {
				t.Errorf("the probe asks %v, and run answers at %s, port %d", probe.HTTPGet, s.flag("metrics"), port.ContainerPort)
			}
			if s.holdfast.LivenessProbe != nil || s.holdfast.StartupProbe != nil {
				t.Error("a long restore, or a store that cannot be reached, would end the pod")
			}
			state := s.flag("state")
			if slices.ContainsFunc(s.holdfast.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == state }) ||
				!slices.ContainsFunc(s.holdfast.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == filepath.Dir(state) }) {
				t.Errorf("--state %s must be just below a mount point", state)
			}
			security, pod := s.holdfast.SecurityContext, s.pod.SecurityContext
			if !*security.ReadOnlyRootFilesystem || *security.AllowPrivilegeEscalation || !slices.Equal(security.Capabilities.Drop, []corev1.Capability{"ALL"}) ||
				!*pod.RunAsNonRoot || *pod.RunAsUser == 0 || pod.FSGroup == nil || pod.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
				t.Error("the pod may do more than it needs")
			}
			if takesOver, lasts := slices.Contains(s.holdfast.Command, "--take-over"), len(s.Spec.VolumeClaimTemplates) > 0; takesOver == lasts {
				t.Errorf("--take-over: %t; a volume that lasts: %t", takesOver, lasts)
			}
		})
	}
}

// TestStatefulSetsRun runs the command line of each, with a directory for the store and for
// the volume, as pod 7.
func TestStatefulSetsRun(t *testing.T) {
	dir := t.TempDir()
	holdfast := filepath.Join(dir, "holdfast")
	mustRun(t, command(t, "go", "build", "-o", holdfast, "./cmd/holdfast"))
	for _, name := range []string{"persistent.yaml", "emptydir.yaml"} {
		t.Run(name, func(t *testing.T) {
			s := loadSet(t, name)
			var index string
			for _, env := range s.holdfast.Env {
				if env.ValueFrom != nil && env.ValueFrom.FieldRef.FieldPath == "metadata.labels['apps.kubernetes.io/pod-index']" {
					index = env.Name
				}
			}
			volume := t.TempDir()
			store := (&url.URL{Scheme: "file", Path: filepath.Join(volume, "store")}).String()
			var args []string
			for _, arg := range s.holdfast.Command[1:] {
				switch {
				case strings.HasPrefix(arg, "s3://"):
					arg = store
				case strings.HasPrefix(arg, "--metrics="):
					arg = "--metrics=127.0.0.1:0"
				}
				arg = strings.ReplaceAll(arg, "$("+index+")", "7")
				args = append(args, strings.Replace(arg, "/data/", volume+"/", 1))
				if arg == "--" {
					break
				}
			}
			mustRun(t, command(t, holdfast, append(args, "sh", "-c", `test "$HOLDFAST_TASK" = train/7 && echo 1 >"$HOLDFAST_STATE/n"`)...))
			if out := mustRun(t, command(t, holdfast, "ls", store)); !strings.Contains(out, "train/7") {
				t.Errorf("no checkpoint of train/7 in\n%s", out)
			}
		})
	}
}

// TestGraceTable: docs/deploy/kubernetes.md has the sums right, and the values of the files.
func TestGraceTable(t *testing.T) {
	rows := regexp.MustCompile(`(?m)^\| [^|]+ \| `+"`--grace ([0-9]+)s`"+` \| ([0-9]+) s \| ([0-9]+) s \| ([0-9]+) s \| ([0-9]+) s \|`).FindAllStringSubmatch(string(file(t, "docs/deploy/kubernetes.md")), -1)
	if len(rows) < 3 {
		t.Fatalf("%d rows were found", len(rows))
	}
	files := false
	for _, row := range rows {
		var grace, program, commit, rest, pod int64
		for i, n := range []*int64{&grace, &program, &commit, &rest, &pod} {
			if _, err := fmt.Sscan(row[i+1], n); err != nil {
				t.Fatal(err)
			}
		}
		if program != grace || commit != grace || rest < 3 || pod != program+commit+rest {
			t.Errorf("%q does not add up", row[0])
		}
		files = files || pod == *loadSet(t, "persistent.yaml").pod.TerminationGracePeriodSeconds
	}
	if !files {
		t.Error("the period of deploy/kubernetes is not in the table")
	}
}
