package ingest

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/pkg/snapshot"
	"github.com/hookline/hookline/pkg/source"
	"github.com/hookline/hookline/pkg/topic"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

const (
	mxSecret = "the-secret-of-mx"
	mxBody   = `{"type":"AGGREGATION","member_guid":"MBR-1","transactions_created_count":2}`
	mxSpec   = `{
		"verify": {"scheme": "hmac", "header": "X-Signature", "prefix": "sha256="},
		"id": {"header": "X-Request-Id"},
		"connection": {"aggregator": "mx", "remoteId": {"pointer": "/member_guid"}},
		"event": {
			"type": {"const": "financial_connection.sync_data"}, "orderingKey": {"connection": "id"},
			"data": [
				{"name": "financial_connection_id", "connection": "id"}, {"name": "environment", "connection": "environment"},
				{"name": "source", "connection": "aggregator"}, {"name": "remote_data", "raw": true}
			]
		}
	}`
)

// addSource gives the table a source of a specification, and one connection.
func (c *table) addSource(t *testing.T, id, spec string) {
	t.Helper()
	rules, err := source.Compile(json.RawMessage(spec))
	if err != nil {
		t.Fatal(err)
	}
	s := &webhook.Source{ID: id, Tenant: "default", Name: id}
	s.Versions = sealed(s.Secret(), mxSecret)
	c.sources[id] = &snapshot.Source{Source: s, Rules: rules}
	connection := &webhook.Connection{Tenant: "default", Aggregator: "mx", RemoteID: "MBR-1", ConnectionID: "conn-1", Client: "acme", Environment: "sandbox"}
	c.connections[webhook.ConnectionID("default", "mx", "MBR-1")] = connection
}

func signature(body string) string {
	m := hmac.New(sha256.New, []byte(mxSecret))
	m.Write([]byte(body))
	return "sha256=" + hex.EncodeToString(m.Sum(nil))
}

// withSource starts a world that has the source mx.
func withSource(t *testing.T, test func(t *testing.T, w *world, c *table)) {
	k := newKeys()
	k.addSource(t, "mx", mxSpec)
	inWorld(t, func(_ *Config, d *Deps) { d.Snapshot = k }, func(t *testing.T, w *world) { test(t, w, k.table) })
}

func TestAThirdPartysWebhookBecomesAnEvent(t *testing.T) {
	withSource(t, func(t *testing.T, w *world, _ *table) {
		const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
		got := w.postTo("/v1/sources/mx", mxBody, "X-Signature", signature(mxBody), "X-Request-Id", "r1", "Traceparent", parent)
		if got.status != 202 {
			t.Fatalf("got %+v", got)
		}
		if again := w.postTo("/v1/sources/mx", mxBody, "X-Signature", signature(mxBody), "X-Request-Id", "r1"); again.status != 202 {
			t.Fatalf("again: %+v", again)
		}
		events := w.events()
		if len(events) != 2 || events[0].ID != events[1].ID {
			t.Fatalf("%d events, want the same one twice: %+v", len(events), events)
		}
		e := w.byID()[webhook.SourceEventID("mx", "r1")]
		want := `{"financial_connection_id":"conn-1","environment":"sandbox","source":"mx","remote_data":"` + strings.ReplaceAll(mxBody, `"`, `\"`) + `"}`
		if e.Type != "financial_connection.sync_data" || e.Tenant != "acme" || e.OrderingKey != "conn-1" || string(e.Data) != want {
			t.Errorf("event %+v", e)
		}
		if events[0].Trace.Parent != parent && events[1].Trace.Parent != parent {
			t.Errorf("trace %q and %q", events[0].Trace.Parent, events[1].Trace.Parent)
		}
		if n := w.counted("hookline.source.requests", "accepted", ""); n != 2 {
			t.Errorf("counted %d times", n)
		}
		time.Sleep(time.Second)
		for _, r := range w.all(w.cluster.Topics.SourceRequests) {
			told, err := wire.DecodeSourceRequest(r.Value)
			if err != nil || told.Outcome != webhook.SourceAccepted || told.EventID != e.ID || told.SourceID != "mx" || told.RemoteID != "MBR-1" || told.Bytes != len(mxBody) {
				t.Errorf("told %+v (%v)", told, err)
			}
		}
	})
}

func TestWhatIsNotTheThirdPartysOwnIsRefusedAndTold(t *testing.T) {
	withSource(t, func(t *testing.T, w *world, c *table) {
		c.addSource(t, "off", mxSpec)
		c.sources["off"].Disabled = true
		c.addSource(t, "small", strings.Replace(mxSpec, `"event"`, `"maxBytes": 10, "event"`, 1))
		c.addSource(t, "sealed", mxSpec)
		c.sources["sealed"].Versions = []webhook.SecretVersion{{Number: 1, Sealed: []byte("nothing")}}
		deep := strings.Repeat("[", 65) + strings.Repeat("]", 65)
		c.addSource(t, "plain", `{"verify": {"scheme": "hmac", "header": "X-Signature", "prefix": "sha256="}, "event": {"type": {"const": "a"}}}`)
		told := map[string]int{}
		for name, test := range map[string]struct {
			path, body, signature string
			status                int
			code, reason          string
		}{
			"unknown":          {"/v1/sources/nobody", mxBody, signature(mxBody), 404, "not_found", "unknown_source"},
			"disabled":         {"/v1/sources/off", mxBody, signature(mxBody), 404, "not_found", "unknown_source"},
			"forged":           {"/v1/sources/mx", mxBody, signature("other"), 401, "not_verified", "bad_signature"},
			"not signed":       {"/v1/sources/mx", mxBody, "", 401, "not_verified", "missing_signature"},
			"too large":        {"/v1/sources/small", mxBody, signature(mxBody), 413, "too_large", "too_large"},
			"too deep":         {"/v1/sources/mx", deep, signature(deep), 400, "too_deep", "too_deep"},
			"a key twice":      {"/v1/sources/mx", `{"a":1,"a":2}`, signature(`{"a":1,"a":2}`), 400, "duplicate_key", "duplicate_key"},
			"no UTF-8":         {"/v1/sources/plain", "\"\xff\"", signature("\"\xff\""), 400, "invalid_utf8", "invalid_utf8"},
			"altered":          {"/v1/sources/mx", strings.Replace(mxBody, "2", "3", 1), signature(mxBody), 401, "not_verified", "bad_signature"},
			"no JSON":          {"/v1/sources/mx", "no", signature("no"), 400, "invalid_json", "invalid_json"},
			"cannot be opened": {"/v1/sources/sealed", mxBody, signature(mxBody), 503, "no_secret", "no_secret"},
		} {
			before := w.counted("hookline.source.requests", "refused", test.reason)
			got := w.postTo(test.path, test.body, "X-Signature", test.signature)
			if p := got.problem(t); got.status != test.status || p.Code != test.code {
				t.Errorf("%s: %d %s, want %d %s", name, got.status, p.Code, test.status, test.code)
			}
			if counted := w.counted("hookline.source.requests", "refused", test.reason) - before; counted != 1 {
				t.Errorf("%s: counted %d times as %s", name, counted, test.reason)
			}
			if test.reason != "unknown_source" { // there is nobody to tell of it
				told[test.reason]++
			}
		}
		if events := w.events(); len(events) != 0 {
			t.Errorf("%d events", len(events))
		}
		time.Sleep(time.Second)
		for _, r := range w.all(w.cluster.Topics.SourceRequests) {
			request, err := wire.DecodeSourceRequest(r.Value)
			if err != nil || request.Outcome != webhook.SourceRefused {
				t.Fatalf("told %+v (%v)", request, err)
			}
			told[request.Reason]--
		}
		for reason, missing := range told {
			if missing != 0 {
				t.Errorf("%s was told %d times too seldom", reason, missing)
			}
		}
	})
}

func TestEverySchemeLetsTheThirdPartyInAndNobodyElse(t *testing.T) {
	const body = "{ \"a\" : 1 }"
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	// In the bubble it is the same time for everybody, and none passes.
	stamp := strconv.FormatInt(time.Date(2000, 1, 1, 0, 0, 2, 0, time.UTC).Unix(), 10)
	old := strconv.FormatInt(time.Date(1999, 12, 31, 23, 54, 0, 0, time.UTC).Unix(), 10)
	with := func(key []byte, content string) []byte {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(content))
		return m.Sum(nil)
	}
	stripe := func(at, signed string) string {
		return "t=" + at + ",v1=" + hex.EncodeToString(with([]byte(mxSecret), signed+"."+body))
	}
	discord := func(key ed25519.PrivateKey, content string) string {
		return hex.EncodeToString(ed25519.Sign(key, []byte(content)))
	}
	_, another, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	basic := func(text string) []string {
		return []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(text))}
	}
	for name, scheme := range map[string]struct {
		verify, secret string
		good           []string
		bad            map[string][][]string // by reason
	}{
		"HMAC over the body, base64": {`{"scheme": "hmac", "header": "X-S", "encoding": "base64"}`, mxSecret,
			[]string{"X-S", base64.StdEncoding.EncodeToString(with([]byte(mxSecret), body))}, map[string][][]string{
				"bad_signature":     {{"X-S", base64.StdEncoding.EncodeToString(with([]byte("another"), body))}, {"X-S", base64.StdEncoding.EncodeToString(with([]byte(mxSecret), body+" "))}},
				"missing_signature": {{}, {"X-S", "%"}},
			}},
		"HMAC over timestamp and body": {`{"scheme": "hmac", "header": "X-S", "separator": ",", "prefix": "v1=", "content": "{timestamp}.{body}", "timestamp": {"prefix": "t="}}`, mxSecret,
			[]string{"X-S", stripe(stamp, stamp)}, map[string][][]string{
				"bad_signature": {{"X-S", stripe(stamp, old)}}, "stale": {{"X-S", stripe(old, old)}}, "missing_timestamp": {{"X-S", strings.TrimPrefix(stripe(stamp, stamp), "t="+stamp+",")}},
			}},
		"Ed25519": {`{"scheme": "ed25519", "header": "X-S", "content": "{timestamp}{body}", "timestamp": {"header": "X-T"}, "key": {"encoding": "hex"}}`, hex.EncodeToString(public),
			[]string{"X-S", discord(private, stamp+body), "X-T", stamp}, map[string][][]string{
				"bad_signature":     {{"X-S", discord(another, stamp+body), "X-T", stamp}, {"X-S", discord(private, old+body), "X-T", stamp}},
				"stale":             {{"X-S", discord(private, old+body), "X-T", old}},
				"missing_timestamp": {{"X-S", discord(private, body)}}, "missing_signature": {{"X-T", stamp}},
			}},
		"a token": {`{"scheme": "token", "header": "X-T", "prefix": "Key "}`, mxSecret, []string{"X-T", "Key " + mxSecret}, map[string][][]string{
			"bad_credentials": {{"X-T", "Key x"}, {"X-T", "Key "}}, "missing_signature": {{"X-T", mxSecret}, {}},
		}},
		"basic": {`{"scheme": "basic", "username": "mx"}`, mxSecret, basic("mx:" + mxSecret), map[string][][]string{
			"bad_credentials": {basic("mx:x"), basic("my:" + mxSecret), basic("mx:")}, "missing_signature": {{}, {"Authorization", "Bearer " + mxSecret}},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeys()
			k.addSource(t, "s", `{"verify": `+scheme.verify+`, "event": {"type": {"const": "a"}}}`)
			k.sources["s"].Versions = sealed(k.sources["s"].Secret(), scheme.secret)
			inWorld(t, func(_ *Config, d *Deps) { d.Snapshot = k }, func(t *testing.T, w *world) {
				if got := w.postTo("/v1/sources/s", body, scheme.good...); got.status != 202 || w.counted("hookline.source.requests", "accepted", "") != 1 {
					t.Errorf("got %+v, counted %d times", got, w.counted("hookline.source.requests", "accepted", ""))
				}
				for reason, all := range scheme.bad {
					for _, headers := range all {
						if got := w.postTo("/v1/sources/s", body, headers...); got.status != 401 || got.problem(t).Code != "not_verified" {
							t.Errorf("%v: %+v", headers, got)
						}
					}
					if n := w.counted("hookline.source.requests", "refused", reason); n != int64(len(all)) {
						t.Errorf("%d of %d were counted as %s", n, len(all), reason)
					}
				}
				if events := w.events(); len(events) != 1 || string(events[0].Data) != body {
					t.Errorf("%d events, want one with the body as it is", len(events))
				}
			})
		})
	}
}

func TestTheBodyIsKeptByteForByteWhateverItLooksLike(t *testing.T) {
	withSource(t, func(t *testing.T, w *world, _ *table) {
		bodies := []string{
			"\r\n{\t\"member_guid\" :\"MBR-1\",\n \"n\": 1.00, \"big\":12345678901234567890,\"e\":1E+2 }\n\n",
			"{\"member_guid\":\"MBR-1\",\"text\":\"Grüße, 世界 \U0001f600 \u2028 <&> \\u00e9\\ud83d\\ude00\\/\\u0000\"}",
			`{"member_guid":"MBR-1","__proto__":{"2":1,"1":2},"":[[[]]],"\\":"\\\\"}`,
		}
		for i, body := range bodies {
			if got := w.postTo("/v1/sources/mx", body, "X-Signature", signature(body), "X-Request-Id", strconv.Itoa(i)); got.status != 202 || !strings.Contains(got.body, "accepted") {
				t.Fatalf("%q: %+v", body, got)
			}
			var data struct {
				Remote string `json:"remote_data"`
			}
			e := w.byID()[webhook.SourceEventID("mx", strconv.Itoa(i))]
			if err := json.Unmarshal(e.Data, &data); err != nil || data.Remote != body {
				t.Errorf("got %q, want %q (%v)", data.Remote, body, err)
			}
		}
	})
}

func TestOnlyTheSendersIDMakesTwoRequestsOneEvent(t *testing.T) {
	withSource(t, func(t *testing.T, w *world, c *table) {
		c.addSource(t, "another", mxSpec)
		post := func(source, id string) {
			t.Helper()
			if got := w.postTo("/v1/sources/"+source, mxBody, "X-Signature", signature(mxBody), "X-Request-Id", id); got.status != 202 {
				t.Fatalf("got %+v", got)
			}
		}
		for _, id := range []string{"a", "a", "b", "", ""} {
			post("mx", id)
		}
		post("another", "a")
		if n := len(w.byID()); n != 5 {
			t.Errorf("%d events, want one for each id of a source and one for each request without", n)
		}
	})
}

func TestAnUnknownConnectionIsRejectedWithAllThatItTakesToReadItAgain(t *testing.T) {
	withSource(t, func(t *testing.T, w *world, _ *table) {
		body := strings.Replace(mxBody, "MBR-1", "MBR-2", 1)
		got := w.postTo("/v1/sources/mx", body, "X-Signature", signature(body), "X-Request-Id", "r1", "Authorization", "Bearer hush")
		if got.status != 202 || !strings.Contains(got.body, `"outcome":"rejected"`) {
			t.Fatalf("got %+v", got)
		}
		if n := w.counted("hookline.source.requests", "rejected", "unknown_connection"); n != 1 {
			t.Errorf("counted %d times", n)
		}
		rejected := w.all(w.cluster.Topics.Rejected)
		if len(rejected) != 1 || string(rejected[0].Value) != body {
			t.Fatalf("rejected %v", rejected)
		}
		found := map[string]string{}
		for _, h := range rejected[0].Headers {
			found[h.Key] = string(h.Value)
			if strings.Contains(string(h.Value), "hush") || strings.Contains(h.Key, "signature") {
				t.Errorf("a credential is kept: %s", h.Key)
			}
		}
		for name, want := range map[string]string{
			topic.HeaderReason: "unknown_connection", topic.HeaderSourceID: "mx", topic.HeaderSourceTenant: "default",
			topic.HeaderSourceEvent: webhook.SourceEventID("mx", "r1"), topic.HeaderSourceHeader + "x-request-id": "r1",
		} {
			if found[name] != want {
				t.Errorf("%s: %q, want %q", name, found[name], want)
			}
		}
		time.Sleep(time.Second)
		told := w.all(w.cluster.Topics.SourceRequests)
		request, err := wire.DecodeSourceRequest(told[0].Value)
		if err != nil || request.Outcome != webhook.SourceRejected || request.Reason != "unknown_connection" || request.RemoteID != "MBR-2" ||
			request.Rejected.Offset != rejected[0].Offset || request.Rejected.Partition != rejected[0].Partition {
			t.Errorf("told %+v (%v)", request, err)
		}
	})
}

func TestAFloodIsToldWithinBounds(t *testing.T) {
	var flood told
	flood.sources = map[string]*second{}
	now := time.Unix(100, 0)
	let := 0
	for range 1000 {
		if flood.may("mx", now) {
			let++
		}
	}
	if let != toldPerSecond || !flood.may("other", now) || !flood.may("mx", now.Add(time.Second)) {
		t.Errorf("%d of 1000 told in a second", let)
	}
}

func TestNothingIsAnsweredBeforeKafkaHasIt(t *testing.T) {
	withSource(t, func(t *testing.T, w *world, _ *table) {
		w.fake.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
			w.fake.KeepControl()
			time.Sleep(2 * ackTimeout)
			return nil, nil, false
		})
		got := w.postTo("/v1/sources/mx", mxBody, "X-Signature", signature(mxBody))
		if got.status != 503 || got.problem(t).Code != "not_acknowledged" || got.header.Get("Retry-After") == "" {
			t.Errorf("got %+v", got)
		}
		w.fake.ControlKey(int16(kmsg.Produce), nil)
	})
}
