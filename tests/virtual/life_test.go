package virtual

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// gap is how long after an attempt the next one comes.
type gap struct{ least, most time.Duration }

func exactly(delays ...time.Duration) []gap {
	var gaps []gap
	for _, d := range delays {
		gaps = append(gaps, gap{d, d})
	}
	return gaps
}

func jittered(share float64, delays ...time.Duration) []gap {
	var gaps []gap
	for _, d := range delays {
		off := time.Duration(share * float64(d))
		gaps = append(gaps, gap{d - off, d + off})
	}
	return gaps
}

// slack is how late an attempt may come for reasons other than its schedule: hops, ticks, leases.
const slack = 2 * time.Second

// life is what becomes of an event whose endpoint refuses for ever.
type life struct {
	profile   string
	answer    func(n int) (status int, header map[string]string) // nil: 503
	overrides map[string]any
	tries     int // requests an attempt
	gaps      []gap
	reason    string
	// last is how long after the event the last attempt is made, where that is exact.
	last time.Duration
}

// lives are the schedules of the documents in the profiles, written out here anew, and the edges of fynapse's window.
func lives() map[string]life {
	const s, m, h, day = time.Second, time.Minute, time.Hour, 24 * time.Hour
	fynapse := []time.Duration{30 * s, 90 * s, 270 * s, 810 * s, 2430 * s, 7290 * s}
	for len(fynapse) < 19 {
		fynapse = append(fynapse, 4*h)
	}
	never := map[string]string{"Retry-After": "999999999"}
	return map[string]life{
		"fynapse":  {profile: "fynapse", tries: 2, gaps: jittered(.2, fynapse...), reason: "attempts_exhausted"},
		"fynex":    {profile: "fynex", tries: 1, gaps: exactly(m, 5*m, 30*m, 2*h, 12*h), reason: "attempts_exhausted"},
		"flashfx":  {profile: "flashfx", tries: 1, gaps: exactly(6*s, 60*s, 600*s), reason: "attempts_exhausted"},
		"fuse":     {profile: "fuse", tries: 1, gaps: exactly(m, 5*m, 30*m, 2*h, 12*h), reason: "attempts_exhausted"},
		"standard": {profile: "standard", tries: 1, gaps: jittered(.1, 5*s, 5*m, 30*m, 2*h, 5*h, 10*h, 14*h, 20*h, 24*h), reason: "attempts_exhausted"},
		// 410 says that the endpoint is gone.
		"gone": {profile: "standard", tries: 1, reason: "http_status",
			answer: func(int) (int, map[string]string) { return http.StatusGone, nil }},
		// The sixth attempt would be due after the 72 hours: it is given up at once, with a dozen attempts left.
		"edge": {profile: "fynapse", tries: 2, gaps: exactly(day, day, 23*h, 59*m), reason: "window_exceeded",
			overrides: map[string]any{"retry": map[string]any{"delays": []string{"24h", "24h", "23h", "59m", "2m", "2m", "2m", "2m"}}}},
		// The day that is asked for at most, up to a tenth more, twice; the third would be too late, so the last attempt is made
		// 30 seconds before the window ends. After that nothing is left to ask for. Who asks for a day gets no second try after a second.
		"asking": {profile: "fynapse", tries: 1, gaps: []gap{{day, day + day/10}, {day, day + day/10}, {72*h - 2*day*11/10 - m, day}}, reason: "window_exceeded", last: 72*h - 30*s,
			answer: func(int) (int, map[string]string) { return http.StatusServiceUnavailable, never }},
	}
}

// TestEveryContractIsKeptFromTheFirstAttemptToTheDeadLetter lets endpoints refuse for ever, all in one world.
func TestEveryContractIsKeptFromTheFirstAttemptToTheDeadLetter(t *testing.T) {
	all := lives()
	refuse := func(path string, n int) (int, map[string]string) {
		if answer := all[strings.TrimPrefix(path, "/")].answer; answer != nil {
			return answer(n)
		}
		return http.StatusServiceUnavailable, nil
	}
	inWorld(t, refuse, func(w *world) {
		ids := map[string]string{}
		for name, l := range all {
			ids[name] = w.subscribe(name, l.profile, map[string]any{"eventTypes": []string{"of." + name}, "overrides": l.overrides})
		}
		began := time.Now()
		for name := range all {
			w.publish(name, "of."+name)
		}
		// fynex disables after the fifth failure, at two and a half hours. Enabled before its last attempt is due, it makes that too.
		settle(3 * time.Hour)
		if got := w.subscription(ids["fynex"]); got.Status != "disabled" {
			t.Errorf("after five failures fynex's subscription is %+v, want it disabled", got)
		}
		w.call(http.MethodPost, "/subscriptions/"+ids["fynex"]+"/enable", nil, nil)
		if got := w.subscription(ids["gone"]); got.Status != "disabled" || !strings.Contains(got.StatusReason, "410") {
			t.Errorf("after 410 the subscription is %+v, want it disabled", got)
		}
		settle(time.Minute)
		// Deliveries do not need the API, nor the audit as they go. Without them the days that follow cost less.
		w.stop("api", "recorder")
		settle(82 * time.Hour)
		w.start("api", "recorder")
		settle(time.Minute)
		audit := map[string]row{}
		for _, r := range w.deliveries() {
			audit[r.EventID] = r
		}
		for name, l := range all {
			t.Run(name, func(t *testing.T) { l.check(t, w.at("/"+name), began, audit[name]) })
		}
	})
}

// check compares the requests that an endpoint got with the schedule, and the audit with both.
func (l *life) check(t *testing.T, times []time.Time, began time.Time, audit row) {
	if want := (len(l.gaps) + 1) * l.tries; len(times) != want {
		t.Fatalf("%d requests, want %d; audit %+v", len(times), want, audit)
	}
	for i := 0; i < len(times); i += l.tries {
		if l.tries < 2 {
			break
		}
		if waited := times[i+1].Sub(times[i]); waited < 200*time.Millisecond || waited > 2*time.Second+slack {
			t.Errorf("the second try of attempt %d came after %v, want 200 ms to 2 s", i/l.tries+1, waited)
		}
	}
	for i, g := range l.gaps {
		// From the end of one attempt to the beginning of the next.
		waited := times[(i+1)*l.tries].Sub(times[i*l.tries+l.tries-1])
		if waited < g.least-time.Millisecond || waited > g.most+slack {
			t.Errorf("attempt %d came %v after the one before it, want %v to %v", i+2, waited, g.least, g.most)
		}
	}
	end := times[len(times)-1]
	if first := times[len(times)-l.tries].Sub(began); l.last != 0 && (first < l.last-slack || first > l.last+slack) {
		t.Errorf("the last attempt came %v after the event, want %v", first, l.last)
	}
	if audit.Status != "DEAD_LETTER" || audit.Reason != l.reason || audit.AttemptCount != len(l.gaps)+1 || len(audit.Attempts) != len(times) {
		t.Errorf("audit %+v, want one dead letter for %s after %d attempts", audit, l.reason, len(l.gaps)+1)
	}
	if ended := audit.UpdatedAt.Sub(end); ended < -time.Second || ended > slack {
		t.Errorf("the dead letter came %v after the last request, want it at once", ended)
	}
}

func TestAnEndpointThatRecoversGetsTheEvent(t *testing.T) {
	recovers := func(_ string, n int) (int, map[string]string) {
		if n <= 5 {
			return http.StatusInternalServerError, nil
		}
		return http.StatusNoContent, nil
	}
	inWorld(t, recovers, func(w *world) {
		w.subscribe("flaky", "fynapse", nil)
		w.publish("event-1", "balance.extracted")
		settle(time.Hour)
		rows := w.deliveries()
		// Two tries an attempt: the third attempt's second try is the sixth request.
		if len(rows) != 1 || rows[0].Status != "DELIVERED" || rows[0].AttemptCount != 3 || len(w.at("/flaky")) != 6 {
			t.Errorf("audit %+v after %d requests", rows, len(w.at("/flaky")))
		}
		key := ""
		for _, a := range w.arrivals {
			if got := a.header.Get("Idempotency-Key"); key != "" && got != key || got == "" {
				t.Errorf("idempotency key %q, before it %q", got, key)
			} else {
				key = got
			}
		}
		if len(rows) == 1 && key != rows[0].ID {
			t.Errorf("idempotency key %q, delivery %q", key, rows[0].ID)
		}
	})
}

func TestRetryAfterIsTheBaseOfTheNextDelay(t *testing.T) {
	later := func(_ string, n int) (int, map[string]string) {
		if n <= 2 {
			return http.StatusTooManyRequests, map[string]string{"Retry-After": "600"}
		}
		return http.StatusOK, nil
	}
	inWorld(t, later, func(w *world) {
		w.subscribe("busy", "fynapse", nil)
		w.publish("event-1", "balance.extracted")
		settle(time.Hour)
		times := w.at("/busy")
		if len(times) != 3 {
			t.Fatalf("%d requests", len(times))
		}
		if waited := times[2].Sub(times[1]); waited < 600*time.Second || waited > 660*time.Second+slack {
			t.Errorf("%v waited, want 600 s and up to a tenth more", waited)
		}
	})
}

func TestTheProducersTraceReachesEveryAttemptAlsoThroughARetry(t *testing.T) {
	refuse := func(_ string, n int) (int, map[string]string) {
		if n <= 2 {
			return http.StatusServiceUnavailable, nil
		}
		return http.StatusOK, nil
	}
	inWorld(t, refuse, func(w *world) {
		const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
		w.subscribe("traced", "fynapse", map[string]any{"overrides": map[string]any{"traceparent": true}})
		w.publish("event-1", "balance.extracted", kgo.RecordHeader{Key: "traceparent", Value: []byte("00-" + trace + "-00f067aa0ba902b7-01")})
		settle(10 * time.Minute)
		rows := w.deliveries()
		if len(rows) != 1 || len(rows[0].Attempts) != 3 {
			t.Fatalf("audit %+v, want three requests", rows)
		}
		for _, a := range rows[0].Attempts {
			if !strings.Contains(a.Traceparent, trace) {
				t.Errorf("attempt %+v is not in the producer's trace", a)
			}
		}
		for _, a := range w.arrivals {
			if !strings.Contains(a.header.Get("Traceparent"), trace) {
				t.Errorf("the receiver got traceparent %q", a.header.Get("Traceparent"))
			}
		}
	})
}

func TestRedisLosingEverythingLosesNoRetryAndRepeatsNone(t *testing.T) {
	refuse := func(_ string, n int) (int, map[string]string) {
		if n <= 2 {
			return http.StatusServiceUnavailable, nil
		}
		return http.StatusOK, nil
	}
	inWorld(t, refuse, func(w *world) {
		for _, name := range []string{"a", "b", "c", "d"} {
			w.subscribe(name, "fynapse", nil)
		}
		w.publish("event-1", "balance.extracted")
		settle(10 * time.Second)
		w.redis.FlushAll()
		settle(time.Hour)
		for _, r := range w.deliveries() {
			if r.Status != "DELIVERED" || r.AttemptCount != 2 {
				t.Errorf("audit %+v, want it delivered by the second attempt", r)
			}
		}
		if n := len(w.arrivals); n != 4*3 {
			t.Errorf("%d requests, want 12", n)
		}
	})
}

func TestADisabledSubscriptionCancelsWhatComesDueAndAnEventThatMatchesNobodyIsNoError(t *testing.T) {
	refuse := func(string, int) (int, map[string]string) { return http.StatusServiceUnavailable, nil }
	inWorld(t, refuse, func(w *world) {
		id := w.subscribe("off", "fynapse", map[string]any{"eventTypes": []string{"balance.*"}})
		w.publish("event-1", "balance.extracted")
		w.publish("event-2", "nobody.wants.this")
		settle(10 * time.Second)
		w.call(http.MethodPost, "/subscriptions/"+id+"/disable", nil, nil)
		settle(time.Hour)
		rows := w.deliveries()
		if len(rows) != 1 || rows[0].Status != "CANCELLED" || rows[0].Reason != "subscription_inactive" || len(w.at("/off")) != 2 {
			t.Errorf("audit %+v after %d requests, want it cancelled after the first attempt", rows, len(w.at("/off")))
		}
	})
}

func TestADeliveryThatFindsItsSubscriptionDisabledIsCancelledWithoutARequest(t *testing.T) {
	accept := func(string, int) (int, map[string]string) { return http.StatusOK, nil }
	inWorld(t, accept, func(w *world) {
		id := w.subscribe("off", "fynapse", nil)
		// A paused subscription's deliveries are made and wait.
		w.call(http.MethodPatch, "/subscriptions/"+id, map[string]any{"status": "paused"}, nil)
		settle(3 * time.Second)
		w.publish("event-1", "balance.extracted")
		settle(time.Minute)
		if rows := w.deliveries(); len(rows) != 1 || rows[0].Status != "PENDING" {
			t.Fatalf("audit %+v, want a delivery that waits", rows)
		}
		w.call(http.MethodPost, "/subscriptions/"+id+"/disable", nil, nil)
		settle(time.Hour)
		rows := w.deliveries()
		if len(w.arrivals) != 0 || rows[0].Status != "CANCELLED" || rows[0].Reason != "subscription_inactive" || rows[0].AttemptCount != 0 {
			t.Errorf("audit %+v after %d requests, want it cancelled without one", rows, len(w.arrivals))
		}
	})
}

// TestASubscriptionDisabledForFailingResumesWhatIsNotYetDue lets two events fail five times in a row under fynex: at 0, 1 and 6
// minutes the first, at 10 and 11 the second. The second's next attempt is due at 16 minutes, while the subscription is
// disabled, the first's at 36, after it has been enabled again.
func TestASubscriptionDisabledForFailingResumesWhatIsNotYetDue(t *testing.T) {
	repaired := false // written while every goroutine of the bubble is idle
	answer := func(string, int) (int, map[string]string) {
		if repaired {
			return http.StatusOK, nil
		}
		return http.StatusInternalServerError, nil
	}
	inWorld(t, answer, func(w *world) {
		id := w.subscribe("off", "fynex", nil)
		began := time.Now()
		until := func(age time.Duration) { settle(time.Until(began.Add(age))) }
		states := func() map[string]string {
			got := map[string]string{}
			for _, r := range w.deliveries() {
				got[r.EventID] = fmt.Sprintf("%s after %d", r.Status, r.AttemptCount)
			}
			return got
		}
		expect := func(when, subscription string, want map[string]string) {
			t.Helper()
			if got := w.subscription(id); got.Status != subscription {
				t.Errorf("%s: the subscription is %+v, want it %s", when, got, subscription)
			}
			if got := states(); !maps.Equal(got, want) {
				t.Errorf("%s: audit %v, want %v", when, got, want)
			}
		}
		w.publish("event-1", "promise.created")
		until(10 * time.Minute)
		w.publish("event-2", "promise.created")
		until(10*time.Minute + 30*time.Second)
		expect("after four failures", "active", map[string]string{"event-1": "PENDING after 3", "event-2": "PENDING after 1"})
		until(12 * time.Minute)
		expect("after five failures", "disabled", map[string]string{"event-1": "PENDING after 3", "event-2": "PENDING after 2"})
		w.publish("event-3", "promise.created")
		until(17 * time.Minute)
		expect("while disabled", "disabled", map[string]string{"event-1": "PENDING after 3", "event-2": "CANCELLED after 2"})

		until(20 * time.Minute)
		repaired = true
		w.call(http.MethodPost, "/subscriptions/"+id+"/enable", nil, nil)
		until(30 * time.Minute)
		w.publish("event-4", "promise.created")
		until(2 * time.Hour)
		expect("after it was enabled", "active", map[string]string{"event-1": "DELIVERED after 4", "event-2": "CANCELLED after 2", "event-4": "DELIVERED after 1"})
		times := w.at("/off")
		if len(times) != 7 {
			t.Fatalf("%d requests, want 7", len(times))
		}
		if resumed := times[6].Sub(times[2]); resumed < 30*time.Minute || resumed > 30*time.Minute+slack {
			t.Errorf("the first event's fourth attempt came %v after its third, want the 30 minutes of the schedule", resumed)
		}
	})
}
