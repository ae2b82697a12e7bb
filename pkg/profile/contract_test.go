package profile

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/webhook"
)

var (
	testKey = []byte("Zm9yIHRlc3RzIG9ubHk6IDMyIGJ5dGVzIG9mIGtleSE=")
	oldKey  = []byte("dGhlIHByZXZpb3VzIG9uZSwgYWxzbyAzMiBieXRlcyE=")
	testAt  = time.Date(2026, 4, 14, 9, 54, 46, 123456789, time.UTC)
)

func testDelivery() *webhook.Delivery {
	return &webhook.Delivery{
		ID:             uuid.MustParse("0e2f7c1a-5d34-5b8e-9c4f-7a6b5c4d3e2f"),
		Attempts:       1,
		SubscriptionID: "sub-1",
		CreatedAt:      time.Date(2026, 4, 14, 9, 54, 45, 500e6, time.UTC),
		Event: webhook.Event{
			ID: "a3efc743-ac6c-463b-aa19-4dd9c45b5b96", Type: "balance.extracted", Tenant: "default",
			Timestamp: time.Date(2026, 4, 14, 9, 54, 45, 40e6, time.UTC),
			Data:      []byte(`{"amount": 1.0, "big": 12345678901234567890, "b":"\u003c"}`),
		},
	}
}

func contractOf(t testing.TB, name string) *Contract {
	t.Helper()
	p, ok := Builtin().Get(name)
	if !ok {
		t.Fatalf("no profile %s", name)
	}
	c, err := p.Contract(webhook.Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFynapseSendsWhatItsDocumentsSay(t *testing.T) {
	d := testDelivery()
	r, err := contractOf(t, "fynapse").Build(d, [][]byte{testKey, oldKey}, testAt)
	if err != nil {
		t.Fatal(err)
	}
	wantBody := `{"event_id":"a3efc743-ac6c-463b-aa19-4dd9c45b5b96","event_type":"balance.extracted",` +
		`"metadata":{"eventType":"balance.extracted","startedOn":"2026-04-14T09:54:45.040000Z"},` +
		`"event_timestamp":"2026-04-14T09:54:45.040Z","data":` + string(d.Event.Data) + `}`
	if string(r.Body) != wantBody {
		t.Errorf("body:\n%s\nwant:\n%s", r.Body, wantBody)
	}
	ts := strconv.FormatInt(testAt.Unix(), 10)
	sign := func(key []byte) string {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(ts + "." + wantBody))
		return hex.EncodeToString(h.Sum(nil))
	}
	want := map[string]string{
		"Content-Type":      "application/json",
		"Idempotency-Key":   d.ID.String(),
		"Webhook-Signature": "t=" + ts + ",v1=" + sign(testKey) + ",v1=" + sign(oldKey),
	}
	for name, value := range want {
		if got := r.Header.Get(name); got != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
	if len(r.Header) != len(want) {
		t.Errorf("headers: %v", r.Header)
	}
}

func TestMetadataIsPassedOnAndFilledInWhereAbsent(t *testing.T) {
	cases := []struct{ name, metadata, want string }{
		{"none", ``, `{"eventType":"balance.extracted","startedOn":"2026-04-14T09:54:45.040000Z"}`},
		{"null", `null`, `{"eventType":"balance.extracted","startedOn":"2026-04-14T09:54:45.040000Z"}`},
		{"empty", ` { } `, `{"eventType":"balance.extracted","startedOn":"2026-04-14T09:54:45.040000Z"}`},
		{"others", `{ "run" : 1.0, "x":{"eventType":1} }`, `{"run" : 1.0, "x":{"eventType":1},"eventType":"balance.extracted","startedOn":"2026-04-14T09:54:45.040000Z"}`},
		{"one of them", `{"startedOn":"2026-04-14T09:54:43.674940Z"}`, `{"startedOn":"2026-04-14T09:54:43.674940Z","eventType":"balance.extracted"}`},
		{"one of them in another spelling", `{"event\u0054ype":"x"}`, `{"event\u0054ype":"x","startedOn":"2026-04-14T09:54:45.040000Z"}`},
		{"both, byte for byte", ` {"startedOn":null, "eventType":"x", "n":1e2} `, ` {"startedOn":null, "eventType":"x", "n":1e2} `},
	}
	for _, tc := range cases {
		d := testDelivery()
		d.Event.Metadata = []byte(tc.metadata)
		r, err := contractOf(t, "fynapse").Build(d, [][]byte{testKey}, testAt)
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		if !json.Valid(r.Body) || !strings.Contains(string(r.Body), `"metadata":`+tc.want+`,"event_timestamp":`) {
			t.Errorf("%s: %s", tc.name, r.Body)
		}
	}
}

func TestTheBodiesOfTheOtherProfiles(t *testing.T) {
	const data = `{ "amount": 1.0, "b":"\u003c", "a":12345678901234567890 }`
	want := map[string]string{
		"fynex":    `{"event_type":"promise.created","timestamp":"2026-04-14T09:54:45.040Z","data":` + data + `}`,
		"flashfx":  `{"event_id":"a3efc743-ac6c-463b-aa19-4dd9c45b5b96","event_type":"promise.created","event_timestamp":"2026-04-14T09:54:45.040Z","data":` + data + `}`,
		"fuse":     `{"type":"promise.created","amount": 1.0, "b":"\u003c", "a":12345678901234567890}`,
		"standard": `{"type":"promise.created","timestamp":"2026-04-14T09:54:45.040Z","data":` + data + `}`,
	}
	for name, body := range want {
		d := testDelivery()
		d.Event.Type, d.Event.Data = "promise.created", []byte(data)
		r, err := contractOf(t, name).Build(d, [][]byte{testKey, oldKey}, testAt)
		if err != nil || string(r.Body) != body {
			t.Errorf("%s: %v\n%s\nwant\n%s", name, err, r.Body, body)
		}
	}
}

func TestTheSignaturesOfTheOtherProfiles(t *testing.T) {
	build := func(name string, keys ...[]byte) Request {
		t.Helper()
		d := testDelivery()
		d.Event.Data = []byte(`{"b":1.0,"a":"\u003c","10":1,"9":2}`)
		r, err := contractOf(t, name).Build(d, keys, testAt)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	b64 := base64.StdEncoding.EncodeToString
	r := build("fynex", testKey, oldKey)
	wantHeaders(t, r, map[string]string{
		"Content-Type": "application/json", "X-Fynex-Signature": "sha256=" + hex.EncodeToString(macOf(sha256.New, testKey, string(r.Body))),
	})
	r = build("flashfx", testKey, oldKey)
	wantHeaders(t, r, map[string]string{
		"Content-Type": "application/json", "Flashfx-Request-Id": "a3efc743-ac6c-463b-aa19-4dd9c45b5b96",
		"Flashfx-Signature": b64(macOf(sha256.New, testKey, string(r.Body))),
	})
	r = build("fuse", testKey, oldKey)
	wantHeaders(t, r, map[string]string{
		"Content-Type": "application/json", "Fuse-Verification": b64(macOf(sha256.New, testKey, `{"9":2,"10":1,"a":"<","b":1,"type":"balance.extracted"}`)),
	})
	plain := []byte("0123456789abcdef0123456789abcdef")
	r = build("standard", []byte("whsec_"+b64(plain)), []byte(b64(plain)))
	mac := "v1," + b64(macOf(sha256.New, plain, "a3efc743-ac6c-463b-aa19-4dd9c45b5b96.1776160486."+string(r.Body)))
	wantHeaders(t, r, map[string]string{
		"Content-Type": "application/json", "Webhook-Id": "a3efc743-ac6c-463b-aa19-4dd9c45b5b96", "Webhook-Timestamp": "1776160486",
		"Webhook-Signature": mac + " " + mac,
	})
	private := ed25519.NewKeyFromSeed(plain)
	r = build("standard", []byte("whsk_"+b64(private)), []byte("whsk_"+b64(plain)))
	mac = "v1a," + b64(ed25519.Sign(private, []byte("a3efc743-ac6c-463b-aa19-4dd9c45b5b96.1776160486."+string(r.Body))))
	if got := r.Header.Get("Webhook-Signature"); got != mac+" "+mac {
		t.Errorf("ed25519: %s, want %s twice", got, mac)
	}
}

// Each case stands in the table "Events that do not fit" of docs/profiles.md.
func TestAnEventThatDoesNotFitIsRefusedWithACode(t *testing.T) {
	cases := []struct {
		name, profile string
		change        func(d *webhook.Delivery)
		want          Code
	}{
		{"data is a string", "fuse", data(`"x"`), CodeNotObject},
		{"data is an array", "fuse", data(`[1]`), CodeNotObject},
		{"data is null", "fuse", data(`null`), CodeNotObject},
		{"data is absent", "fuse", data(``), CodeNotObject},
		{"data is cut off", "fuse", data(`{"a":`), CodeNotObject},
		{"data has a broken value", "fuse", data(`{"a":01}`), CodeNotJSON},
		{"data is not UTF-8", "fuse", data("{\"a\":\"\xff\"}"), CodeNotJSON},
		{"data has a type of its own", "fuse", data(`{"a":1,"type":"x"}`), CodeReserved},
		{"data has a type in another spelling", "fuse", data(`{"\u0074ype":"x"}`), CodeReserved},
		{"a key twice", "fuse", data(`{"a":1,"a":1}`), CodeDuplicate},
		{"a key twice further down", "fuse", data(`{"a":{"b":1,"\u0062":2}}`), CodeDuplicate},
		{"__proto__", "fuse", data(`{"a":{"__proto__":{}}}`), CodeProto},
		{"a number that no double holds", "fuse", data(`{"a":1e400}`), CodeNumber},
		{"nested too deep", "fuse", data(`{"a":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`), CodeDepth},
		{"metadata is not an object", "fynapse", func(d *webhook.Delivery) { d.Event.Metadata = []byte(`[1]`) }, CodeNotObject},
		{"a line break in the event's id", "flashfx", id("a\r\nX-Evil: 1"), CodeHeader},
		{"a NUL in the event's id", "standard", id("a\x00"), CodeHeader},
		{"an id that is not ASCII", "flashfx", id("é"), CodeHeader},
		{"space at the end of the id", "flashfx", id("a "), CodeHeader},
		{"an id too long for a header", "flashfx", id(strings.Repeat("x", 1025)), CodeHeader},
		{"a full stop in the id", "standard", id("evt.1"), CodeHeader},
	}
	for _, tc := range cases {
		d := testDelivery()
		tc.change(d)
		_, err := contractOf(t, tc.profile).Build(d, [][]byte{testKey}, testAt)
		var refused *ContractError
		if !errors.As(err, &refused) || refused.Code != tc.want {
			t.Errorf("%s: %v, want %s", tc.name, err, tc.want)
		}
	}
	// Where the id stands in no header it may be anything.
	d := testDelivery()
	d.Event.ID = "a\r\n\"é.\xff"
	r, err := contractOf(t, "fynapse").Build(d, [][]byte{testKey}, testAt)
	if err != nil || !strings.Contains(string(r.Body), `"event_id":"a\r\n\"é.`+"\ufffd"+`"`) || !json.Valid(r.Body) {
		t.Errorf("%v %s", err, r.Body)
	}
}

func data(text string) func(d *webhook.Delivery) {
	return func(d *webhook.Delivery) { d.Event.Data = []byte(text) }
}

func id(text string) func(d *webhook.Delivery) {
	return func(d *webhook.Delivery) { d.Event.ID = text }
}

func TestDataOfAnyKindPassesWhereItIsAMember(t *testing.T) {
	for _, name := range []string{"fynapse", "fynex", "flashfx", "standard"} {
		for _, text := range []string{`null`, `"x"`, `[1, 2]`, `{"a":1,"a":2}`, `{"__proto__":1}`, `1e400`, "\"\u2028\"", `{}`} {
			d := testDelivery()
			d.Event.Data = []byte(text)
			r, err := contractOf(t, name).Build(d, [][]byte{testKey}, testAt)
			if err != nil || !strings.HasSuffix(string(r.Body), `"data":`+text+`}`) {
				t.Errorf("%s: %s: %v %s", name, text, err, r.Body)
			}
		}
		d := testDelivery()
		d.Event.Data = nil
		if r, err := contractOf(t, name).Build(d, [][]byte{testKey}, testAt); err != nil || !strings.HasSuffix(string(r.Body), `"data":null}`) {
			t.Errorf("%s without data: %v %s", name, err, r.Body)
		}
	}
	if r, err := contractOf(t, "fuse").Build(testDelivery(), [][]byte{testKey}, testAt); err != nil || !json.Valid(r.Body) {
		t.Errorf("fuse: %v", err)
	}
	d := testDelivery()
	d.Event.Data = []byte(" { } ")
	if r, err := contractOf(t, "fuse").Build(d, [][]byte{testKey}, testAt); err != nil || string(r.Body) != `{"type":"balance.extracted"}` {
		t.Errorf("fuse without members: %v %s", err, r.Body)
	}
}

func TestASecretThatDoesNotFitIsNotTheEventsFault(t *testing.T) {
	b64 := base64.StdEncoding.EncodeToString
	long := b64(make([]byte, 32))
	cases := []struct {
		name, profile string
		keys          []string
	}{
		{"none", "fynapse", nil},
		{"empty", "fynapse", []string{""}},
		{"too short", "fynapse", []string{strings.Repeat("x", 31)}},
		{"the second one too short", "fynapse", []string{long, "x"}},
		{"too short", "fynex", []string{"my-webhook-secret"}},
		{"too short", "flashfx", []string{"my-webhook-secret"}},
		{"too short", "fuse", []string{"my-api-key"}},
		{"too short once decoded", "standard", []string{"whsec_" + b64(make([]byte, 23))}},
		{"too long once decoded", "standard", []string{"whsec_" + b64(make([]byte, 65))}},
		{"not base64", "standard", []string{"whsec_" + strings.Repeat("!", 44)}},
		{"a public key", "standard", []string{"whpk_" + long}},
		{"half a private key", "standard", []string{"whsk_" + b64(make([]byte, 40))}},
		{"halves that do not belong together", "standard", []string{"whsk_" + b64(make([]byte, 64))}},
	}
	for _, tc := range cases {
		var keys [][]byte
		for _, k := range tc.keys {
			keys = append(keys, []byte(k))
		}
		_, err := contractOf(t, tc.profile).Build(testDelivery(), keys, testAt)
		var refused *ContractError
		if !errors.Is(err, ErrSecret) || errors.As(err, &refused) {
			t.Errorf("%s, %s: %v", tc.profile, tc.name, err)
		}
		if len(keys) == 1 {
			p := must(Builtin().Get(tc.profile))
			if err := p.CheckSecret(keys[0]); !errors.Is(err, ErrSecret) {
				t.Errorf("%s, %s: check says %v", tc.profile, tc.name, err)
			}
			if tc.keys[0] != "" && err != nil && strings.Contains(err.Error(), tc.keys[0]) {
				t.Errorf("%s, %s: the error shows the secret", tc.profile, tc.name)
			}
		}
	}
}

func TestASecretMadeForOneProfileFitsEveryOther(t *testing.T) {
	seen := map[string]bool{}
	for _, maker := range Builtin().Names() {
		secret := must(Builtin().Get(maker)).NewSecret()
		if seen[string(secret)] || len(secret) < 32 {
			t.Errorf("%s: %q", maker, secret)
		}
		seen[string(secret)] = true
		for _, user := range Builtin().Names() {
			if err := must(Builtin().Get(user)).CheckSecret(secret); err != nil {
				t.Errorf("%s's secret under %s: %v", maker, user, err)
			}
		}
	}
}

func TestAContractIsSafeForConcurrentUse(t *testing.T) {
	var group sync.WaitGroup
	for _, name := range Builtin().Names() {
		c := contractOf(t, name)
		want, err := c.Build(testDelivery(), [][]byte{testKey}, testAt)
		if err != nil {
			t.Fatal(err)
		}
		for range 8 {
			group.Go(func() {
				for range 200 {
					got, err := c.Build(testDelivery(), [][]byte{testKey}, testAt)
					if err != nil || !bytes.Equal(got.Body, want.Body) || !maps.EqualFunc(got.Header, want.Header, slices.Equal) {
						t.Errorf("%s: %v %v", name, got.Header, err)
						return
					}
				}
			})
		}
	}
	group.Wait()
}

func TestABodyThatIsGivenIsSignedAsItIs(t *testing.T) {
	body := []byte(" {\"b\": 1.0,\n\"a\": 2} \n")
	for _, name := range Builtin().Names() {
		c := contractOf(t, name)
		h, err := c.Sign(testDelivery(), body, [][]byte{testKey}, testAt)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Profile().Verify(h, body, [][]byte{testKey}, testAt); err != nil {
			t.Errorf("%s: %v", c, err)
		}
	}
	if _, err := contractOf(t, "fuse").Sign(testDelivery(), []byte("{"), [][]byte{testKey}, testAt); err == nil {
		t.Error("what is no JSON has no sorted form")
	}
}

func TestADocumentedEventTypeIsFoundByItsName(t *testing.T) {
	p := must(Builtin().Get("fynapse"))
	if et, ok := p.EventType("balance.extracted"); !ok || len(et.Sample) == 0 {
		t.Errorf("%+v", et)
	}
	if _, ok := p.EventType("balance.unknown"); ok {
		t.Error("found")
	}
}

func FuzzBuildNeverSendsWhatDoesNotParse(f *testing.F) {
	for _, seed := range []string{`{"a":1}`, `{"a":"}`, `{`, `[]`, `{"type":1}`, `{"a":{"b":[1,{"c":"\ud800"}]}}`, " {\n} ", `{"a" :1 , "b":2 }`} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, data, metadata string) {
		for _, name := range []string{"fuse", "fynapse"} {
			d := testDelivery()
			d.Event.Data, d.Event.Metadata = []byte(data), []byte(metadata)
			r, err := contractOf(t, name).Build(d, [][]byte{testKey}, testAt)
			var refused *ContractError
			if err != nil && !errors.As(err, &refused) {
				t.Fatalf("%s: %v", name, err)
			}
			given := (data == "" || json.Valid(d.Event.Data)) && (metadata == "" || json.Valid(d.Event.Metadata))
			if err == nil && (name == "fuse" || given) && !json.Valid(r.Body) {
				t.Fatalf("%s: %q, %q: %s", name, data, metadata, r.Body)
			}
		}
	})
}

// kilobyte is an event whose data has about 1 kB.
func kilobyte() *webhook.Delivery {
	d := testDelivery()
	var b bytes.Buffer
	b.WriteString(`{"account_id":"e5f6a7b8-1c2d-4e3f-9a0b-1c2d3e4f5a6b","amount":15000.50,"items":[`)
	for i := 0; b.Len() < 980; i++ {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"id":%d,"name":"item \u00e9 %d","price":%d.25,"ok":true}`, i, i, i)
	}
	b.WriteString(`],"z":null}`)
	d.Event.Data = b.Bytes()
	return d
}

func BenchmarkBuild(b *testing.B) {
	d := kilobyte()
	for _, name := range Builtin().Names() {
		c, keys := contractOf(b, name), [][]byte{testKey}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Build(d, keys, testAt); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecide(b *testing.B) {
	c, d := contractOf(b, "fynapse"), after(3, testAt)
	b.ReportAllocs()
	for b.Loop() {
		c.Decide(status(503), d, testAt, middle)
	}
}
