package api

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hookline/hookline/tests/testenv"
)

// send asks a running Hookline once, and returns the response without its body.
func send(t *testing.T, method, url string, body string) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+testenv.APIKey)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	return response
}

// TestWithoutPostgresTheAPISaysTryAgainAndDeliveriesGoOn kills the database under a running system, publishes, and brings it back: the
// audit then has everything.
func TestWithoutPostgresTheAPISaysTryAgainAndDeliveriesGoOn(t *testing.T) {
	servers := testenv.Own(t, 1, "postgres")
	env := testenv.System(t).With("HOOKLINE_DATABASE_URL", servers.Fresh(t)).With("HOOKLINE_INGEST_ADDR", testenv.Addr(t))
	d := testenv.Deploy(t, env, "api", "ingest", "router", "delivery", "scheduler", "recorder")
	var arrived atomic.Int32
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { arrived.Add(1) }))
	defer receiver.Close()
	d.Call(http.MethodPost, "/subscriptions", map[string]any{"name": "s", "endpointUrl": receiver.URL}, nil)
	d.AwaitConfig()
	published := 0
	publish := func() {
		t.Helper()
		published++
		answer := send(t, http.MethodPost, "http://"+env["HOOKLINE_INGEST_ADDR"]+"/v1/events", fmt.Sprintf(`{"event_id":"e%d","event_type":"a.b","data":1}`, published))
		if answer.StatusCode != http.StatusAccepted {
			t.Fatalf("event %d: %d", published, answer.StatusCode)
		}
		if err := testenv.Until(time.Minute, func() bool { return arrived.Load() >= int32(published) }); err != nil {
			t.Fatalf("event %d has not arrived", published)
		}
	}
	publish()

	servers.Kill(t, "postgres")
	control := "http://" + env["HOOKLINE_API_ADDR"] + base
	// What served a connection outlives the server for a moment.
	if err := testenv.Until(time.Minute, func() bool {
		return send(t, http.MethodGet, control+"/tenants", "").StatusCode == http.StatusServiceUnavailable
	}); err != nil {
		t.Error("the API answers as if Postgres was there")
	}
	for _, call := range [][2]string{{http.MethodGet, "/subscriptions"}, {http.MethodGet, "/deliveries/count"}, {http.MethodPost, "/secrets"}} {
		answer := send(t, call[0], control+call[1], `{"name":"while away"}`)
		if answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "" {
			t.Errorf("%v without Postgres: %d, Retry-After %q", call, answer.StatusCode, answer.Header.Get("Retry-After"))
		}
	}
	for range 5 {
		publish()
	}

	// Where nobody reaps the killed server its number still counts as a process, and its successor would not start beside it.
	if err := os.Remove(filepath.Join(servers.Dir("postgres"), "data", "postmaster.pid")); err != nil {
		t.Fatal(err)
	}
	servers.Start(t, "postgres")
	var counted struct{ Counts map[string]int }
	if err := testenv.Until(time.Minute, func() bool {
		d.Call(http.MethodGet, "/deliveries/count", nil, &counted)
		return counted.Counts["DELIVERED"] == published
	}); err != nil {
		t.Errorf("of %d deliveries the audit has %v", published, counted.Counts)
	}
	d.Stop()
}
