package virtual

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// fuseClient is a client of Fuse that is away at first, and keeps what it got.
type fuseClient struct {
	*world
	key      string
	away     bool
	silent   bool           // takes what comes and does not call back
	refusals map[string]int // how often a type is still to be refused
	got      []string       // types and what they are about, as they were accepted
	synced   []arrival
}

type fuseBody struct {
	Type       string
	RemoteData string `json:"remote_data"`
}

// name is a webhook's type, and what the aggregator's message was called.
func (b fuseBody) name() string {
	var remote struct{ Name string }
	_ = json.Unmarshal([]byte(b.RemoteData), &remote)
	return strings.TrimPrefix(b.Type, "financial_connection.") + " " + remote.Name
}

// answer is the client's handler. It is asked about the last arrival.
func (c *fuseClient) answer(string, int) (int, map[string]string) {
	c.mu.Lock()
	last := c.arrivals[len(c.arrivals)-1]
	c.mu.Unlock()
	var body fuseBody
	if err := json.Unmarshal(last.body, &body); err != nil {
		c.Errorf("received %s", last.body)
	}
	if c.away || c.refusals[body.Type] > 0 {
		c.refusals[body.Type]--
		return http.StatusServiceUnavailable, nil
	}
	if body.Type == "financial_connection.sync_data" {
		c.synced = append(c.synced, last)
		if status := c.callBack(last); !c.silent && status != http.StatusOK {
			return http.StatusBadGateway, nil
		}
	}
	c.got = append(c.got, body.name())
	return http.StatusOK, nil
}

func (c *fuseClient) callBack(a arrival) int {
	if c.silent {
		return 0
	}
	request := httptest.NewRequestWithContext(c.Context(), http.MethodPost, "/v1/callbacks/fuse/financial_connections/sync", bytes.NewReader(a.body))
	request.Header.Set("Fuse-Client-Id", "default")
	request.Header.Set("Fuse-Api-Key", c.key)
	request.Header.Set("Fuse-Verification", a.header.Get("Fuse-Verification"))
	response := httptest.NewRecorder()
	c.ingest.ServeHTTP(response, request)
	return response.Code
}

// prepare makes a source, a connection and the client's subscription, and returns how the aggregator posts.
func (c *fuseClient) prepare() (post func(remote string)) {
	value := func(kind string, v any) map[string]any { return map[string]any{kind: v} }
	var source struct{ Path string }
	c.call(http.MethodPost, "/sources", map[string]any{"name": "mx", "secretValue": "a-token-of-the-aggregator", "spec": map[string]any{
		"verify": value("scheme", "token"), "connection": map[string]any{"aggregator": "mx", "remoteId": value("pointer", "/member_guid")},
		"event": map[string]any{"type": value("const", "financial_connection.sync_data"), "data": []any{
			map[string]any{"name": "financial_connection_id", "connection": "id"}, map[string]any{"name": "environment", "connection": "environment"},
			map[string]any{"name": "source", "connection": "aggregator"}, map[string]any{"name": "remote_data", "raw": true},
		}},
	}}, &source)
	c.call(http.MethodPost, "/connections", map[string]any{"items": []any{map[string]any{"aggregator": "mx", "remoteId": "m", "connectionId": "conn", "environment": "sandbox"}}}, nil)
	var made struct{ SecretValue string }
	c.call(http.MethodPost, "/subscriptions", map[string]any{"name": "client", "endpointUrl": hookURL + "/client", "profile": "fuse", "eventTypes": []string{
		"financial_connection.sync_data", "transactions.updates", "financial_connection.disconnected", "financial_connection.finished",
	}}, &made)
	c.key = made.SecretValue
	settle(5 * time.Second)
	return func(remote string) {
		c.Helper()
		request := httptest.NewRequestWithContext(c.Context(), http.MethodPost, source.Path, strings.NewReader(remote))
		request.Header.Set("Authorization", "a-token-of-the-aggregator")
		response := httptest.NewRecorder()
		c.ingest.ServeHTTP(response, request)
		if response.Code != http.StatusAccepted {
			c.Fatalf("%d %s", response.Code, response.Body)
		}
		settle(time.Second)
	}
}

// TestWhatFollowsKeepsItsOrderThroughADayOfRetries lets a client be away until the fifth retry of its syncs, and refuse once what follows.
func TestWhatFollowsKeepsItsOrderThroughADayOfRetries(t *testing.T) {
	c := &fuseClient{away: true, refusals: map[string]int{}}
	inWorld(t, c.answer, func(w *world) {
		c.world = w
		w.start("ingest")
		post := c.prepare()
		began := time.Now()
		until := func(age time.Duration) { settle(time.Until(began.Add(age))) }
		post(`{"member_guid":"m","name":"one","webhook_type":"TRANSACTIONS","error":{"error_code":"ITEM_LOGIN_REQUIRED"}}`)
		post(`{"member_guid":"m","name":"two","webhook_type":"TRANSACTIONS"}`)
		until(3 * time.Hour)
		w.stop("api", "recorder")
		if n := len(w.at("/client")); n != 10 || len(c.got) > 0 {
			t.Fatalf("%d requests, accepted %v; want two syncs of five attempts each, and nothing else", n, c.got)
		}
		// Back again, the client refuses the first of what follows twice.
		c.away = false
		c.refusals["transactions.updates"] = 2
		until(14*time.Hour + 50*time.Minute)
		if len(c.got) != 5 || !slices.Equal(c.got[2:], []string{"transactions.updates one", "disconnected one", "transactions.updates two"}) &&
			!slices.Equal(c.got[2:], []string{"transactions.updates two", "transactions.updates one", "disconnected one"}) {
			t.Errorf("accepted %v, want two syncs, and then what follows from one before what follows from the other", c.got)
		}
	})
}

// TestACallbackCountsForSeventyTwoHours calls back by hand what the client has taken without a word.
func TestACallbackCountsForSeventyTwoHours(t *testing.T) {
	c := &fuseClient{silent: true, refusals: map[string]int{}}
	inWorld(t, c.answer, func(w *world) {
		c.world = w
		w.start("ingest")
		post := c.prepare()
		began := time.Now()
		post(`{"member_guid":"m","name":"in time","webhook_type":"TRANSACTIONS"}`)
		post(`{"member_guid":"m","name":"late","webhook_type":"TRANSACTIONS"}`)
		settle(time.Minute)
		w.stop("api", "recorder", "scheduler", "router", "delivery") // days cost less without them
		if len(c.synced) != 2 {
			t.Fatalf("%d syncs", len(c.synced))
		}
		slices.SortFunc(c.synced, func(a, b arrival) int { return bytes.Compare(a.body, b.body) })
		c.silent = false
		settle(time.Until(began.Add(72*time.Hour - time.Hour)))
		w.start("router", "delivery")
		settle(time.Until(began.Add(72*time.Hour - 10*time.Second)))
		if status := c.callBack(c.synced[0]); status != http.StatusOK {
			t.Errorf("after almost 72 hours: %d", status)
		}
		settle(20 * time.Second)
		if status := c.callBack(c.synced[1]); status != http.StatusUnauthorized {
			t.Errorf("after 72 hours: %d", status)
		}
		if status := c.callBack(c.synced[0]); status != http.StatusOK {
			t.Errorf("the first again, after 72 hours: %d", status)
		}
		settle(10 * time.Minute) // a fetch that has begun before partitions came may wait for as long as fetches do here
		if want := "transactions.updates in time"; len(c.got) != 3 || c.got[2] != want {
			t.Errorf("accepted %v, want the two syncs and %s", c.got, want)
		}
	})
}
