// Package contracts runs the built-in delivery contracts side by side in one deployment on real servers, each against a
// receiver in the language of its documents and by their recipe, which is written anew in receivers/.
package contracts

import (
	"bytes"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const patience = 2 * time.Minute

// contract is a profile, and its receiver.
type contract struct {
	profile  string
	receiver func(t *testing.T) *receiver
	event    string
	refusal  int // of the recipe, where the signature is wrong
	// attempts are those of the audit after two refusals: under fynapse the first attempt has two requests.
	attempts int
	// identity is the header that is the same on all requests of an event, and what it holds.
	identity string
	holds    func(d delivery) string
	// signatures counts them in a request; nil where the recipe has room for one.
	signatures func(h map[string]string) int
}

var contracts = []*contract{
	{profile: "fynapse", receiver: program("java", "Fynapse.java"), event: "balance.extracted", refusal: 401, attempts: 2,
		identity: "idempotency-key", holds: func(d delivery) string { return d.ID },
		signatures: func(h map[string]string) int { return strings.Count(h["webhook-signature"], ",v1=") }},
	{profile: "fynex", receiver: program("node", "fynex.js"), event: "promise.created", refusal: 401, attempts: 3},
	{profile: "flashfx", receiver: program("node", "flashfx.js"), event: "withdrawal.updated", refusal: 500, attempts: 3,
		identity: "flashfx-request-id", holds: func(d delivery) string { return d.EventID }},
	{profile: "fuse", receiver: program("node", "fuse.js"), event: "transactions.updates", refusal: 401, attempts: 3},
	{profile: "standard", receiver: published, event: "invoice.paid", refusal: 401, attempts: 3,
		identity: "webhook-id", holds: func(d delivery) string { return d.EventID },
		signatures: func(h map[string]string) int { return len(strings.Fields(h["webhook-signature"])) }},
}

// data is what every event carries: spellings that a receiver loses when it parses and prints.
func data(event string) string {
	return fmt.Sprintf(`{"id":%q,"amount":1500,"10":"ten","9":"nine","f":1.10,"big":12345678901234567890,"e":1E21,`+
		`"s":"\u00e9<&>\u2028 \/ é 😀","n":{"b":null,"a":[true,-0.0,1e-7]}}`, event)
}

func TestEveryContractIsKeptBesideTheOthersAsItsReceiverVerifies(t *testing.T) {
	d := deploy(t)
	on := map[*contract]*subscribed{}
	for _, c := range contracts {
		on[c] = d.subscribe(c)
	}
	d.AwaitConfig()
	t.Log("every subscription is live")
	d.publish("first")
	d.awaitDelivered(2 * len(contracts))
	for _, c := range contracts {
		t.Run(c.profile, func(t *testing.T) {
			c.checkFirst(t, on[c], d.deliveries())
			c.checkTampering(t, on[c])
		})
	}
	for _, c := range contracts {
		if c.signatures != nil {
			d.rotate(on[c])
		}
	}
	d.AwaitConfig()
	d.publish("second")
	d.awaitDelivered(4 * len(contracts))
	for _, c := range contracts {
		t.Run(c.profile+" after a rotation", func(t *testing.T) { c.checkRotated(t, on[c]) })
	}
}

// checkFirst compares what the receiver got of the first event with the audit.
func (c *contract) checkFirst(t *testing.T, on *subscribed, audit []delivery) {
	for path, want := range map[string][]int{"/steady": {200}, "/flaky": {503, 503, 200}} {
		i := slices.IndexFunc(audit, func(d delivery) bool { return d.SubscriptionID == on.ids[path] })
		if i < 0 {
			t.Fatalf("%s: not in the audit", path)
		}
		row, attempts := audit[i], 1
		if len(want) > 1 {
			attempts = c.attempts
		}
		var got, recorded []int
		for _, r := range on.receiver.requests(t, path) {
			got = append(got, r.Status)
			if !strings.Contains(string(r.Body), strings.Trim(data(row.EventID), "{}")) || r.Headers["content-type"] != "application/json" {
				t.Errorf("%s: %s body %s", path, r.Headers["content-type"], r.Body)
			}
			if c.identity != "" && r.Headers[c.identity] != c.holds(row) {
				t.Errorf("%s: %s is %q, want %q", path, c.identity, r.Headers[c.identity], c.holds(row))
			}
			if c.signatures != nil && c.signatures(r.Headers) != 1 {
				t.Errorf("%s: %d signatures, want 1", path, c.signatures(r.Headers))
			}
		}
		for _, a := range row.Attempts {
			recorded = append(recorded, a.StatusCode)
		}
		if !slices.Equal(got, want) || !slices.Equal(recorded, want) || row.Status != "DELIVERED" || row.AttemptCount != attempts {
			t.Errorf("%s: the receiver answered %v, the audit has %v and %+v, want %v in %d attempts", path, got, recorded, row, want, attempts)
		}
	}
}

// checkTampering sends what the receiver accepted again: as it was, with another body, and to a receiver with another secret.
func (c *contract) checkTampering(t *testing.T, on *subscribed) {
	seen := on.receiver.requests(t, "/steady")[0]
	if got := on.receiver.send(t, "/again", seen.Headers, seen.Body); got != 200 {
		t.Errorf("the same request again gets %d", got)
	}
	other := bytes.Replace(seen.Body, []byte("1500"), []byte("1501"), 1)
	if got := on.receiver.send(t, "/again", seen.Headers, other); got != c.refusal {
		t.Errorf("a changed body gets %d, want %d", got, c.refusal)
	}
	on.receiver.use(t, on.secret.Value[:len(on.secret.Value)-8]+"AAAAAAA=")
	if got := on.receiver.send(t, "/again", seen.Headers, seen.Body); got != c.refusal {
		t.Errorf("another secret gets %d, want %d", got, c.refusal)
	}
	on.receiver.use(t, on.secret.Value)
}

// checkRotated looks at the second event: the receiver has verified it with the secret it had, and where the secret was
// rotated, it verifies with the new one too.
func (c *contract) checkRotated(t *testing.T, on *subscribed) {
	all := on.receiver.requests(t, "/steady")
	last := all[len(all)-1]
	if len(all) != 2 || last.Status != 200 {
		t.Fatalf("%d requests, the last one got %d", len(all), last.Status)
	}
	if c.signatures == nil {
		return
	}
	if n := c.signatures(last.Headers); n != 2 {
		t.Errorf("%d signatures, want 2", n)
	}
	on.receiver.use(t, on.rotated)
	if got := on.receiver.send(t, "/again", last.Headers, last.Body); got != 200 {
		t.Errorf("the new secret gets %d", got)
	}
	if got := on.receiver.send(t, "/again", all[0].Headers, all[0].Body); got != c.refusal {
		t.Errorf("what only the previous secret signed gets %d, want %d", got, c.refusal)
	}
}

// deployment is a running Hookline, and a client that publishes to it.
type deployment struct {
	*testenv.Deployment
	t     *testing.T
	kafka *kgo.Client
}

func deploy(t *testing.T) *deployment {
	env := testenv.System(t)
	d := &deployment{Deployment: testenv.Deploy(t, env, "router", "delivery", "api", "scheduler", "recorder"), t: t}
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(env["HOOKLINE_KAFKA_BROKERS"], ",")...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	d.kafka = client
	return d
}

// subscribed is a contract's two subscriptions, /steady and /flaky, under one secret.
type subscribed struct {
	receiver *receiver
	secret   struct{ ID, Value string }
	rotated  string
	ids      map[string]string
}

func (d *deployment) subscribe(c *contract) *subscribed {
	on := &subscribed{receiver: c.receiver(d.t), ids: map[string]string{}}
	d.Call(http.MethodPost, "/secrets", map[string]any{"name": c.profile, "profile": c.profile}, &on.secret)
	on.receiver.use(d.t, on.secret.Value)
	for _, path := range []string{"/steady", "/flaky"} {
		var made struct{ ID string }
		d.Call(http.MethodPost, "/subscriptions", map[string]any{
			"name": c.profile + path, "endpointUrl": on.receiver.url + path, "profile": c.profile, "secretRef": c.profile,
			"eventTypes": []string{c.event}, "overrides": map[string]any{"retry": map[string]any{"delays": []string{"200ms", "500ms", "1s"}}},
		}, &made)
		on.ids[path] = made.ID
	}
	return on
}

// rotate gives the contract's secret a new value, of which the receiver does not know yet.
func (d *deployment) rotate(on *subscribed) {
	var made struct{ Value string }
	d.Call(http.MethodPost, "/secrets/"+on.secret.ID+"/rotate", map[string]any{}, &made)
	on.rotated = made.Value
}

// publish writes one event for each contract.
func (d *deployment) publish(round string) {
	for _, c := range contracts {
		id := c.profile + "-" + round
		value := fmt.Sprintf(`{"event_id":%q,"event_type":%q,"data":%s}`, id, c.event, data(id))
		if err := d.kafka.ProduceSync(d.t.Context(), &kgo.Record{Topic: d.Topic("events"), Value: []byte(value)}).FirstErr(); err != nil {
			d.t.Fatal(err)
		}
	}
}

// delivery is a row of the audit.
type delivery struct {
	ID, Status, EventID, SubscriptionID string
	AttemptCount                        int
	Attempts                            []struct{ StatusCode int }
}

func (d *deployment) deliveries() []delivery {
	var page struct{ Items []delivery }
	d.Call(http.MethodGet, "/deliveries?include=attempts&limit=1000", nil, &page)
	return page.Items
}

func (d *deployment) awaitDelivered(n int) {
	d.t.Helper()
	var count struct{ Counts map[string]int }
	if err := testenv.Until(patience, func() bool {
		d.Call(http.MethodGet, "/deliveries/count", nil, &count)
		return count.Counts["DELIVERED"] >= n
	}); err != nil {
		d.t.Fatalf("audit counts %v, want %d DELIVERED: %v", count.Counts, n, err)
	}
}

// published is the Python that has the published library of Standard Webhooks, with a receiver that uses it.
func published(t *testing.T) *receiver {
	tool := filepath.Join(testenv.Root(), "scripts", "tool")
	python, err := output(tool, "standardwebhooks")
	if err != nil {
		t.Fatalf("install the published library: %v", err)
	}
	return start(t, python, "standard.py")
}
