package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// What is to be reached, and what a later version is to reach.
const (
	targetRatio, laterRatio = 0.12, 0.4
	targetP50, laterP50     = 15 * time.Millisecond, 4 * time.Millisecond
)

// Report is everything that a run has measured.
type Report struct {
	Settings Settings
	Machine  Machine
	Rounds   []Round

	// Latencies of the pipeline in ascending order.
	Paced              []time.Duration
	Saturated          []time.Duration
	SaturatedPerSecond float64

	// Peak is the most memory that each process has held, in bytes.
	Peak map[string]int64
}

// Round is the floor, and the pipeline right after it.
type Round struct{ Floor, Pipeline Stage }

// Stage is what was measured of so many events.
type Stage struct {
	Events int
	// PerSecond is from the first arrival to the last; AuditedPerSecond from the first until the audit was complete.
	PerSecond        float64
	AuditedPerSecond float64
	Repeated         int // arrived more than once
	Deferred         int // put back without an attempt
	Audited          int // in the audit as DELIVERED at the end, everything that was produced

	Took   time.Duration            // start of the sending process to the end
	CPU    map[string]time.Duration // by process
	Others time.Duration            // processor time of everybody else on the machine
}

func (r Round) ratio() float64        { return r.Pipeline.PerSecond / r.Floor.PerSecond }
func (r Round) auditedRatio() float64 { return r.Pipeline.AuditedPerSecond / r.Floor.PerSecond }

// perDelivery is the processor time that a process spent on a delivery.
func (s Stage) perDelivery(name string) time.Duration { return s.CPU[name] / time.Duration(s.Events) }

// perSecond is how many milliseconds of processor time a process spent in a second.
func (s Stage) perSecond(name string) float64 {
	return 1000 * s.CPU[name].Seconds() / s.Took.Seconds()
}

// add takes another stage of the same kind together with this one.
func (s *Stage) add(other Stage) {
	s.Events, s.Took, s.Others = s.Events+other.Events, s.Took+other.Took, s.Others+other.Others
	if s.CPU == nil {
		s.CPU = map[string]time.Duration{}
	}
	for name, used := range other.CPU {
		s.CPU[name] += used
	}
}

// disturbed is the share of the machine that others used.
func (s Stage) disturbed() float64 {
	return s.Others.Seconds() / (s.Took.Seconds() * float64(runtime.NumCPU()))
}

// Machine is where and with what it was measured.
type Machine struct{ Commit, CPU, Kernel, Go, Load string }

func describeMachine(ctx context.Context) Machine {
	m := Machine{Commit: "unknown", Go: runtime.Version(), Load: load(), CPU: runtime.GOARCH, Kernel: runtime.GOOS}
	if text, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--abbrev=10").Output(); err == nil {
		m.Commit = strings.TrimSpace(string(text))
	}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		_, rest, _ := strings.Cut(string(text), "model name")
		line, _, _ := strings.Cut(rest, "\n")
		if name := strings.Trim(line, "\t :"); name != "" {
			m.CPU = name
		}
	}
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel += " " + strings.TrimSpace(string(text))
	}
	if text, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled"); err == nil {
		// All settings are there, the one in force in brackets.
		_, rest, _ := strings.Cut(string(text), "[")
		inForce, _, _ := strings.Cut(rest, "]")
		m.Kernel += ", huge pages: " + inForce
	}
	m.CPU = fmt.Sprintf("%s, %d cores", m.CPU, runtime.NumCPU())
	return m
}

// quantile of ascending times.
func quantile(times []time.Duration, q float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	return times[min(int(q*float64(len(times))), len(times)-1)]
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// middle is the round whose ratio is the median.
func (r *Report) middle() Round {
	sorted := slices.SortedFunc(slices.Values(r.Rounds), func(a, b Round) int {
		switch {
		case a.ratio() < b.ratio():
			return -1
		case a.ratio() > b.ratio():
			return 1
		default:
			return 0
		}
	})
	return sorted[len(sorted)/2]
}

// markdown is the report for people.
func (r *Report) markdown() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# What Hookline's promises cost\n")
	line("Written by `make bench`. How it is measured stands below the figures.\n")
	line("| commit | machine | system | Go | date | load before |")
	line("|---|---|---|---|---|---|")
	m := r.Machine
	line("| %s | %s | %s | %s | %s | %s |\n", m.Commit, m.CPU, m.Kernel, m.Go, time.Now().UTC().Format("2006-01-02 15:04 UTC"), m.Load)
	r.targets(line)
	r.speeds(line)
	r.latencies(line)
	r.costs(line)
	r.method(line)
	return b.String()
}

type printer func(format string, args ...any)

func (r *Report) targets(line printer) {
	var ratios, audited []float64
	for _, round := range r.Rounds {
		ratios = append(ratios, round.ratio())
		audited = append(audited, round.auditedRatio())
	}
	ratio, p50 := median(ratios), quantile(r.Paced, 0.5)
	line("| | measured | target | | later |")
	line("|---|--:|--:|---|--:|")
	line("| deliveries/s, pipeline : floor, median of %d rounds | %.3f | at least %.2f | %s | %.1f |", len(r.Rounds), ratio, targetRatio, verdict(ratio >= targetRatio), laterRatio)
	line("| the same, counted until the audit is complete | %.3f | | | |", median(audited))
	line("| p50 from acknowledgement to receiver at %d events/s | %s | at most %s | %s | %s |\n", r.Settings.Pace, ms(p50), ms(targetP50), verdict(p50 <= targetP50), ms(laterP50))
}

func verdict(reached bool) string {
	if reached {
		return "reached"
	}
	return "**missed**"
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", d.Seconds()*1000) }

func (r *Report) speeds(line printer) {
	line("## Deliveries per second\n")
	line("| round | floor | pipeline | ratio | until audited | ratio | repeated | deferred | others used |")
	line("|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
	for i, round := range r.Rounds {
		f, p := round.Floor, round.Pipeline
		line("| %d | %.0f | %.0f | %.3f | %.0f | %.3f | %d | %d | %.0f %% / %.0f %% |", i+1, f.PerSecond, p.PerSecond, round.ratio(),
			p.AuditedPerSecond, round.auditedRatio(), f.Repeated+p.Repeated, p.Deferred, 100*f.disturbed(), 100*p.disturbed())
	}
	line("\nOthers used: the share of the machine that processes outside the bench took, during the floor and during the pipeline.\n")
}

func (r *Report) latencies(line printer) {
	line("## From produce acknowledgement to receiver\n")
	line("| | p50 | p99 | longest | events |")
	line("|---|--:|--:|--:|--:|")
	row := func(name string, times []time.Duration) {
		line("| %s | %s | %s | %s | %d |", name, ms(quantile(times, 0.5)), ms(quantile(times, 0.99)), ms(quantile(times, 1)), len(times))
	}
	row(fmt.Sprintf("%d events/s", r.Settings.Pace), r.Paced)
	row(fmt.Sprintf("saturated: %.0f events/s, %d under way", r.SaturatedPerSecond, r.Settings.Underway), r.Saturated)
	line("")
}

func (r *Report) costs(line printer) {
	round := r.middle()
	line("## Processor time per delivery, and peak memory\n")
	line("Of the median round; memory of all rounds.\n")
	line("| process | floor | pipeline | peak RSS |")
	line("|---|--:|--:|--:|")
	var sums [2]time.Duration
	for _, name := range slices.Sorted(maps.Keys(r.Peak)) {
		f, p := round.Floor.perDelivery(name), round.Pipeline.perDelivery(name)
		sums[0] += f
		sums[1] += p
		line("| %s | %s | %s | %.0f MiB |", name, micro(f), micro(p), float64(r.Peak[name])/(1<<20))
	}
	line("| all | %s | %s | |\n", micro(sums[0]), micro(sums[1]))
}

func micro(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f µs", float64(d)/float64(time.Microsecond))
}

func (r *Report) method(line printer) {
	s := r.Settings
	line("## How it is measured\n")
	line("Everything runs on this one machine, on the loopback interface: Kafka (one broker), Redis and PostgreSQL as `scripts/servers` starts them "+
		"(PostgreSQL without fsync; nothing here waits for a disk), every service of Hookline and the receiver (fasthttp, answers 200 with an empty body) as processes of "+
		"their own, with the default settings. Events are native JSON of %d bytes in %d partitions; one subscription under `fynapse` takes them all.\n", eventSize, partitions)
	line("- *Floor*: one process reads %d events, which are there before it starts, with franz-go, signs each with HMAC-SHA256 and POSTs it with fasthttp "+
		"over %d connections. It stores nothing and retries nothing.", s.FloorEvents, connections)
	line("- *Pipeline*: %d events are there before the router starts, so that every stage has work until the end. Each round has topics and a database of its own.", s.PipelineEvents)
	line("- *Deliveries per second*: from the first arrival at the receiver to the last. *Until audited* counts until the API finds all of them DELIVERED.")
	line("- *Latency*: in the last round, from the moment the producer saw the acknowledgement to the moment the receiver had read the request. %d events/s: one every %v for %v, "+
		"after %v that do not count. Saturated: for %v the producer keeps %d events on their way; the first fifth does not count. There the number under way decides the latency, "+
		"which is that number divided by the speed.", s.Pace, time.Second/time.Duration(s.Pace), s.Paced, s.WarmUp, s.Saturated, s.Underway)
	line("- *Processor time*: user and system time of the process in `/proc`, from before the floor or the router starts until the last arrival, or until the audit is complete, " +
		"divided by the number of deliveries; PostgreSQL with its children. Memory: `VmHWM`, of PostgreSQL that of its largest process.")
	line("- At the end of every round the audit has exactly as many deliveries as events were produced, all of them DELIVERED, or the run fails.")
}
