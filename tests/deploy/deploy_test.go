// Package deploy holds docker-compose.yml, the Kubernetes chart and the alerts to the binary that they are about: every
// setting they give is one that its service reads and accepts, and every metric they name exists.
package deploy

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/hookline/hookline/pkg/seal"
	"github.com/hookline/hookline/tests/arch"
	"github.com/hookline/hookline/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// commands are what both descriptions must run.
func commands() []string {
	return slices.Sorted(slices.Values(append([]string{"migrate"}, arch.Services...)))
}

// secrets are what an operator brings.
var secrets = map[string]string{
	"HOOKLINE_DATABASE_URL":        "postgres://hookline:p@db/hookline",
	"HOOKLINE_REDIS_URL":           "redis://:p@redis/0",
	"HOOKLINE_ENCRYPTION_KEYS":     seal.NewKey("k"),
	"HOOKLINE_BOOTSTRAP_API_KEY":   "a-key-of-the-operator",
	"HOOKLINE_KAFKA_SASL_PASSWORD": "p",
	"POSTGRES_PASSWORD":            "p",
}

// accepts asks the binary whether the environment of a command is valid, and names nothing that is not a setting.
func accepts(t *testing.T, command string, env testenv.Env) {
	t.Helper()
	p := testenv.Start(t, env.With("HOOKLINE_LOG_LEVEL", "info"), "config", "check", command)
	if code := p.Wait(t, time.Minute); code != 0 || strings.Contains(p.Output(), "unknown") {
		t.Errorf("%s: exit code %d:\n%s", command, code, p.Output())
	}
}

func TestTheComposedServicesAreConfiguredAsTheyAsk(t *testing.T) {
	var file struct {
		Services map[string]struct {
			Command     []string
			Environment map[string]string
		}
	}
	read(t, "docker-compose.yml", &file)
	var run []string
	for _, name := range slices.Sorted(maps.Keys(file.Services)) {
		service := file.Services[name]
		if !strings.Contains(strings.Join(slices.Collect(maps.Keys(service.Environment)), " "), "HOOKLINE_") {
			continue
		}
		run = append(run, service.Command...)
		env := testenv.Env{}
		for variable, value := range service.Environment {
			env[variable] = substitute(value)
		}
		t.Run(name, func(t *testing.T) { accepts(t, service.Command[0], env) })
	}
	if slices.Sort(run); !slices.Equal(run, commands()) {
		t.Errorf("docker-compose.yml runs %v, want %v", run, commands())
	}
}

func TestEveryComposedServiceIsProbedByItsOwnBinary(t *testing.T) {
	var file struct {
		Services map[string]struct {
			Command     []string
			Healthcheck struct{ Test []string }
		}
	}
	read(t, "docker-compose.yml", &file)
	for name, service := range file.Services {
		probe := strings.Join(service.Healthcheck.Test, " ")
		ours := slices.Contains(arch.Services, name)
		if probe == "" && name != "migrate" || ours && probe != "CMD /hookline health" {
			t.Errorf("%s is probed by %q", name, probe)
		}
	}
	p := testenv.Start(t, testenv.Env{"HOOKLINE_ADMIN_ADDR": "127.0.0.1:1"}, "health")
	if code := p.Wait(t, time.Minute); code != 1 {
		t.Errorf("a service that is not there: exit code %d:\n%s", code, p.Output())
	}
}

var variable = regexp.MustCompile(`\$\{(\w+)(?::([-?])([^}]*))?\}`)

// substitute does what docker compose does with ${NAME:-default} and ${NAME:?message}.
func substitute(value string) string {
	return variable.ReplaceAllStringFunc(value, func(match string) string {
		parts := variable.FindStringSubmatch(match)
		if given, ok := secrets[parts[1]]; ok {
			return given
		}
		return parts[3]
	})
}

// workload is the part of a Deployment or Job that this test reads.
type workload struct {
	Kind     string
	Metadata struct{ Name string }
	Data     map[string]string
	Spec     struct {
		Template struct {
			Spec struct {
				Containers []struct {
					Args []string
					Env  []struct {
						Name, Value string
						ValueFrom   *struct {
							SecretKeyRef struct{ Key string } `yaml:"secretKeyRef"`
						} `yaml:"valueFrom"`
					}
					EnvFrom []struct {
						ConfigMapRef struct{ Name string } `yaml:"configMapRef"`
					} `yaml:"envFrom"`
				}
			}
		}
	}
}

func TestTheChartsServicesAreConfiguredAsTheyAsk(t *testing.T) {
	helm := tool(t, "helm")
	chart := filepath.Join(testenv.Root(), "helm", "hookline")
	for _, values := range []string{"values.yaml", "ci/all-values.yaml"} {
		t.Run(values, func(t *testing.T) {
			manifest, err := exec.CommandContext(t.Context(), helm, "template", "release", chart, "-f", filepath.Join(chart, values)).Output()
			if err != nil {
				t.Fatal(err)
			}
			checkChart(t, manifest)
		})
	}
}

func checkChart(t *testing.T, manifest []byte) {
	var run []string
	configMaps := map[string]map[string]string{}
	workloads := documents(t, manifest)
	for _, w := range workloads {
		if w.Kind == "ConfigMap" {
			configMaps[w.Metadata.Name] = w.Data
		}
	}
	for _, w := range workloads {
		for _, c := range w.Spec.Template.Spec.Containers {
			env := testenv.Env{}
			for _, from := range c.EnvFrom {
				for name, value := range configMaps[from.ConfigMapRef.Name] {
					env[name] = value
				}
			}
			for _, e := range c.Env {
				if env[e.Name] = e.Value; e.ValueFrom != nil {
					env[e.Name] = secrets[e.ValueFrom.SecretKeyRef.Key]
				}
			}
			run = append(run, c.Args...)
			t.Run(c.Args[0], func(t *testing.T) { accepts(t, c.Args[0], env) })
		}
	}
	if slices.Sort(run); !slices.Equal(run, commands()) {
		t.Errorf("the chart runs %v, want %v", run, commands())
	}
}

func documents(t *testing.T, manifest []byte) (all []workload) {
	t.Helper()
	decoder := yaml.NewDecoder(bytes.NewReader(manifest))
	for {
		var w workload
		err := decoder.Decode(&w)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, w)
	}
}

// tool is the path of a development tool that is installed already. Installing one is not a test's matter, unless
// everything is required.
func tool(t *testing.T, name string) string {
	t.Helper()
	script := filepath.Join(testenv.Root(), "scripts", "tool")
	query := []string{"--installed", name}
	if os.Getenv("TEST_REQUIRE_REAL") == "1" {
		query = query[1:]
	}
	path, err := exec.CommandContext(t.Context(), script, query...).Output()
	if err != nil {
		testenv.Lacks(t, name+" (scripts/tool "+name+")", err)
	}
	return strings.TrimSpace(string(path))
}

func TestTheAlertsNameMetricsThatExist(t *testing.T) {
	declarations, err := os.ReadFile(filepath.Join(testenv.Root(), "pkg", "telemetry", "metrics.go"))
	if err != nil {
		t.Fatal(err)
	}
	var declared []string
	for _, match := range regexp.MustCompile(`b\.(\w+)\("(hookline\.[a-z.]+)"`).FindAllSubmatch(declarations, -1) {
		name := strings.ReplaceAll(string(match[2]), ".", "_")
		if string(match[1]) == "counter" {
			name += "_total"
		}
		declared = append(declared, name)
	}
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	read(t, "deploy/prometheus/rules.yaml", &rules)
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			named := regexp.MustCompile(`hookline_[a-z_]+`).FindAllString(rule.Expr, -1)
			if len(named) == 0 {
				t.Errorf("%s names no metric", rule.Alert)
			}
			for _, name := range named {
				if !slices.Contains(declared, name) {
					t.Errorf("%s names %s, which is not declared", rule.Alert, name)
				}
			}
		}
	}
}

func read(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(testenv.Root(), path))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}
