package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hookline/hookline/pkg/config"
)

const testSecret = "0123456789abcdef0123456789abcdef"

// signedRequest is what hookline sign prints for an event.
func signedRequest(t *testing.T, profile, event string) (headers []string, body string) {
	t.Helper()
	var out, errOut bytes.Buffer
	code := execute(t.Context(), []string{"sign", "--profile", profile, "--secret", testSecret},
		terminal{in: strings.NewReader(event), out: &out, err: &errOut})
	if code != exitOK {
		t.Fatalf("sign exits with %d: %s", code, &errOut)
	}
	head, body, _ := strings.Cut(out.String(), "\n\n")
	return strings.Split(head, "\n"), strings.TrimSuffix(body, "\n")
}

func TestWhatIsSignedVerifies(t *testing.T) {
	const event = `{"event_id":"e1","event_type":"order.created","data":{"amount":1}}`
	for _, profile := range []string{"fynapse", "fynex", "flashfx"} {
		headers, body := signedRequest(t, profile, event)
		args := []string{"verify", "--profile", profile, "--secret", testSecret}
		for _, h := range headers {
			args = append(args, "-H", h)
		}
		for _, tt := range []struct {
			body string
			code int
		}{{body, exitOK}, {body + " ", exitFailed}} {
			var out, errOut bytes.Buffer
			code := execute(t.Context(), args, terminal{in: strings.NewReader(tt.body), out: &out, err: &errOut})
			if code != tt.code {
				t.Errorf("%s: verify %q exits with %d: %s%s", profile, tt.body, code, &out, &errOut)
			}
		}
	}
}

func TestAnEventAndABodyMayStandInFiles(t *testing.T) {
	event, body := filepath.Join(t.TempDir(), "event.json"), filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(event, []byte(`{"event_id":"e1","event_type":"order.created","data":{"amount":1}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, request, _ := hookline(t, nil, "sign", "--profile", "flashfx", "--secret", testSecret, event)
	head, text, _ := strings.Cut(request, "\n\n")
	if err := os.WriteFile(body, []byte(strings.TrimSuffix(text, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"verify", "--profile", "flashfx", "--secret", testSecret, body}
	for line := range strings.Lines(head) {
		args = append(args, "-H", strings.TrimSpace(line))
	}
	if code, out, errOut := hookline(t, nil, args...); code != exitOK || out != "valid\n" {
		t.Errorf("exit code %d: %s%s", code, out, errOut)
	}
	if code, _, errOut := hookline(t, nil, "sign", "--secret", testSecret, body+".none"); code != exitFailed || !strings.Contains(errOut, "read the event") {
		t.Errorf("exit code %d: %s", code, errOut)
	}
}

func TestSimulateShowsAttemptsAndTheEnd(t *testing.T) {
	code, out, errOut := hookline(t, nil, "simulate", "--profile", "flashfx", "--respond", "503,timeout,200")
	if code != exitOK {
		t.Fatalf("exit code %d: %s", code, errOut)
	}
	for _, want := range []string{"after 0s", "timeout", "attempt 3", "DELIVERED"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
	if code, _, errOut := hookline(t, nil, "simulate", "--respond", "often"); code != exitFailed || !strings.Contains(errOut, "often") {
		t.Errorf("exit code %d: %s", code, errOut)
	}
}

func TestProfilesAreListedAndPrinted(t *testing.T) {
	if code, out, _ := hookline(t, nil, "profiles"); code != exitOK || !strings.Contains(out, "fynapse") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if code, out, _ := hookline(t, nil, "profiles", "show", "fynapse"); code != exitOK || !strings.Contains(out, "\nname: fynapse\n") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if code, _, errOut := hookline(t, nil, "profiles", "show", "nothing"); code != exitFailed || !strings.Contains(errOut, "fynapse") {
		t.Errorf("exit code %d:\n%s", code, errOut)
	}
}

func TestAWrongProfileOfTheOperatorIsAProblemOfItsOwn(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"one.yaml", "two.yaml"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("name: 1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, _, errOut := hookline(t, map[string]string{"HOOKLINE_PROFILES_DIR": dir}, "config", "check", "delivery")
	for line := range strings.Lines(errOut) {
		if strings.HasPrefix(line, "  ") && !strings.HasPrefix(line, "  HOOKLINE_") {
			t.Errorf("a problem without its variable: %q", line)
		}
	}
	if strings.Count(errOut, "\n  HOOKLINE_PROFILES_DIR: ") < 2 {
		t.Errorf("both files are not in:\n%s", errOut)
	}
}

// listening is a hookline listen in this process.
type listening struct {
	url  string
	says *bufio.Scanner
}

func listenWith(t *testing.T, args ...string) listening {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	done := make(chan int, 1)
	go func() {
		done <- execute(ctx, append([]string{"listen", "--json"}, args...), terminal{environ: config.Environment{}, out: writer, err: writer})
		_ = writer.Close()
	}()
	t.Cleanup(func() {
		cancel()
		_, _ = io.Copy(io.Discard, reader)
		if code := <-done; code != exitOK {
			t.Errorf("listen exits with %d", code)
		}
	})
	l := listening{says: bufio.NewScanner(reader)}
	l.url = l.next(t)["url"].(string)
	return l
}

func (l listening) next(t *testing.T) map[string]any {
	t.Helper()
	if !l.says.Scan() {
		t.Fatalf("listen says nothing: %v", l.says.Err())
	}
	var line map[string]any
	if err := json.Unmarshal(l.says.Bytes(), &line); err != nil {
		t.Fatalf("%q: %v", l.says.Text(), err)
	}
	return line
}

// post sends a request and returns the status, or 0 where no answer came.
func (l listening) post(t *testing.T, headers []string, body string) <-chan int {
	t.Helper()
	status := make(chan int, 1)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, l.url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	go func() {
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		answer, err := client.Do(r)
		if err != nil {
			status <- 0
			return
		}
		_ = answer.Body.Close()
		status <- answer.StatusCode
	}()
	return status
}

func TestListenVerifiesPrintsAndAnswersAsItsScriptSays(t *testing.T) {
	l := listenWith(t, "--secret", testSecret, "--respond", "503,reset,200")
	headers, body := signedRequest(t, "fynapse", `{"event_type":"order.created","data":{}}`)
	for _, want := range []struct {
		answer string
		status int
	}{{"503", 503}, {"reset", 0}, {"200", 200}, {"200", 200}} {
		status := l.post(t, headers, body)
		line := l.next(t)
		if line["signature"] != "valid" || line["answer"] != want.answer || line["body"] != body {
			t.Errorf("printed %v", line)
		}
		if got := <-status; got != want.status {
			t.Errorf("answered %d, want %d", got, want.status)
		}
	}
	status := l.post(t, headers, body+" ")
	if line := l.next(t); line["signature"] == "valid" || <-status != http.StatusUnauthorized {
		t.Errorf("a changed body: printed %v", line)
	}
}

func TestListenPrintsForPeople(t *testing.T) {
	var out bytes.Buffer
	p := &printer{out: &out}
	p.greet("127.0.0.1:9000", listenFlags{respond: "200"})
	p.print(received{
		Method: "POST", Path: "/hook", Header: http.Header{"Idempotency-Key": {"k"}, "User-Agent": {"x"}},
		Body: []byte(`{"a":1}`), Signature: signatureUnchecked, Answer: answer{status: 200},
	})
	for _, want := range []string{"http://127.0.0.1:9000/", "POST /hook, 7 bytes, signature not checked, answered 200", "Idempotency-Key: k", `"a": 1`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in:\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "User-Agent") {
		t.Errorf("a header that every request has is in:\n%s", &out)
	}
}
