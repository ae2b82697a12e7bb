package api

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
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
}

// recorded writes what the attempts topic has into the audit, as the recorder would.
func (r *running) recorded(n int) {
	r.t.Helper()
	batch := &store.Batch{}
	for _, record := range r.records(r.kafka.Topics.Attempts, n) {
		a, err := wire.DecodeAttempt(record.Value)
		if err != nil {
			r.t.Fatal(err)
		}
		batch.Attempts = append(batch.Attempts, *a)
		batch.Deliveries = append(batch.Deliveries, store.Delivery{
			ID: a.DeliveryID, Tenant: a.Tenant, EventID: a.EventID, EventType: a.EventType, SubscriptionID: a.SubscriptionID, Profile: a.Profile,
			ProfileVersion: a.ProfileVersion, Trigger: a.Trigger, Status: a.Outcome.Status, Reason: a.Outcome.Reason, CreatedAt: a.DeliveryCreatedAt,
			UpdatedAt: record.Timestamp, AttemptCount: a.Number, LastAttempt: a.Number, LastTry: a.Try, LastStatusCode: a.StatusCode, LastError: a.Error,
		})
	}
	if err := r.db.Record(r.t.Context(), batch); err != nil {
		r.t.Fatal(err)
	}
}

func TestATestIsInTheAuditAsATestThatHasEnded(t *testing.T) {
	t.Parallel()
	r := start(t)
	answers := make(chan int, 2)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(<-answers) }))
	defer receiver.Close()
	id := r.must(http.StatusCreated, http.MethodPost, "/subscriptions", map[string]any{"name": "s", "endpointUrl": receiver.URL}).str("id")
	r.deliver(id, "e1", webhook.Delivered)
	answers <- http.StatusOK
	answers <- http.StatusServiceUnavailable
	good := r.must(http.StatusOK, http.MethodPost, "/subscriptions/"+id+"/test", nil)
	bad := r.must(http.StatusOK, http.MethodPost, "/subscriptions/"+id+"/test", nil)
	if good.body["recorded"] != true || bad.str("status") != string(webhook.Pending) || bad.body["recorded"] != true {
		t.Fatalf("answered %s, %s", good.text, bad.text)
	}
	r.recorded(2)
	tests := r.must(http.StatusOK, http.MethodGet, "/deliveries?trigger=test&include=attempts", nil).items()
	if len(tests) != 2 {
		t.Fatalf("tests in the audit: %v", tests)
	}
	for _, want := range []struct {
		of     answer
		status webhook.Status
		code   float64
	}{{good, webhook.Delivered, 200}, {bad, webhook.DeadLetter, 503}} {
		got := r.must(http.StatusOK, http.MethodGet, "/deliveries/"+want.of.str("deliveryId"), nil)
		attempts := got.body["attempts"].([]any)
		if got.str("status") != string(want.status) || got.str("trigger") != "test" || got.str("eventId") != want.of.str("eventId") || got.body["nextAttemptAt"] != nil || len(attempts) != 1 {
			t.Fatalf("want %v, got %s", want.status, got.text)
		}
		if a := attempts[0].(map[string]any); a["trigger"] != "test" || a["statusCode"] != want.code || a["number"] != 1.0 || a["requestBytes"] == 0.0 {
			t.Errorf("attempt %v", a)
		}
		if again := r.call(http.MethodPost, "/deliveries/"+want.of.str("deliveryId")+"/redeliver", nil); again.code() != "delivery_is_test" {
			t.Errorf("delivered again: %s", again.text)
		}
	}
	if counts := r.must(http.StatusOK, http.MethodGet, "/deliveries/count?trigger=event", nil); counts.body["counts"].(map[string]any)["DEAD_LETTER"] != 0.0 {
		t.Errorf("without tests: %s", counts.text)
	}
	r.must(http.StatusNotFound, http.MethodGet, "/events/"+good.str("eventId"), nil)
}

func TestATestThatKafkaIsNotToldOfSaysSo(t *testing.T) {
	t.Parallel()
	r := start(t)
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer receiver.Close()
	id := r.must(http.StatusCreated, http.MethodPost, "/subscriptions", map[string]any{"name": "s", "endpointUrl": receiver.URL}).str("id")
	client := r.service.journal.Use(nil)
	defer r.service.journal.Use(client)
	got := r.must(http.StatusOK, http.MethodPost, "/subscriptions/"+id+"/test", nil)
	if got.str("status") != "DELIVERED" || got.body["recorded"] != false {
		t.Errorf("got %s", got.text)
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
