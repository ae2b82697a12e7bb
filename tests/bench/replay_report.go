package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// targetSlower is by how much a replay may lengthen the p99 of live events.
const targetSlower = 1.5

// replayReport is everything that a run of the replay's bench has measured.
type replayReport struct {
	replaySettings
	Machine Machine
	Replays []besideReplay
}

// besideReplay is what live events had beside a replay, and without it.
type besideReplay struct {
	PerSecond           int
	Alone, Beside       []time.Duration // latencies of all rounds, in ascending order
	Ratios              []float64       // of the p99 beside and alone, of each round
	Replayed            int
	AloneCPU, BesideCPU Stage
}

func (r *replayReport) markdown() string {
	var w strings.Builder
	m := r.Machine
	fmt.Fprintf(&w, "# Live events beside a replay\n\nWritten by `scripts/servers with go run ./tests/bench replay`.")
	if options := os.Getenv("KAFKA_JAVA_OPTS"); options != "" {
		fmt.Fprintf(&w, " `KAFKA_JAVA_OPTS` was `%s`.", options)
	}
	fmt.Fprint(&w, "\n\n")
	fmt.Fprintf(&w, "| commit | machine | system | Go | load before |\n|---|---|---|---|---|\n| %s | %s | %s | %s | %s |\n\n", m.Commit, m.CPU, m.Kernel, m.Go, m.Load)
	fmt.Fprintf(&w, "p99 of %d live events a second beside a replay of %d stored events, by that without one (target at most %.1f):\n\n", r.Live, r.Stored, targetSlower)
	fmt.Fprint(&w, "| replayed a second | median of the rounds | | each of them | replayed while measured | others used |\n|---|--:|---|---|--:|--:|\n")
	for _, one := range r.Replays {
		ratio := median(one.Ratios)
		fmt.Fprintf(&w, "| %d%s | %.2f | %s | %s | %d, %.0f/s | %.0f %% |\n", one.PerSecond, map[bool]string{true: ", the default"}[one.PerSecond == defaultRate], ratio, reached(ratio <= targetSlower),
			figures(one.Ratios), one.Replayed, float64(one.Replayed)/max(one.BesideCPU.Took.Seconds(), 1e-9), 100*one.BesideCPU.disturbed())
	}
	fmt.Fprint(&w, "\n| live events | measured | p50 | p99 | longest |\n|---|--:|--:|--:|--:|\n")
	for _, one := range r.Replays {
		for _, phase := range []struct {
			name  string
			times []time.Duration
		}{{"without", one.Alone}, {"beside", one.Beside}} {
			fmt.Fprintf(&w, "| %s the replay of %d/s | %d | %s | %s | %s |\n", phase.name, one.PerSecond, len(phase.times), ms(quantile(phase.times, 0.5)), ms(quantile(phase.times, 0.99)), ms(quantile(phase.times, 1)))
		}
	}
	fmt.Fprintf(&w, "\nFrom Kafka's acknowledgement of an event to its arrival at the receiver. Every service is a process of its own with default settings, on the same machine as Kafka, "+
		"Redis, PostgreSQL and the two receivers; the replay goes to a subscription and an address of its own. It is paused and resumed in turn, every %v.\n\n", r.Round)
	for _, one := range r.Replays {
		fmt.Fprintf(&w, "| process | ms of processor time a second without the replay of %d/s | beside it |\n|---|--:|--:|\n", one.PerSecond)
		for _, name := range slices.Sorted(maps.Keys(one.BesideCPU.CPU)) {
			fmt.Fprintf(&w, "| %s | %.0f | %.0f |\n", name, one.AloneCPU.perSecond(name), one.BesideCPU.perSecond(name))
		}
		fmt.Fprint(&w, "\n")
	}
	return w.String()
}
