package virtual

import (
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

// TestEveryContractIsKeptFromTheFirstAttemptToTheDeadLetter lets an endpoint refuse for ever. The schedules are those of
// the documents in the profiles, written out here anew.
func TestEveryContractIsKeptFromTheFirstAttemptToTheDeadLetter(t *testing.T) {
	const m, h = time.Minute, time.Hour
	fynapse := []time.Duration{30 * time.Second, 90 * time.Second, 270 * time.Second, 810 * time.Second, 2430 * time.Second, 7290 * time.Second}
	for len(fynapse) < 19 {
		fynapse = append(fynapse, 4*h)
	}
	for _, c := range []struct {
		profile string
		event   string
		gaps    []gap
		tries   int // requests an attempt
		lasts   time.Duration
	}{
		{"fynapse", "balance.extracted", jittered(.2, fynapse...), 2, 72 * h},
		{"flashfx", "withdrawal.updated", exactly(6*time.Second, 60*time.Second, 600*time.Second), 1, h},
		{"fuse", "transactions.updates", exactly(m, 5*m, 30*m, 2*h, 12*h), 1, 24 * h},
	} {
		t.Run(c.profile, func(t *testing.T) {
			refuse := func(string, int) (int, map[string]string) { return http.StatusServiceUnavailable, nil }
			inWorld(t, refuse, func(w *world) {
				overrides := map[string]any{}
				w.subscribe(c.profile, c.profile, overrides)
				w.publish("event-1", c.event)
				settle(c.lasts + h)
				checkLife(w, "/"+c.profile, c.gaps, c.tries)
			})
		})
	}
}

// checkLife compares the requests to a path with a schedule, and the audit with both.
func checkLife(w *world, path string, gaps []gap, tries int) {
	w.Helper()
	times := w.at(path)
	if want := (len(gaps) + 1) * tries; len(times) != want {
		w.Fatalf("%d requests, want %d", len(times), want)
	}
	for i, g := range gaps {
		// From the end of one attempt to the beginning of the next.
		waited := times[(i+1)*tries].Sub(times[i*tries+tries-1])
		if waited < g.least-time.Millisecond || waited > g.most+slack {
			w.Errorf("attempt %d came %v after the one before it, want %v to %v", i+2, waited, g.least, g.most)
		}
	}
	rows := w.deliveries()
	if len(rows) != 1 || rows[0].Status != "DEAD_LETTER" || rows[0].AttemptCount != len(gaps)+1 || len(rows[0].Attempts) != len(times) {
		w.Errorf("audit %+v, want one dead letter after %d attempts", rows, len(gaps)+1)
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
