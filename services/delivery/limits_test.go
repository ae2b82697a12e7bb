package delivery

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestARateIsNeverExceededByMoreThanItsBurst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		perSecond := rapid.Float64Range(0.01, 10_000).Draw(t, "rate")
		part := rapid.Float64Range(0.01, 1).Draw(t, "part")
		var r rate
		r.set(perSecond, part)
		start := time.UnixMilli(1_000_000)
		now, sent := start, 0
		for range 500 {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(3*r.interval)).Draw(t, "gap")))
			if !r.at().After(now) {
				r.take(now)
				sent++
			}
			elapsed := now.Sub(start) + r.burst
			if most := 1 + float64(elapsed)/float64(r.interval); float64(sent) > most+1e-6 {
				t.Fatalf("%d requests in %v at %v a second, of which %v", sent, now.Sub(start), perSecond, part)
			}
		}
	})
}

func TestARateThatIsAskedForIsReached(t *testing.T) {
	for _, perSecond := range []float64{0.5, 1, 7, 300, 10_000} {
		var r rate
		r.set(perSecond, 1)
		start := time.UnixMilli(0)
		now, sent := start, 0
		for now.Sub(start) < 20*time.Second {
			if at := r.at(); at.After(now) {
				now = at
			}
			r.take(now)
			sent++
		}
		if got := float64(sent) / 20; got < 0.95*perSecond || got > 1.15*perSecond+0.1 {
			t.Errorf("%v a second sent, want %v", got, perSecond)
		}
	}
}

func TestNoRateLimitsNothing(t *testing.T) {
	var r rate
	now := time.UnixMilli(5)
	for range 10 {
		r.take(now)
	}
	if r.at().After(now) {
		t.Error("waits without a rate")
	}
}

func TestAShareStaysWithinItsBoundsWhateverHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newShare(rapid.IntRange(1, 100).Draw(t, "ceiling"))
		now := time.UnixMilli(1_000_000)
		for range 300 {
			begun := now.Add(-time.Duration(rapid.Int64Range(0, int64(20*time.Second)).Draw(t, "took")))
			before := s.bound()
			says := rapid.SampledFrom([]verdict{noVerdict, answered, overloaded, silent}).Draw(t, "says")
			s.learn(begun, now, says, rapid.Bool().Draw(t, "busy"))
			if s.bound() < 1 || s.bound() > s.ceiling {
				t.Fatalf("a share of %d", s.bound())
			}
			if says != answered && s.bound() > before {
				t.Fatalf("the share grew from %d to %d on trouble", before, s.bound())
			}
			if s.bound() > before+1 || s.bound() < before/2 {
				t.Fatalf("the share jumped from %d to %d", before, s.bound())
			}
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "gap")))
		}
	})
}

// round ends so many requests that took so long.
func (s *share) round(now *time.Time, requests int, took time.Duration, says verdict) {
	begun := *now
	*now = now.Add(took)
	for range requests {
		s.learn(begun, *now, says, true)
	}
}

func TestAShareDoublesUntilTroubleAndGrowsByOneARoundAfterIt(t *testing.T) {
	s, now := newShare(64), time.UnixMilli(1_000_000)
	for _, want := range []int{2, 4, 8, 16, 32, 64, 64} {
		s.round(&now, s.bound(), 50*time.Millisecond, answered)
		if s.bound() != want {
			t.Fatalf("share %d, want %d", s.bound(), want)
		}
	}
	s.round(&now, 64, 50*time.Millisecond, overloaded)
	if s.bound() != 32 {
		t.Fatalf("share %d after one round of trouble, want a half", s.bound())
	}
	for want := 33; want < 40; want++ {
		now = now.Add(time.Millisecond)
		s.round(&now, s.bound()+1, 50*time.Millisecond, answered)
		if s.bound() != want {
			t.Fatalf("share %d, want %d", s.bound(), want)
		}
	}
}

func TestAnEndpointThatMakesRequestsWaitForEachOtherGetsFewer(t *testing.T) {
	s, now := newShare(64), time.UnixMilli(1_000_000)
	for range 50 {
		// One at a time, 50 ms each: with n under way each takes n times as long.
		n := s.bound()
		s.round(&now, n, time.Duration(n)*50*time.Millisecond, answered)
		now = now.Add(time.Millisecond)
	}
	if s.bound() > 16 {
		t.Errorf("%d requests under way to an endpoint that takes one at a time", s.bound())
	}
}

func TestAnEndpointThatIsAlwaysSlowKeepsItsShare(t *testing.T) {
	s, now := newShare(64), time.UnixMilli(1_000_000)
	for range 10 {
		s.round(&now, s.bound(), 10*time.Second, answered)
	}
	if s.bound() != 64 {
		t.Errorf("a share of %d", s.bound())
	}
}

// outage fails n requests one after the other.
func (b *breaker) outage(now *time.Time, n int, each time.Duration) {
	for range n {
		begun := *now
		*now = now.Add(each)
		b.learn(begun, *now, silent)
	}
}

func TestABreakerOpensOnAnOutageAndNotOnABlip(t *testing.T) {
	var b breaker
	now := time.UnixMilli(0)
	b.outage(&now, 500, time.Millisecond)
	if b.state(now) != breakerClosed {
		t.Fatal("open after half a second of failures")
	}
	b.learn(now, now, answered)
	b.outage(&now, breakAfter-1, time.Minute)
	if b.state(now) != breakerClosed {
		t.Fatal("open after few failures")
	}
	b.outage(&now, 1, time.Second)
	if b.state(now) != breakerOpen {
		t.Fatal("closed after an outage")
	}
}

func TestABreakersPauseDoublesWithEveryProbeThatFails(t *testing.T) {
	var b breaker
	now := time.UnixMilli(0)
	b.outage(&now, breakAfter, time.Second)
	for _, seconds := range []int{5, 10, 20, 40, 60, 60} {
		pause := time.Duration(seconds) * time.Second
		if b.state(now.Add(pause-1)) != breakerOpen || b.state(now.Add(pause)) != breakerProbing {
			t.Fatalf("no probe after exactly %v", pause)
		}
		// What was under way when it opened changes nothing.
		b.learn(now.Add(-time.Second), now.Add(time.Millisecond), silent)
		now = now.Add(pause)
		b.learn(now, now.Add(time.Second), silent)
		now = now.Add(time.Second)
	}
	b.learn(now, now, overloaded)
	if b.state(now) != breakerClosed {
		t.Fatal("open although the endpoint answers")
	}
}
