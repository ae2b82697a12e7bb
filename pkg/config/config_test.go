package config_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/google/go-cmp/cmp"

	"github.com/hookline/hookline/pkg/config"
)

type kafka struct {
	Brokers  []string      `env:"HOOKLINE_KAFKA_BROKERS" envDefault:"127.0.0.1:9092" envSeparator:","`
	Password string        `env:"HOOKLINE_KAFKA_SASL_PASSWORD"`
	Session  time.Duration `env:"HOOKLINE_KAFKA_SESSION_TIMEOUT" envDefault:"10s"`
}

func (c kafka) Validate() error {
	var problems []error
	if c.Session < time.Second {
		problems = append(problems, fmt.Errorf("HOOKLINE_KAFKA_SESSION_TIMEOUT: %v is below 1s", c.Session))
	}
	if slices.Contains(c.Brokers, "") {
		problems = append(problems, errors.New("HOOKLINE_KAFKA_BROKERS: a broker is empty"))
	}
	return errors.Join(problems...)
}

type delivery struct {
	Allow    []netip.Prefix `env:"HOOKLINE_EGRESS_ALLOW"`
	Inflight int            `env:"HOOKLINE_INFLIGHT" envDefault:"512"`
	Share    float64        `env:"HOOKLINE_SHARE" envDefault:"0.5"`
	Key      string         `env:"HOOKLINE_KEY,required"`
	Keys     string         `env:"HOOKLINE_ENCRYPTION_KEYS"`
	Database string         `env:"HOOKLINE_DATABASE_URL" envDefault:"postgres://127.0.0.1:5432/hookline"`
}

type process struct {
	Level    slog.Level `env:"HOOKLINE_LOG_LEVEL" envDefault:"info"`
	PProf    bool       `env:"HOOKLINE_PPROF" envDefault:"false"`
	Kafka    kafka
	Delivery delivery
}

func load(t *testing.T, environ config.Environment) (process, []string) {
	t.Helper()
	var p process
	err := config.Load(&p, environ)
	var wrong *config.Error
	if err != nil && !errors.As(err, &wrong) {
		t.Fatalf("error is %T: %v", err, err)
	}
	if wrong == nil {
		return p, nil
	}
	return p, wrong.Problems
}

func TestDefaultsHoldWhereNothingIsSet(t *testing.T) {
	t.Setenv("HOOKLINE_INFLIGHT", "7") // the process's environment is not read
	got, problems := load(t, config.Environment{"HOOKLINE_KEY": "k", "HOOKLINE_LOG_LEVEL": ""})
	want := process{
		Level:    slog.LevelInfo,
		Kafka:    kafka{Brokers: []string{"127.0.0.1:9092"}, Session: 10 * time.Second},
		Delivery: delivery{Inflight: 512, Share: .5, Key: "k", Database: "postgres://127.0.0.1:5432/hookline"},
	}
	if diff := cmp.Diff(want, got); diff != "" || problems != nil {
		t.Errorf("problems %q, diff:\n%s", problems, diff)
	}
}

func TestValuesAreRead(t *testing.T) {
	got, problems := load(t, config.Environment{
		"HOOKLINE_KEY": "k", "HOOKLINE_LOG_LEVEL": "debug", "HOOKLINE_PPROF": "true", "HOOKLINE_KAFKA_BROKERS": "a:1,b:2",
		"HOOKLINE_EGRESS_ALLOW": "127.0.0.0/8,::1/128", "HOOKLINE_KAFKA_SESSION_TIMEOUT": "6s",
	})
	if problems != nil {
		t.Fatal(problems)
	}
	want := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	if !slices.Equal(got.Delivery.Allow, want) || got.Level != slog.LevelDebug || !got.PProf ||
		len(got.Kafka.Brokers) != 2 || got.Kafka.Session != 6*time.Second {
		t.Errorf("got %+v", got)
	}
}

func TestEverythingThatIsWrongIsInOneError(t *testing.T) {
	_, problems := load(t, config.Environment{
		"HOOKLINE_LOG_LEVEL":             "loud",
		"HOOKLINE_INFLIGHT":              "many",
		"HOOKLINE_EGRESS_ALLOW":          "127.0.0.0/8,nowhere",
		"HOOKLINE_KAFKA_SESSION_TIMEOUT": "5ms",
		"HOOKLINE_KAFKA_BROKERS":         "a:1,",
		"HOOKLINE_ENCRYPTION_KEYS_FILE":  "/does/not/exist",
	})
	names := []string{}
	for _, p := range problems {
		name, _, _ := strings.Cut(p, ":")
		names = append(names, name)
	}
	want := []string{
		"HOOKLINE_EGRESS_ALLOW", "HOOKLINE_ENCRYPTION_KEYS_FILE", "HOOKLINE_INFLIGHT", "HOOKLINE_KAFKA_BROKERS",
		"HOOKLINE_KAFKA_SESSION_TIMEOUT", "HOOKLINE_KEY", "HOOKLINE_LOG_LEVEL",
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("%s\n%s", diff, strings.Join(problems, "\n"))
	}
}

func TestAValueThatCannotBeReadIsNotReportedTwice(t *testing.T) {
	_, problems := load(t, config.Environment{"HOOKLINE_KEY": "k", "HOOKLINE_KAFKA_SESSION_TIMEOUT": "soon"})
	want := []string{`HOOKLINE_KAFKA_SESSION_TIMEOUT: "soon" cannot be read as duration: unable to parse duration: time: invalid duration "soon"`}
	if diff := cmp.Diff(want, problems); diff != "" {
		t.Error(diff)
	}
}

func TestAnErrorSaysHowManyProblemsAndEachOnItsLine(t *testing.T) {
	err := &config.Error{Problems: []string{"A: x", "B: y"}}
	if got := err.Error(); got != "configuration: 2 problems\n  A: x\n  B: y" {
		t.Errorf("%q", got)
	}
}

func TestASecretMayComeFromAFileWithoutItsNewline(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, problems := load(t, config.Environment{"HOOKLINE_KEY_FILE": path})
	if got.Delivery.Key != "s3cret" || problems != nil {
		t.Errorf("key %q, problems %q", got.Delivery.Key, problems)
	}
	_, problems = load(t, config.Environment{"HOOKLINE_KEY_FILE": path, "HOOKLINE_KEY": "other"})
	if len(problems) != 1 || strings.Contains(problems[0], "other") {
		t.Errorf("both set: problems %q", problems)
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	tests := []struct{ name, value, want string }{
		{"HOOKLINE_KAFKA_SASL_PASSWORD", "hunter2", "[secret]"},
		{"HOOKLINE_ENCRYPTION_KEYS", "k1:AAAA", "[secret]"},
		{"HOOKLINE_BOOTSTRAP_API_KEY", "hk_x", "[secret]"},
		{"HOOKLINE_BOOTSTRAP_API_KEY", "", ""},
		{"HOOKLINE_DATABASE_URL", "postgres://me:hunter2@db/hookline", "postgres://me:REDACTED@db/hookline"},
		{"HOOKLINE_DATABASE_URL", "postgres://db/hookline?password=hunter2&sslmode=disable", "postgres://db/hookline?password=REDACTED&sslmode=disable"},
		{"HOOKLINE_DATABASE_URL", "host=db password=hunter2 user=me", "host=db password=REDACTED user=me"},
		{"HOOKLINE_DATABASE_URL", "postgres://me:hunter%zz@db", "[unreadable]"},
		{"HOOKLINE_DATABASE_URL", "postgres://me@db/hookline", "postgres://me@db/hookline"},
		{"HOOKLINE_TOPIC_PREFIX", "hookline.", "hookline."},
	}
	for _, tt := range tests {
		if got := (config.Variable{Name: tt.name}).Show(tt.value); got != tt.want {
			t.Errorf("%s=%s shows as %q, want %q", tt.name, tt.value, got, tt.want)
		}
	}
}

func TestSettingsSayWhereAValueComesFrom(t *testing.T) {
	settings := config.Settings(&process{}, config.Environment{"HOOKLINE_KEY_FILE": "/run/secrets/key", "HOOKLINE_INFLIGHT": "9"})
	got := map[string]string{}
	for _, s := range settings {
		got[s.Name] = s.Source + " " + s.Value
	}
	for name, want := range map[string]string{
		"HOOKLINE_KEY":       "file /run/secrets/key",
		"HOOKLINE_INFLIGHT":  "environment 9",
		"HOOKLINE_LOG_LEVEL": "default info",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
}

func TestOtherDefaultsGiveWayToWhatIsSet(t *testing.T) {
	got := config.Environment{"A": "set", "B": "", "C_FILE": "c"}.With(map[string]string{"A": "1", "B": "2", "C": "3", "D": "4"})
	if diff := cmp.Diff(config.Environment{"A": "set", "B": "2", "C_FILE": "c", "D": "4"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestUnknownNamesComeWithASuggestion(t *testing.T) {
	environ := config.Environ([]string{
		"HOOKLINE_KAFKA_BROKER=a:1", "HOOKLINE_LOGLEVEL=debug", "HOOKLINE_KEY_FILE=/k", "HOOKLINE_KEY=", "HOOKLINE_QUITE_ANOTHER_THING=1",
		"HOOKLINE_API_PORT_8080_TCP_ADDR=10.0.0.1", "HOOKLINE_API_PORT=tcp://10.0.0.1:8080", "HOOKLINE_API_SERVICE_HOST=10.0.0.1",
		"HOOKLINE_TEST_KAFKA=b:2", "HOME=/", "=odd",
	})
	want := []config.Unknown{
		{"HOOKLINE_KAFKA_BROKER", "HOOKLINE_KAFKA_BROKERS"},
		{"HOOKLINE_LOGLEVEL", "HOOKLINE_LOG_LEVEL"},
		{"HOOKLINE_QUITE_ANOTHER_THING", ""},
	}
	if diff := cmp.Diff(want, environ.Unknown(config.Variables(&process{}))); diff != "" {
		t.Error(diff)
	}
}

func TestVariablesAreWhatTheParserReads(t *testing.T) {
	params, err := env.GetFieldParamsWithOptions(&process{}, env.Options{Environment: map[string]string{}})
	if err != nil {
		t.Fatal(err)
	}
	type row struct{ Name, Default string }
	var want, got []row
	for _, p := range params {
		want = append(want, row{p.Key, p.DefaultValue})
	}
	for _, v := range config.Variables(&process{}) {
		got = append(got, row{v.Name, v.Default})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestTheReferenceNamesDefaultTypeAndReaders(t *testing.T) {
	text := config.Reference([]config.Use{{"delivery", &process{}}, {"migrate", &kafka{}}}, map[string]string{"HOOKLINE_INFLIGHT": "Attempts at once."})
	for _, want := range []string{
		"| `HOOKLINE_INFLIGHT` | `512` | whole number | delivery | Attempts at once. |\n",
		"| `HOOKLINE_KAFKA_SESSION_TIMEOUT` | `10s` | duration | all |  |\n",
		"| `HOOKLINE_EGRESS_ALLOW` | – | list of CIDR | delivery |  |\n",
	} {
		if strings.Count(text, want) != 1 {
			t.Errorf("want %q once in:\n%s", want, text)
		}
	}
}
