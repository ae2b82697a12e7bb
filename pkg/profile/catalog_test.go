package profile

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // GitHub's older header
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"hash"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pkg/webhook"
)

func TestTheBuiltInProfilesAreValid(t *testing.T) {
	c := Builtin()
	if got, want := c.Names(), []string{"flashfx", "fuse", "fynapse", "fynex", "standard"}; !slices.Equal(got, want) {
		t.Fatalf("names: %v, want %v", got, want)
	}
	for _, name := range c.Names() {
		p, _ := c.Get(name)
		if p.Version != 1 || p.Description == "" || len(p.EventTypes) == 0 {
			t.Errorf("%s: %+v", name, p)
		}
		if !json.Valid(p.JSON()) || !bytes.Contains(p.YAML(), []byte("name: "+name)) {
			t.Errorf("%s: neither YAML nor JSON of the file", name)
		}
		contract, err := p.Contract(webhook.Overrides{})
		if err != nil {
			t.Fatal(err)
		}
		for _, et := range p.EventTypes {
			d := testDelivery()
			d.Event.Type, d.Event.Data = et.Name, et.Sample
			r, err := contract.Build(d, [][]byte{p.NewSecret()}, testAt)
			if err != nil || !json.Valid(r.Body) {
				t.Errorf("%s: the sample of %s: %v %s", name, et.Name, err, r.Body)
			}
		}
	}
	if n := len(must(c.Get("fynex")).EventTypes); n != 12 {
		t.Errorf("fynex has %d event types, its table 12", n)
	}
}

func must[T any](v T, ok bool) T {
	if !ok {
		panic("not found")
	}
	return v
}

func TestEachProfileHasTheRulesOfItsDocuments(t *testing.T) {
	https := map[string]bool{"fynex": true, "flashfx": true}
	timeouts := map[string]time.Duration{"fynapse": 15 * time.Second, "standard": 15 * time.Second}
	for _, name := range Builtin().Names() {
		p := must(Builtin().Get(name))
		if p.HTTPSOnly != https[name] {
			t.Errorf("%s: https only is %v", name, p.HTTPSOnly)
		}
		if want := orDefault(timeouts[name], 10*time.Second); p.Timeout != want {
			t.Errorf("%s: timeout %v, want %v", name, p.Timeout, want)
		}
	}
	if a := must(Builtin().Get("fynex")).AutoDisable; a == nil || *a != (AutoDisable{After: 5, Count: "attempts"}) {
		t.Errorf("fynex: auto-disable %+v", a)
	}
	if a := must(Builtin().Get("standard")).AutoDisable; a == nil || a.Window != 5*24*time.Hour {
		t.Errorf("standard: auto-disable %+v", a)
	}
}

func TestThePublishedSchemaIsTheOneInUse(t *testing.T) {
	published, err := os.ReadFile(filepath.Join("..", "..", "docs", "profile.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(published, Schema()) {
		t.Error("docs/profile.schema.json differs from pkg/profile/profile.schema.json: copy it")
	}
}

func TestAnOperatorsProfilesStandBesideTheBuiltInOnes(t *testing.T) {
	c, err := Load(filepath.Join("testdata", "profiles"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"flashfx", "fuse", "fynapse", "fynex", "github-like", "shopify-like", "standard", "stripe-like"}
	if got := c.Names(); !slices.Equal(got, want) {
		t.Fatalf("names: %v", got)
	}
	// 24 h is the longest delay that an override may ask for, and its jitter may double it.
	if got := c.LongestDelay(); got != 48*time.Hour {
		t.Errorf("longest delay: %v", got)
	}
	if _, ok := Builtin().Get("stripe-like"); ok {
		t.Error("an operator's profile is in the built-in catalog")
	}
}

func macOf(h func() hash.Hash, key []byte, text string) []byte {
	m := hmac.New(h, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

func buildWith(t *testing.T, name string, d *webhook.Delivery) Request {
	t.Helper()
	c, err := Load(filepath.Join("testdata", "profiles"))
	if err != nil {
		t.Fatal(err)
	}
	contract, err := must(c.Get(name)).Contract(webhook.Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := contract.Build(d, [][]byte{testKey}, testAt)
	if err != nil {
		t.Fatal(err)
	}
	if err := contract.Profile().Verify(r.Header, r.Body, [][]byte{testKey}, testAt); err != nil {
		t.Errorf("verify: %v", err)
	}
	return r
}

func wantHeaders(t *testing.T, r Request, want map[string]string) {
	t.Helper()
	for name, value := range want {
		if got := r.Header.Get(name); got != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
	if len(r.Header) != len(want) {
		t.Errorf("headers: %v, want %d", r.Header, len(want))
	}
}

func TestAProfileCanExpressStripesFormat(t *testing.T) {
	d := testDelivery()
	d.Event.Type, d.Event.Data = "charge.succeeded", []byte(`{"id":"ch_1","amount":100}`)
	r := buildWith(t, "stripe-like", d)
	want := `{"id":"evt_a3efc743-ac6c-463b-aa19-4dd9c45b5b96","object":"event","api_version":"2026-03-25","created":1776160485,` +
		`"data":{"object":{"id":"ch_1","amount":100}},"livemode":false,"pending_webhooks":1,"request":{"id":null,"idempotency_key":null},` +
		`"type":"charge.succeeded"}`
	if string(r.Body) != want {
		t.Errorf("body:\n%s\nwant:\n%s", r.Body, want)
	}
	wantHeaders(t, r, map[string]string{
		"Content-Type": "application/json; charset=utf-8", "User-Agent": "Stripe/1.0",
		"Stripe-Signature": "t=1776160486,v1=" + hex.EncodeToString(macOf(sha256.New, testKey, "1776160486."+want)),
	})
}

func TestAProfileCanExpressGitHubsFormat(t *testing.T) {
	d := testDelivery()
	d.Event.Type, d.Event.Data = "pull_request.opened", []byte(`{"action": "opened", "number": 1}`)
	r := buildWith(t, "github-like", d)
	if string(r.Body) != string(d.Event.Data) {
		t.Errorf("body: %s", r.Body)
	}
	wantHeaders(t, r, map[string]string{
		"Content-Type": "application/json", "User-Agent": "GitHub-Hookshot/hookline",
		"X-GitHub-Delivery": d.ID.String(), "X-GitHub-Event": "pull_request", "X-GitHub-Hook-ID": "sub-1",
		"X-Hub-Signature-256": "sha256=" + hex.EncodeToString(macOf(sha256.New, testKey, string(r.Body))),
		"X-Hub-Signature":     "sha1=" + hex.EncodeToString(macOf(sha1.New, testKey, string(r.Body))),
	})
}

func TestAProfileCanExpressShopifysFormat(t *testing.T) {
	d := testDelivery()
	d.Event.Type, d.Event.Data = "orders.create", []byte(`{"id":820982911946154500}`)
	r := buildWith(t, "shopify-like", d)
	wantHeaders(t, r, map[string]string{
		"Content-Type": "application/json", "X-Shopify-Topic": "orders/create", "X-Shopify-Shop-Domain": "default.myshopify.example",
		"X-Shopify-Api-Version": "2026-04", "X-Shopify-Webhook-Id": d.ID.String(), "X-Shopify-Event-Id": d.Event.ID,
		"X-Shopify-Triggered-At": "2026-04-14T09:54:45.040000Z",
		"X-Shopify-Hmac-Sha256":  base64.StdEncoding.EncodeToString(macOf(sha256.New, testKey, string(r.Body))),
	})
}

// minimal is a valid profile, for tests to break.
const minimal = `name: mine
version: 1
description: a test
body: {raw: data}
secret:
  generate: {bytes: 32, encoding: hex}
  forms: [{encoding: text, algorithm: hmac-sha256, minBytes: 32}]
signatures:
  - {header: X-Sig, content: "{body}", encoding: hex}
timeout: 5s
responses: [{match: [2xx], then: delivered}]
retry: {delays: [1m]}
`

func TestEverythingWrongIsReportedAtOnceWithFileAndLine(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("schema.yaml", strings.NewReplacer("timeout: 5s", "timeout: 5 seconds", "version: 1", "version: 0", "hex}", "hexa}").Replace(minimal))
	write("meaning.yaml", strings.NewReplacer("[1m]", "[1ms, 25h]", "X-Sig", "Host", "{body}", "{bodi}").Replace(minimal))
	write("both.yaml", strings.NewReplacer("[1m]", "[1m, 5 minutes]", "version: 1", "version: one", "{body}", "{bodi}", "hex}\ntimeout", "hex, keys: 2}\ntimeout").Replace(minimal)+"colour: red\n")
	write("headers.yaml", minimal+"headers: [{name: X-Id, value: 7}]\n")
	write("list.yaml", "- name: mine\n")
	write("broken.yaml", minimal+"limits: {\n")
	write("taken.yaml", strings.Replace(minimal, "name: mine", "name: fynapse", 1))
	write("twice.yaml", minimal+"version: 2\n")
	write("notes.txt", "not a profile")
	_, err := Load(dir)
	if err == nil {
		t.Fatal("loaded")
	}
	for _, want := range []string{
		"schema.yaml:2: /version:", "schema.yaml:10: /timeout: '5 seconds' does not match pattern", "schema.yaml:6: /secret/generate/encoding:", "schema.yaml:9: /signatures/0/encoding:",
		"meaning.yaml:12: /retry/delays/0: must be from 50ms to 24h", "meaning.yaml:12: /retry/delays/1:",
		"meaning.yaml:9: /signatures/0/header: the header Host", "meaning.yaml:9: /signatures/0/content: {bodi} is not known here",
		"both.yaml:2: /version:", "both.yaml:12: /retry/delays/1: '5 minutes' does not match", "both.yaml:1: additional properties 'colour' not allowed",
		"both.yaml:9: /signatures/0/content: {bodi} is not known here", "both.yaml:9: /signatures/0/join: several signatures",
		"headers.yaml:13: /headers/0/value:", "list.yaml:1: the file is empty, or not a mapping", "broken.yaml:13: not YAML: ",
		"taken.yaml:1: profile fynapse version 1 exists already", `twice.yaml:13: key "version" is given twice`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
	for line := range strings.Lines(err.Error()) {
		if ok, _ := regexp.MatchString(`^[^:]*\.yaml:[0-9]+: .`, line); !ok {
			t.Errorf("no file and line: %q", line)
		}
	}
	if n := strings.Count(err.Error(), "both.yaml"); n != 5 {
		t.Errorf("%d problems of both.yaml, want the five that were made, in:\n%v", n, err)
	}
	if strings.Contains(err.Error(), "notes.txt") {
		t.Errorf("a file that is no YAML was read: %v", err)
	}
}

func TestAProfileThatContradictsItselfIsRefused(t *testing.T) {
	cases := []struct{ name, from, to, want string }{
		{"an unknown key", "timeout: 5s", "timeout: 5s\ntimeouts: 5s", "additional properties 'timeouts' not allowed"},
		{"a missing part", "timeout: 5s\n", "", "missing property 'timeout'"},
		{"an anchor", "{raw: data}", "&a {raw: data}\nheaders: *a", "anchors and aliases"},
		{"a number beyond all", "timeout: 5s", "timeout: .inf", "not a finite number"},
		{"not YAML", "name: mine", "name: [", "did not find"},
		{"an empty file", minimal, "", "the file is empty"},
		{"a member with two values", "{raw: data}", "{members: [{name: a, raw: data, string: b}]}", "exactly one of"},
		{"a member without a name", "{raw: data}", "{members: [{raw: data}]}", "needs a name"},
		{"a member twice", "{raw: data}", "{members: [{name: a, raw: data}, {name: a, const: 1}]}", "already"},
		{"a spread first", "{raw: data}", "{members: [{spread: data}]}", "must come after another member"},
		{"a spread with a name", "{raw: data}", "{members: [{name: a, const: 1}, {name: b, spread: data}]}", "stands alone"},
		{"a spread twice", "{raw: data}", "{members: [{name: a, const: 1}, {spread: data}, {spread: data}]}", "once"},
		{"a time as a number", "{raw: data}", `{members: [{name: a, number: "{event_timestamp:rfc3339}"}]}`, "a number is one field"},
		{"a time without a format", "{raw: data}", `{members: [{name: a, string: "{event_timestamp}"}]}`, "needs a format"},
		{"an unknown format", "{raw: data}", `{members: [{name: a, string: "{event_type:upper}"}]}`, "has no format"},
		{"a brace too many", "{raw: data}", `{members: [{name: a, string: "{event_id}}"}]}`, "braces do not match"},
		{"filled data", "{raw: data}", `{members: [{name: a, raw: data, fill: [{name: b, const: 1}]}]}`, "only raw metadata is filled"},
		{"a fill with data", "{raw: data}", `{members: [{name: a, raw: metadata, fill: [{name: b, raw: data}]}]}`, "what is filled in"},
		{"a header set twice", "timeout: 5s", "timeout: 5s\nheaders: [{name: x-sig, value: a}]", "is set twice"},
		{"a header in Greek", "timeout: 5s", "timeout: 5s\nheaders: [{name: X-A, value: α}]", "printable ASCII"},
		{"a content type with a line break", "timeout: 5s", "timeout: 5s\ncontentType: \"a\\nb\"", "printable ASCII"},
		{"a field that no header carries", `"{body}"`, `"{event_id}{body}"`, "must stand in the signature's header"},
		{"a signature without the body", `"{body}"`, `"x"`, "must hold {body}"},
		{"a value without signatures", "encoding: hex}\ntimeout", "encoding: hex, value: x}\ntimeout", "must hold {signatures}"},
		{"an item without a signature", "encoding: hex}\ntimeout", "encoding: hex, each: x}\ntimeout", "must hold {signature}"},
		{"fields side by side", "encoding: hex}\ntimeout", `encoding: hex, each: "{label}{signature}"}` + "\ntimeout", "to tell them apart"},
		{"two signatures run together", "encoding: hex}\ntimeout", "encoding: hex, keys: 2}\ntimeout", "something between them"},
		{"a public key of a MAC", "minBytes: 32", "minBytes: 32, publicPrefix: p", "ed25519 needs a publicPrefix"},
		{"a generated secret that does not fit", "minBytes: 32", "minBytes: 32, prefix: sec_", "refused by the profile's own forms"},
		{"no success", "then: delivered", "then: retry", "no response means delivered"},
		{"a rule that never applies", "[{match: [2xx], then: delivered}]", "[{match: [2xx], then: delivered}, {match: [204], then: retry}]", "matches nothing"},
		{"two schedules", "{delays: [1m]}", "{delays: [1m], base: 1s}", "give either delays"},
		{"half a schedule", "{delays: [1m]}", "{base: 1s}", "needs delays, or all of"},
		{"a base above the maximum", "{delays: [1m]}", "{base: 1m, factor: 2, max: 1s, attempts: 3}", "is greater than max"},
		{"a jitter of a lower bound", "timeout: 5s", "timeout: 5s\nretryAfter: {use: at_least, jitter: 0.1}", "only use: base"},
		{"bounds the wrong way round", "timeout: 5s", "timeout: 5s\nbounds: {timeout: {min: 6s, max: 2s}}", "min is greater than max"},
		{"bounds wider than Hookline's", "timeout: 5s", "timeout: 5s\nbounds: {timeout: {min: 1s, max: 90s}}", "must lie within"},
		{"a profile outside its own bounds", "timeout: 5s", "timeout: 5s\nbounds: {timeout: {min: 1s, max: 2s}}", "must be from 1s to 2s"},
		{"an event type twice", "timeout: 5s", "timeout: 5s\neventTypes: [{name: a, description: x, sample: 1}, {name: a, description: x, sample: 1}]", "described twice"},
	}
	if _, err := Parse("ok.yaml", []byte(minimal)); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		text := strings.Replace(minimal, c.from, c.to, 1)
		if text == minimal {
			t.Errorf("%s: %q is not in the profile", c.name, c.from)
		}
		_, err := Parse("bad.yaml", []byte(text))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "bad.yaml") {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestTheNewestVersionIsTheDefaultAndOlderOnesStay(t *testing.T) {
	dir := t.TempDir()
	for file, text := range map[string]string{
		"a.yaml": strings.Replace(minimal, "version: 1", "version: 10", 1),
		"b.yml":  strings.Replace(minimal, "version: 1", "version: 9", 1),
		"c.yaml": strings.NewReplacer("name: mine", "name: fynapse", "version: 1", "version: 2").Replace(minimal),
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if p := must(c.Get("mine")); p.Version != 10 {
		t.Errorf("newest: %d", p.Version)
	}
	if p, ok := c.Version("mine", 9); !ok || p.Version != 9 {
		t.Errorf("version 9: %v", ok)
	}
	if _, ok := c.Version("mine", 1); ok {
		t.Error("version 1 was never there")
	}
	old, _ := c.Version("fynapse", 1)
	if old == nil || must(c.Get("fynapse")).Version != 2 || len(c.Versions("fynapse")) != 2 {
		t.Error("a new version of a built-in profile must stand beside the old one")
	}
}

func TestADirectoryThatIsNotThereIsAnError(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("loaded")
	}
}
