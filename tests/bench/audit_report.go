package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// What is to be reached.
const (
	targetRecorded = 10_000
	targetList     = 50 * time.Millisecond
)

// auditReport is everything that a run of the audit's bench has measured.
type auditReport struct {
	auditSettings
	Machine  Machine
	Recorded []recording
	Filled   time.Duration
	Bytes    int64 // of the filled table with its indexes
	Answers  []answered
}

func (r *auditReport) markdown() string {
	var w strings.Builder
	m := r.Machine
	fmt.Fprintf(&w, "# What the audit costs, and how fast it answers\n\nWritten by `scripts/servers with go run ./tests/bench audit`.\n\n")
	fmt.Fprintf(&w, "| commit | machine | system | Go | load before |\n|---|---|---|---|---|\n| %s | %s | %s | %s | %s |\n\n", m.Commit, m.CPU, m.Kernel, m.Go, m.Load)
	r.recorded(&w)
	r.answered(&w)
	return w.String()
}

func (r *auditReport) recorded(w *strings.Builder) {
	if len(r.Recorded) == 0 {
		return
	}
	speeds := make([]float64, len(r.Recorded))
	for i, s := range r.Recorded {
		speeds[i] = s.PerSecond
	}
	slices.Sort(speeds)
	median := speeds[len(speeds)/2]
	fmt.Fprintf(w, "## Recorder\n\n%.0f deliveries/s (median of %d rounds; target at least %d: %s), with Kafka, PostgreSQL and the recorder on the same cores.\n\n",
		median, len(speeds), targetRecorded, reached(median >= targetRecorded))
	fmt.Fprintf(w, "| round | deliveries/s | recorder µs | PostgreSQL µs | Kafka µs | rows changed later | others used |\n|--:|--:|--:|--:|--:|--:|--:|\n")
	for i, s := range r.Recorded {
		fmt.Fprintf(w, "| %d | %.0f | %d | %d | %d | %.1f %% | %.0f %% |\n", i+1, s.PerSecond, s.perDelivery("recorder").Microseconds(),
			s.perDelivery("postgres").Microseconds(), s.perDelivery("kafka").Microseconds(), 100*float64(s.Changed)/float64(s.Events), 100*s.disturbed())
	}
	fmt.Fprintf(w, "\nMicroseconds of processor time per delivery. One recorder process with default settings finds what %d deliveries leave on the topics: an event of %d bytes, "+
		"the delivery, and its attempts; of a hundred, two are retried and one is a dead letter. The clock runs from the start of the process until the database stands at the end of "+
		"every topic. PostgreSQL and Kafka as `scripts/servers` starts them (PostgreSQL without fsync).\n\n", r.Deliveries, eventSize)
}

func (r *auditReport) answered(w *strings.Builder) {
	if len(r.Answers) == 0 {
		return
	}
	worst := slices.MaxFunc(r.Answers, func(a, b answered) int { return cmp.Compare(percentile(a.lists, 99), percentile(b.lists, 99)) })
	fmt.Fprintf(w, "## GET /deliveries of %d deliveries\n\nOver %d days, %.1f GB with indexes, filled in %v. Largest p99 of a page: %v, of *%s* (target under %v: %s). "+
		"Each page is asked for %d times, drawn anew; counts, which end at %d of a status, a hundredth as often. The indexes of a day are built when it is full.\n\n", r.Rows, days, float64(r.Bytes)/1e9, r.Filled.Round(time.Second),
		percentile(worst.lists, 99), worst.name, targetList, reached(percentile(worst.lists, 99) < targetList), r.Asked, mostCounted)
	fmt.Fprintf(w, "| filter | p50 | p99 | longest | count, longest |\n|---|--:|--:|--:|--:|\n")
	for _, a := range r.Answers {
		fmt.Fprintf(w, "| %s | %v | %v | %v | %v |\n", a.name, percentile(a.lists, 50), percentile(a.lists, 99), percentile(a.lists, 100), percentile(a.counts, 100))
	}
	fmt.Fprintf(w, "\n## Plans\n\nOf the first page; of the partitions, the first two that were looked into.\n")
	for _, a := range r.Answers {
		fmt.Fprintf(w, "\n### %s\n\n```\n%s\n```\n", a.name, a.plan)
	}
}

func reached(yes bool) string {
	if yes {
		return "reached"
	}
	return "not reached"
}
