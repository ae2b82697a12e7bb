package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/cobra"
)

// api answers calls from a script, in turns where a call has several answers, and remembers what it was asked.
type api struct {
	t       *testing.T
	answers map[string][]string // "METHOD path?query": "status body", or "" for no answer at all
	asked   []string            // with the body
}

func (a *api) RoundTrip(r *http.Request) (*http.Response, error) {
	call := r.Method + " " + strings.TrimPrefix(r.URL.EscapedPath(), Path)
	if r.URL.RawQuery != "" {
		call += "?" + r.URL.RawQuery
	}
	body := []byte{}
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	a.asked = append(a.asked, strings.TrimSpace(call+" "+string(body)))
	script, known := a.answers[call]
	if !known || len(script) == 0 {
		a.t.Errorf("nobody expected %s", call)
		script = []string{"500"}
	}
	answer := script[0]
	if len(script) > 1 {
		a.answers[call] = script[1:]
	}
	if answer == "" {
		return nil, fmt.Errorf("connection refused")
	}
	status, text, _ := strings.Cut(answer, " ")
	recorder := httptest.NewRecorder()
	if status[0] != '2' {
		recorder.Header().Set("Content-Type", "application/problem+json")
	}
	code := 0
	_, _ = fmt.Sscan(status, &code)
	recorder.WriteHeader(code)
	_, _ = recorder.WriteString(text)
	return recorder.Result(), nil
}

// run runs a command line; input is what is typed.
func (a *api) run(ctx context.Context, input string, args ...string) (out, errs string, err error) {
	var stdout, stderr bytes.Buffer
	root := &cobra.Command{Use: "hookline", SilenceUsage: true, SilenceErrors: true}
	t := Terminal{In: strings.NewReader(input), Out: &stdout, Err: &stderr, HTTP: &http.Client{Transport: a}}
	root.AddCommand(Commands(t, func() (Config, error) { return Config{URL: "http://api.test", Key: "key"}, nil })...)
	root.SetOut(&stdout)
	root.SetErr(&stderr)
	root.SetArgs(args)
	err = root.ExecuteContext(ctx)
	return stdout.String(), stderr.String(), err
}

func script(t *testing.T, pairs ...string) *api {
	a := &api{t: t, answers: map[string][]string{}}
	for i := 0; i < len(pairs); i += 2 {
		a.answers[pairs[i]] = append(a.answers[pairs[i]], pairs[i+1])
	}
	return a
}

func TestAListIsPrintedInTheFormatThatIsAskedFor(t *testing.T) {
	for format, want := range map[string]string{
		"table": "ID  NAME  PROFILE  CREATED  UPDATED\na   x     fuse     -        -\n",
		"json":  "[\n  {\n    \"id\": \"a\",\n    \"name\": \"x\",\n    \"profile\": \"fuse\"\n  }\n]\n",
		"yaml":  "- id: a\n  name: x\n  profile: fuse\n",
	} {
		a := script(t, "GET /secrets?limit=50", `200 {"items":[{"id":"a","name":"x","profile":"fuse"}],"nextCursor":null}`)
		if out, _, err := a.run(t.Context(), "", "secrets", "ls", "-o", format); err != nil || out != want {
			t.Errorf("%s: %q, %v; want %q", format, out, err, want)
		}
	}
	if _, _, err := script(t).run(t.Context(), "", "secrets", "ls", "-o", "xml"); err == nil {
		t.Error("xml is printed")
	}
}

func TestAListIsReadToTheNumberThatIsAskedFor(t *testing.T) {
	a := script(t, "GET /deliveries?limit=3&trigger=test", `200 {"items":[{"id":"a"},{"id":"b"}],"nextCursor":"c"}`,
		"GET /deliveries?cursor=c&limit=1&trigger=test", `200 {"items":[{"id":"d"}],"nextCursor":"e"}`)
	out, _, err := a.run(t.Context(), "", "deliveries", "ls", "--trigger", "test", "--limit", "3", "-o", "json")
	var items []struct{ ID string }
	if err != nil || json.Unmarshal([]byte(out), &items) != nil || len(items) != 3 {
		t.Errorf("%s, %v", out, err)
	}
}

func TestEveryEventIDIsOneSegmentOrParameter(t *testing.T) {
	for _, id := range []string{"explain", "..", "a/b", "100%", "Grüße", "/", "a b"} {
		query := map[string]string{"..": "..", "a/b": "a%2Fb", "100%": "100%25", "Grüße": "Gr%C3%BC%C3%9Fe", "/": "%2F", "a b": "a+b", "explain": "explain"}[id]
		a := script(t, "GET /events?id="+query+"&include=data&limit=1", `200 {"items":[{"id":"it"}],"nextCursor":null}`, "GET /explain?eventId="+query, "200 {}")
		if out, _, err := a.run(t.Context(), "", "events", "get", id); err != nil || out != "id: it\n" {
			t.Errorf("get %s: %s, %v", id, out, err)
		}
		if _, _, err := a.run(t.Context(), "", "why", id); err != nil {
			t.Errorf("why %s: %v", id, err)
		}
	}
	if got := fill("/x/%s/y", []string{".."}) + fill("/%s", []string{"a/../b"}); got != "/x/%2E%2E/y/a%2F..%2Fb" {
		t.Errorf("segments %s", got)
	}
}

func TestWhatReadsLikeAPlaceIsAskedForAsAnIDFirst(t *testing.T) {
	const nothing = `404 {"status":404,"code":"not_found","detail":"nothing"}`
	a := script(t, "GET /explain?eventId=3%3A1207", nothing, "GET /explain?at=3%3A1207", `200 {"rejected":{"code":"missing_data"}}`,
		"GET /explain?eventId=nobody", nothing)
	if out, _, err := a.run(t.Context(), "", "why", "3:1207"); err != nil || !strings.Contains(out, "missing_data") {
		t.Errorf("a place: %s, %v", out, err)
	}
	if _, _, err := a.run(t.Context(), "", "why", "nobody"); err == nil || !strings.Contains(err.Error(), "not_found") {
		t.Errorf("nobody's id: %v", err)
	}
	b := script(t, "GET /events?id=nobody&include=data&limit=1", `200 {"items":[],"nextCursor":null}`)
	if _, _, err := b.run(t.Context(), "", "events", "get", "nobody"); err == nil || !strings.Contains(err.Error(), "not_found") {
		t.Errorf("get: %v", err)
	}
}

func TestAWideCommandIsCountedAndConfirmedFirst(t *testing.T) {
	const dry, done = `{"dryRun":true,"reason":"timeout"}`, `{"reason":"timeout"}`
	for name, c := range map[string]struct {
		counted, typed, asks string
		does                 bool
	}{
		"yes":      {`202 {"count":12,"dryRun":true}`, "y\n", "cancels 12 deliveries", true},
		"no":       {`202 {"count":12,"dryRun":true}`, "n\n", "cancels 12 deliveries", false},
		"nothing":  {`202 {"count":12,"dryRun":true}`, "", "cancels 12 deliveries", false},
		"millions": {`202 {"count":100000,"atLeast":true,"dryRun":true}`, "yes\n", "cancels at least 100000 deliveries", true},
	} {
		a := script(t, "POST /retries/cancel", c.counted, "POST /retries/cancel", `202 {"count":7,"nextCursor":"x"}`, "POST /retries/cancel", `202 {"count":5,"nextCursor":null}`)
		out, errs, err := a.run(t.Context(), c.typed, "retries", "cancel", "--reason", "timeout")
		want := []string{"POST /retries/cancel " + dry}
		if c.does {
			want = append(want, "POST /retries/cancel "+done, `POST /retries/cancel {"cursor":"x","reason":"timeout"}`)
		}
		if (err == nil) != c.does || !strings.Contains(errs, c.asks) || !slices.Equal(a.asked, want) || c.does != strings.Contains(out, "count: 12") {
			t.Errorf("%s: asked %q, printed %s%s, %v", name, a.asked, out, errs, err)
		}
	}
	a := script(t, "POST /retries/now", `202 {"count":1,"nextCursor":null}`)
	if _, errs, err := a.run(t.Context(), "", "retries", "now", "--yes", "--subscription", "s"); err != nil || errs != "" || len(a.asked) != 1 {
		t.Errorf("--yes: %q, %s, %v", a.asked, errs, err)
	}
	if _, _, err := script(t).run(t.Context(), "", "retries", "cancel"); err == nil {
		t.Error("everything was cancelled")
	}
}

func TestAReplayIsCountedStartedWatchedAndLeftRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		running := `200 {"id":"r1","state":"running","done":250,"total":1000,"matched":200,"etaSeconds":75}`
		a := script(t, "POST /replays", `200 {"state":"dry_run","matched":800,"complete":false}`, "POST /replays", `202 {"id":"r1","state":"running"}`,
			"GET /replays/r1", running, "GET /replays/r1", "", "GET /replays/r1", `503 {"status":503,"code":"stopping"}`,
			"GET /replays/r1", `200 {"id":"r1","state":"done","done":1000,"total":1000,"matched":800}`)
		out, errs, err := a.run(t.Context(), "y\n", "replays", "create", "--subscription", "s", "--offsets", "3:10-20", "--offsets", "4:7", "--watch", "-o", "json")
		if err != nil || !strings.Contains(out, `"state": "done"`) {
			t.Errorf("printed %s, %v", out, err)
		}
		for _, line := range []string{"This sends at least 800 deliveries", "running: looked at 250 events of 1000, 200 to deliver, 1m15s to go", "waiting:", "done: looked at 1000"} {
			if !strings.Contains(errs, line) {
				t.Errorf("no %q in %s", line, errs)
			}
		}
		if first := a.asked[0]; !strings.Contains(first, `"offsets":[{"partition":3,"from":10,"to":20},{"partition":4,"from":7}]`) || !strings.Contains(first, `"dryRun":true`) || strings.Contains(first, `"from":"`) {
			t.Errorf("asked %s", first)
		}

		ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer cancel()
		b := script(t, "GET /replays/r1", running)
		if _, errs, err := b.run(ctx, "", "replays", "watch", "r1"); err == nil || !strings.Contains(err.Error(), "hookline replays watch r1") || strings.Count(errs, "running") != 4 {
			t.Errorf("interrupted: %s, %v", errs, err)
		}
		for _, args := range [][]string{{"replays", "create", "--subscription", "s"}, {"replays", "create", "--subscription", "s", "--offsets", "3-4"}} {
			if _, _, err := script(t).run(t.Context(), "", args...); err == nil {
				t.Errorf("%v is accepted", args)
			}
		}
	})
}

func TestATailGoesOnWhereItWasWhileTheAPIIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		item := func(id string) string {
			return `{"deliveryId":"` + id + `","eventType":"a.b","subscriptionId":"s","number":1,"statusCode":200,"durationMs":3,"status":"DELIVERED"}`
		}
		a := script(t, "GET /attempts/tail?status=DELIVERED", `200 {"items":[`+item("d1")+`],"nextCursor":"c1"}`,
			"GET /attempts/tail?cursor=c1&status=DELIVERED", "", "GET /attempts/tail?cursor=c1&status=DELIVERED", `200 {"items":[`+item("d2")+`],"nextCursor":"c2"}`,
			"GET /attempts/tail?cursor=c2&status=DELIVERED", `403 {"status":403,"code":"permission_denied"}`)
		out, errs, err := a.run(t.Context(), "", "tail", "--status", "DELIVERED")
		if err == nil || strings.Count(out, "DELIVERED  a.b to s, attempt 1: 200 in 3 ms") != 2 || !strings.Contains(errs, "waiting:") {
			t.Errorf("printed %s%s, %v", out, errs, err)
		}
		if _, _, err := script(t, "GET /attempts/tail", "").run(t.Context(), "", "tail"); err == nil {
			t.Error("an API that was never there is waited for")
		}
	})
}

func TestAKeyIsMadeShownOnceListedAndRevoked(t *testing.T) {
	a := script(t, "POST /api-keys", `201 {"id":"k1","name":"ci","key":"hk_secret"}`, "GET /api-keys?limit=50", `200 {"items":[{"id":"k1","name":"ci"}],"nextCursor":null}`,
		"DELETE /api-keys/k1", "204")
	out, _, err := a.run(t.Context(), "", "keys", "create", "ci", "--permission", "event_publish", "--permission", "delivery_audit_read", "--expires", "2027-01-01T00:00:00Z")
	if err != nil || !strings.Contains(out, "hk_secret") ||
		!strings.Contains(a.asked[0], `{"expiresAt":"2027-01-01T00:00:00Z","name":"ci","permissions":["event_publish","delivery_audit_read"]}`) {
		t.Errorf("asked %q, printed %s, %v", a.asked, out, err)
	}
	if out, _, err := a.run(t.Context(), "", "keys", "ls"); err != nil || !strings.Contains(out, "ci") || strings.Contains(out, "hk_") {
		t.Errorf("ls: %s, %v", out, err)
	}
	if out, _, err := a.run(t.Context(), "", "keys", "revoke", "k1"); err != nil || out != "Done.\n" {
		t.Errorf("revoke: %s, %v", out, err)
	}
}

func TestASubscriptionIsPausedDisabledAndEnabledWithAReason(t *testing.T) {
	for _, verb := range []string{"pause", "disable", "enable"} {
		a := script(t, "POST /subscriptions/s1/"+verb, `200 {"id":"s1"}`)
		if _, _, err := a.run(t.Context(), "", "subscriptions", verb, "s1", "--reason", "maintenance"); err != nil || !strings.HasSuffix(a.asked[0], `{"reason":"maintenance"}`) {
			t.Errorf("%s: %q, %v", verb, a.asked, err)
		}
	}
}

func TestARefusalSaysWhichFieldIsWrong(t *testing.T) {
	a := script(t, "POST /secrets", `422 {"status":422,"code":"validation_failed","detail":"1 field","errors":[{"pointer":"/name","code":"invalid","detail":"too long"}]}`)
	if _, _, err := a.run(t.Context(), "", "secrets", "create", "x"); err == nil || !strings.Contains(err.Error(), "/name: too long") {
		t.Errorf("%v", err)
	}
}

func TestTheShellIsToldTheFormats(t *testing.T) {
	out, _, err := script(t).run(t.Context(), "", "__complete", "deliveries", "ls", "--output", "")
	if err != nil || !strings.HasPrefix(out, "table\njson\nyaml\n") {
		t.Errorf("%s, %v", out, err)
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if out, _, err := script(t).run(t.Context(), "", "completion", shell); err != nil || !strings.Contains(out, "hookline") {
			t.Errorf("%s: %.80s, %v", shell, out, err)
		}
	}
}
