package fuse

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/tests/testenv"
)

const (
	callbackCounter = "hookline_callbacks_total"
	sourceCounter   = "hookline_source_requests_total"
)

// refusal is a request, the answer that it must get, and the reason that it must be counted under.
type refusal struct {
	post   func() (int, string)
	status int
	reason string
}

// expectRefused makes the requests; of each the status must be right, and the counter of its reason must move by one.
func (s *stage) expectRefused(counter string, all map[string]refusal) {
	s.t.Helper()
	for name, r := range all {
		before := s.counted(counter, "refused", r.reason)
		if status, text := r.post(); status != r.status {
			s.t.Errorf("%s: %d %s, want %d", name, status, text, r.status)
		}
		if counted := s.counted(counter, "refused", r.reason) - before; counted != 1 {
			s.t.Errorf("%s: counted %d times as %s", name, counted, r.reason)
		}
	}
}

func TestNothingFollowsFromWhatTheClientWasNotSent(t *testing.T) {
	s := open(t, 2, 1, "none") // the client itself fails always, so that nobody calls back but this test
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	if status, text := s.post(s.ingest[0], "r", remote(0, 0), "Traceparent", parent); status != http.StatusAccepted {
		t.Fatalf("%d %s", status, text)
	}
	deep := strings.Repeat("[", 1000) + strings.Repeat("]", 1000)
	aggregator := func(body string, headers ...string) func() (int, string) {
		return func() (int, string) { return s.post(s.ingest[0], "r2", body, headers...) }
	}
	s.expectRefused(sourceCounter, map[string]refusal{
		"a forged webhook":     {aggregator(remote(0, 0), "X-Signature", "sha256="+strings.Repeat("0", 64)), 401, "bad_signature"},
		"one that is unsigned": {aggregator(remote(0, 0), "X-Signature", ""), 401, "missing_signature"},
		"one nested too deep":  {aggregator(deep), 400, "too_deep"},
		"one that is too long": {aggregator(strings.Repeat(" ", 513<<10)), 413, "too_large"},
	})
	if err := testenv.Until(patience, func() bool { return len(s.received()) > 0 }); err != nil {
		t.Fatal("the client got nothing")
	}
	signature := s.received()[0].Signature
	quoted, err := json.Marshal(remote(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	members := []string{`"type":"` + syncData + `"`, `"financial_connection_id":"conn-0000"`, `"environment":"sandbox"`, `"source":"plaid"`, `"remote_data":` + string(quoted)}
	body := "{" + strings.Join(members, ",") + "}"
	reordered := "{" + strings.Join([]string{members[1], members[0], members[2], members[3], members[4]}, ",") + "}"
	mac := hmac.New(sha256.New, []byte(s.key))
	mac.Write([]byte(`{"environment":"sandbox","financial_connection_id":"conn-0001","remote_data":` + string(quoted) + `,"source":"plaid","type":"` + syncData + `"}`))
	own := base64.StdEncoding.EncodeToString(mac.Sum(nil))
	client := func(client, key, verification, body string) func() (int, string) {
		return func() (int, string) { return s.callBack(client, key, verification, body) }
	}
	s.expectRefused(callbackCounter, map[string]refusal{
		"forged":                {client("default", s.key, base64.StdEncoding.EncodeToString(make([]byte, 32)), body), 401, "bad_signature"},
		"altered":               {client("default", s.key, signature, strings.Replace(body, "sandbox", "production", 1)), 401, "bad_signature"},
		"not signed":            {client("default", s.key, "", body), 401, "bad_signature"},
		"a wrong key":           {client("default", "a-wrong-key-of-some-length-12345", signature, body), 401, "bad_credentials"},
		"another client":        {client("nobody", s.key, signature, body), 401, "bad_credentials"},
		"no key":                {client("default", "", signature, body), 401, "unauthenticated"},
		"signed by the client":  {client("default", s.key, own, strings.Replace(body, "conn-0000", "conn-0001", 1)), 401, "no_such_delivery"},
		"keys in another order": {client("default", s.key, signature, reordered), 401, "reordered_keys"},
		"nested too deep":       {client("default", s.key, signature, deep), 400, "too_deep"},
		"too large":             {client("default", s.key, signature, `{"a":"`+strings.Repeat("x", 3<<20)+`"}`), 413, "too_large"},
	})
	if events := s.events(requested); len(events) != 0 {
		t.Fatalf("%d syncs were requested", len(events))
	}

	var spaced bytes.Buffer
	if err := json.Indent(&spaced, []byte(body), "", "\t"); err != nil {
		t.Fatal(err)
	}
	first, answer := s.callBack("default", s.key, signature, spaced.String())
	if err := testenv.Until(patience, func() bool { return s.counted(callbackCounter, "accepted", "") == 1 }); err != nil || first != 200 {
		t.Fatalf("the real callback: %d %s, counted %d times", first, answer, s.counted(callbackCounter, "accepted", ""))
	}
	for n := range 3 {
		if status, again := s.callBack("default", s.key, signature, body); status != 200 || again != answer {
			t.Errorf("again: %d %s, at first %s", status, again, answer)
		}
		if err := testenv.Until(time.Minute, func() bool { return s.counted(callbackCounter, "repeated", "") == n+1 }); err != nil {
			t.Errorf("%d times again, counted %d times", n+1, s.counted(callbackCounter, "repeated", ""))
		}
	}
	if err := testenv.Until(patience, func() bool { return len(s.events(requested)) > 0 }); err != nil {
		t.Fatal("no sync was requested")
	}
	if events := s.events(requested); len(events) != 1 || !strings.HasPrefix(events[0].Trace.Parent, parent[:35]) {
		t.Errorf("%d syncs were requested, the first in the trace %s, want one in %s", len(events), events[0].Trace.Parent, parent)
	}
	if slices.ContainsFunc(s.received(), func(r received) bool { return r.Type != syncData }) {
		t.Error("something followed before the sync itself was accepted")
	}
	s.Stop()
}
