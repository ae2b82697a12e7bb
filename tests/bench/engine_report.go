package main

import (
	"fmt"
	"strings"
	"time"
)

// engineRow is one figure of the report.
type engineRow struct {
	what, measured, target string
	reached                bool
	others                 float64 // share of the machine that others used meanwhile
}

func (r engineRow) String() string { return r.what + ": " + r.measured }

func (b *engineBench) add(what, measured, target string, reached bool) {
	b.rows = append(b.rows, engineRow{what: what, measured: measured, target: target, reached: reached})
}

func (b *engineBench) markdown() string {
	var text strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&text, format+"\n", args...) }
	line("# The delivery engine by itself\n")
	line("Written by `scripts/servers with go run ./tests/bench engine`. How it is measured stands below the figures.\n")
	line("| commit | machine | system | Go | date | load before |")
	line("|---|---|---|---|---|---|")
	m := b.machine
	line("| %s | %s | %s | %s | %s | %s |\n", m.Commit, m.CPU, m.Kernel, m.Go, time.Now().UTC().Format("2006-01-02 15:04 UTC"), m.Load)
	line("| | measured | target | | others used |")
	line("|---|---|---|---|--:|")
	for _, r := range b.rows {
		said := ""
		if r.target != "" {
			said = verdict(r.reached)
		}
		line("| %s | %s | %s | %s | %.0f %% |", r.what, r.measured, r.target, said, 100*r.others)
	}
	line("\n## How it is measured\n")
	line("Kafka (one broker), Redis, the workers (default settings), a scheduler where retries come due, the receiver (fasthttp) and the bench are processes of one machine, " +
		"on loopback addresses; endpoints that are told apart have addresses of their own. The bench writes deliveries of 300 bytes of data in " + fmt.Sprint(partitions) +
		" partitions as the router would, under the contract `standard`; nothing reads the attempts. " +
		"Where the system's setting for huge pages is `madvise`, the worker and the bench's own processes ask for them, and Kafka where `KAFKA_JAVA_OPTS` does not replace its options.\n")
	line("- *Latency* is from when the bench writes a delivery to when the receiver has read the request.")
	line("- *Deliveries/s* is of the middle half of the requests, so that neither the start nor the tail counts.")
	line("- *Beside others* and *10,000 endpoints* are measured in %d rounds, each of which compares what was measured within it; the %d count in which "+
		"others used the machine least, the calmest first.", roundsMade, roundsCounted)
	line("- *10,000 endpoints*: the first of %d deliveries go to one endpoint after the other, so that connections, and most of "+
		"the worker's memory, are there before the middle half; the processor time is of all deliveries. Each lap is between two to one endpoint, and compared with their mean.", speedDeliveries)
	line("- *Bare loop*: one process, a member of a group, reads as many bodies as the worker sends from a topic and POSTs them, signed, over %d connections; it commits "+
		"what is sent, and keeps nothing else. With net/http it has the worker's timeout; with fasthttp it commits nothing. "+
		"Loops and worker are measured in %d rounds, in turn.", connections, pathRounds)
	line("- *Others used*: the share of the machine that processes outside the bench took during the measurement, or its host for other machines.")
	line("- *Retries that come due*: written to the retries topic beforehand with delays that end together.")
	return text.String()
}
