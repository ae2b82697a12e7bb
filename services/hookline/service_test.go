package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/pkg/embedded"
	"github.com/hookline/hookline/pkg/seal"
)

// nobody is an address at which nothing answers: no process of ours may have port 1.
const nobody = "127.0.0.1:1"

func TestEveryServiceStartsWithoutItsServersAndStops(t *testing.T) {
	for _, s := range services {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			logs, w := io.Pipe()
			code := make(chan int, 1)
			go func() {
				code <- execute(ctx, []string{s.name}, terminal{out: io.Discard, err: w, environ: map[string]string{
					"HOOKLINE_ADMIN_ADDR": "127.0.0.1:0", "HOOKLINE_API_ADDR": "127.0.0.1:0", "HOOKLINE_INGEST_ADDR": "127.0.0.1:0",
					"HOOKLINE_KAFKA_BROKERS": nobody, "HOOKLINE_REDIS_URL": "redis://" + nobody + "/0",
					"HOOKLINE_DATABASE_URL": "postgres://" + nobody + "/hookline?connect_timeout=1", "HOOKLINE_ENCRYPTION_KEYS": seal.NewKey("k"),
					"HOOKLINE_DRAIN_TIMEOUT": "5s", "HOOKLINE_KAFKA_BROKER": "mistyped",
				}})
				_ = w.Close()
			}()
			lines := bufio.NewScanner(logs)
			warned, admin := false, ""
			for admin == "" && lines.Scan() {
				var line struct{ Msg, Addr, Suggestion string }
				if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
					t.Fatalf("%q: %v", lines.Text(), err)
				}
				warned = warned || line.Suggestion == "HOOKLINE_KAFKA_BROKERS"
				if line.Msg == "admin" {
					admin = "http://" + line.Addr
				}
			}
			rest := make(chan struct{})
			go func() {
				defer close(rest)
				_, _ = io.Copy(io.Discard, logs)
			}()
			if !warned {
				t.Error("no warning about HOOKLINE_KAFKA_BROKER")
			}
			answers(t, admin+"/livez", http.StatusOK)
			answers(t, admin+"/readyz", http.StatusServiceUnavailable)
			answers(t, admin+"/metrics", http.StatusOK)
			cancel()
			select {
			case got := <-code:
				if got != exitOK {
					t.Errorf("exit code %d", got)
				}
			case <-time.After(deadline):
				t.Error("it does not stop")
			}
			<-rest
		})
	}
}

func answers(t *testing.T, url string, want int) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := client.Do(r)
	if err != nil {
		t.Error(err)
		return
	}
	_ = got.Body.Close()
	if got.StatusCode != want {
		t.Errorf("%s answers %d, want %d", url, got.StatusCode, want)
	}
}

func TestMigrateMakesTopicsTablesAndGroupSettingsAndIsSafeToRunAgain(t *testing.T) {
	servers, err := embedded.Start(embedded.Config{DataDir: t.TempDir(), KafkaAddr: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer servers.Close()
	environ := map[string]string{
		"HOOKLINE_KAFKA_BROKERS": servers.Brokers, "HOOKLINE_DATABASE_URL": "sqlite://" + filepath.Join(t.TempDir(), "h.db"),
		"HOOKLINE_TOPIC_PARTITIONS": "3", "HOOKLINE_TOPIC_PREFIX": "acme.", "HOOKLINE_KAFKA_SESSION_TIMEOUT": "8s",
	}
	for range 2 {
		var logs bytes.Buffer
		if code := execute(t.Context(), []string{"migrate"}, terminal{out: io.Discard, err: &logs, environ: environ}); code != exitOK {
			t.Fatalf("exit code %d:\n%s", code, &logs)
		}
		if strings.Contains(logs.String(), `"WARN"`) {
			t.Errorf("warned:\n%s", &logs)
		}
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(servers.Brokers))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	topics, err := kadm.NewClient(client).ListTopics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := len(topics["acme.events"].Partitions); got != 3 || len(topics["acme.config"].Partitions) != 1 {
		t.Errorf("acme.events has %d partitions, acme.config %d", got, len(topics["acme.config"].Partitions))
	}
	if got := sessionTimeout(t, client, "acme.delivery"); got != "8000" {
		t.Errorf("the group's session timeout is %s", got)
	}
}

func sessionTimeout(t *testing.T, client *kgo.Client, group string) string {
	t.Helper()
	resource := kmsg.NewDescribeConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeGroupConfig, group
	request := kmsg.NewPtrDescribeConfigsRequest()
	request.Resources = append(request.Resources, resource)
	answer, err := request.RequestWith(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range answer.Resources[0].Configs {
		if c.Name == "consumer.session.timeout.ms" && c.Value != nil {
			return *c.Value
		}
	}
	return "not set"
}

func TestMigrateWaitsForServersThatAreDownUntilItIsStopped(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	logs, w := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- execute(ctx, []string{"migrate"}, terminal{out: io.Discard, err: w, environ: map[string]string{
			"HOOKLINE_KAFKA_BROKERS": nobody, "HOOKLINE_DATABASE_URL": "sqlite://" + filepath.Join(t.TempDir(), "h.db"),
		}})
		_ = w.Close()
	}()
	waited := false
	for lines := bufio.NewScanner(logs); lines.Scan(); {
		if strings.Contains(lines.Text(), `"for":"kafka"`) {
			waited = true
			cancel()
		}
	}
	if got := <-code; got != exitFailed || !waited {
		t.Errorf("exit code %d, waited: %t", got, waited)
	}
}
