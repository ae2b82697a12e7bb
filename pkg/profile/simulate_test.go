package profile

import (
	"testing"
	"time"

	"github.com/hookline/hookline/pkg/webhook"
)

func TestSimulateShowsFynapsesFirstRetries(t *testing.T) {
	got := contractOf(t, "fynapse").Simulate([]Response{status(503), status(503), status(408), status(200)})
	type line struct {
		attempt, try     int
		earliest, latest time.Duration
		status           webhook.Status
	}
	want := []line{
		{1, 1, 0, 0, webhook.Pending},
		{1, 2, 200 * time.Millisecond, 2 * time.Second, webhook.Pending},
		{2, 1, 24200 * time.Millisecond, 38 * time.Second, webhook.Pending}, // 30 s ±20 %
		{3, 1, 96200 * time.Millisecond, 146 * time.Second, webhook.Delivered},
	}
	if len(got.Steps) != len(want) {
		t.Fatalf("%+v", got.Steps)
	}
	for i, s := range got.Steps {
		if g := (line{s.Attempt, s.Try, s.Earliest, s.Latest, s.Outcome.Status}); g != want[i] || !s.Certain {
			t.Errorf("step %d: %+v, want %+v", i, g, want[i])
		}
	}
	if got.End.Status != webhook.Delivered || got.Earliest != want[3].earliest || got.Latest != want[3].latest {
		t.Errorf("%+v %v %v", got.End, got.Earliest, got.Latest)
	}
}

func TestSimulatePlaysEachProfilesWholeLife(t *testing.T) {
	cases := []struct {
		profile          string
		attempts         int
		earliest, latest time.Duration
		disabledAt       int // attempt, 0 never
	}{
		{"fynex", 6, 14*time.Hour + 36*time.Minute, 14*time.Hour + 36*time.Minute, 5},
		{"flashfx", 4, 666 * time.Second, 666 * time.Second, 0},
		{"fuse", 6, 14*time.Hour + 36*time.Minute, 14*time.Hour + 36*time.Minute, 0},
		{"standard", 10, 68 * time.Hour, 84 * time.Hour, 0},
		{"fynapse", 20, 44 * time.Hour, 67 * time.Hour, 0},
	}
	for _, tc := range cases {
		got := contractOf(t, tc.profile).Simulate([]Response{status(500)})
		last := got.Steps[len(got.Steps)-1]
		if last.Attempt != tc.attempts || got.End.Status != webhook.DeadLetter || got.End.Reason != webhook.ReasonAttemptsExhausted {
			t.Errorf("%s: attempt %d, %+v", tc.profile, last.Attempt, got.End)
		}
		if got.Earliest < tc.earliest || got.Latest > tc.latest || !last.Certain {
			t.Errorf("%s: ends from %v to %v", tc.profile, got.Earliest, got.Latest)
		}
		disabled := 0
		for _, s := range got.Steps {
			if s.Disables {
				disabled = s.Attempt
			}
			if s.Latest < s.Earliest {
				t.Errorf("%s: %+v", tc.profile, s)
			}
		}
		if disabled != tc.disabledAt {
			t.Errorf("%s: disabled at attempt %d", tc.profile, disabled)
		}
	}
}

func TestSimulateEndsAtTheWindow(t *testing.T) {
	p := must(Builtin().Get("fynapse"))
	c, err := p.Contract(overrides(t, `{"retry":{"base":"1h","factor":1,"max":"1h","attempts":51,"jitter":0.2,"window":"10h"},"microRetry":{"attempts":1,"min":"0s","max":"0s"}}`))
	if err != nil {
		t.Fatal(err)
	}
	got := c.Simulate([]Response{failed(webhook.ErrorRefused)})
	certain := 0
	for _, s := range got.Steps {
		if s.Certain {
			certain++
		}
		if s.Latest > 10*time.Hour {
			t.Errorf("after the window: %+v", s)
		}
	}
	// 48 to 72 minutes apart: nine attempts surely, thirteen at most.
	if certain != 9 || len(got.Steps) != 13 || got.End.Reason != webhook.ReasonWindowExceeded {
		t.Errorf("%d certain of %d, %+v", certain, len(got.Steps), got.End)
	}
}

func TestSimulateCountsATimeoutsTime(t *testing.T) {
	got := contractOf(t, "flashfx").Simulate([]Response{failed(webhook.ErrorTimeout), status(200)})
	if got.Steps[1].Earliest != 16*time.Second || got.End.Status != webhook.Delivered {
		t.Errorf("%+v", got)
	}
	got = contractOf(t, "standard").Simulate([]Response{status(410)})
	if len(got.Steps) != 1 || !got.Steps[0].Disables || got.End.Status != webhook.DeadLetter {
		t.Errorf("%+v", got)
	}
	if got = contractOf(t, "fuse").Simulate(nil); len(got.Steps) != 1 || got.End.Status != webhook.Delivered {
		t.Errorf("%+v", got)
	}
}
