package profile

import (
	"encoding/base64"
	"errors"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pkg/webhook"
)

// documented are the rows, by their first cell, of the table in docs/profiles.md whose first column has the given head.
func documented(t *testing.T, head string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "profiles.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "\n| "+head+" | ")
	if !found {
		t.Fatalf("docs/profiles.md has no table of %q", head)
	}
	table, _, _ = strings.Cut(table, "\n\n")
	var rows []string
	for _, line := range strings.Split(table, "\n")[2:] {
		row, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
		rows = append(rows, row)
	}
	return rows
}

// eachRow runs the test of every row of a table, and fails where a row has none or a test has no row.
func eachRow(t *testing.T, head string, tests map[string]func(t *testing.T)) {
	t.Helper()
	rows := documented(t, head)
	for row := range maps.Keys(tests) {
		if !slices.Contains(rows, row) {
			t.Errorf("no row %q in the table of %q", row, head)
		}
	}
	for _, row := range rows {
		if tests[row] == nil {
			t.Errorf("no test of the row %q in the table of %q", row, head)
			continue
		}
		t.Run(row, tests[row])
	}
}

// ends expects responses to the first attempt to lead to a status and a reason under a profile.
func ends(profile string, want webhook.Status, why webhook.Reason, list ...Response) func(t *testing.T) {
	return func(t *testing.T) {
		for _, r := range list {
			if d := contractOf(t, profile).Decide(r, after(1, testAt), testAt, middle); d.Status != want || d.Reason != why {
				t.Errorf("%+v: %+v, want %s %s", r, d, want, why)
			}
		}
	}
}

func TestEveryDocumentedResponseHasItsOutcome(t *testing.T) {
	eachRow(t, "response", map[string]func(t *testing.T){
		"a rule of the profile":         ends("standard", webhook.DeadLetter, webhook.ReasonHTTPStatus, status(410)),
		"1xx as a final response (101)": ends("fynapse", webhook.Pending, webhook.ReasonHTTPStatus, status(100), status(101), status(199)),
		"a code below 100 or above 599": ends("fynapse", webhook.Pending, webhook.ReasonHTTPStatus, status(99), status(600), status(999), status(-1)),
		"3xx":                           ends("flashfx", webhook.Pending, webhook.ReasonHTTPStatus, status(301), status(304), status(308)),
		"a code without a rule":         aCodeWithoutARuleIsRetried,
		"no attempt is left":            theLastAttemptEndsIt,
		"the next attempt would be after the window": func(t *testing.T) {
			d := contractOf(t, "fynapse").Decide(status(503), after(1, testAt), testAt.Add(72*time.Hour), middle)
			if d.Status != webhook.DeadLetter || d.Reason != webhook.ReasonWindowExceeded {
				t.Errorf("%+v", d)
			}
		},
		"the deadline passes, also after a 200 while its body is still coming": ends("fynex", webhook.Pending, webhook.ReasonTimeout,
			failed(webhook.ErrorTimeout), Response{StatusCode: 200, Err: webhook.ErrorTimeout}),
		"no usable response (DNS, refused, reset, TLS, not HTTP, blocked address)": ends("fynex", webhook.Pending, webhook.ReasonNetwork,
			failed(webhook.ErrorDNS), failed(webhook.ErrorRefused), failed(webhook.ErrorReset), failed(webhook.ErrorTLS),
			failed(webhook.ErrorProtocol), failed(webhook.ErrorBlocked)),
	})
}

func aCodeWithoutARuleIsRetried(t *testing.T) {
	p, err := Parse("mine.yaml", []byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	c, err := p.Contract(webhook.Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []Response{status(404), status(999), failed(webhook.ErrorTimeout), failed(webhook.ErrorReset)} {
		if d := c.Decide(r, after(1, testAt), testAt, middle); d.Status != webhook.Pending {
			t.Errorf("%+v: %+v", r, d)
		}
	}
}

func theLastAttemptEndsIt(t *testing.T) {
	for name, attempts := range map[string]uint32{"fynapse": 20, "fynex": 6, "flashfx": 4, "fuse": 6, "standard": 10} {
		d := contractOf(t, name).Decide(status(503), after(attempts, testAt), testAt, middle)
		if d.Status != webhook.DeadLetter || d.Reason != webhook.ReasonAttemptsExhausted {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

// waits expects values of Retry-After to lead to a wait under fynex, whose schedule says one minute.
func waits(want time.Duration, values ...string) func(t *testing.T) {
	return func(t *testing.T) {
		for _, value := range values {
			d := contractOf(t, "fynex").Decide(Response{StatusCode: 503, RetryAfter: value}, after(1, testAt), testAt, middle)
			if d.Status != webhook.Pending || d.Delay < want || d.Delay-want >= time.Millisecond {
				t.Errorf("%q: %+v, want %v", value, d, want)
			}
		}
	}
}

func TestEveryDocumentedRetryAfterHasItsOutcome(t *testing.T) {
	date := func(ahead time.Duration, layout string) string {
		return testAt.Truncate(time.Second).Add(ahead).Format(layout)
	}
	part := testAt.Sub(testAt.Truncate(time.Second))
	eachRow(t, "`Retry-After`", map[string]func(t *testing.T){
		"one to nine digits, or an HTTP date (all three formats of RFC 9110)": func(t *testing.T) {
			waits(2*time.Minute, "120", "000000120")(t)
			waits(10*time.Minute-part, date(10*time.Minute, http.TimeFormat), date(10*time.Minute, time.ANSIC),
				date(10*time.Minute, "Monday, 02-Jan-06 15:04:05 GMT"))(t)
		},
		"more than 24 h":                waits(24*time.Hour, "86401", "999999999", "Fri, 31 Dec 9999 23:59:59 GMT"),
		"0, or a date that has passed":  waits(time.Minute, "0", "000", "Mon, 01 Jan 0001 00:00:00 GMT", date(0, http.TimeFormat)),
		"negative, signed, fractional":  waits(time.Minute, "-1", "-99999", "+600", "600.5", "-0"),
		"more than nine digits":         waits(time.Minute, "1000000000", "0000000600", strings.Repeat("9", 64), strings.Repeat("9", 1000)),
		"several values, anything else": waits(time.Minute, "600, 700", "soon", "600s", "\x00600", "６００", "2026-04-14T10:00:00Z", "1e3"),
		"beyond the delivery's window": func(t *testing.T) {
			late := testAt.Add(70 * time.Hour)
			d := contractOf(t, "fynapse").Decide(Response{StatusCode: 503, RetryAfter: "86400"}, after(1, testAt), late, middle)
			if d.Status != webhook.Pending || d.Delay != 2*time.Hour-30*time.Second {
				t.Errorf("%+v, want the last attempt 30 s before the window ends", d)
			}
		},
	})
}

func TestEveryDocumentedCodeIsOneOfThePackage(t *testing.T) {
	var want []string
	for _, code := range []Code{CodeNotObject, CodeNotJSON, CodeReserved, CodeDuplicate, CodeProto, CodeNumber, CodeDepth, CodeHeader} {
		want = append(want, "`"+string(code)+"`")
	}
	if got := documented(t, "code"); !slices.Equal(got, want) {
		t.Errorf("documented are %v, want %v", got, want)
	}
}

// noKey expects secrets to be refused, where one is attached and where one signs.
func noKey(profile string, secrets ...string) func(t *testing.T) {
	return func(t *testing.T) {
		c := contractOf(t, profile)
		for _, secret := range secrets {
			if err := c.Profile().CheckSecret([]byte(secret)); !errors.Is(err, ErrSecret) {
				t.Errorf("%q is accepted: %v", secret, err)
			}
			if _, err := c.Build(testDelivery(), [][]byte{[]byte(secret)}, testAt); !errors.Is(err, ErrSecret) {
				t.Errorf("%q signs: %v", secret, err)
			}
		}
	}
}

func TestEveryDocumentedSecretIsRefused(t *testing.T) {
	b64 := func(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }
	eachRow(t, "secret", map[string]func(t *testing.T){
		"none, or none that is live": func(t *testing.T) {
			for _, name := range Builtin().Names() {
				if _, err := contractOf(t, name).Build(testDelivery(), nil, testAt); !errors.Is(err, ErrSecret) {
					t.Errorf("%s: %v", name, err)
				}
			}
			ends("fynapse", webhook.Pending, webhook.ReasonSecret, failed(webhook.ErrorNoSecret))(t)
		},
		"shorter than 32 bytes of text (fynapse, fynex, flashfx, fuse)": func(t *testing.T) {
			for _, name := range []string{"fynapse", "fynex", "flashfx", "fuse"} {
				noKey(name, "", strings.Repeat("x", 31))(t)
				if err := must(Builtin().Get(name)).CheckSecret([]byte(strings.Repeat("x", 32))); err != nil {
					t.Errorf("%s: 32 bytes: %v", name, err)
				}
			}
		},
		"not 24 to 64 bytes decoded (standard: `whsec_`, or no prefix)":                         noKey("standard", "whsec_"+b64(23), "whsec_"+b64(65), b64(23), b64(65)),
		"not 32 or 64 bytes decoded, or halves that do not belong together (standard: `whsk_`)": noKey("standard", "whsk_"+b64(31), "whsk_"+b64(40), "whsk_"+b64(65), "whsk_"+b64(64)),
		"not in its encoding (standard)":                                                        noKey("standard", "whsec_"+strings.Repeat("!", 44), "whsec_"+b64(32)+"="),
		"a public key (standard: `whpk_`)":                                                      noKey("standard", "whpk_"+b64(32)),
	})
}

// refusesHeader expects static headers to be refused with their place.
func refusesHeader(pairs ...string) func(t *testing.T) {
	return func(t *testing.T) {
		p := must(Builtin().Get("fynapse"))
		for i := 0; i < len(pairs); i += 2 {
			list := p.Check(webhook.Overrides{Headers: map[string]string{pairs[i]: pairs[i+1]}})
			if len(list) != 1 || list[0].Pointer != "/headers/"+pairs[i] {
				t.Errorf("%q: %q: %v", pairs[i], pairs[i+1], list)
			}
		}
	}
}

func TestEveryDocumentedStaticHeaderIsRefused(t *testing.T) {
	eachRow(t, "static header of a subscription", map[string]func(t *testing.T){
		"CR, LF, NUL, another control character or not ASCII in its value": refusesHeader("X-A", "a\r\nX-B: c", "X-A", "a\rb", "X-A", "a\nb", "X-A", "a\x00b", "X-A", "a\tb", "X-A", "é", "X-A", "\x7f"),
		"space at an end of its value":                                     refusesHeader("X-A", " a", "X-A", "a "),
		"a name that is none":                                              refusesHeader("", "a", "X A", "a", "X:A", "a", "X-A\r\nX-B", "a"),
		"a name that HTTP, the identity of a delivery or the profile owns": refusesHeader("Host", "a", "content-length", "1", "Cookie", "a", "Idempotency-Key", "a", "webhook-id", "a", "Webhook-Signature", "a", "Authorization", "a"),
	})
}

func TestACustomProfileCanBeAnyBuiltInOne(t *testing.T) {
	dir := t.TempDir()
	for _, name := range Builtin().Names() {
		text := strings.Replace(string(must(Builtin().Get(name)).YAML()), "\nname: "+name+"\n", "\nname: my-"+name+"\n", 1)
		if err := os.WriteFile(filepath.Join(dir, name+".yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	catalog, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range Builtin().Names() {
		mine, err := must(catalog.Get("my-" + name)).Contract(webhook.Overrides{})
		if err != nil {
			t.Fatal(err)
		}
		keys := [][]byte{testKey, oldKey}
		want, err := contractOf(t, name).Build(testDelivery(), keys, testAt)
		if err != nil {
			t.Fatal(err)
		}
		got, err := mine.Build(testDelivery(), keys, testAt)
		if err != nil || string(got.Body) != string(want.Body) || !maps.EqualFunc(got.Header, want.Header, slices.Equal[[]string]) {
			t.Errorf("%s: %v %v", name, got.Header, err)
		}
	}
}
