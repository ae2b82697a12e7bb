package scheduler

import (
	"testing"
	"time"

	"github.com/hookline/hookline/pkg/webhook"
)

func TestARetryFiresOnceWhenItIsDue(t *testing.T) {
	whileRunning(t, func(r *rig, p *process) {
		if !p.ready() {
			t.Fatalf("not ready: %v", p.health.Unmet())
		}
		written := time.Now()
		r.retry(30*time.Second, trip(1))
		r.retry(time.Hour, trip(2))
		r.after(29 * time.Second)
		r.want(0, 0, trip(1))
		r.after(2 * time.Second)
		r.want(1, 1, trip(1))
		if late := r.times(trip(1))[0].Sub(written) - 30*time.Second; late < 0 || late > 50*time.Millisecond {
			t.Errorf("fired %v late", late)
		}
		r.after(2 * time.Hour)
		r.want(1, 1, trip(1), trip(2))
		if n := r.tombstones(); n != 2 {
			t.Errorf("%d tombstones", n)
		}
		if keys := len(r.save()); keys > partitions {
			t.Errorf("Redis keeps %d keys for nothing", keys)
		}
	})
}

// A worker that fails again and again, at once: every trip writes the next before the last is acknowledged (S4).
func TestALifeOfSeventyTwoHoursKeepsItsSchedule(t *testing.T) {
	inBubble(t, func(r *rig) {
		type step struct{ due time.Time }
		steps := map[webhook.Trip]step{}
		next := func(last webhook.Trip) {
			last.Number++
			delay := 4 * time.Hour
			if last.Number < 8 {
				delay = min(delay, 30*time.Second*time.Duration(pow(3, int(last.Number)-2)))
			}
			steps[last] = step{due: time.Now().Add(delay)}
			r.retry(delay, last)
		}
		r.start()
		r.after(20 * time.Second)
		began := time.Now()
		start := trip(1)
		start.Number = 1
		r.mu.Lock()
		r.onFired = func(d *webhook.Delivery) {
			if time.Since(began) < 68*time.Hour {
				next(d.Key())
			}
		}
		r.mu.Unlock()
		next(start)
		r.after(72 * time.Hour)
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(steps) < 20 {
			t.Errorf("%d trips", len(steps))
		}
		for trip, s := range steps {
			if times := r.fired[trip]; len(times) != 1 {
				t.Errorf("trip %d fired %d times", trip.Number, len(times))
			} else if late := times[0].Sub(s.due); late < 0 || late > 50*time.Millisecond {
				t.Errorf("trip %d fired %v late", trip.Number, late)
			}
		}
	})
}

func pow(base, exponent int) int {
	n := 1
	for range exponent {
		n *= base
	}
	return n
}

func TestWhatHasFiredDoesNotFireAgainAfterFlushAll(t *testing.T) {
	whileRunning(t, func(r *rig, p *process) {
		// So many that the retries of a partition and their tombstones do not come in one poll.
		early, late := tripsTo(0, 3600), tripsTo(3600, 3900)
		r.retry(10*time.Second, early...)
		r.retry(time.Hour, late...)
		r.after(time.Minute)
		r.want(1, 1, early...)
		for range 2 {
			r.redis.FlushAll()
			r.after(2 * time.Minute)
		}
		r.want(1, 1, early...)
		r.want(0, 0, late...)
		r.redis.FlushAll()
		r.after(2 * time.Hour)
		r.want(1, 1, append(early, late...)...)
		if rewinds := p.log.count("building the timer index again"); rewinds < partitions {
			t.Errorf("%d rewinds", rewinds)
		}
	})
}

// The index is lost while retries are on their way: their tombstones come after the end that the gate waits for, and
// still nothing fires twice.
func TestWhatIsInFlightDoesNotFireAgainAfterFlushAll(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.start(func(c *Config) { c.Inflight = 300 })
		r.after(20 * time.Second)
		trips := tripsOfOne(40) // which go in one volley
		r.retry(10*time.Second, trips...)
		r.after(5 * time.Second)
		blocked := r.blockProduce(r.cluster.Topics.Retries)
		r.after(10 * time.Second)
		r.want(1, 1, trips...)
		r.redis.FlushAll()
		r.after(3 * time.Minute)
		blocked.Remove()
		r.after(10 * time.Minute)
		r.want(1, 1, trips...)
	})
}
