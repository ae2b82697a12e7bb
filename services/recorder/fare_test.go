package recorder

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/webhook"
)

var noon = time.Date(2026, 4, 14, 12, 0, 0, 0, time.UTC)

// numbered is an id that a test can name.
func numbered(n int) (id uuid.UUID) {
	binary.BigEndian.PutUint64(id[8:], uint64(n))
	return id
}

// tried is an attempt of one delivery each.
func tried(n int, status webhook.Status, after time.Duration) *webhook.Attempt {
	return &webhook.Attempt{
		ID: numbered(n), DeliveryID: numbered(n), EventType: "a.b", Trigger: webhook.TriggerEvent, Number: 1, Try: 1, StatusCode: 503,
		StartedAt: noon.Add(after), Outcome: webhook.Outcome{Status: status},
	}
}

func TestWhatCountsAgainstASubscription(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*webhook.Attempt)
		want   bool
	}{
		{"a failure that is retried", func(*webhook.Attempt) {}, true},
		{"a dead letter", func(a *webhook.Attempt) { a.Outcome.Status = webhook.DeadLetter }, true},
		{"a timeout", func(a *webhook.Attempt) { a.StatusCode, a.Error = 0, webhook.ErrorTimeout }, true},
		{"an address that may not be called", func(a *webhook.Attempt) { a.StatusCode, a.Error = 0, webhook.ErrorBlocked }, true},
		{"a redelivery", func(a *webhook.Attempt) { a.Trigger = webhook.TriggerManual }, false},
		{"a replay", func(a *webhook.Attempt) { a.Trigger = webhook.TriggerReplay }, false},
		{"a receiver that said when", func(a *webhook.Attempt) { a.Outcome.Uncounted = true }, false},
		{"a defect of Hookline", func(a *webhook.Attempt) { a.Error = webhook.ErrorInternal }, false},
		{"an event that does not fit", func(a *webhook.Attempt) { a.Error = webhook.ErrorRequest }, false},
		{"a secret that cannot be read", func(a *webhook.Attempt) { a.Error = webhook.ErrorNoSecret }, false},
		{"a cancellation", func(a *webhook.Attempt) { a.Number, a.Outcome = 0, webhook.Outcome{Status: webhook.Cancelled} }, false},
		{"the window's end without a request", func(a *webhook.Attempt) {
			a.Number, a.Outcome = 0, webhook.Outcome{Status: webhook.DeadLetter, Reason: webhook.ReasonWindowExceeded}
		}, true},
		{"an event refused without a request", func(a *webhook.Attempt) {
			a.Number, a.Outcome = 0, webhook.Outcome{Status: webhook.DeadLetter, Reason: webhook.ReasonContract}
		}, false},
	} {
		a := tried(1, webhook.Pending, 0)
		c.change(a)
		if got := failed(a); got != c.want {
			t.Errorf("%s: counts %v", c.name, got)
		}
	}
}

func TestWhenARuleAsksForASubscriptionToBeDisabled(t *testing.T) {
	attempts := &profile.AutoDisable{After: 3, Count: "attempts"}
	deliveries := &profile.AutoDisable{After: 2, Count: "deliveries"}
	lasting := &profile.AutoDisable{After: 1, Count: "attempts", Window: 120 * time.Hour}
	retry := func(n int) *webhook.Attempt { return tried(n, webhook.Pending, time.Duration(n)*time.Hour) }
	success := func(n int) *webhook.Attempt { return tried(n, webhook.Delivered, time.Duration(n)*time.Hour) }
	dead := func(n int) *webhook.Attempt { return tried(n, webhook.DeadLetter, time.Duration(n)*time.Hour) }
	by := func(a *webhook.Attempt, trigger webhook.Trigger) *webhook.Attempt { a.Trigger = trigger; return a }
	for _, c := range []struct {
		name   string
		rule   *profile.AutoDisable
		stream []*webhook.Attempt
		want   int // the number of the attempt at which it first asks; 0 never
	}{
		{"no rule", nil, []*webhook.Attempt{retry(1), retry(2), retry(3), retry(4)}, 0},
		{"three in a row", attempts, []*webhook.Attempt{retry(1), retry(2), retry(3)}, 3},
		{"of one delivery or of several, ended or not", attempts, []*webhook.Attempt{retry(1), dead(2), retry(3)}, 3},
		{"a success between", attempts, []*webhook.Attempt{retry(1), retry(2), success(3), retry(4), retry(5)}, 0},
		{"and three after it", attempts, []*webhook.Attempt{retry(1), retry(2), success(3), retry(4), retry(5), retry(6)}, 6},
		{"the same attempt again", attempts, []*webhook.Attempt{retry(1), retry(2), retry(2), retry(1)}, 0},
		{"redeliveries do not count", attempts, []*webhook.Attempt{retry(1), by(retry(2), webhook.TriggerManual), retry(3), by(retry(4), webhook.TriggerReplay)}, 0},
		{"but the success of one does", attempts, []*webhook.Attempt{retry(1), retry(2), by(success(3), webhook.TriggerManual), retry(4)}, 0},
		{"retries are no failed deliveries", deliveries, []*webhook.Attempt{retry(1), retry(2), retry(3), dead(4)}, 0},
		{"two failed deliveries", deliveries, []*webhook.Attempt{dead(1), retry(2), dead(3)}, 3},
		{"not a blip", lasting, []*webhook.Attempt{retry(1), retry(2), retry(119)}, 0},
		{"five days", lasting, []*webhook.Attempt{retry(1), retry(2), retry(121)}, 121},
		{"five days from the first after a success", lasting, []*webhook.Attempt{retry(1), success(50), retry(51), retry(169)}, 0},
	} {
		h, first := &fare{}, 0
		for _, a := range c.stream {
			if h.add(a, c.rule) && first == 0 {
				first = int(binary.BigEndian.Uint64(a.ID[8:]))
			}
		}
		if first != c.want {
			t.Errorf("%s: asked at %d, want %d", c.name, first, c.want)
		}
	}
}

// The fold is stored with its position. Whatever part of the stream is read again after a crash, in whichever batches, from a stored
// state or a later one: the state ends the same, and nothing is asked or told that the stream read once does not.
func TestReadingAgainAfterACrashCountsNothingTwice(t *testing.T) {
	rule := &profile.AutoDisable{After: 4, Count: "attempts"}
	limits := alerts{after: 2, span: time.Minute, quiet: 10 * time.Minute}
	rapid.Check(t, func(t *rapid.T) {
		stream := drawStream(t)
		want, said := (&fare{}).run(stream, rule, limits)
		crashed, again := &fare{}, map[string]bool{}
		committed := 0
		for committed < len(stream) {
			to := rapid.IntRange(committed+1, len(stream)).Draw(t, "batch")
			next, told := crashed.clone().run(stream[:to], rule, limits)
			for what := range told {
				again[what] = true
			}
			if rapid.IntRange(0, 2).Draw(t, "crash") > 0 {
				crashed, committed = next, to
			}
			if rapid.IntRange(0, 3).Draw(t, "backwards") == 0 { // another recorder had gone further than the positions say
				committed = rapid.IntRange(0, committed).Draw(t, "position")
			}
		}
		if got, expected := string(crashed.encode()), string(want.encode()); got != expected {
			t.Fatalf("ends as %s\nwant %s", got, expected)
		}
		if fmt.Sprint(again) != fmt.Sprint(said) {
			t.Fatalf("told %v\nwant %v", again, said)
		}
	})
}

func drawStream(t *rapid.T) []*webhook.Attempt {
	var stream []*webhook.Attempt
	for i := range rapid.IntRange(1, 25).Draw(t, "length") {
		a := tried(i+1, rapid.SampledFrom([]webhook.Status{webhook.Pending, webhook.Pending, webhook.DeadLetter, webhook.Delivered, webhook.Cancelled}).Draw(t, "status"),
			time.Duration(i)*time.Minute)
		a.Trigger = rapid.SampledFrom([]webhook.Trigger{webhook.TriggerEvent, webhook.TriggerEvent, webhook.TriggerManual}).Draw(t, "trigger")
		a.Outcome.Uncounted = rapid.IntRange(0, 5).Draw(t, "uncounted") == 0
		if i > 0 && rapid.IntRange(0, 5).Draw(t, "produced twice") == 0 {
			a = stream[i-1]
		}
		stream = append(stream, a)
	}
	return stream
}

// run folds the part of the stream that is behind the position.
func (h *fare) run(stream []*webhook.Attempt, rule *profile.AutoDisable, limits alerts) (*fare, map[string]bool) {
	said := map[string]bool{}
	for offset, a := range stream {
		if int64(offset) < h.next {
			continue
		}
		before := h.Attempts
		if h.add(a, rule) {
			said[fmt.Sprint("disable at ", offset)] = true
		}
		for _, n := range h.notices(a, before, limits, a.StartedAt) {
			said[n.id()] = true
		}
		h.next = int64(offset) + 1
	}
	return h, said
}

// clone goes through the stored form.
func (h *fare) clone() *fare {
	same := &fare{}
	if err := json.Unmarshal(h.encode(), same); err != nil {
		panic(err)
	}
	same.next = h.next
	return same
}

func TestAnAttemptAtAnOperationalEventIsNeverToldOf(t *testing.T) {
	h := &fare{}
	for i := range 20 {
		a := tried(i+1, webhook.DeadLetter, time.Duration(i)*time.Hour)
		a.EventType = string(deadLettered)
		before := h.Attempts
		h.add(a, nil)
		if told := h.notices(a, before, alerts{after: 1}, a.StartedAt); len(told) > 0 {
			t.Fatalf("told %v", told)
		}
	}
	if h.Attempts.Count != 20 {
		t.Errorf("%d failures are counted, want all", h.Attempts.Count)
	}
}

func TestNoticesKeepTheirThresholdsAndTheQuiet(t *testing.T) {
	limits := alerts{after: 3, span: time.Minute, quiet: 10 * time.Minute}
	type step struct {
		minutes float64
		status  webhook.Status
		told    []kind
	}
	for name, steps := range map[string][]step{
		"a blip": {{0, webhook.Pending, nil}, {0, webhook.Pending, nil}, {.1, webhook.Pending, nil}, {.2, webhook.Delivered, nil}},
		"failing and recovered": {
			{0, webhook.Pending, nil}, {.5, webhook.Pending, nil}, {1, webhook.Pending, []kind{failing}}, {2, webhook.Pending, nil},
			{3, webhook.Delivered, []kind{recovered}}, {4, webhook.Delivered, nil},
		},
		"flapping": {
			{0, webhook.Pending, nil}, {1, webhook.Pending, nil}, {2, webhook.Pending, []kind{failing}}, {3, webhook.Delivered, []kind{recovered}},
			{4, webhook.Pending, nil}, {5, webhook.Pending, nil}, {6, webhook.Pending, nil}, {7, webhook.Delivered, nil},
			{10, webhook.Pending, nil}, {11, webhook.Pending, nil}, {12, webhook.Pending, []kind{failing}}, {13, webhook.Delivered, []kind{recovered}},
		},
		"dead letters": {
			{0, webhook.DeadLetter, []kind{deadLettered}}, {.1, webhook.DeadLetter, nil}, {.2, webhook.DeadLetter, []kind{}},
			{9.9, webhook.DeadLetter, []kind{failing}}, {10, webhook.DeadLetter, []kind{deadLettered}},
		},
	} {
		h := &fare{}
		dead, counted := 0, 0
		for i, s := range steps {
			a := tried(i+1, s.status, time.Duration(s.minutes*float64(time.Minute)))
			before := h.Attempts
			h.add(a, nil)
			var told []kind
			for _, n := range h.notices(a, before, limits, a.StartedAt) {
				told = append(told, n.kind)
				if n.kind == deadLettered {
					counted += n.count
				}
			}
			if s.status == webhook.DeadLetter {
				dead++
			}
			if !slices.Equal(told, s.told) {
				t.Errorf("%s: at %v minutes told %v, want %v", name, s.minutes, told, s.told)
			}
		}
		if dead != counted+h.Untold {
			t.Errorf("%s: %d dead letters, %d told and %d untold", name, dead, counted, h.Untold)
		}
	}
}

func TestANewEpochForgetsWhatBeganBeforeIt(t *testing.T) {
	rule := &profile.AutoDisable{After: 3, Count: "attempts"}
	h := &fare{}
	for n := range 5 {
		h.add(tried(n+1, webhook.Pending, time.Duration(n)*time.Minute), rule)
	}
	h.renew(noon.Add(3*time.Minute + time.Second))
	if h.Attempts.Count != 1 || !h.Attempts.Since.Equal(noon.Add(4*time.Minute)) {
		t.Fatalf("left of five failures: %+v", h.Attempts)
	}
	if h.add(tried(6, webhook.Pending, 2*time.Minute), rule) || h.Attempts.Count != 1 {
		t.Errorf("a late failure of before counts: %+v", h.Attempts)
	}
	if h.add(tried(7, webhook.Pending, 5*time.Minute), rule) || !h.add(tried(8, webhook.Pending, 6*time.Minute), rule) {
		t.Errorf("the third failure of the epoch does not ask: %+v", h.Attempts)
	}
}
