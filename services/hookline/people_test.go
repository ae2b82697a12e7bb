package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hookline/hookline/pkg/config"
)

// people runs the binary as somebody at a terminal does, against a running dev.
type people struct {
	t   *testing.T
	env []string
}

func (d *devRun) people() people {
	return people{d.t, append(os.Environ(), "HOOKLINE_API_URL="+d.client.URL, "HOOKLINE_API_KEY="+d.client.Key)}
}

// try returns what was printed, and the exit code.
func (p people) try(stdin string, args ...string) (out, errs string, code int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	var stdout, stderr bytes.Buffer
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = p.env, strings.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	if cmd.ProcessState == nil {
		p.t.Fatal(err)
	}
	return stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
}

func (p people) run(args ...string) string {
	p.t.Helper()
	out, errs, code := p.try("", args...)
	if code != exitOK {
		p.t.Fatalf("hookline %s: exit code %d: %s", strings.Join(args, " "), code, errs)
	}
	return out
}

func (p people) json(into any, args ...string) {
	p.t.Helper()
	if out := p.run(append(args, "-o", "json")...); json.Unmarshal([]byte(out), into) != nil {
		p.t.Fatalf("hookline %s: not JSON: %s", strings.Join(args, " "), out)
	}
}

func TestPeopleSubscribePublishAndLookFromTheCommandLine(t *testing.T) {
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	defer receiver.Close()
	d := startDev(t, t.TempDir())
	p := d.people()

	before := d.configOffset()
	var made struct{ ID, Name, SecretValue string }
	p.json(&made, "subscriptions", "create", "orders", "--url", receiver.URL, "--type", "order.*", "--profile", "flashfx")
	if made.Name != "orders" || made.SecretValue == "" {
		t.Fatalf("made %+v", made)
	}
	if !poll(t.Context(), func() bool { return d.configOffset() >= before+2 }) {
		t.Fatal("the subscription is not live")
	}
	if out := p.run("subscriptions", "ls"); !strings.Contains(out, "orders") || !strings.Contains(out, "flashfx") {
		t.Errorf("subscriptions ls:\n%s", out)
	}
	var published struct {
		EventID string `json:"event_id"`
	}
	p.json(&published, "events", "publish", "order.paid", `{"id": 12345678901234567890}`)

	var items []struct{ ID, Status, EventID string }
	if !poll(t.Context(), func() bool {
		p.json(&items, "deliveries", "ls", "--event", published.EventID)
		return len(items) == 1
	}) {
		t.Fatal("no delivery")
	}
	if out := p.run("deliveries", "get", items[0].ID); !strings.Contains(out, "statusCode: 418") {
		t.Errorf("deliveries get:\n%s", out)
	}
	if out := p.run("deliveries", "count", "--from", "1h"); !strings.Contains(out, "PENDING: 1") {
		t.Errorf("deliveries count:\n%s", out)
	}
	if out := p.run("events", "get", published.EventID, "-o", "json"); !strings.Contains(out, "12345678901234567890") {
		t.Errorf("events get: %s", out)
	}
	if out := p.run("subscriptions", "disable", made.ID, "--reason", "on holiday"); !strings.Contains(out, "on holiday") {
		t.Errorf("disable:\n%s", out)
	}
	p.run("subscriptions", "delete", made.ID)
	if _, errs, code := p.try("", "subscriptions", "get", made.ID); code != exitFailed || !strings.Contains(errs, "404") {
		t.Errorf("get of what is deleted: exit code %d, %s", code, errs)
	}
}

func TestTheTailPrintsAttemptsAsTheyAreMade(t *testing.T) {
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer receiver.Close()
	d := startDev(t, t.TempDir())
	d.subscribe("orders", receiver.URL, nil)

	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	tail := exec.CommandContext(ctx, binary, "tail", "-o", "json")
	tail.Env = d.people().env
	out, err := tail.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := tail.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tail.Process.Kill(); _ = tail.Wait() }()
	// The tail begins when it has asked for the first time: events go on until it prints.
	stop := make(chan struct{})
	produced := make(chan struct{})
	go func() {
		defer close(produced)
		for ctx.Err() == nil {
			select {
			case <-stop:
				return
			default:
				_ = d.client.Call(ctx, http.MethodPost, "/v1/events", map[string]any{"event_type": "order.paid", "data": 1}, nil)
			}
		}
	}()
	var attempt struct {
		DeliveryID string
		StatusCode int
		Status     string
	}
	err = json.NewDecoder(out).Decode(&attempt)
	close(stop)
	<-produced
	if err != nil || attempt.StatusCode != http.StatusOK || attempt.Status != "DELIVERED" || attempt.DeliveryID == "" {
		t.Errorf("tail printed %+v, %v", attempt, err)
	}
}

func TestWrongCommandLinesAreRefusedWithWhatToDo(t *testing.T) {
	d := startDev(t, t.TempDir())
	for _, test := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"an unknown format", []string{"deliveries", "ls", "-o", "xml"}, exitFailed, "table, json or yaml"},
		{"a time that is none", []string{"deliveries", "ls", "--from", "yesterday"}, exitFailed, "nor a duration"},
		{"an unknown flag", []string{"deliveries", "ls", "--tenant", "x"}, exitUsage, "unknown flag"},
		{"a filter that is no JSON", []string{"subscriptions", "create", "x", "--filter", "{"}, exitFailed, "--filter"},
		{"a field that the API refuses", []string{"subscriptions", "create", "x", "--url", "ftp://x"}, exitFailed, "/endpointUrl"},
		{"a wrong key", []string{"deliveries", "ls", "--key", "hk_wrong"}, exitFailed, "HOOKLINE_API_KEY"},
		{"an address that nobody listens on", []string{"deliveries", "ls", "--api", "http://127.0.0.1:1"}, exitFailed, "refused"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, errs, code := d.people().try("", test.args...)
			if code != test.code || !strings.Contains(errs, test.says) {
				t.Errorf("exit code %d, %s", code, errs)
			}
		})
	}
}

func TestPeopleAskWhyAndReplayFromTheCommandLine(t *testing.T) {
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer receiver.Close()
	d := startDev(t, t.TempDir())
	p := d.people()
	d.subscribe("small", receiver.URL, nil)
	var subs []struct{ ID, Name string }
	p.json(&subs, "subscriptions", "ls")
	before := d.configOffset()
	p.run("subscriptions", "update", subs[0].ID, "--filter", `{"data":{"amount":[{"numeric":["<",100]}]}}`)
	if !poll(t.Context(), func() bool { return d.configOffset() > before }) {
		t.Fatal("the filter is not live")
	}
	for id, amount := range map[string]string{"cheap": "1", "dear": "1000"} {
		p.run("events", "publish", "--file", p.file(`{"event_id":"`+id+`","event_type":"order.paid","data":{"amount":`+amount+`}}`))
	}
	d.delivered(1)
	if !poll(t.Context(), func() bool { _, _, code := p.try("", "events", "get", "dear"); return code == exitOK }) {
		t.Fatal("the event that nobody wants is not recorded")
	}

	if out := p.run("why", "dear"); !strings.Contains(out, "outcome: filter") || !strings.Contains(out, "data.amount") {
		t.Errorf("why dear:\n%s", out)
	}
	if out := p.run("why", "cheap"); !strings.Contains(out, "outcome: delivery") {
		t.Errorf("why cheap:\n%s", out)
	}
	if out := p.run("events", "ls", "--unmatched"); !strings.Contains(out, "dear") || strings.Contains(out, "cheap") {
		t.Errorf("unmatched:\n%s", out)
	}
	for _, id := range []string{"explain", "..", "a/b", "/", "100%", "Grüße"} {
		p.run("events", "publish", "--file", p.file(`{"event_id":"`+id+`","event_type":"card.issued","data":1}`))
		if !poll(t.Context(), func() bool { _, _, code := p.try("", "events", "get", id); return code == exitOK }) {
			t.Errorf("the event %q is not found", id)
		}
		if out := p.run("why", id); !strings.Contains(out, "outcome: event_type") {
			t.Errorf("why %s:\n%s", id, out)
		}
	}
	if out := p.run("subscriptions", "test", subs[0].ID); !strings.Contains(out, "recorded: true") {
		t.Errorf("test:\n%s", out)
	}
	if !poll(t.Context(), func() bool { return strings.Contains(p.run("deliveries", "ls", "--trigger", "test"), "DELIVERED") }) {
		t.Error("the test is not in the audit")
	}
	var tried struct{ Looked, Matched int }
	p.json(&tried, "subscriptions", "dry-run", "--type", "order.*", "--filter", `{"data":{"amount":[1000]}}`)
	if tried.Looked != 8 || tried.Matched != 1 {
		t.Errorf("dry-run: %+v", tried)
	}

	create := []string{"replays", "create", "--subscription", subs[0].ID, "--from", "1h"}
	out, errs, code := p.try("n\n", create...)
	if code != exitFailed || !strings.Contains(errs, "This sends 1 deliveries") || out != "" {
		t.Errorf("not confirmed: exit code %d, %s%s", code, out, errs)
	}
	if out, errs, code = p.try("", append(create, "--yes", "--watch", "--rate", "1000")...); code != exitOK || !strings.Contains(out, "state: done") || !strings.Contains(out, "matched: 1") {
		t.Errorf("replay: exit code %d, %s%s", code, out, errs)
	}
	if !poll(t.Context(), func() bool {
		return strings.Contains(p.run("deliveries", "ls", "--event", "cheap", "-o", "json"), `"attemptCount": 1`)
	}) {
		t.Error("the replayed delivery has not been attempted")
	}
	if out := p.run("changes", "ls", "--kind", "replay"); !strings.Contains(out, "create") {
		t.Errorf("changes:\n%s", out)
	}
}

// file is the path of a file with a text.
func (p people) file(text string) string {
	p.t.Helper()
	path := filepath.Join(p.t.TempDir(), "input")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return path
}

func TestColoursAreForTerminalsWhoseOwnerWantsThem(t *testing.T) {
	device, err := os.Open(os.DevNull) // a character device, as terminals are
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = device.Close() }()
	for _, test := range []struct {
		out     io.Writer
		environ config.Environment
		want    bool
	}{
		{device, nil, true},
		{device, config.Environment{"NO_COLOR": "1"}, false},
		{device, config.Environment{"NO_COLOR": "false"}, false},
		{device, config.Environment{"TERM": "dumb"}, false},
		{&bytes.Buffer{}, nil, false},
	} {
		if asked, _ := (terminal{out: test.out, environ: test.environ}).client(); asked.Color != test.want {
			t.Errorf("%T with %v: %v", test.out, test.environ, asked.Color)
		}
	}
}
