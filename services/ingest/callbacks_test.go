package ingest

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.opentelemetry.io/otel/attribute"

	"github.com/hookline/hookline/pkg/callback"
	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

const (
	fuseKey  = "the-api-key-of-the-client-acme-1"
	fusePath = "/v1/callbacks/fuse/financial_connections/sync"
	// aggregatorsTrace is the trace context that an event came with.
	aggregatorsTrace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
)

// delivered is a delivery of financial_connection.sync_data as its receiver has got it.
type delivered struct {
	id     uuid.UUID
	body   string
	header http.Header
}

// addClient gives a tenant a subscription under the profile fuse, whose secret is the key.
func (c *table) addClient(id, tenant, key string) {
	secret := &webhook.Secret{ID: "secret-" + id, Tenant: tenant}
	secret.Versions = sealed(secret, key)
	c.secrets[secret.ID] = secret
	c.subs = append(c.subs, &webhook.Subscription{ID: id, Tenant: tenant, Profile: "fuse", SecretID: secret.ID, Status: webhook.SubscriptionActive})
}

// deliver writes what the router writes of an event of a connection, and returns what the receiver gets.
func (w *world) deliver(event, connection, remote string, age time.Duration) delivered {
	w.Helper()
	data := `{"financial_connection_id":"` + connection + `","environment":"sandbox","source":"mx","remote_data":"` + strings.ReplaceAll(remote, `"`, `\"`) + `"}`
	return w.deliverData(event, data, age)
}

func (w *world) deliverData(event, data string, age time.Duration) delivered {
	w.Helper()
	p, _ := profile.Builtin().Get("fuse")
	e := webhook.Event{ID: event, Type: "financial_connection.sync_data", Tenant: "acme", Data: []byte(data)}
	sent, signed, key, err := p.Expect(&e)
	if err != nil {
		w.Fatal(err)
	}
	d := &webhook.Delivery{ID: webhook.DeliveryID("acme", event, "client"), SubscriptionID: "client", Event: e}
	w.write(callback.ExpectationKey(webhook.CallbackGroup("acme", key), d.ID), wire.EncodeExpectation(&webhook.Expectation{
		Delivery: d.ID, Tenant: "acme", SubscriptionID: "client", Profile: "fuse", EventID: event, Sent: sent, Signed: signed, Until: time.Now().Add(72*time.Hour - age),
		Trace: webhook.TraceContext{Parent: aggregatorsTrace, State: "a=b"},
	}))
	contract, err := p.Contract(webhook.Overrides{})
	if err != nil {
		w.Fatal(err)
	}
	request, err := contract.Build(d, [][]byte{[]byte(fuseKey)}, time.Now())
	if err != nil {
		w.Fatal(err)
	}
	return delivered{id: d.ID, body: string(request.Body), header: request.Header}
}

// signed is a body as the client itself could sign it with its key.
func (w *world) signed(body string) delivered {
	w.Helper()
	p, _ := profile.Builtin().Get("fuse")
	contract, err := p.Contract(webhook.Overrides{})
	if err != nil {
		w.Fatal(err)
	}
	header, err := contract.Sign(&webhook.Delivery{}, []byte(body), [][]byte{[]byte(fuseKey)}, time.Now())
	if err != nil {
		w.Fatal(err)
	}
	return delivered{body: body, header: header}
}

func (w *world) write(key string, value []byte) {
	w.Helper()
	w.send(w.cluster.Topics.Callbacks, key, value)
}

// ends writes the outcome of a delivery.
func (w *world) ends(delivery uuid.UUID, eventType string) {
	w.Helper()
	w.send(w.cluster.Topics.Attempts, "client", wire.EncodeAttempt(&webhook.Attempt{
		ID: uuid.New(), DeliveryID: delivery, Tenant: "acme", EventType: eventType, SubscriptionID: "client", Profile: "fuse", Outcome: webhook.Outcome{Status: webhook.Delivered},
	}))
	time.Sleep(5 * time.Second)
}

// calls sends a body back as the client of the documents does.
func (w *world) calls(d delivered, change ...string) answer {
	headers := []string{"Content-Type", "application/json", "Fuse-Client-Id", "acme", "Fuse-Api-Key", fuseKey, "Fuse-Verification", d.header.Get("Fuse-Verification")}
	return w.postTo(fusePath, d.body, append(headers, change...)...)
}

// types are those of the events so far, with their ids.
func (w *world) types() (names []string) {
	w.Helper()
	seen := map[string]bool{}
	for _, e := range w.events() {
		if !seen[e.ID] {
			names = append(names, e.Type)
		}
		seen[e.ID] = true
	}
	return names
}

func (w *world) expectTypes(want ...string) {
	w.Helper()
	got := w.types()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.Errorf("events %v, want %v", got, want)
	}
}

func withClient(t *testing.T, test func(t *testing.T, w *world)) {
	k := newKeys()
	k.addClient("client", "acme", fuseKey)
	k.addClient("another", "acme", "another-key-of-the-same-tenant-1")
	k.addClient("foreign", "other", "the-api-key-of-another-tenant-01")
	inWorld(t, func(_ *Config, d *Deps) { d.Snapshot = k }, func(t *testing.T, w *world) {
		time.Sleep(20 * time.Second) // the group has its members
		test(t, w)
	})
}

const (
	news    = `{"webhook_type":"TRANSACTIONS","webhook_code":"DEFAULT_UPDATE","error":{"error_code":"ITEM_LOGIN_REQUIRED"}}`
	updates = "transactions.updates"
	gone    = "financial_connection.disconnected"
	asked   = "financial_connection.sync_requested"
)

// endsFollowed ends what followed from a delivery, which the tenant's other client gets too.
func (w *world) endsFollowed(d delivered, rule, eventType string) {
	w.Helper()
	for _, sub := range []string{"client", "another"} {
		w.ends(webhook.DeliveryID("acme", webhook.FollowUpID(d.id, rule), sub), eventType)
	}
}

func followed(d delivered, rule string) uuid.UUID {
	return webhook.DeliveryID("acme", webhook.FollowUpID(d.id, rule), "client")
}

func TestAVerifiedCallbackReleasesWhatFollowsInOrder(t *testing.T) {
	withClient(t, func(t *testing.T, w *world) {
		d := w.deliver("e1", "c1", news, 0)
		if got := w.calls(d); got.status != 200 || got.body != `{"status":"accepted"}`+"\n" {
			t.Fatalf("got %+v", got)
		}
		time.Sleep(5 * time.Second)
		w.expectTypes(asked)
		if again := w.calls(d); again.status != 200 || again.body != `{"status":"accepted"}`+"\n" {
			t.Errorf("again: %+v", again)
		}
		w.ends(d.id, "financial_connection.sync_data")
		w.expectTypes(asked, updates)
		w.endsFollowed(d, "transactions_updates", updates)
		w.expectTypes(asked, updates, gone)
		e := w.byID()[webhook.FollowUpID(d.id, "disconnected")]
		if e.Tenant != "acme" || e.OrderingKey != "c1" || !strings.Contains(string(e.Data), `"remote_data":"{\"webhook_type\"`) {
			t.Errorf("event %+v", e)
		}
	})
}

func TestWhatIsNoVerifiedCallbackIsRefusedCountedAndReleasesNothing(t *testing.T) {
	withClient(t, func(t *testing.T, w *world) {
		d, late := w.deliver("e1", "c1", news, 0), w.deliver("e2", "c2", news, 73*time.Hour)
		with := func(body string) delivered { return delivered{body: body, header: d.header} }
		first, second, _ := strings.Cut(strings.Trim(d.body, "{}"), ",")
		for name, test := range map[string]struct {
			d      delivered
			change []string
			status int
			code   string
		}{
			"forged":                          {d, []string{"Fuse-Verification", "AAAA"}, 401, callbackBadSignature},
			"altered":                         {with(strings.Replace(d.body, `"mx"`, `"plaid"`, 1)), nil, 401, callbackBadSignature},
			"altered within a text":           {with(strings.Replace(d.body, "DEFAULT_UPDATE", "default_update", 1)), nil, 401, callbackBadSignature},
			"keys in another order":           {with("{" + second + "," + first + "}"), nil, 401, callbackReordered},
			"no signature":                    {d, []string{"Fuse-Verification", ""}, 401, callbackBadSignature},
			"another client's key":            {d, []string{"Fuse-Api-Key", "another-key-of-the-same-tenant-1"}, 401, callbackBadSignature},
			"nobody's key":                    {d, []string{"Fuse-Api-Key", "x"}, 401, callbackBadCredential},
			"another tenant with our key":     {d, []string{"Fuse-Client-Id", "other"}, 401, callbackBadCredential},
			"another tenant with its own key": {d, []string{"Fuse-Client-Id", "other", "Fuse-Api-Key", "the-api-key-of-another-tenant-01"}, 401, callbackBadSignature},
			"no client":                       {d, []string{"Fuse-Client-Id", ""}, 401, "unauthenticated"},
			"an unknown API key":              {d, []string{"Authorization", "Bearer " + token("nobody")}, 401, "unauthenticated"},
			"an API key of another tenant":    {d, []string{"Authorization", "Bearer " + token("publisher")}, 401, callbackBadCredential},
			"invented by the client":          {w.signed(`{"type":"financial_connection.sync_data","financial_connection_id":"c1"}`), nil, 401, callbackUnknown},
			"of nobody's connection":          {w.signed(strings.Replace(d.body, `"c1"`, `"c9"`, 1)), nil, 401, callbackUnknown},
			"too late":                        {late, nil, 401, callbackLate},
			"nested too deep":                 {with(strings.Repeat("[", 65) + strings.Repeat("]", 65)), nil, 400, "too_deep"},
			"a key twice":                     {with(strings.Replace(d.body, "{", `{"type":"x",`, 1)), nil, 400, "duplicate_key"},
			"a key that JavaScript would eat": {with(strings.Replace(d.body, "{", `{"__proto__":1,`, 1)), nil, 400, "not_canonical"},
			"no JSON":                         {with("hello"), nil, 400, "invalid_json"},
			"too large":                       {with(`{"a":"` + strings.Repeat("x", 3<<20) + `"}`), nil, 413, "too_large"},
		} {
			before := w.counted("hookline.callbacks", "refused", test.code)
			got := w.calls(test.d, test.change...)
			if got.status != test.status || got.problem(t).Code != test.code {
				t.Errorf("%s: %d %s, want %d %s", name, got.status, got.body, test.status, test.code)
			}
			if counted := w.counted("hookline.callbacks", "refused", test.code) - before; counted != 1 {
				t.Errorf("%s: counted %d times as %s", name, counted, test.code)
			}
		}
		if got := w.postTo("/v1/callbacks/nowhere", d.body); got.status != 404 || w.counted("hookline.callbacks", "refused", callbackUnknownPath) != 1 {
			t.Errorf("nowhere: %d, counted %d times", got.status, w.counted("hookline.callbacks", "refused", callbackUnknownPath))
		}
		w.ends(d.id, "financial_connection.sync_data")
		w.expectTypes()
		if n := w.counted("hookline.callbacks", "accepted", "") + w.counted("hookline.callbacks", "repeated", ""); n != 0 {
			t.Errorf("%d were accepted", n)
		}
	})
}

func TestAReplayedCallbackIsAnsweredTheSameAndCounted(t *testing.T) {
	withClient(t, func(t *testing.T, w *world) {
		d := w.deliver("e1", "c1", news, 0)
		first := w.calls(d)
		for range 3 {
			if again := w.calls(d); again.status != 200 || again.body != first.body {
				t.Errorf("again: %+v, at first %+v", again, first)
			}
		}
		time.Sleep(5 * time.Second)
		if n := len(w.events()); n != 1 {
			t.Errorf("%d events, want the one that the first call has made", n)
		}
		if accepted, repeated := w.counted("hookline.callbacks", "accepted", ""), w.counted("hookline.callbacks", "repeated", ""); accepted != 1 || repeated != 3 {
			t.Errorf("counted %d accepted and %d repeated, want 1 and 3", accepted, repeated)
		}
	})
}

func TestABodyMayBeSpelledAsAJSONLibraryPrintsIt(t *testing.T) {
	for name, again := range map[string]string{
		"as it was sent": `{"type":"financial_connection.sync_data","financial_connection_id":"c1", "n": 1.0, "7":"\u00e9", "big":12345678901234567890,"in":{"b":1,"2":2,"a":3}}`,
		"by JavaScript":  `{"7":"é","type":"financial_connection.sync_data","financial_connection_id":"c1","n":1,"big":12345678901234567000,"in":{"2":2,"b":1,"a":3}}`,
		"by Python":      `{"type": "financial_connection.sync_data", "financial_connection_id": "c1", "n": 1.0, "7": "\u00e9", "big": 12345678901234567890, "in": {"b": 1, "2": 2, "a": 3}}`,
	} {
		t.Run(name, func(t *testing.T) {
			withClient(t, func(t *testing.T, w *world) {
				d := w.deliverData("e1", `{"financial_connection_id":"c1", "n": 1.0, "7":"\u00e9", "big":12345678901234567890,"in":{"b":1,"2":2,"a":3}}`, 0)
				if name == "as it was sent" && again != d.body {
					t.Fatalf("sent %s", d.body)
				}
				d.body = strings.Replace(again, `{"b":1,"2":2,"a":3}`, `{"a":3,"2":2,"b":1}`, 1)
				if name == "as it was sent" {
					if got := w.calls(d); got.status != 401 || got.problem(t).Code != callbackReordered {
						t.Errorf("another order within: %+v", got)
					}
				}
				d.body = again
				if got := w.calls(d); got.status != 200 {
					t.Errorf("got %+v", got)
				}
			})
		})
	}
}

func TestWhatCannotBeMadeOfACallIsCounted(t *testing.T) {
	withClient(t, func(t *testing.T, w *world) {
		d := w.deliverData("e1", `{"financial_connection_id":"c1","remote_data":"{}"}`, 0)
		if got := w.calls(d); got.status != 200 {
			t.Fatalf("got %+v", got)
		}
		time.Sleep(5 * time.Second)
		w.expectTypes()
		if n := w.countedAs("hookline.rejected", attribute.String("topic", "callbacks"), attribute.String("reason", "mapping_failed")); n != 1 {
			t.Errorf("counted %d times", n)
		}
	})
}

func TestAnAPIKeyMayCallBack(t *testing.T) {
	withClient(t, func(t *testing.T, w *world) {
		d := w.deliver("e1", "c1", news, 0)
		if got := w.calls(d, "Authorization", "Bearer "+token("acme"), "Fuse-Api-Key", "", "Fuse-Client-Id", ""); got.status != 200 {
			t.Fatalf("got %+v", got)
		}
		time.Sleep(5 * time.Second)
		w.expectTypes(asked)
	})
}

func TestWhatFollowsIsInTheTraceOfWhatCameIn(t *testing.T) {
	for name, c := range map[string]struct{ clients, want string }{
		"the client has none":        {"", aggregatorsTrace},
		"the client passes it on":    {aggregatorsTrace[:36] + "aaaaaaaaaaaaaaaa-01", aggregatorsTrace[:36] + "aaaaaaaaaaaaaaaa-01"},
		"the client has its own":     {"00-" + strings.Repeat("5", 32) + "-00f067aa0ba902b7-01", aggregatorsTrace},
		"the client's is not a real": {"00-x", aggregatorsTrace},
	} {
		t.Run(name, func(t *testing.T) {
			withClient(t, func(t *testing.T, w *world) {
				d := w.deliver("e1", "c1", news, 0)
				w.calls(d, "Traceparent", c.clients)
				time.Sleep(5 * time.Second)
				w.ends(d.id, "financial_connection.sync_data")
				w.expectTypes(asked, updates)
				for _, e := range w.events() {
					if e.Trace.Parent != c.want || e.Trace.State != "a=b" {
						t.Errorf("%s is within %+v, want %s", e.Type, e.Trace, c.want)
					}
				}
			})
		})
	}
}

func TestFollowUpsOfOneSyncWaitForThoseOfTheSyncBeforeIt(t *testing.T) {
	withClient(t, func(t *testing.T, w *world) {
		const left = `{"webhook_type":"ITEM","webhook_code":"USER_PERMISSION_REVOKED"}`
		one, two := w.deliver("e1", "c1", news, 0), w.deliver("e2", "c1", left, 0)
		other := w.deliver("e3", "c2", left, 0)
		for _, d := range []delivered{one, two, other} {
			if got := w.calls(d); got.status != 200 {
				t.Fatalf("got %+v", got)
			}
			time.Sleep(2 * time.Second)
		}
		const finished = "financial_connection.finished"
		requested := []string{asked, asked, asked}
		expect := func(more ...string) {
			t.Helper()
			w.expectTypes(append(more, requested...)...)
		}
		w.ends(two.id, "financial_connection.sync_data")
		expect()
		w.ends(other.id, "financial_connection.sync_data")
		expect(finished) // of the other connection, which waits for nobody
		w.ends(one.id, "financial_connection.sync_data")
		expect(finished, updates)
		w.endsFollowed(one, "transactions_updates", updates)
		expect(finished, updates, gone)
		w.endsFollowed(one, "disconnected", gone)
		expect(finished, updates, gone, finished)
	})
}

// An expectation that Kafka has is found, also by a process that has not read it yet.
func TestACallIsAnsweredByAllThatKafkaHas(t *testing.T) {
	for name, like := range map[string]bool{"the only one with its body": false, "one like it was called back before": true} {
		t.Run(name, func(t *testing.T) {
			withClient(t, func(t *testing.T, w *world) {
				var want []string
				if like {
					if got := w.calls(w.deliver("e1", "c1", news, 0)); got.status != 200 {
						t.Fatalf("got %+v", got)
					}
					want = []string{asked}
				}
				var slow atomic.Bool
				slow.Store(true)
				w.fake.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
					if slow.Load() {
						w.fake.KeepControl()
						w.fake.SleepControl(func() { time.Sleep(6 * time.Second) })
					}
					return nil, nil, false
				})
				time.Sleep(5 * time.Second) // what was being fetched has come
				d := w.deliver("e2", "c1", news, 0)
				if got := w.calls(d); got.status != 200 {
					t.Errorf("got %+v", got)
				}
				slow.Store(false)
				time.Sleep(time.Minute)
				w.expectTypes(append(want, asked)...)
			})
		})
	}
}

func TestACallWaitsInVainForAKafkaThatIsAway(t *testing.T) {
	withClient(t, func(t *testing.T, w *world) {
		d := w.deliver("e1", "c1", news, 0)
		if got := w.calls(d); got.status != 200 {
			t.Fatalf("got %+v", got)
		}
		time.Sleep(5 * time.Second) // that is known
		w.fake.ControlKey(int16(kmsg.ListOffsets), func(kmsg.Request) (kmsg.Response, error, bool) {
			w.fake.KeepControl()
			return nil, errors.New("the connection is cut"), true
		})
		if got := w.calls(d); got.status != 503 || got.problem(t).Code != "unavailable" {
			t.Errorf("got %+v", got)
		}
	})
}

func TestAnotherProcessGoesOnWhereOneHasStopped(t *testing.T) {
	k := newKeys()
	k.addClient("client", "acme", fuseKey)
	with := func(_ *Config, d *Deps) { d.Snapshot = k }
	inWorld(t, with, func(t *testing.T, w *world) {
		time.Sleep(20 * time.Second)
		d := w.deliver("e1", "c1", news, 0)
		if got := w.calls(d); got.status != 200 {
			t.Fatalf("got %+v", got)
		}
		w.stop()
		w.start(with)
		time.Sleep(20 * time.Second)
		w.ends(d.id, "financial_connection.sync_data")
		w.expectTypes(asked, updates)
		w.stop()
		w.start(with)
		time.Sleep(20 * time.Second)
		if got := w.calls(d); got.status != 200 {
			t.Errorf("again: %+v", got)
		}
		w.ends(followed(d, "transactions_updates"), updates)
		w.expectTypes(asked, updates, gone)
		w.ends(followed(d, "disconnected"), gone)
		if events := w.events(); len(events) != 3 {
			t.Errorf("%d events, want each of the three once", len(events))
		}
	})
}

func TestAPartitionIsNotGivenUpInTheMiddleOfAnAct(t *testing.T) {
	withClient(t, func(t *testing.T, w *world) {
		const connections = 8 // in both partitions
		var all []delivered
		for i := range connections {
			all = append(all, w.deliver(fmt.Sprint("e", i), fmt.Sprint("c", i), news, 0))
		}
		// Kafka takes its time for the events of the first owner's act.
		known, err := kadm.NewClient(w.client).Metadata(t.Context(), w.cluster.Topics.Events)
		if err != nil {
			t.Fatal(err)
		}
		w.fake.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
			w.fake.KeepControl()
			if r.(*kmsg.ProduceRequest).Topics[0].TopicID == known.Topics[w.cluster.Topics.Events].ID {
				w.fake.SleepControl(func() { time.Sleep(8 * time.Second) })
			}
			return nil, nil, false
		})
		for _, d := range all {
			if got := w.calls(d); got.status != 200 {
				t.Fatalf("got %+v", got)
			}
		}
		for range 3 { // as many members as there are partitions, so that the first has to give up
			defer w.stop()
			w.start(w.change)
		}
		time.Sleep(2 * time.Minute)
		if n := len(w.events()); n != connections {
			t.Errorf("%d events, want %d: what one owner has done, the next has done again", n, connections)
		}
	})
}
