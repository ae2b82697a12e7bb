package ingest

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/callback"
	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

const (
	fuseKey  = "the-api-key-of-the-client-acme-1"
	fusePath = "/v1/callbacks/fuse/financial_connections/sync"
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

// deliver writes what the router writes, and returns what the receiver gets.
func (w *world) deliver(event, connection, remote string, age time.Duration) delivered {
	w.Helper()
	p, _ := profile.Builtin().Get("fuse")
	data := `{"financial_connection_id":"` + connection + `","environment":"sandbox","source":"mx","remote_data":"` + strings.ReplaceAll(remote, `"`, `\"`) + `"}`
	e := webhook.Event{ID: event, Type: "financial_connection.sync_data", Tenant: "acme", Data: []byte(data)}
	hash, key, err := p.Expect(&e)
	if err != nil {
		w.Fatal(err)
	}
	d := &webhook.Delivery{ID: webhook.DeliveryID("acme", event, "client"), SubscriptionID: "client", Event: e}
	w.write(callback.ExpectationKey(webhook.CallbackGroup("acme", key), d.ID), wire.EncodeExpectation(&webhook.Expectation{
		Delivery: d.ID, Tenant: "acme", SubscriptionID: "client", Profile: "fuse", EventID: event, Hash: hash, Until: time.Now().Add(72*time.Hour - age),
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

func (w *world) write(key string, value []byte) {
	w.Helper()
	w.send(w.cluster.Topics.Callbacks, key, value)
}

func (w *world) send(name, key string, value []byte) {
	w.Helper()
	cl, err := w.cluster.Client(w.cluster.Producer()...)
	if err != nil {
		w.Fatal(err)
	}
	defer cl.Close()
	if err := cl.ProduceSync(w.Context(), &kgo.Record{Topic: name, Key: []byte(key), Value: value}).FirstErr(); err != nil {
		w.Fatal(err)
	}
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
		for _, sub := range []string{"client", "another"} { // the tenant's other client gets the follow-ups, too
			w.ends(webhook.DeliveryID("acme", webhook.FollowUpID(d.id, "transactions_updates"), sub), updates)
		}
		w.expectTypes(asked, updates, gone)
		e := w.byID()[webhook.FollowUpID(d.id, "disconnected")]
		if e.Tenant != "acme" || e.OrderingKey != "c1" || !strings.Contains(string(e.Data), `"remote_data":"{\"webhook_type\"`) {
			t.Errorf("event %+v", e)
		}
	})
}

func TestWhatIsNoVerifiedCallbackIsRefusedAndReleasesNothing(t *testing.T) {
	withClient(t, func(t *testing.T, w *world) {
		d, late := w.deliver("e1", "c1", news, 0), w.deliver("e2", "c2", news, 73*time.Hour)
		altered, foreign, invented := d, d, d
		altered.body = strings.Replace(d.body, `"mx"`, `"plaid"`, 1)
		invented.body = `{"type":"financial_connection.sync_data","financial_connection_id":"c1"}`
		p, _ := profile.Builtin().Get("fuse")
		contract, _ := p.Contract(webhook.Overrides{})
		signed, err := contract.Sign(&webhook.Delivery{}, []byte(invented.body), [][]byte{[]byte(fuseKey)}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		invented.header = signed
		deep, twice := d, d
		deep.body = strings.Repeat("[", 65) + strings.Repeat("]", 65)
		twice.body = strings.Replace(d.body, "{", `{"type":"x",`, 1)
		large := d
		large.body = `{"a":"` + strings.Repeat("x", 3<<20) + `"}`
		for name, test := range map[string]struct {
			d      delivered
			change []string
			status int
			code   string
		}{
			"altered":                         {altered, nil, 401, callbackBadSignature},
			"another signature":               {d, []string{"Fuse-Verification", "AAAA"}, 401, callbackBadSignature},
			"no signature":                    {d, []string{"Fuse-Verification", ""}, 401, callbackBadSignature},
			"another client's key":            {d, []string{"Fuse-Api-Key", "another-key-of-the-same-tenant-1"}, 401, callbackBadSignature},
			"nobody's key":                    {d, []string{"Fuse-Api-Key", "x"}, 401, callbackBadCredential},
			"another tenant with our key":     {foreign, []string{"Fuse-Client-Id", "other"}, 401, callbackBadCredential},
			"another tenant with its own key": {foreign, []string{"Fuse-Client-Id", "other", "Fuse-Api-Key", "the-api-key-of-another-tenant-01"}, 401, callbackBadSignature},
			"no client":                       {d, []string{"Fuse-Client-Id", ""}, 401, "unauthenticated"},
			"an unknown API key":              {d, []string{"Authorization", "Bearer " + token("nobody")}, 401, "unauthenticated"},
			"an API key of another tenant":    {d, []string{"Authorization", "Bearer " + token("publisher")}, 401, callbackBadCredential},
			"invented by the client":          {invented, nil, 401, callbackUnknown},
			"too late":                        {late, nil, 401, callbackLate},
			"too deep":                        {deep, nil, 400, "too_deep"},
			"a key twice":                     {twice, nil, 400, "duplicate_key"},
			"too large":                       {large, nil, 413, "too_large"},
		} {
			got := w.calls(test.d, test.change...)
			if got.status != test.status || got.problem(t).Code != test.code {
				t.Errorf("%s: %d %s, want %d %s", name, got.status, got.body, test.status, test.code)
			}
		}
		if got := w.postTo("/v1/callbacks/nowhere", d.body); got.status != 404 {
			t.Errorf("nowhere: %d", got.status)
		}
		w.ends(d.id, "financial_connection.sync_data")
		w.expectTypes()
	})
}

func TestTheOrderOfKeysAndAnAPIKeyMakeNoDifference(t *testing.T) {
	withClient(t, func(t *testing.T, w *world) {
		d := w.deliver("e1", "c1", news, 0)
		members := strings.SplitN(strings.Trim(d.body, "{}"), ",", 2)
		d.body = "{" + members[1] + ", " + members[0] + "}"
		if got := w.calls(d, "Authorization", "Bearer "+token("acme"), "Fuse-Api-Key", "", "Fuse-Client-Id", ""); got.status != 200 {
			t.Fatalf("got %+v", got)
		}
		time.Sleep(5 * time.Second)
		w.expectTypes(asked)
	})
}

func TestACallThatIsFasterThanItsExpectationIsWaitedFor(t *testing.T) {
	withClient(t, func(t *testing.T, w *world) {
		first := w.deliver("e1", "c1", news, 0)
		second := first
		second.body = strings.ReplaceAll(first.body, "c1", "c2")
		p, _ := profile.Builtin().Get("fuse")
		contract, _ := p.Contract(webhook.Overrides{})
		header, err := contract.Sign(&webhook.Delivery{}, []byte(second.body), [][]byte{[]byte(fuseKey)}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		second.header = header
		answered := make(chan answer)
		go func() { answered <- w.calls(second) }()
		time.Sleep(lookPatience / 2)
		w.deliver("e2", "c2", news, 0)
		if got := <-answered; got.status != 200 {
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
