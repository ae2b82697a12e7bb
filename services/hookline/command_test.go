package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hookline/hookline/pkg/config"
	"github.com/hookline/hookline/pkg/seal"
)

// hookline runs a command line in this process.
func hookline(t *testing.T, environ map[string]string, args ...string) (code int, out, errOut string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	// A service that starts by mistake stops at once.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	code = execute(ctx, args, terminal{environ: environ, in: strings.NewReader(""), out: &stdout, err: &stderr})
	return code, stdout.String(), stderr.String()
}

func TestTheReferenceIsUpToDate(t *testing.T) {
	_, made, _ := hookline(t, nil, "config", "docs")
	path := filepath.Join("..", "..", "docs", "configuration.md")
	written, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if made != string(written) {
		t.Errorf("%s is not what hookline config docs prints; run: make generate", path)
	}
}

func TestEverySettingIsExplained(t *testing.T) {
	known := map[string]bool{}
	for _, v := range config.All(uses()) {
		known[v.Name] = true
		if help[v.Name] == "" {
			t.Errorf("%s has no sentence in help.go", v.Name)
		}
	}
	for name := range help {
		if !known[name] {
			t.Errorf("help.go explains %s, which nothing reads", name)
		}
	}
}

func TestTheDefaultsAreValid(t *testing.T) {
	environ := map[string]string{"HOOKLINE_ENCRYPTION_KEYS": seal.NewKey("k")}
	if code, out, errOut := hookline(t, environ, "config", "check"); code != exitOK || !strings.Contains(out, "valid") {
		t.Errorf("exit code %d, %s%s", code, out, errOut)
	}
}

func TestWrongConfigurationIsReportedWholeBeforeAnythingStarts(t *testing.T) {
	wrong := map[string]string{
		"HOOKLINE_LOG_LEVEL":             "loud",
		"HOOKLINE_ADMIN_ADDR":            "nowhere",
		"HOOKLINE_KAFKA_SASL_MECHANISM":  "MAGIC",
		"HOOKLINE_KAFKA_SESSION_TIMEOUT": "soon",
	}
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			code, out, errOut := hookline(t, wrong, s.name)
			if code != exitUsage || out != "" {
				t.Errorf("exit code %d, output %q", code, out)
			}
			for name := range wrong {
				if strings.Count(errOut, "\n  "+name) != 1 {
					t.Errorf("%s is not named once in:\n%s", name, errOut)
				}
			}
		})
	}
}

func TestDevReportsWrongConfigurationBeforeAnythingStarts(t *testing.T) {
	dir := t.TempDir()
	code, _, errOut := hookline(t, map[string]string{
		"HOOKLINE_KAFKA_BROKERS": "a:1,b:2", "HOOKLINE_API_ADDR": "8080", "HOOKLINE_TOPIC_PARTITIONS": "0",
	}, "dev", "--data-dir", dir)
	if code != exitUsage {
		t.Errorf("exit code %d", code)
	}
	for _, name := range []string{"HOOKLINE_KAFKA_BROKERS", "HOOKLINE_API_ADDR", "HOOKLINE_TOPIC_PARTITIONS"} {
		if !strings.Contains(errOut, "\n  "+name+": ") {
			t.Errorf("%s is not named in:\n%s", name, errOut)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "kafka")); err == nil {
		t.Error("the broker was started")
	}
}

func TestMigrateReportsWrongConfiguration(t *testing.T) {
	code, _, errOut := hookline(t, map[string]string{"HOOKLINE_DATABASE_URL": "mysql://me:hunter2@db", "HOOKLINE_TOPIC_REPLICATION": "many"}, "migrate")
	if code != exitUsage || !strings.Contains(errOut, "HOOKLINE_DATABASE_URL") || !strings.Contains(errOut, "HOOKLINE_TOPIC_REPLICATION") {
		t.Errorf("exit code %d:\n%s", code, errOut)
	}
	if strings.Contains(errOut, "hunter2") {
		t.Errorf("the password is shown:\n%s", errOut)
	}
}

func TestCheckNamesUnknownSettings(t *testing.T) {
	code, _, errOut := hookline(t, map[string]string{
		"HOOKLINE_ENCRYPTION_KEYS": seal.NewKey("k"), "HOOKLINE_KAFKA_BROKER": "a:1",
	}, "config", "check", "delivery")
	if code != exitOK || errOut != "HOOKLINE_KAFKA_BROKER: unknown, did you mean HOOKLINE_KAFKA_BROKERS?\n" {
		t.Errorf("exit code %d, %q", code, errOut)
	}
}

func TestPrintShowsWhatIsInForceWithoutSecrets(t *testing.T) {
	environ := map[string]string{
		"HOOKLINE_ENCRYPTION_KEYS": "k:c2VjcmV0", "HOOKLINE_DATABASE_URL": "postgres://me:hunter2@db/hookline", "HOOKLINE_LOG_LEVEL": "debug",
	}
	code, out, errOut := hookline(t, environ, "config", "print")
	if code != exitOK {
		t.Errorf("exit code %d: %s", code, errOut)
	}
	for _, want := range []string{
		"HOOKLINE_ENCRYPTION_KEYS=[secret] # environment\n",
		"HOOKLINE_DATABASE_URL=postgres://me:REDACTED@db/hookline # environment\n",
		"HOOKLINE_LOG_LEVEL=debug # environment\n",
		"HOOKLINE_KAFKA_BROKERS=127.0.0.1:9092 # default\n",
	} {
		if strings.Count(out, want) != 1 {
			t.Errorf("want %q once in:\n%s", want, out)
		}
	}
}

func TestACommandLineThatIsNotUnderstoodExitsWithTwo(t *testing.T) {
	for _, args := range [][]string{{"deliver"}, {"delivery", "now"}, {"listen", "--port", "1"}, {"config", "check", "nothing"}} {
		if code, _, errOut := hookline(t, nil, args...); code != exitUsage || !strings.Contains(errOut, "hookline --help") {
			t.Errorf("%q: exit code %d, %s", args, code, errOut)
		}
	}
}

func TestAWrongURLIsReportedWithoutItsPassword(t *testing.T) {
	for _, url := range []string{"127.0.0.1:6379", "http://x", "redis+magic://x", "redis://me:hunter2@%zz"} {
		if err := (redisConfig{url}).Validate(); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", url, err)
		}
	}
}
