package profile

import (
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hookline/hookline/pkg/webhook"
)

// schedule says when the attempts of a delivery are made: a list of delays, or base·factor^n up to max.
type schedule struct {
	delays []time.Duration
	base   time.Duration
	factor float64
	max    time.Duration
	// attempts is how many are made in total, the first included.
	attempts int
	// jitter is symmetric: 0.2 is plus or minus 20 %.
	jitter float64
	// window is how long after its creation a delivery may be attempted again; 0 for ever.
	window time.Duration
}

// delay is the nominal wait after attempt n, counted from 1.
func (s *schedule) delay(n int) time.Duration {
	n = max(n, 1)
	if len(s.delays) > 0 {
		return s.delays[min(n, len(s.delays))-1]
	}
	d := float64(s.base) * math.Pow(s.factor, float64(n-1))
	// Written so that infinity and NaN end at the maximum too.
	if !(d < float64(s.max)) {
		return s.max
	}
	return time.Duration(d)
}

func (s *schedule) longest() time.Duration {
	longest := s.max
	if len(s.delays) > 0 {
		longest = slices.Max(s.delays)
	}
	return stretch(longest, s.jitter)
}

// stretch is d and a share of it, up to milliseconds, in which delays travel: rounded so, a lower bound stays one.
func stretch(d time.Duration, share float64) time.Duration {
	const limit = 1000 * 24 * time.Hour
	d = min(d, limit)
	// Rounded to whole nanoseconds first, so that 30 s and a fifth are 36 s and not a hair more.
	d += min(time.Duration(math.Round(float64(d)*share)), limit)
	if rest := d % time.Millisecond; rest > 0 {
		d += time.Millisecond - rest
	}
	return d
}

// jittered is d plus or minus a share of it. random returns a number in [0, 1).
func jittered(d time.Duration, share float64, random func() float64) time.Duration {
	if share == 0 {
		return stretch(d, 0)
	}
	return stretch(d, share*(2*unit(random)-1))
}

// unit holds a random number to [0, 1].
func unit(random func() float64) float64 {
	r := random()
	if !(r > 0) {
		return 0
	}
	return min(r, 1)
}

// maxRetryAfter bounds what a receiver can ask for.
const maxRetryAfter = 24 * time.Hour

type retryAfterUse uint8

const (
	retryAfterAtLeast retryAfterUse = iota
	retryAfterBase
	retryAfterIgnored
)

var retryAfterNames = map[string]retryAfterUse{
	"": retryAfterAtLeast, "at_least": retryAfterAtLeast, "base": retryAfterBase, "ignore": retryAfterIgnored,
}

type retryAfter struct {
	use    retryAfterUse
	jitter float64
}

// ParseRetryAfter reads a Retry-After header: one to nine digits of seconds, or an HTTP date. It is held to 24 h; a
// value that asks for no wait (0, or a date that has passed) is as if there were none, and so is everything else.
func ParseRetryAfter(value string, now time.Time) (time.Duration, bool) {
	value = strings.Trim(value, " \t")
	if n := len(value); n == 0 || n > 64 {
		return 0, false
	}
	var wait time.Duration
	if strings.Trim(value, "0123456789") == "" {
		if len(value) > 9 {
			return 0, false
		}
		// Nine digits always fit: 999999999 s is 31 years, and a Duration holds 292.
		seconds, err := strconv.Atoi(value)
		if err != nil {
			return 0, false
		}
		wait = time.Duration(seconds) * time.Second
	} else {
		at, err := http.ParseTime(value)
		if err != nil {
			return 0, false
		}
		wait = at.Sub(now)
	}
	if wait <= 0 {
		return 0, false
	}
	return min(wait, maxRetryAfter), true
}

// lastChance is how long before the end of the window the last attempt is made where Retry-After would lead beyond it,
// so that the attempt still begins inside.
func (s *schedule) lastChance() time.Duration { return min(s.window/20, 30*time.Second) }

// wait is the time until the next attempt of a delivery, or false where that would be after the window.
func (s *settings) wait(r Response, d *webhook.Delivery, now time.Time, random func() float64) (time.Duration, bool) {
	delay := jittered(s.retry.delay(int(min(d.Attempts, math.MaxInt32))), s.retry.jitter, random)
	left, limited := s.retry.left(d, now)
	if asked, ok := ParseRetryAfter(r.RetryAfter, now); ok && s.retryAfter.use != retryAfterIgnored {
		if s.retryAfter.use == retryAfterBase {
			delay = stretch(asked, s.retryAfter.jitter*unit(random))
		} else {
			delay = max(delay, stretch(asked, 0))
		}
		// A receiver that asks for more than is left gets its last attempt at the end of the window.
		if latest := left - s.retry.lastChance(); limited && delay > left && latest > 0 && asked > latest {
			delay = latest
		}
	}
	return delay, !limited || delay <= left
}

// left is how much of the delivery's window remains; limited is false where there is none.
func (s *schedule) left(d *webhook.Delivery, now time.Time) (left time.Duration, limited bool) {
	if s.window == 0 || d.CreatedAt.IsZero() {
		return 0, false
	}
	return d.CreatedAt.Add(s.window).Sub(now), true
}
