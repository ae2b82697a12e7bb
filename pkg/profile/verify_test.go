package profile

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// signed is a request of a profile that verifies, and its secret.
func signed(t *testing.T, name string, change func(body []byte) []byte) (*Profile, http.Header, []byte, []byte) {
	t.Helper()
	c := contractOf(t, name)
	secret := c.Profile().NewSecret()
	r, err := c.Build(testDelivery(), [][]byte{secret}, testAt)
	if err != nil {
		t.Fatal(err)
	}
	body := r.Body
	if change != nil {
		body = change(bytes.Clone(body))
	}
	return c.Profile(), r.Header, body, secret
}

func TestWhatIsBuiltVerifies(t *testing.T) {
	for _, name := range Builtin().Names() {
		p, h, body, secret := signed(t, name, nil)
		if err := p.Verify(h, body, [][]byte{p.NewSecret(), secret}, testAt.Add(4*time.Minute)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDuringARotationEitherSecretVerifies(t *testing.T) {
	for _, name := range []string{"fynapse", "standard"} {
		c := contractOf(t, name)
		p := c.Profile()
		fresh, previous := p.NewSecret(), p.NewSecret()
		r, err := c.Build(testDelivery(), [][]byte{fresh, previous}, testAt)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range [][]byte{fresh, previous} {
			if err := p.Verify(r.Header, r.Body, [][]byte{key}, testAt); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestAnAsymmetricSignatureVerifiesWithThePublicKey(t *testing.T) {
	c := contractOf(t, "standard")
	p := c.Profile()
	secret := []byte("whsk_" + base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef")))
	public, ok := p.PublicKey(secret)
	if !ok || !strings.HasPrefix(public, "whpk_") {
		t.Fatalf("public key %q", public)
	}
	if again, ok := p.PublicKey([]byte(public)); !ok || again != public {
		t.Errorf("the public key of a public key is itself: %q", again)
	}
	if _, ok := p.PublicKey(p.NewSecret()); ok {
		t.Error("a MAC's key has no public half")
	}
	r, err := c.Build(testDelivery(), [][]byte{secret}, testAt)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Verify(r.Header, r.Body, [][]byte{[]byte(public)}, testAt); err != nil {
		t.Error(err)
	}
	var m *Mismatch
	if err := p.Verify(r.Header, append(r.Body, ' '), [][]byte{[]byte(public)}, testAt); !errors.As(err, &m) {
		t.Error("changed bytes verify")
	}
}

func TestAMismatchSaysWhichPartItIs(t *testing.T) {
	newline := func(body []byte) []byte { return append(body, '\n') }
	spaced := func(body []byte) []byte { return bytes.ReplaceAll(body, []byte(`,"`), []byte(`, "`)) }
	cases := []struct {
		name, profile string
		header        func(h http.Header)
		body          func(body []byte) []byte
		key           func(secret []byte) []byte
		now           time.Duration
		want          Part
		detail        string
	}{
		{"no signature header", "fynex", remove("X-Fynex-Signature"), nil, nil, 0, PartHeader, "missing"},
		{"two of them", "fynex", add("X-Fynex-Signature", "x"), nil, nil, 0, PartHeader, "2 times"},
		{"no id header", "fynapse", remove("Idempotency-Key"), nil, nil, 0, PartHeader, "Idempotency-Key"},
		{"no timestamp in the header", "fynapse", set("Webhook-Signature", "v1=00"), nil, nil, 0, PartHeader, "t={attempt_timestamp:unix},{signatures}"},
		{"no signature in the header", "fynapse", set("Webhook-Signature", "t=1,v0=00"), nil, nil, 0, PartHeader, "v1={signature}"},
		{"not hexadecimal", "fynex", set("X-Fynex-Signature", "sha256=xyz"), nil, nil, 0, PartHeader, "hex"},
		{"another prefix", "fynex", set("X-Fynex-Signature", "sha1=00"), nil, nil, 0, PartHeader, "sha256={signatures}"},
		{"not base64", "flashfx", set("Flashfx-Signature", "***"), nil, nil, 0, PartHeader, "base64"},
		{"too old", "fynapse", nil, nil, nil, 6 * time.Minute, PartTimestamp, "6m"},
		{"from the future", "standard", nil, nil, nil, -6 * time.Minute, PartTimestamp, "6m"},
		{"a timestamp that was changed", "standard", set("Webhook-Timestamp", "1776160487"), nil, nil, 0, PartKeyOrBytes, "no signature fits"},
		{"an id that was changed", "standard", set("Webhook-Id", "other"), nil, nil, 0, PartKeyOrBytes, ""},
		{"another key", "fynapse", nil, nil, func([]byte) []byte { return testKey }, 0, PartKeyOrBytes, ""},
		{"a key of the wrong form", "standard", nil, nil, func([]byte) []byte { return []byte("whsec_x") }, 0, PartKey, "key 1"},
		{"a short key", "fynex", nil, nil, func([]byte) []byte { return []byte("x") }, 0, PartKey, "bytes"},
		{"a key read with its newline", "flashfx", nil, nil, func(k []byte) []byte { return append(bytes.Clone(k), '\n') }, 0, PartKey, "white space"},
		{"changed bytes", "fynex", nil, func(b []byte) []byte { return bytes.Replace(b, []byte("1.0"), []byte("1.1"), 1) }, nil, 0, PartKeyOrBytes, ""},
		{"a newline at the end", "fynapse", nil, newline, nil, 0, PartBytes, "newline"},
		{"JSON printed again", "standard", nil, spaced, nil, 0, PartKeyOrBytes, ""},
		{"a byte order mark", "fynex", nil, func(b []byte) []byte { return append([]byte("\ufeff"), b...) }, nil, 0, PartBytes, "byte order mark"},
		{"a body that is no JSON", "fuse", nil, func([]byte) []byte { return []byte("{") }, nil, 0, PartBytes, "not valid JSON"},
	}
	for _, tc := range cases {
		p, h, body, secret := signed(t, tc.profile, tc.body)
		if tc.header != nil {
			tc.header(h)
		}
		if tc.key != nil {
			secret = tc.key(secret)
		}
		err := p.Verify(h, body, [][]byte{secret}, testAt.Add(tc.now))
		var m *Mismatch
		if !errors.As(err, &m) || m.Part != tc.want || !strings.Contains(err.Error(), tc.detail) {
			t.Errorf("%s, %s: %v, want %s with %q", tc.profile, tc.name, err, tc.want, tc.detail)
		}
	}
	p, h, body, _ := signed(t, "fynapse", nil)
	var m *Mismatch
	if err := p.Verify(h, body, nil, testAt); !errors.As(err, &m) || m.Part != PartKey {
		t.Errorf("no key: %v", err)
	}
}

func remove(name string) func(h http.Header) { return func(h http.Header) { h.Del(name) } }

func set(name, value string) func(h http.Header) { return func(h http.Header) { h.Set(name, value) } }

func add(name, value string) func(h http.Header) { return func(h http.Header) { h.Add(name, value) } }

func TestASendersUsualMistakesAreNamed(t *testing.T) {
	p := must(Builtin().Get("flashfx"))
	body := []byte(`{"a": 1}`)
	text := []byte(hex.EncodeToString([]byte("0123456789abcdef")))
	sign := func(key, body []byte) http.Header {
		h := http.Header{}
		h.Set("Flashfx-Request-Id", "1")
		h.Set("Flashfx-Signature", base64.StdEncoding.EncodeToString(macOfBytes(key, body)))
		return h
	}
	cases := []struct {
		header http.Header
		part   Part
		detail string
	}{
		{sign(text, []byte(`{"a":1}`)), PartBytes, "white space"},
		{sign(text, append(body, '\n')), PartBytes, "with a newline"},
		{sign([]byte("0123456789abcdef"), body), PartKey, "hexadecimal"},
		{sign(append(bytes.Clone(text), '\n'), body), PartKey, "newline"},
		{sign(testKey, body), PartKeyOrBytes, "the key is another one"},
	}
	for _, tc := range cases {
		err := p.Verify(tc.header, body, [][]byte{text}, testAt)
		var m *Mismatch
		if !errors.As(err, &m) || m.Part != tc.part || !strings.Contains(m.Detail, tc.detail) {
			t.Errorf("%v, want %s with %q", err, tc.part, tc.detail)
		}
	}

	standard := must(Builtin().Get("standard"))
	h := http.Header{}
	secret := standard.NewSecret()
	h.Set("Webhook-Id", "1")
	h.Set("Webhook-Timestamp", "1776160486")
	h.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(macOfBytes(secret, []byte(`1.1776160486.{"a": 1}`))))
	if err := standard.Verify(h, body, [][]byte{secret}, testAt); err == nil || !strings.Contains(err.Error(), "whole text of the secret") {
		t.Error(err)
	}
	h.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(macOfBytes([]byte("0123456789abcdef0123456789abcdef"), body)))
	key := []byte("whsec_" + base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef")))
	if err := standard.Verify(h, body, [][]byte{key}, testAt); err == nil || !strings.Contains(err.Error(), "the body alone") {
		t.Error(err)
	}
}

func macOfBytes(key, body []byte) []byte { return macOf(sha256.New, key, string(body)) }

func TestNoChangeOfARequestVerifies(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.SampledFrom([]string{"fynapse", "fynex", "flashfx", "standard"}).Draw(rt, "profile")
		p, h, body, secret := signed(t, name, nil)
		h = maps.Clone(h)
		signedHeaders := map[string][]string{
			"fynapse": {"Webhook-Signature"}, "fynex": {"X-Fynex-Signature"}, "flashfx": {"Flashfx-Signature"},
			"standard": {"Webhook-Signature", "Webhook-Id", "Webhook-Timestamp"},
		}[name]
		bit := byte(1 << rapid.IntRange(0, 7).Draw(rt, "bit"))
		if rapid.Bool().Draw(rt, "in the body") {
			body[rapid.IntRange(0, len(body)-1).Draw(rt, "byte")] ^= bit
		} else {
			header := rapid.SampledFrom(signedHeaders).Draw(rt, "header")
			value := []byte(h.Get(header))
			i := rapid.IntRange(0, len(value)-1).Draw(rt, "byte")
			value[i] ^= bit
			// Hexadecimal digits mean the same in both cases.
			if strings.EqualFold(string(value), h.Get(header)) && name != "flashfx" && name != "standard" {
				return
			}
			h.Set(header, string(value))
		}
		if err := p.Verify(h, body, [][]byte{secret}, testAt); err == nil {
			rt.Fatalf("%s verifies: %v %s", name, h, body)
		}
	})
}

func TestATemplatePrintsAsItWasWritten(t *testing.T) {
	for _, text := range []string{"{event_id}.{attempt_timestamp:unix}.{body:sorted}", "t={attempt_timestamp:unixms},{ordering_key}", "{event_type:head}"} {
		parsed, err := parseTemplate(text, slices.Concat(contentFields, eachFields))
		if err != nil || parsed.String() != text {
			t.Errorf("%s: %s %v", text, parsed, err)
		}
	}
}

func FuzzVerifyNeverAcceptsAStrangersHeader(f *testing.F) {
	f.Add("t=1776160486,v1=00", "{}")
	f.Add("t=,v1=", "")
	f.Add(",,,", "{")
	p := must(Builtin().Get("fynapse"))
	f.Fuzz(func(t *testing.T, value, body string) {
		h := http.Header{"Webhook-Signature": {value}, "Idempotency-Key": {"1"}}
		var m *Mismatch
		if err := p.Verify(h, []byte(body), [][]byte{testKey}, testAt); !errors.As(err, &m) {
			t.Fatalf("%q: %v", value, err)
		}
	})
}
