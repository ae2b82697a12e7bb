package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTheReportOnRetriesSaysWhatHolds(t *testing.T) {
	r := retryReport{
		retrySettings: retrySettings{Waiting: 1000, Firing: 10, PerSecond: 100, Idle: time.Minute, Storm: 9},
		Memory:        170_000, MemoryTwice: 340_000, RSS: 60e6, RSSTwice: 160e6, IdleCPU: 0.001, IdleCommands: 1,
		Rebuild: time.Minute, RebuildWork: 20 * time.Second, Uncached: []firing{{PerSecond: 12_000}}, Cached: []firing{{PerSecond: 30_000}, {PerSecond: 24_000}, {PerSecond: 9_000}},
		Storms: []stormResult{{Retries: 9, Path: 5000, Offered: 2500, New: tally{PerSecond: 2450}, Share: 0.6, Together: 3000, Took: 40 * time.Second, Behind: 10 * time.Second},
			{Retries: 90, Answers: unhurried, Path: 5000, Share: 0.4, Together: 3999, Took: time.Minute, Behind: time.Second}},
		Late: []time.Duration{9 * time.Millisecond, 2 * time.Millisecond, 200 * time.Millisecond},
	}
	text := r.markdown()
	if strings.Contains(text, "%!") || strings.Contains(text, "NaN") {
		t.Errorf("the report is broken:\n%s", text)
	}
	for _, line := range []string{
		"| Redis, 1000 waiting (170 bytes each) | 0 MB | 0 MB | holds |", "| Redis, 10000 waiting, from these two | 2 MB | 2 MB | holds |",
		"| scheduler, peak RSS with 2000 | 160 MB | 150 MB | **missed** |", "| fired, bodies cached | 24000 /s, median of 30000, 24000, 9000 | 25,000 /s | **missed** |",
		"| lateness at 100 due/s, p50 | 9.0 ms | 15 ms | holds |", "| p99 | 200.0 ms | 100 ms | **missed** |", "| earliest | 2.0 ms | never early | holds |",
		"| storm of 9, answers at once: what new events had of the path beside it | 60 % | 50 % | holds |",
		"| delivered of both, until all were; without a storm 5000 /s | 3000 /s | 4000 /s | **missed** |",
		"| storm of 90, answers after 100ms: what new events had of the path beside it | 40 % | 50 % | **missed** |",
		"| delivered of both, until all were; without a storm 5000 /s | 3999 /s | 4000 /s | **missed** |",
		"| 200 of one endpoint that were due a second later, of the storm's 40 s | 10 s | 20 s | holds |",
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %q in\n%s", line, text)
		}
	}
}

func TestARebuildLastsFromItsFirstPartitionToItsLast(t *testing.T) {
	log := filepath.Join(t.TempDir(), "scheduler.log")
	line := func(at, message string) string {
		return `{"time":"2026-04-14T` + at + `Z","msg":"` + message + `"}` + "\n"
	}
	const begin, end = "building the timer index again", "the timer index is built again"
	text := line("09:00:00.5", begin) + line("09:00:02", end) + line("10:00:00", begin) + line("10:00:01", begin) + line("10:00:05", end) + line("10:00:07.25", end) + "other\n"
	if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b := &retryBench{retrySettings: retrySettings{Idle: time.Minute}}
	if took := b.lastRebuild(&process{log: log}); took != 7250*time.Millisecond {
		t.Errorf("took %v", took)
	}
}
