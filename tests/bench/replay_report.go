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
	Machine               Machine
	Before, Beside, After []time.Duration // latencies of live events, in ascending order
	Replayed              int
	Took                  time.Duration // of the replay, or of the part that was measured
	Stage                 Stage
}

// slower is how many times as long live events took beside the replay as alone, at the p99: as in the quieter of the two times alone, since
// what disturbed the other was no replay.
func (r *replayReport) slower() float64 {
	alone := min(quantile(r.Before, 0.99), quantile(r.After, 0.99))
	return float64(quantile(r.Beside, 0.99)) / float64(max(alone, 1))
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
	fmt.Fprintf(&w, "Beside a replay the p99 of live events is %.2f times that of live events alone (target at most %.1f: %s). "+
		"%d of %d stored events were replayed to one subscription in %v, %.0f a second; the replay's own limit is %d. Others used %.0f %% of the processors meanwhile.\n\n",
		r.slower(), targetSlower, reached(r.slower() <= targetSlower), r.Replayed, r.Stored, r.Took.Round(100*time.Millisecond), float64(r.Replayed)/r.Took.Seconds(),
		r.PerSecond, 100*r.Stage.disturbed())
	fmt.Fprintf(&w, "| live events, %d a second | measured | p50 | p99 | longest |\n|---|--:|--:|--:|--:|\n", r.Live)
	for _, phase := range []struct {
		name  string
		times []time.Duration
	}{{"alone, before", r.Before}, {"beside the replay", r.Beside}, {"alone, after", r.After}} {
		fmt.Fprintf(&w, "| %s | %d | %s | %s | %s |\n", phase.name, len(phase.times), ms(quantile(phase.times, 0.5)), ms(quantile(phase.times, 0.99)), ms(quantile(phase.times, 1)))
	}
	fmt.Fprintf(&w, "\nFrom Kafka's acknowledgement of an event to its arrival at the receiver. Every service is a process of its own with default settings, on the same machine as Kafka, "+
		"Redis, PostgreSQL and the two receivers; the replay goes to a subscription and an address of its own. It is compared with the quieter of the two times *alone*.\n\n")
	fmt.Fprintf(&w, "| process | µs for each replayed delivery, live events included |\n|---|--:|\n")
	for _, name := range slices.Sorted(maps.Keys(r.Stage.CPU)) {
		fmt.Fprintf(&w, "| %s | %d |\n", name, r.Stage.perDelivery(name).Microseconds())
	}
	return w.String()
}
