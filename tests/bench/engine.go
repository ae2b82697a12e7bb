package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

const partEngine = "engine"

// runEngine measures the delivery engine by itself: workers and, where retries come due, a scheduler, on topics that the
// bench fills. Each measurement has topics, processes and a receiver of its own. One that fails is a line of the results, too.
func runEngine(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet(partEngine, flag.ExitOnError)
	hookline := flags.String("hookline", "bin/hookline", "Hookline's binary")
	out := flags.String("out", "tests/bench/results-engine.md", "where the results go; empty prints them only")
	only := flags.String("only", "", "names of measurements, comma separated; empty runs all")
	scale := flags.Float64("scale", 1, "of the amounts; 0.02 shows that it works, and says nothing about speed")
	profiles := flags.String("profile", "", "folder for CPU profiles of the workers; costs some of their speed")
	if err := flags.Parse(args); err != nil {
		return err
	}
	servers, err := serversFromEnvironment()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "hookline-engine-")
	if err != nil {
		return err
	}
	b := &engineBench{Servers: servers, hookline: *hookline, profiles: *profiles, dir: dir, scale: *scale, machine: describeMachine(ctx)}
	failed := b.run(ctx, *only)
	if failed != nil {
		failed = fmt.Errorf("%w (logs of the processes: %s)", failed, dir)
	} else if err := os.RemoveAll(dir); err != nil {
		return err
	}
	text := b.markdown()
	fmt.Print(text)
	if *out != "" {
		failed = errors.Join(failed, os.WriteFile(*out, []byte(text), 0o644))
	}
	return failed
}

var engineMeasurements = []struct {
	name string
	run  func(*engineBench, context.Context) error
}{
	{"isolation", (*engineBench).isolation},
	{"endpoints", (*engineBench).endpoints},
	{"memory", (*engineBench).memory},
	{"path", (*engineBench).path},
	{"scale", (*engineBench).scaling},
	{"kill", (*engineBench).kill},
}

type engineBench struct {
	Servers
	hookline, profiles, dir string
	scale                   float64 // of the amounts
	machine                 Machine
	rows                    []engineRow
}

// run makes the measurements that are named in a list, all of them where it is empty. The error joins those of all.
func (b *engineBench) run(ctx context.Context, only string) (failed error) {
	for _, m := range engineMeasurements {
		if only != "" && !slices.Contains(strings.Split(only, ","), m.name) {
			continue
		}
		fmt.Fprintln(os.Stderr, "bench:", m.name)
		first, before := len(b.rows), b.used()
		if err := m.run(b, ctx); err != nil {
			err = fmt.Errorf("%s: %w", m.name, err)
			failed = errors.Join(failed, err)
			b.add(m.name, "failed: "+strings.ReplaceAll(err.Error(), "\n", " "), "to be measured", false)
		}
		others := others(before, b.used())
		for i := range b.rows[first:] {
			r := &b.rows[first+i]
			r.others = others
			fmt.Fprintln(os.Stderr, "bench:  ", *r)
		}
	}
	return failed
}

// used is the time of the processors that the bench, its processes and the servers have used.
func (b *engineBench) used() usage {
	pids := b.pids()
	pids["bench"] = os.Getpid()
	return measure(pids)
}

// others is the share of the machine that processes outside the bench took between two readings.
func others(before, after usage) float64 {
	s := newStage(1, before, after)
	return s.Others.Seconds() / s.Took.Seconds() / float64(runtime.NumCPU())
}

// Of so many rounds those count in which others used the machine least.
const roundsMade, roundsCounted = 5, 3

// calmest makes a measurement several times and returns the ones that count, in the order of how calm it was.
func calmest[T any](b *engineBench, measure func() (T, error)) ([]T, error) {
	type round struct {
		measured T
		others   float64
	}
	rounds := make([]round, roundsMade)
	for i := range rounds {
		before := b.used()
		measured, err := measure()
		if err != nil {
			return nil, err
		}
		rounds[i] = round{measured, others(before, b.used())}
		fmt.Fprintf(os.Stderr, "bench:   round %d: %v, others used %.0f %%\n", i+1, measured, 100*rounds[i].others)
	}
	slices.SortStableFunc(rounds, func(a, b round) int { return cmp.Compare(a.others, b.others) })
	counted := make([]T, roundsCounted)
	for i := range counted {
		counted[i] = rounds[i].measured
	}
	return counted, nil
}

func (b *engineBench) amount(n int) int { return max(int(float64(n)*b.scale), 20) }

// span is a time of measuring.
func (b *engineBench) span(d time.Duration) time.Duration {
	return max(time.Duration(float64(d)*b.scale), 2*time.Second)
}
