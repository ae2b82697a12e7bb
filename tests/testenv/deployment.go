package testenv

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pkg/seal"
)

// APIKey is the bootstrap key of every [System].
const APIKey = "testing-key-with-enough-entropy"

// System is what a Hookline of its own finds in the environment: real servers, a prefix and databases of its own, and receivers on
// loopback over plain HTTP.
func System(t testing.TB) Env {
	t.Helper()
	return Env{
		"HOOKLINE_KAFKA_BROKERS":     strings.Join(Kafka(t), ","),
		"HOOKLINE_TOPIC_PREFIX":      Prefix(t),
		"HOOKLINE_TOPIC_PARTITIONS":  "6",
		"HOOKLINE_REDIS_URL":         Redis(t),
		"HOOKLINE_DATABASE_URL":      Database(t),
		"HOOKLINE_ENCRYPTION_KEYS":   seal.NewKey("test"),
		"HOOKLINE_BOOTSTRAP_API_KEY": APIKey,
		"HOOKLINE_API_ADDR":          Addr(t),
		"HOOKLINE_EGRESS_ALLOW":      "127.0.0.0/8",
		"HOOKLINE_EGRESS_ALLOW_HTTP": "true",
	}
}

// Deployment is a running Hookline whose services are processes of their own.
type Deployment struct {
	Env Env
	// Crew are the processes by the names they were started under.
	Crew map[string]*Process
	t    testing.TB
}

// Deploy migrates and starts one process for each name, and returns when all are ready. What follows a service's name after a
// space tells its copies apart.
func Deploy(t testing.TB, env Env, names ...string) *Deployment {
	t.Helper()
	if code := Start(t, env, "migrate").Wait(t, time.Minute); code != 0 {
		t.Fatalf("migrate: exit code %d", code)
	}
	d := &Deployment{Env: env, Crew: map[string]*Process{}, t: t}
	for _, name := range names {
		d.Start(name)
	}
	for _, p := range d.Crew {
		p.Ready(t, time.Minute)
	}
	return d
}

// Start adds a process, or puts a new one in the place of one that has ended. It does not wait until it is ready.
func (d *Deployment) Start(name string) *Process {
	d.t.Helper()
	d.Crew[name] = Start(d.t, d.Env, strings.Fields(name)[0])
	return d.Crew[name]
}

// Stop asks every process to stop; each must do so with exit code 0.
func (d *Deployment) Stop() {
	d.t.Helper()
	for name, p := range d.Crew {
		if code := p.Stop(d.t, time.Minute); code != 0 {
			d.t.Errorf("%s: exit code %d after SIGTERM", name, code)
		}
	}
}

// Topic is the topic of the deployment's own prefix.
func (d *Deployment) Topic(name string) string { return d.Env["HOOKLINE_TOPIC_PREFIX"] + name }

// Call asks the control plane, whose answer must be a success, and reads it into answer, which may be nil. A 503 is asked again: the
// database of a busy machine may be away for a moment.
func (d *Deployment) Call(method, path string, body, answer any) {
	d.t.Helper()
	var encoded []byte
	if body != nil {
		var err error
		if encoded, err = json.Marshal(body); err != nil {
			d.t.Fatal(err)
		}
	}
	var status int
	var got []byte
	if err := Until(time.Minute, func() bool {
		status, got = d.ask(method, path, encoded)
		return status != http.StatusServiceUnavailable
	}); err != nil || status/100 != 2 {
		d.t.Fatalf("%s %s: %d %s %v", method, path, status, got, err)
	}
	if answer == nil {
		return
	}
	if err := json.Unmarshal(got, answer); err != nil {
		d.t.Fatalf("%s %s: %v in %s", method, path, err, got)
	}
}

func (d *Deployment) ask(method, path string, body []byte) (int, []byte) {
	d.t.Helper()
	r, err := http.NewRequestWithContext(d.t.Context(), method, "http://"+d.Env["HOOKLINE_API_ADDR"]+"/api/v1/event-deliveries"+path, bytes.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+APIKey)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return response.StatusCode, got
}

// AwaitConfig returns once every router and delivery process has applied the same config offset, and it has stopped moving: then
// what was changed is live.
func (d *Deployment) AwaitConfig() {
	d.t.Helper()
	last, since := "", time.Now()
	if err := Until(2*time.Minute, func() bool {
		var offsets []string
		for name, p := range d.Crew {
			if service := strings.Fields(name)[0]; service == "router" || service == "delivery" {
				offsets = append(offsets, p.Metric("hookline_config_offset"))
			}
		}
		now := strings.Join(offsets, " ")
		if now != last {
			last, since = now, time.Now()
		}
		same := len(slices.Compact(offsets)) == 1 && offsets[0] != ""
		return same && time.Since(since) > 2*time.Second
	}); err != nil {
		d.t.Fatalf("config offsets %q: %v", last, err)
	}
}

// Metric is the value of a metric of the process, by the beginning of its line; empty while there is none.
func (p *Process) Metric(name string) string {
	response, err := http.Get("http://" + p.Admin + "/metrics")
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), name); ok {
			return value[strings.LastIndex(value, " ")+1:]
		}
	}
	return ""
}
