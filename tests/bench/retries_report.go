package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// retryReport is what a run of the retry bench has measured.
type retryReport struct {
	retrySettings
	Machine Machine
	Took    time.Duration

	Memory, MemoryTwice  int64 // of Redis, above what it has when empty
	RSS, RSSTwice        int64 // of the scheduler, at its peak
	IdleCPU              float64
	IdleCommands         float64 // a second
	Rebuild, RebuildWork time.Duration
	Uncached, Cached     []firing
	Storms               []stormResult
	Late                 []time.Duration
}

func (r *retryReport) markdown() string {
	slices.Sort(r.Late)
	quantile := func(q float64) time.Duration { return r.Late[min(int(q*float64(len(r.Late))), len(r.Late)-1)] }
	var t strings.Builder
	fmt.Fprintf(&t, "# The retry engine\n\nWritten by `scripts/servers with go run ./tests/bench retries`. Commit %s, %s, %s, %s, load before: %s.\n\n",
		r.Machine.Commit, r.Machine.CPU, r.Machine.Kernel, r.Machine.Go, r.Machine.Load)
	t.WriteString("| | measured | at most, or at least | |\n|---|--:|--:|---|\n")
	row := func(what, measured, bound string, holds bool) {
		fmt.Fprintf(&t, "| %s | %s | %s | %s |\n", what, measured, bound, map[bool]string{true: "holds", false: "**missed**"}[holds])
	}
	mib := func(n int64) string { return fmt.Sprintf("%.0f MB", float64(n)/1e6) }
	perRetry := float64(r.Memory) / float64(r.Waiting)
	bound := int64(200 * r.Waiting)
	row(fmt.Sprintf("Redis, %d waiting (%.0f bytes each)", r.Waiting, perRetry), mib(r.Memory), mib(bound), r.Memory <= bound)
	row(fmt.Sprintf("Redis, %d waiting", 2*r.Waiting), mib(r.MemoryTwice), mib(2*bound), r.MemoryTwice <= 2*bound)
	tenfold := r.Memory + 9*(r.MemoryTwice-r.Memory)
	row(fmt.Sprintf("Redis, %d waiting, from these two", 10*r.Waiting), mib(tenfold), mib(10*bound), tenfold <= 10*bound)
	row("scheduler, peak RSS, fill and rebuild", mib(r.RSS), "150 MB", r.RSS <= 150e6)
	row(fmt.Sprintf("scheduler, peak RSS with %d", 2*r.Waiting), mib(r.RSSTwice), "150 MB", r.RSSTwice <= 150e6)
	row("idle, processor", fmt.Sprintf("%.2f %% of a core", 100*r.IdleCPU), "1 %", r.IdleCPU < 0.01)
	row("idle, Redis commands", fmt.Sprintf("%.1f /s", r.IdleCommands), "5 /s", r.IdleCommands < 5)
	row("rebuild after FLUSHALL", fmt.Sprintf("%.1f s", r.RebuildWork.Seconds()), "60 s", r.RebuildWork <= time.Minute)
	uncached, cached := middle(r.Uncached), middle(r.Cached)
	row("fired, bodies from Kafka", fmt.Sprintf("%.0f /s, median of %s", uncached.PerSecond, speeds(r.Uncached)), "10,000 /s", uncached.PerSecond >= 10_000)
	row("fired, bodies cached", fmt.Sprintf("%.0f /s, median of %s", cached.PerSecond, speeds(r.Cached)), "25,000 /s", cached.PerSecond >= 25_000)
	row(fmt.Sprintf("lateness at %d due/s, p50", r.PerSecond), ms(quantile(.5)), "15 ms", quantile(.5) <= 15*time.Millisecond)
	row("p99", ms(quantile(.99)), "100 ms", quantile(.99) <= 100*time.Millisecond)
	row("earliest", ms(r.Late[0]), "never early", r.Late[0] >= 0)
	for _, s := range r.Storms {
		s.rows(row)
	}
	fmt.Fprintf(&t, `
Everything runs on this one machine: Kafka (one broker), Redis and one scheduler with its default settings, 12 partitions. Retries are
of events with 400 bytes of data, of 100 subscriptions.

- *Redis*: used_memory, less what it was when empty; everything counts. *Idle* is over %v with %d waiting and nothing due.
- *Rebuild*: from the first word in the scheduler's log that it builds an index again to the last that one is built. The loss itself was
  noticed, with nothing due and nothing coming in, and everything built %.1f s after FLUSHALL: a scheduler without work looks every 15 s.
- *Fired*: %d retries that are due at the same moment, from the first on the deliveries topic to the last. No delivery worker runs, so that
  nothing is paced. Cached: the cache is large enough for all. From Kafka: there is none.  Cached: %v. From Kafka: %v.
- *Lateness*: from the broker's append time plus the delay to when a consumer of the deliveries topic has the record; %d retries.
- *Storm*: with a delivery worker and a receiver, %d endpoints. The path's speed is that of deliveries that wait for the worker, without a
  storm and a scheduler. The storm is due at one moment; beside it new events are offered at six tenths of that speed, for as long as half of the storm
  needs by itself and a minute at most. Where answers come at once the path is the two processors, of which scheduler, Redis and Kafka take for
  a retry about half as much as its delivery does; where they come after %v it is the worker's slots.%s

The bench took %v.
`, r.Idle, r.Waiting, r.Rebuild.Seconds(), r.Firing, cached, uncached, len(r.Late), stormEndpoints, unhurried, r.waits(), r.Took.Round(time.Second))
	return t.String()
}

// rows are what a storm is held to.
func (s *stormResult) rows(row func(what, measured, bound string, holds bool)) {
	answers := "at once"
	if s.Answers > 0 {
		answers = "after " + s.Answers.String()
	}
	row(fmt.Sprintf("storm of %d, answers %s: what new events had of the path beside it", s.Retries, answers), fmt.Sprintf("%.0f %%", 100*s.Share), "50 %", s.Share >= 0.5)
	row(fmt.Sprintf("delivered of both, until all were; without a storm %.0f /s", s.Path), fmt.Sprintf("%.0f /s", s.Together), fmt.Sprintf("%.0f /s", 0.8*s.Path), s.Together >= 0.8*s.Path)
	row(fmt.Sprintf("%d of one endpoint that were due a second later, of the storm's %.0f s", behindStorm, s.Took.Seconds()), fmt.Sprintf("%.0f s", s.Behind.Seconds()),
		fmt.Sprintf("%.0f s", s.Took.Seconds()/2), s.Behind <= s.Took/2)
	row("delivered twice in it", fmt.Sprint(s.Duplicates), "0", s.Duplicates == 0)
}

// waits says how long new events waited beside each storm.
func (r *retryReport) waits() string {
	var t strings.Builder
	for _, s := range r.Storms {
		fmt.Fprintf(&t, "\n  Beside the storm of %d, %.0f new events/s were delivered with p50 %s, p99 %s.", s.Retries, s.Offered, ms(time.Duration(s.New.P50)), ms(time.Duration(s.New.P99)))
	}
	return t.String()
}
