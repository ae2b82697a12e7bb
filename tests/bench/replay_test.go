package main

import (
	"strings"
	"testing"

	"github.com/hookline/hookline/tests/testenv"
)

func TestAShortReplayIsMeasuredBesideLiveEvents(t *testing.T) {
	settings := quickReplay()
	b := &bench{Settings: Settings{Hookline: testenv.Binary(t)}, dir: t.TempDir(), say: func(text string) { t.Log(text) },
		Servers: newServers(testenv.Kafka(t), testenv.Redis(t), testenv.Postgres(t))}
	report, err := b.replay(t.Context(), settings)
	if err != nil {
		t.Fatal(err)
	}
	one := report.Replays[0]
	if wanted := settings.Rounds * int(settings.Round.Seconds()*float64(settings.Live)); len(one.Alone) != wanted || len(one.Beside) != wanted || len(one.Ratios) != settings.Rounds {
		t.Errorf("%d live events were measured alone and %d beside, in %d rounds, want %d each", len(one.Alone), len(one.Beside), len(one.Ratios), wanted)
	}
	if one.Replayed == 0 || one.Replayed >= settings.Stored {
		t.Errorf("%d were replayed", one.Replayed)
	}
	if text := report.markdown(); !strings.Contains(text, "| scheduler |") || strings.Contains(text, "NaN") || strings.Contains(text, "%!") {
		t.Errorf("the report is broken:\n%s", text)
	}
}

func TestTheReportOfAReplayComparesRounds(t *testing.T) {
	r := replayReport{Replays: []besideReplay{
		{PerSecond: defaultRate, Ratios: []float64{1, 9, 1.5}}, {PerSecond: 500, Ratios: []float64{2, 1.6, 1}},
	}}
	for _, want := range []string{"| 100, the default | 1.50 | reached | 1.00, 9.00, 1.50 |", "| 500 | 1.60 | not reached |"} {
		if text := r.markdown(); !strings.Contains(text, want) {
			t.Errorf("%s\nis missing in\n%s", want, text)
		}
	}
}
