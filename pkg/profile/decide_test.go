package profile

import (
	"math"
	"net/http"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hookline/hookline/pkg/webhook"
)

func constant(r float64) func() float64 { return func() float64 { return r } }

var middle = constant(0.5)

func status(code int) Response { return Response{StatusCode: code} }

func failed(e webhook.ErrorClass) Response { return Response{Err: e} }

// after is a delivery that has had n attempts.
func after(n uint32, created time.Time) *webhook.Delivery {
	return &webhook.Delivery{Attempts: n, Trip: n, CreatedAt: created}
}

func TestFynapseTreatsEachResponseAsItsTableSays(t *testing.T) {
	c := contractOf(t, "fynapse")
	const (
		delivered = "delivered"
		dead      = "dead letter"
		retried   = "retried"
		later     = "retried without micro-retry"
	)
	classify := func(r Response) string {
		d := c.Decide(r, after(1, testAt), testAt, middle)
		_, micro := c.Retry(r, 1, middle)
		switch {
		case d.Status == webhook.Delivered && !micro:
			return delivered
		case d.Status == webhook.DeadLetter && !micro && d.Reason == webhook.ReasonHTTPStatus:
			return dead
		case d.Status == webhook.Pending && micro:
			return retried
		case d.Status == webhook.Pending:
			return later
		}
		return "nothing of the table"
	}
	special := map[int]string{408: later}
	for _, code := range []int{400, 401, 402, 405, 406, 410, 413} {
		special[code] = dead
	}
	for code := range 1000 {
		want := retried
		if code >= 200 && code < 300 {
			want = delivered
		}
		if s, ok := special[code]; ok {
			want = s
		}
		if got := classify(status(code)); got != want {
			t.Errorf("%d: %s, want %s", code, got, want)
		}
	}
	for _, e := range []webhook.ErrorClass{
		webhook.ErrorDNS, webhook.ErrorRefused, webhook.ErrorReset, webhook.ErrorTimeout, webhook.ErrorTLS, webhook.ErrorProtocol, webhook.ErrorConnection,
	} {
		if got := classify(failed(e)); got != retried {
			t.Errorf("%s: %s", e, got)
		}
	}
	// The body of a 200 did not arrive in time: that is no success.
	if got := classify(Response{StatusCode: 200, Err: webhook.ErrorTimeout}); got != retried {
		t.Errorf("200 and then a timeout: %s", got)
	}
}

func TestOtherProfilesTreatResponsesAsTheirDocumentsSay(t *testing.T) {
	for _, name := range []string{"fynex", "flashfx", "fuse", "standard"} {
		c := contractOf(t, name)
		for code := range 1000 {
			d := c.Decide(status(code), after(1, testAt), testAt, middle)
			want := webhook.Pending
			switch {
			case code >= 200 && code < 300:
				want = webhook.Delivered
			case name == "standard" && code == 410:
				want = webhook.DeadLetter
			}
			if d.Status != want || d.DisableSubscription != (want == webhook.DeadLetter) {
				t.Errorf("%s %d: %+v", name, code, d)
			}
			if _, again := c.Retry(status(code), 1, middle); again {
				t.Errorf("%s %d: micro-retry", name, code)
			}
		}
	}
}

func TestWhatIsNoFaultOfTheReceiverEndsOrWaitsTheSameUnderEveryProfile(t *testing.T) {
	cases := []struct {
		err    webhook.ErrorClass
		status webhook.Status
		reason webhook.Reason
	}{
		{webhook.ErrorRequest, webhook.DeadLetter, webhook.ReasonContract},
		{webhook.ErrorInternal, webhook.DeadLetter, webhook.ReasonInternal},
		{webhook.ErrorNoSecret, webhook.Pending, webhook.ReasonSecret},
		{webhook.ErrorBlocked, webhook.Pending, webhook.ReasonNetwork},
		{webhook.ErrorCut, webhook.Pending, webhook.ReasonNetwork},
		{webhook.ErrorTimeout, webhook.Pending, webhook.ReasonTimeout},
		{webhook.ErrorRefused, webhook.Pending, webhook.ReasonNetwork},
	}
	for _, name := range Builtin().Names() {
		c := contractOf(t, name)
		for _, tc := range cases {
			d := c.Decide(failed(tc.err), after(1, testAt), testAt, middle)
			if d.Status != tc.status || d.Reason != tc.reason || d.DisableSubscription {
				t.Errorf("%s %s: %+v", name, tc.err, d)
			}
		}
		for _, e := range []webhook.ErrorClass{webhook.ErrorRequest, webhook.ErrorInternal, webhook.ErrorNoSecret, webhook.ErrorBlocked, webhook.ErrorCut} {
			if _, again := c.Retry(failed(e), 1, middle); again {
				t.Errorf("%s %s: micro-retry", name, e)
			}
		}
	}
}

func TestMicroRetryIsOneMoreTryWithinItsBounds(t *testing.T) {
	c := contractOf(t, "fynapse")
	for r, want := range map[float64]time.Duration{0: 200 * time.Millisecond, 0.5: 1100 * time.Millisecond, 1: 2 * time.Second, 7: 2 * time.Second, -1: 200 * time.Millisecond} {
		if wait, again := c.Retry(status(503), 1, constant(r)); !again || wait != want {
			t.Errorf("random %v: %v %v, want %v", r, wait, again, want)
		}
	}
	for _, try := range []int{2, 3, math.MaxInt} {
		if _, again := c.Retry(status(503), try, middle); again {
			t.Errorf("again after try %d", try)
		}
	}
}

func TestSchedulesAreThoseOfTheDocuments(t *testing.T) {
	const m, h = time.Minute, time.Hour
	want := map[string][]time.Duration{
		"fynex":    {m, 5 * m, 30 * m, 2 * h, 12 * h},
		"flashfx":  {6 * time.Second, m, 10 * m},
		"fuse":     {m, 5 * m, 30 * m, 2 * h, 12 * h},
		"standard": {5 * time.Second, 5 * m, 30 * m, 2 * h, 5 * h, 10 * h, 14 * h, 20 * h, 24 * h},
		"fynapse":  {30 * time.Second, 90 * time.Second, 270 * time.Second, 810 * time.Second, 2430 * time.Second, 7290 * time.Second},
	}
	for len(want["fynapse"]) < 19 {
		want["fynapse"] = append(want["fynapse"], 4*h)
	}
	jitter := map[string]float64{"fynapse": 0.2, "standard": 0.1}
	for name, delays := range want {
		c := contractOf(t, name)
		for i, nominal := range delays {
			share := jitter[name]
			for r, factor := range map[float64]float64{0: 1 - share, 0.5: 1, 1: 1 + share} {
				d := c.Decide(status(500), after(uint32(i+1), testAt), testAt, constant(r))
				exact := time.Duration(math.Round(float64(nominal) * factor))
				if d.Status != webhook.Pending || d.Delay < exact || d.Delay-exact > time.Millisecond || !d.NextAttemptAt.Equal(testAt.Add(d.Delay)) {
					t.Errorf("%s after attempt %d, random %v: %+v, want %v", name, i+1, r, d, exact)
				}
			}
		}
		d := c.Decide(status(500), after(uint32(len(delays)+1), testAt), testAt, middle)
		if d.Status != webhook.DeadLetter || d.Reason != webhook.ReasonAttemptsExhausted {
			t.Errorf("%s after attempt %d: %+v", name, len(delays)+1, d)
		}
	}
}

func TestRetryAfterIsReadStrictly(t *testing.T) {
	now := time.Date(2026, 4, 14, 9, 0, 0, 0, time.UTC)
	cases := []struct {
		value string
		want  time.Duration // 0: as if it were not there
	}{
		{"120", 2 * time.Minute}, {" 120\t", 2 * time.Minute}, {"1", time.Second}, {"0120", 2 * time.Minute},
		{"86400", 24 * time.Hour}, {"86401", 24 * time.Hour}, {"999999999", 24 * time.Hour},
		{"Tue, 14 Apr 2026 09:10:00 GMT", 10 * time.Minute}, {"Tuesday, 14-Apr-26 09:10:00 GMT", 10 * time.Minute}, {"Tue Apr 14 09:10:00 2026", 10 * time.Minute},
		{"Fri, 31 Dec 9999 23:59:59 GMT", 24 * time.Hour},
		{"0", 0}, {"000", 0}, {"Tue, 14 Apr 2026 08:59:59 GMT", 0}, {"Mon, 01 Jan 0001 00:00:00 GMT", 0},
		{"", 0}, {" ", 0}, {"-1", 0}, {"+1", 0}, {"1.5", 0}, {"1e3", 0}, {"0x10", 0}, {"1234567890", 0}, {"9223372036854775808", 0}, {"１２", 0},
		{"120, 130", 0}, {"soon", 0}, {"2026-04-14T09:10:00Z", 0}, {"120s", 0}, {"1 0", 0}, {"NaN", 0}, {"\x00120", 0},
	}
	for _, c := range cases {
		got, ok := ParseRetryAfter(c.value, now)
		if got != c.want || ok != (c.want > 0) {
			t.Errorf("%q: %v %v, want %v", c.value, got, ok, c.want)
		}
	}
}

func TestRetryAfterIsTheBaseOrTheLowerBound(t *testing.T) {
	asks := func(value string) Response { return Response{StatusCode: 503, RetryAfter: value} }
	cases := []struct {
		profile, value string
		random         float64
		want           time.Duration
	}{
		{"fynapse", "10", 0, 10 * time.Second}, // the base, though the schedule says 30 s
		{"fynapse", "10", 1, 11 * time.Second},
		{"fynapse", "3600", 0.5, 63 * time.Minute},
		{"fynapse", testAt.Add(100 * time.Second).UTC().Format(http.TimeFormat), 0, 100*time.Second - time.Duration(testAt.Nanosecond())},
		{"fynapse", "0", 0.5, 30 * time.Second},
		{"fynapse", "garbage", 0.5, 30 * time.Second},
		{"fynapse", "999999999", 0, 24 * time.Hour},
		{"fynex", "10", 0.5, time.Minute}, // less than the schedule
		{"fynex", "600", 0.5, 10 * time.Minute},
		{"flashfx", "999999999", 0.5, 24 * time.Hour},
	}
	for _, tc := range cases {
		d := contractOf(t, tc.profile).Decide(asks(tc.value), after(1, testAt), testAt, constant(tc.random))
		if d.Status != webhook.Pending || d.Delay < tc.want || d.Delay-tc.want > time.Millisecond {
			t.Errorf("%s, Retry-After %q: %+v, want %v", tc.profile, tc.value, d, tc.want)
		}
	}
}

func TestTheWindowEndsADelivery(t *testing.T) {
	c := contractOf(t, "fynapse")
	at := func(age time.Duration) time.Time { return testAt.Add(age) }
	const window = 72 * time.Hour
	cases := []struct {
		name     string
		age      time.Duration
		response Response
		want     webhook.Reason // none: PENDING
		delay    time.Duration
	}{
		{"the next attempt exactly at the end", window - 30*time.Second, status(500), "", 30 * time.Second},
		{"the next attempt a little after it", window - 29*time.Second, status(500), webhook.ReasonWindowExceeded, 0},
		{"already after it", window + time.Hour, status(500), webhook.ReasonWindowExceeded, 0},
		{"Retry-After inside it", window - time.Hour, Response{StatusCode: 503, RetryAfter: "600"}, "", 630 * time.Second},
		{"Retry-After beyond it", window - time.Hour, Response{StatusCode: 503, RetryAfter: "7200"}, "", time.Hour - 30*time.Second},
		{"Retry-After beyond it, and no time left for a last attempt", window - 20*time.Second, Response{StatusCode: 503, RetryAfter: "7200"}, webhook.ReasonWindowExceeded, 0},
		{"a success after it", window + time.Hour, status(200), webhook.ReasonNone, 0},
	}
	for _, tc := range cases {
		d := c.Decide(tc.response, after(1, testAt), at(tc.age), middle)
		if d.Reason != tc.want && d.Status != webhook.Pending || d.Delay != tc.delay || (tc.want != "") != (d.Status == webhook.DeadLetter) {
			t.Errorf("%s: %+v", tc.name, d)
		}
	}
}

func TestADeliveryIsExpiredWhenPickedUpTooLate(t *testing.T) {
	c := contractOf(t, "fynapse")
	const window = 72 * time.Hour
	cases := []struct {
		name string
		d    *webhook.Delivery
		age  time.Duration
		want webhook.Reason
	}{
		{"in time", after(3, testAt), window, ""},
		{"too late", after(3, testAt), window + 1, webhook.ReasonWindowExceeded},
		{"put back and never attempted", &webhook.Delivery{Trip: 2, CreatedAt: testAt}, window + 1, webhook.ReasonWindowExceeded},
		{"the first attempt, however late", &webhook.Delivery{CreatedAt: testAt}, 1000 * time.Hour, ""},
		{"no attempt left", after(20, testAt), 0, webhook.ReasonAttemptsExhausted},
		{"more attempts than there are", after(math.MaxUint32, testAt), 0, webhook.ReasonAttemptsExhausted},
		{"no time of creation", after(3, time.Time{}), 0, ""},
		{"created in the future", after(3, testAt.Add(time.Hour)), 0, ""},
	}
	for _, tc := range cases {
		got, expired := c.Expired(tc.d, testAt.Add(tc.age))
		if got != tc.want || expired != (tc.want != "") {
			t.Errorf("%s: %q %v", tc.name, got, expired)
		}
	}
	if _, expired := contractOf(t, "fynex").Expired(after(5, testAt), testAt.Add(10000*time.Hour)); expired {
		t.Error("fynex has no window")
	}
}

func anyOverride(t *rapid.T) webhook.Overrides {
	duration := func(name string) webhook.Duration {
		return webhook.Duration(rapid.Int64Range(int64(50*time.Millisecond), int64(24*time.Hour)).Draw(t, name))
	}
	var r webhook.RetryOverride
	if rapid.Bool().Draw(t, "list") {
		for range rapid.IntRange(1, 50).Draw(t, "n") {
			r.Delays = append(r.Delays, duration("delay"))
		}
	} else {
		r.Base, r.Max = duration("base"), webhook.Duration(24*time.Hour)
		r.Factor, r.Attempts = rapid.Float64Range(1, 100).Draw(t, "factor"), rapid.IntRange(1, 51).Draw(t, "attempts")
	}
	if rapid.Bool().Draw(t, "jittered") {
		j := rapid.Float64Range(0, 1).Draw(t, "jitter")
		r.Jitter = &j
	}
	r.Window = webhook.Duration(rapid.Int64Range(int64(50*time.Millisecond), int64(30*24*time.Hour)).Draw(t, "window"))
	return webhook.Overrides{Retry: &r}
}

func TestEveryDecisionStaysWithinItsBounds(t *testing.T) {
	longest := Builtin().LongestDelay()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom(Builtin().Names()).Draw(t, "profile")
		p := must(Builtin().Get(name))
		var o webhook.Overrides
		if rapid.Bool().Draw(t, "overridden") {
			o = anyOverride(t)
		}
		c, err := p.Contract(o)
		if err != nil {
			t.Fatalf("%+v: %v", o, err)
		}
		r := Response{StatusCode: rapid.IntRange(-1, 1000).Draw(t, "code")}
		r.RetryAfter = rapid.OneOf(
			rapid.Just(""), rapid.Custom(func(t *rapid.T) string { return strconv.FormatInt(rapid.Int64().Draw(t, "seconds"), 10) }),
			rapid.Custom(func(t *rapid.T) string {
				return time.Unix(rapid.Int64Range(-1e10, 1e11).Draw(t, "date"), 0).UTC().Format(http.TimeFormat)
			}),
			rapid.String(),
		).Draw(t, "retry after")
		age := time.Duration(rapid.Int64Range(int64(-time.Hour), int64(40*24*time.Hour)).Draw(t, "age"))
		d := after(rapid.Uint32().Draw(t, "attempts"), testAt)
		d.Attempts %= rapid.SampledFrom([]uint32{60, math.MaxUint32}).Draw(t, "modulus")
		luck := rapid.Float64Range(0, 1).Draw(t, "luck")
		now := testAt.Add(age)

		got := c.Decide(r, d, now, constant(luck))
		switch got.Status {
		case webhook.Pending:
			if got.Delay < 0 || got.Delay > longest || !got.NextAttemptAt.Equal(now.Add(got.Delay)) || got.Reason == "" {
				t.Fatalf("%+v", got)
			}
			if w := c.retry.window; w > 0 && got.NextAttemptAt.After(testAt.Add(w+time.Millisecond)) {
				t.Fatalf("the next attempt at %v is after the window of %v", got.NextAttemptAt, w)
			}
			if int(d.Attempts) >= c.retry.attempts {
				t.Fatalf("attempt %d of %d", d.Attempts+1, c.retry.attempts)
			}
		case webhook.DeadLetter:
			if got.Reason == "" || got.Delay != 0 || !got.NextAttemptAt.IsZero() {
				t.Fatalf("%+v", got)
			}
		case webhook.Delivered:
			if r.StatusCode < 200 || r.StatusCode > 299 || got.Reason != "" {
				t.Fatalf("%+v for %+v", got, r)
			}
		default:
			t.Fatalf("%+v", got)
		}
		if wait, again := c.Retry(r, 1, constant(luck)); again && (wait < c.micro.min || wait > c.micro.max) {
			t.Fatalf("micro-retry after %v", wait)
		}
	})
}

func TestADelayNeverShrinksFromOneAttemptToTheNext(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := schedule{
			base: time.Duration(rapid.Int64Range(1, math.MaxInt64).Draw(t, "base")), factor: rapid.Float64Range(1, math.MaxFloat64).Draw(t, "factor"),
			max: time.Duration(rapid.Int64Range(1, math.MaxInt64).Draw(t, "max")),
		}
		n := rapid.IntRange(-5, math.MaxInt32).Draw(t, "n")
		if a, b := s.delay(n), s.delay(n+1); a < 0 || a > b || b > s.max {
			t.Fatalf("after attempt %d %v, then %v", n, a, b)
		}
	})
}

func FuzzRetryAfterIsHeldToADay(f *testing.F) {
	for _, seed := range []string{"1", "0", "-1", "999999999", "Tue, 14 Apr 2026 09:10:00 GMT", "", "\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if wait, ok := ParseRetryAfter(value, testAt); ok != (wait > 0) || wait < 0 || wait > 24*time.Hour {
			t.Fatalf("%q: %v %v", value, wait, ok)
		}
	})
}
