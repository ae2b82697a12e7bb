package profile

import (
	"encoding/json"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/hookline/hookline/pkg/webhook"
)

func overrides(t testing.TB, text string) webhook.Overrides {
	t.Helper()
	var o webhook.Overrides
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return o
}

func TestOverridesOutsideTheBoundsAreRefusedWithTheirPlace(t *testing.T) {
	long := `["` + strings.Repeat(`1s","`, 50) + `1s"]`
	cases := []struct{ profile, overrides, want string }{
		{"fynapse", `{"timeout":"49ms"}`, "/timeout"},
		{"fynapse", `{"timeout":"31s"}`, "/timeout"},
		{"fynapse", `{"timeout":"-1s"}`, "/timeout"},
		{"fynapse", `{"retry":{"delays":["49ms"]}}`, "/retry/delays/0"},
		{"fynapse", `{"retry":{"delays":["1s","25h"]}}`, "/retry/delays/1"},
		{"fynapse", `{"retry":{"delays":["1s","-1h"]}}`, "/retry/delays/1"},
		{"fynapse", `{"retry":{"delays":` + long + `}}`, "/retry/delays"},
		{"fynapse", `{"retry":{"delays":["1s"],"base":"2s"}}`, "/retry"},
		{"fynapse", `{"retry":{"delays":["1s"],"attempts":9}}`, "/retry"},
		{"fynapse", `{"retry":{"base":"1ms"}}`, "/retry/base"},
		{"fynapse", `{"retry":{"base":"5h"}}`, "/retry/base"},
		{"fynapse", `{"retry":{"max":"25h"}}`, "/retry/max"},
		{"fynapse", `{"retry":{"base":"1s","factor":0.5}}`, "/retry/factor"},
		{"fynapse", `{"retry":{"base":"1s","factor":1e9}}`, "/retry/factor"},
		{"fynapse", `{"retry":{"attempts":52}}`, "/retry/attempts"},
		{"fynapse", `{"retry":{"attempts":-1}}`, "/retry/attempts"},
		{"fynapse", `{"retry":{"jitter":1.1}}`, "/retry/jitter"},
		{"fynapse", `{"retry":{"jitter":-0.1}}`, "/retry/jitter"},
		{"fynapse", `{"retry":{"window":"1ms"}}`, "/retry/window"},
		{"fynapse", `{"retry":{"window":"721h"}}`, "/retry/window"},
		{"fynex", `{"retry":{"attempts":7}}`, "/retry/attempts"},
		{"fynapse", `{"microRetry":{"attempts":0,"min":"1s","max":"2s"}}`, "/microRetry/attempts"},
		{"fynapse", `{"microRetry":{"attempts":6,"min":"1s","max":"2s"}}`, "/microRetry/attempts"},
		{"fynapse", `{"microRetry":{"attempts":2,"min":"2s","max":"1s"}}`, "/microRetry/min"},
		{"fynapse", `{"microRetry":{"attempts":2,"min":"-1s","max":"1s"}}`, "/microRetry/min"},
		{"fynapse", `{"microRetry":{"attempts":2,"min":"1s","max":"11s"}}`, "/microRetry/max"},
		{"fynapse", `{"rate":{"perSecond":0}}`, "/rate/perSecond"},
		{"fynapse", `{"rate":{"perSecond":-1}}`, "/rate/perSecond"},
		{"fynapse", `{"rate":{"perSecond":10001}}`, "/rate/perSecond"},
		{"fynapse", `{"concurrency":-1}`, "/concurrency"},
		{"fynapse", `{"concurrency":1001}`, "/concurrency"},
		{"fynapse", `{"headers":{"":"x"}}`, "/headers/"},
		{"fynapse", `{"headers":{"a b":"x"}}`, "/headers/a b"},
		{"fynapse", `{"headers":{"A/B":"x"}}`, "/headers/A~1B"},
		{"fynapse", `{"headers":{"X-A":"b\r\nX-Evil: 1"}}`, "/headers/X-A"},
		{"fynapse", `{"headers":{"X-A":"b\n"}}`, "/headers/X-A"},
		{"fynapse", `{"headers":{"X-A":" b"}}`, "/headers/X-A"},
		{"fynapse", `{"headers":{"X-A":"é"}}`, "/headers/X-A"},
		{"fynapse", `{"headers":{"X-A":"` + strings.Repeat("x", 1022) + `"}}`, "/headers/X-A"},
		{"fynapse", `{"headers":{"host":"x"}}`, "/headers/host"},
		{"fynapse", `{"headers":{"content-type":"x"}}`, "/headers/content-type"},
		{"fynapse", `{"headers":{"Content-Length":"1"}}`, "/headers/Content-Length"},
		{"fynapse", `{"headers":{"transfer-encoding":"x"}}`, "/headers/transfer-encoding"},
		{"fynapse", `{"headers":{"Connection":"close"}}`, "/headers/Connection"},
		{"fynapse", `{"headers":{"Authorization":"Bearer x"}}`, "/headers/Authorization"},
		{"fynapse", `{"headers":{"Webhook-Anything":"x"}}`, "/headers/Webhook-Anything"},
		{"fynex", `{"headers":{"idempotency-key":"x"}}`, "/headers/idempotency-key"},
		{"fynex", `{"headers":{"x-fynex-signature":"x"}}`, "/headers/x-fynex-signature"},
		{"flashfx", `{"headers":{"Flashfx-Request-Id":"x"}}`, "/headers/Flashfx-Request-Id"},
		{"fynex", `{"headers":{"traceparent":"x"}}`, "/headers/traceparent"},
		{"fynex", `{"headers":{"X-A":"1","x-a":"2"}}`, "/headers/x-a"},
	}
	for _, c := range cases {
		p := must(Builtin().Get(c.profile))
		o := overrides(t, c.overrides)
		list := p.Check(o)
		if !slices.ContainsFunc(list, func(got Problem) bool { return got.Pointer == c.want && got.Detail != "" }) {
			t.Errorf("%s %s: %v, want %s", c.profile, c.overrides, list, c.want)
		}
		if _, err := p.Contract(o); err == nil {
			t.Errorf("%s %s: there is a contract", c.profile, c.overrides)
		}
	}
	many := webhook.Overrides{Headers: map[string]string{}}
	for i := range 21 {
		many.Headers["X-"+strings.Repeat("a", i+1)] = "x"
	}
	if list := must(Builtin().Get("fynapse")).Check(many); len(list) != 1 || list[0].Pointer != "/headers" {
		t.Errorf("21 headers: %v", list)
	}
}

func TestOverridesWithinTheBoundsTakeEffect(t *testing.T) {
	contract := func(profile, text string) *Contract {
		t.Helper()
		c, err := must(Builtin().Get(profile)).Contract(overrides(t, text))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := contract("fynapse", `{"timeout":"5s","rate":{"perSecond":2.5},"concurrency":3,"traceparent":true,"headers":{"x-team":"billing"}}`)
	rate, concurrency := c.Limits()
	if c.Timeout() != 5*time.Second || rate != 2.5 || concurrency != 3 || !c.SendTrace() {
		t.Errorf("%v %v %v %v", c.Timeout(), rate, concurrency, c.SendTrace())
	}
	r, err := c.Build(testDelivery(), [][]byte{testKey}, testAt)
	if err != nil || r.Header.Get("X-Team") != "billing" || r.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%v %v", r.Header, err)
	}
	r.Header.Add("X-Team", "other")
	if again, _ := c.Build(testDelivery(), [][]byte{testKey}, testAt); again.Header.Values("X-Team")[0] != "billing" || len(again.Header.Values("X-Team")) != 1 {
		t.Error("a header added to one request is on the next")
	}

	// n delays are n+1 attempts, without jitter unless it is given; the profile's window stays.
	c = contract("fynapse", `{"retry":{"delays":["100ms","1s"]}}`)
	for n, want := range []time.Duration{100 * time.Millisecond, time.Second} {
		if d := c.Decide(status(500), after(uint32(n+1), testAt), testAt, constant(0.9)); d.Delay != want {
			t.Errorf("delay %d: %+v", n, d)
		}
	}
	if d := c.Decide(status(500), after(3, testAt), testAt, middle); d.Reason != webhook.ReasonAttemptsExhausted {
		t.Errorf("after three attempts: %+v", d)
	}
	if c.retry.window != 72*time.Hour {
		t.Errorf("window: %v", c.retry.window)
	}
	if c = contract("fynapse", `{"retry":{"delays":["10s"],"jitter":0.5,"window":"1m"}}`); c.retry.jitter != 0.5 || c.retry.window != time.Minute {
		t.Errorf("%+v", c.retry)
	}
	if c = contract("fynapse", `{"retry":{"max":"1h"}}`); c.retry.base != 30*time.Second || c.retry.factor != 3 || c.retry.max != time.Hour || c.retry.jitter != 0.2 || c.retry.attempts != 20 {
		t.Errorf("%+v", c.retry)
	}
	if c = contract("fynex", `{"retry":{"base":"2s","attempts":9}}`); c.retry.delay(3) != 8*time.Second || c.retry.attempts != 9 || c.retry.delays != nil {
		t.Errorf("%+v", c.retry)
	}
	if c = contract("fynex", `{"retry":{"attempts":2}}`); c.retry.attempts != 2 || c.retry.delay(1) != time.Minute {
		t.Errorf("%+v", c.retry)
	}
	if c = contract("fynapse", `{"microRetry":{"attempts":1,"min":"0s","max":"0s"}}`); c.micro.attempts != 1 {
		t.Errorf("%+v", c.micro)
	} else if _, again := c.Retry(status(500), 1, middle); again {
		t.Error("micro-retry of one try")
	}
	if list := must(Builtin().Get("fynapse")).Check(webhook.Overrides{}); list != nil {
		t.Errorf("no overrides: %v", list)
	}
}

func FuzzAHeaderThatIsAcceptedCanBeSent(f *testing.F) {
	f.Add("X-A", "b")
	f.Add("X-A", "b\r\nc")
	f.Add("a b", "")
	p := must(Builtin().Get("fynapse"))
	f.Fuzz(func(t *testing.T, name, value string) {
		if len(p.Check(webhook.Overrides{Headers: map[string]string{name: value}})) > 0 {
			return
		}
		r := httptest.NewRequest("POST", "/", nil)
		r.Header.Set(name, value)
		var out strings.Builder
		if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) || r.Write(&out) != nil {
			t.Fatalf("%q: %q", name, value)
		}
		if !strings.Contains(out.String(), ": "+value+"\r\n") {
			t.Fatalf("%q: %q was sent as %q", name, value, out.String())
		}
	})
}
