package api

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

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
