package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/hookline/hookline/services/hookline/cli"
)

// binary is built once: these tests see what an operator sees.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "hookline")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "hookline")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// deadline bounds every wait for another process; none comes near it where all is well.
const deadline = 60 * time.Second

// devRun is a running hookline dev.
type devRun struct {
	t       *testing.T
	cmd     *exec.Cmd
	logs    *bytes.Buffer
	lines   chan string
	client  cli.Client
	brokers string
	printed string // when it was ready
}

var (
	guideURL   = regexp.MustCompile(`API, ingest, page +(\S+)/`)
	guideKafka = regexp.MustCompile(`Kafka +(\S+),`)
)

// startDev starts dev on free ports and returns when it has said that it is ready.
func startDev(t *testing.T, dataDir string, args ...string) *devRun {
	t.Helper()
	d := &devRun{t: t, logs: new(bytes.Buffer), lines: make(chan string, 1000)}
	d.cmd = exec.Command(binary, append([]string{"dev", "--data-dir", dataDir}, args...)...)
	d.cmd.Env = append(os.Environ(),
		"HOOKLINE_API_ADDR=127.0.0.1:0", "HOOKLINE_KAFKA_BROKERS=127.0.0.1:0", "HOOKLINE_ADMIN_ADDR=127.0.0.1:0",
		"HOOKLINE_LOG_LEVEL=info")
	d.cmd.Stderr = d.logs
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.kill()
		if t.Failed() {
			t.Logf("logs of dev:\n%s", d.logs)
		}
	})
	go func() {
		defer close(d.lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			d.lines <- scanner.Text()
		}
	}()
	d.printed = d.readUntil("include=attempts")
	d.client.URL = guideURL.FindStringSubmatch(d.printed)[1]
	d.brokers = guideKafka.FindStringSubmatch(d.printed)[1]
	key, err := os.ReadFile(filepath.Join(dataDir, "api-key"))
	if err != nil {
		t.Fatal(err)
	}
	d.client.Key = strings.TrimSpace(string(key))
	return d
}

// readUntil returns what dev prints, up to the line that contains a text.
func (d *devRun) readUntil(text string) string {
	d.t.Helper()
	var read strings.Builder
	timeout := time.After(deadline)
	for {
		select {
		case line, ok := <-d.lines:
			if !ok {
				d.t.Fatalf("dev ended after printing:\n%s", &read)
			}
			fmt.Fprintln(&read, line)
			if strings.Contains(line, text) {
				return read.String()
			}
		case <-timeout:
			d.t.Fatalf("dev did not print %q, but:\n%s", text, &read)
		}
	}
}

func (d *devRun) kill() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
}

func (d *devRun) produce(event string) {
	d.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(d.brokers))
	if err != nil {
		d.t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(d.t.Context(), deadline)
	defer cancel()
	if err := client.ProduceSync(ctx, &kgo.Record{Topic: "hookline.events", Value: []byte(event)}).FirstErr(); err != nil {
		d.t.Fatal(err)
	}
}

// subscribe returns the value of the new secret.
func (d *devRun) subscribe(name, url string, overrides map[string]any) string {
	d.t.Helper()
	before := d.configOffset()
	var made struct{ SecretValue string }
	err := d.client.Call(d.t.Context(), http.MethodPost, cli.Path+"/subscriptions", map[string]any{
		"name": name, "endpointUrl": url, "eventTypes": []string{"order.*"}, "overrides": overrides,
	}, &made)
	if err != nil {
		d.t.Fatal(err)
	}
	// Its secret and the subscription itself: then it is live.
	ctx, cancel := context.WithTimeout(d.t.Context(), deadline)
	defer cancel()
	if !poll(ctx, func() bool { return d.configOffset() >= before+2 }) {
		d.t.Fatal("the subscription is not live")
	}
	return made.SecretValue
}

// configOffset is the offset of the config topic that dev has applied.
func (d *devRun) configOffset() (offset int) {
	d.t.Helper()
	response, err := http.Get(d.client.URL + "/metrics")
	if err != nil {
		d.t.Fatal(err)
	}
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "hookline_config_offset "); ok {
			if _, err := fmt.Sscan(value, &offset); err != nil {
				d.t.Fatal(err)
			}
			return offset
		}
	}
	d.t.Fatal("no hookline_config_offset in /metrics")
	return 0
}

// endpoint receives, answers with its statuses in turn and then with 200, and passes on what it got.
type endpoint struct {
	*httptest.Server
	got chan request

	mu       sync.Mutex
	statuses []int
}

type request struct {
	header http.Header
	body   []byte
	status int
}

func newEndpoint(t *testing.T, statuses ...int) *endpoint {
	e := &endpoint{got: make(chan request, 100), statuses: statuses}
	e.Server = httptest.NewServer(e)
	t.Cleanup(e.Close)
	return e
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	e.mu.Lock()
	status := http.StatusOK
	if len(e.statuses) > 0 {
		status, e.statuses = e.statuses[0], e.statuses[1:]
	}
	e.mu.Unlock()
	w.WriteHeader(status)
	e.got <- request{r.Header, body, status}
}

func (e *endpoint) next(t *testing.T) request {
	t.Helper()
	select {
	case r := <-e.got:
		return r
	case <-time.After(deadline):
		t.Fatal("no request arrived")
		return request{}
	}
}

// signed checks the signature as the fynapse documents describe it, without Hookline's code.
func signed(t *testing.T, r request, secret string) {
	t.Helper()
	parts := map[string]string{}
	for part := range strings.SplitSeq(r.header.Get("Webhook-Signature"), ",") {
		name, value, _ := strings.Cut(part, "=")
		parts[name] = value
	}
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "%s.%s", parts["t"], r.body)
	if want := hex.EncodeToString(mac.Sum(nil)); parts["v1"] != want {
		t.Errorf("signature %q, want v1=%s", r.header.Get("Webhook-Signature"), want)
	}
}

func TestDevDeliversWhatComesFromKafkaAndOverHTTP(t *testing.T) {
	d := startDev(t, t.TempDir())
	e := newEndpoint(t)
	secret := d.subscribe("orders", e.URL, nil)

	d.produce(`{"event_id":"from-kafka","event_type":"order.created","data":{"amount":12345678901234567890}}`)
	r := e.next(t)
	signed(t, r, secret)
	var body struct {
		ID   string          `json:"event_id"`
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(r.body, &body); err != nil {
		t.Fatal(err)
	}
	if body.ID != "from-kafka" || string(body.Data) != `{"amount":12345678901234567890}` {
		t.Errorf("received %s", r.body)
	}

	if err := d.client.Call(t.Context(), http.MethodPost, "/v1/events", map[string]any{"event_id": "over-http", "event_type": "order.paid", "data": 1}, nil); err != nil {
		t.Fatal(err)
	}
	r = e.next(t)
	signed(t, r, secret)
	if !bytes.Contains(r.body, []byte(`"over-http"`)) {
		t.Errorf("received %s", r.body)
	}
	d.delivered(2)
	d.pages()
	d.stops()
}

// delivered waits until the audit has so many deliveries that were delivered.
func (d *devRun) delivered(n int) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), deadline)
	defer cancel()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		var answer struct {
			Counts map[string]int `json:"counts"`
		}
		if err := d.client.Call(ctx, http.MethodGet, cli.Path+"/deliveries/count", nil, &answer); err != nil {
			d.t.Fatal(err)
		}
		if answer.Counts["DELIVERED"] == n {
			return
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			d.t.Fatalf("the audit counts %v, want %d delivered", answer.Counts, n)
		}
	}
}

// pages looks at what dev shows to people and to monitoring on its one address.
func (d *devRun) pages() {
	d.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for path, want := range map[string]string{
		"/": d.brokers, "/readyz": `"ready":true`, "/metrics": `hookline_events_total{outcome="routed"} 2`,
	} {
		answer, err := client.Get(d.client.URL + path)
		if err != nil {
			d.t.Error(err)
			continue
		}
		text, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusOK || !bytes.Contains(text, []byte(want)) {
			d.t.Errorf("%s: %s, %v: %q is not in\n%s", path, answer.Status, err, want, text)
		}
		if bytes.Contains(text, []byte(d.client.Key)) {
			d.t.Errorf("%s shows the API key", path)
		}
	}
}

// stops asks dev to stop and expects that it does so in order.
func (d *devRun) stops() {
	d.t.Helper()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		d.t.Fatal(err)
	}
	timer := time.AfterFunc(deadline, d.kill)
	defer timer.Stop()
	if err := d.cmd.Wait(); err != nil {
		d.t.Errorf("after SIGTERM: %v", err)
	}
	if !strings.Contains(d.logs.String(), `"msg":"stopped"`) {
		d.t.Error("the log does not end with: stopped")
	}
}

// committed waits until the delivery service has finished, and committed, everything it was given.
func (d *devRun) committed() {
	d.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(d.brokers))
	if err != nil {
		d.t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(d.t.Context(), deadline)
	defer cancel()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		lags, err := kadm.NewClient(client).Lag(ctx, "hookline.delivery")
		if err != nil {
			d.t.Fatal(err)
		}
		if group := lags["hookline.delivery"]; group.Error() == nil && len(group.Lag) > 0 && group.Lag.Total() == 0 {
			return
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			d.t.Fatalf("the delivery service is behind: %+v", lags)
		}
	}
}

func TestDevDeliversAfterAKillWhatWasPending(t *testing.T) {
	dir := t.TempDir()
	first := startDev(t, dir)
	e := newEndpoint(t, http.StatusServiceUnavailable)
	secret := first.subscribe("orders", e.URL, map[string]any{
		"retry": map[string]any{"delays": []string{"5s", "5s"}}, "microRetry": map[string]any{"attempts": 1, "min": "200ms", "max": "200ms"},
	})
	first.produce(`{"event_id":"retried","event_type":"order.created","data":{}}`)
	failed := e.next(t)
	signed(t, failed, secret)
	// From here on only the retries topic knows of it.
	first.committed()
	// The other one may not even have been read when the process dies.
	first.produce(`{"event_id":"unread","event_type":"order.created","data":{}}`)
	first.kill()

	second := startDev(t, dir)
	keys := map[string]string{}
	for len(keys) < 2 {
		r := e.next(t)
		signed(t, r, secret)
		var body struct {
			ID string `json:"event_id"`
		}
		if err := json.Unmarshal(r.body, &body); err != nil {
			t.Fatal(err)
		}
		keys[body.ID] = r.header.Get("Idempotency-Key")
	}
	if want := failed.header.Get("Idempotency-Key"); keys["retried"] != want || keys["unread"] == want {
		t.Errorf("Idempotency-Key is %s for the first attempt, then %v", want, keys)
	}
	second.delivered(2)
	var audit struct {
		Items []struct {
			EventID  string            `json:"eventId"`
			Attempts []json.RawMessage `json:"attempts"`
		} `json:"items"`
	}
	if err := second.client.Call(t.Context(), http.MethodGet, cli.Path+"/deliveries?include=attempts&eventId=retried", nil, &audit); err != nil {
		t.Fatal(err)
	}
	if len(audit.Items) != 1 || len(audit.Items[0].Attempts) != 2 {
		t.Errorf("the audit has %+v", audit)
	}
}

func TestTheDemoShowsAFailingEndpointThatRecovers(t *testing.T) {
	dir := t.TempDir()
	for range 2 { // the second time finds what the first has left
		d := startDev(t, dir, "--demo")
		text := d.readUntil("Demo done")
		for _, want := range []string{"answered 200", "answered 503", "answered timeout", "5 events, 10 deliveries", "every signature was valid"} {
			if !strings.Contains(text, want) {
				t.Errorf("%q is not in:\n%s", want, text)
			}
		}
		d.stops()
	}
}

func TestTheDemoOfFuseIsCalledBackAndFollowed(t *testing.T) {
	d := startDev(t, t.TempDir(), "--demo", "fuse")
	text := d.readUntil("Demo done")
	for _, want := range []string{"signature valid, called back, answered 200", "transactions.updates ", "financial_connection.disconnected ", "2 verified callbacks"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, text)
		}
	}
	d.stops()
}

func TestWrongConfigurationEndsTheBinaryWithTwo(t *testing.T) {
	cmd := exec.Command(binary, "delivery")
	cmd.Env = []string{"HOOKLINE_LOG_LEVEL=loud", "HOOKLINE_DRAIN_TIMEOUT=x", "HOOKLINE_ADMIN_ADDR=nowhere"}
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != exitUsage {
		t.Errorf("exit code %d", code)
	}
	for _, name := range []string{"HOOKLINE_LOG_LEVEL", "HOOKLINE_DRAIN_TIMEOUT", "HOOKLINE_ADMIN_ADDR", "HOOKLINE_ENCRYPTION_KEYS"} {
		if !bytes.Contains(out, []byte(name)) {
			t.Errorf("%s is not named in:\n%s", name, out)
		}
	}
}
