package main

import (
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/tests/testenv"
)

func TestAShortReplayIsMeasuredBesideLiveEvents(t *testing.T) {
	settings := quickReplay()
	b := &bench{Settings: Settings{Hookline: testenv.Binary(t)}, dir: t.TempDir(), say: func(text string) { t.Log(text) },
		Servers: Servers{Brokers: testenv.Kafka(t), RedisURL: testenv.Redis(t), DatabaseURL: testenv.Postgres(t)}}
	report, err := b.replay(t.Context(), settings)
	if err != nil {
		t.Fatal(err)
	}
	if report.Replayed != settings.Stored {
		t.Errorf("%d of %d were replayed", report.Replayed, settings.Stored)
	}
	alone := int(settings.Alone.Seconds() * float64(settings.Live))
	if len(report.Before) != alone || len(report.After) != alone || len(report.Beside) == 0 {
		t.Errorf("%d and %d live events were measured alone, want %d; %d beside", len(report.Before), len(report.After), alone, len(report.Beside))
	}
	if text := report.markdown(); !strings.Contains(text, "| scheduler |") || strings.Contains(text, "NaN") || strings.Contains(text, "%!") {
		t.Errorf("the report is broken:\n%s", text)
	}
}

func TestLiveEventsAreComparedWithTheQuieterOfThoseBeforeAndAfter(t *testing.T) {
	r := replayReport{Before: []time.Duration{10, 20}, After: []time.Duration{15, 40}, Beside: []time.Duration{1, 60}}
	if got := r.slower(); got != 3 {
		t.Errorf("%v times as long", got)
	}
	if got := (&replayReport{}).slower(); got != 0 {
		t.Errorf("%v times as long of nothing", got)
	}
}
