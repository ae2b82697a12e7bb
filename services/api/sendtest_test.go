package api

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pkg/webhook"
)

func TestATestIsSentInTheSubscriptionsOwnContract(t *testing.T) {
	t.Parallel()
	r := start(t)
	type seen struct {
		header http.Header
		body   string
	}
	requests := make(chan seen, 1)
	status := http.StatusOK
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, _ := io.ReadAll(request.Body)
		requests <- seen{request.Header, string(body)}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, strings.Repeat("x", 2000))
	}))
	defer receiver.Close()
	id := r.must(http.StatusCreated, http.MethodPost, "/subscriptions", map[string]any{"name": "s", "endpointUrl": receiver.URL + "/hook?token=t"}).str("id")

	got := r.must(http.StatusOK, http.MethodPost, "/subscriptions/"+id+"/test", nil)
	sent := <-requests
	shown := got.body["request"].(map[string]any)
	if got.str("status") != "DELIVERED" || got.body["statusCode"] != 200.0 || got.str("eventType") != "balance.extracted" || got.body["advice"] != nil {
		t.Errorf("got %s", got.text)
	}
	if sent.header.Get("Hookline-Test") != "true" || sent.header.Get("Webhook-Signature") == "" || shown["body"] != sent.body {
		t.Errorf("sent %v %s", sent.header, sent.body)
	}
	if shown["headers"].(map[string]any)["Webhook-Signature"] != sent.header.Get("Webhook-Signature") || len(got.str("response")) != 1024 {
		t.Errorf("shown %v", shown)
	}

	status = http.StatusUnauthorized
	got = r.must(http.StatusOK, http.MethodPost, "/subscriptions/"+id+"/test", map[string]any{"eventType": "order.paid"})
	<-requests
	if got.str("status") != "DEAD_LETTER" || got.str("eventType") != "order.paid" || !strings.Contains(got.str("advice"), "signature") {
		t.Errorf("got %s", got.text)
	}
	if list := r.must(http.StatusOK, http.MethodGet, "/deliveries", nil); len(list.items()) != 0 {
		t.Errorf("a test is in the audit: %s", list.text)
	}
}

func TestATestWithoutAnAnswerSaysWhy(t *testing.T) {
	t.Parallel()
	r := start(t)
	receiver := httptest.NewServer(http.NotFoundHandler())
	url := receiver.URL
	receiver.Close()
	id := r.must(http.StatusCreated, http.MethodPost, "/subscriptions", map[string]any{"name": "s", "endpointUrl": url}).str("id")
	got := r.must(http.StatusOK, http.MethodPost, "/subscriptions/"+id+"/test", nil)
	if got.str("status") != string(webhook.Pending) || got.str("error") != "refused" || got.body["statusCode"] != nil || got.str("advice") == "" {
		t.Errorf("got %s", got.text)
	}
}

func TestARefusalGivesItsReasonsAway(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 4, 14, 12, 0, 0, 0, time.UTC)
	header := func(pairs ...string) http.Header {
		h := http.Header{}
		for i := 0; i < len(pairs); i += 2 {
			h.Set(pairs[i], pairs[i+1])
		}
		return h
	}
	late := at.Add(-10 * time.Minute).Format(http.TimeFormat)
	for name, c := range map[string]struct {
		status int
		header http.Header
		want   string
	}{
		"nothing":             {500, header(), ""},
		"no response":         {0, nil, ""},
		"redirect":            {308, header("Location", "https://u:p@example.com/new?token=t#f"), "It leads to https://example.com/new."},
		"redirect to a path":  {301, header("Location", "/hook/"), "It leads to /hook/."},
		"location of another": {401, header("Location", "/hook/"), ""},
		"broken location":     {301, header("Location", "http://[::1"), ""},
		"a page":              {403, header("Content-Type", "text/html; charset=utf-8"), "a page for people"},
		"clock behind":        {401, header("Date", late), "Its clock is -10m0s off"},
		"clock right":         {401, header("Date", at.Format(http.TimeFormat)), ""},
		"clock of a crash":    {500, header("Date", late), ""},
	} {
		got := strings.Join(hints(c.status, c.header, at), " ")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestATestDuringARotationSaysSo(t *testing.T) {
	t.Parallel()
	r := start(t)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
	defer receiver.Close()
	id := r.must(http.StatusCreated, http.MethodPost, "/subscriptions", map[string]any{"name": "s", "endpointUrl": receiver.URL}).str("id")
	path := "/subscriptions/" + id + "/test"
	if got := r.must(http.StatusOK, http.MethodPost, path, nil); strings.Contains(got.str("advice"), "rotated") {
		t.Errorf("before: %s", got.str("advice"))
	}
	secret, err := r.db.SecretByName(t.Context(), webhook.DefaultTenant, "s")
	if err != nil {
		t.Fatal(err)
	}
	r.must(http.StatusOK, http.MethodPost, "/secrets/"+secret.ID+"/rotate", nil)
	if got := r.must(http.StatusOK, http.MethodPost, path, nil); !strings.Contains(got.str("advice"), "rotated") {
		t.Errorf("after: %s", got.str("advice"))
	}
}
