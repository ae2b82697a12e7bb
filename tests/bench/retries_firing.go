package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// firing is how fast retries were fired, and the processor time of each.
type firing struct {
	PerSecond               float64
	Scheduler, Redis, Kafka time.Duration
	Machine                 float64 // the share of it that was used, by whomever
}

// firing measures how many due retries are fired in a second, when all are due at once.
func (b *retryBench) firing(ctx context.Context, name, cache string) (f firing, err error) {
	end, err := b.open(ctx, name)
	if err != nil {
		return f, err
	}
	defer end()
	scheduler, err := b.scheduler(ctx, name, cache)
	if err != nil {
		return f, err
	}
	defer scheduler.stop()
	due := time.Now().Add(20*time.Second + time.Duration(b.Firing)*50*time.Microsecond)
	if err := b.write(ctx, 0, b.Firing, func(int) time.Duration { return time.Until(due) }); err != nil {
		return f, err
	}
	if err := until(ctx, scheduler, "fill the index", func() bool { return b.indexed(ctx) == b.Firing }); err != nil {
		return f, err
	}
	if time.Now().After(due) {
		return f, errors.New("the index was not full before anything was due")
	}
	if err := until(ctx, scheduler, "begin to fire", func() bool { return b.fired(ctx) > 0 }); err != nil {
		return f, err
	}
	pids := b.servers.pids()
	pids["scheduler"] = scheduler.pid()
	profiled := b.profiling(ctx, scheduler, name)
	began, before, used := time.Now(), b.fired(ctx), measure(pids)
	if err := until(ctx, scheduler, "fire", func() bool { return b.fired(ctx) >= b.Firing }); err != nil {
		return f, err
	}
	took, spent, fired := time.Since(began).Seconds(), measure(pids).since(used), time.Duration(b.Firing-before)
	f = firing{
		PerSecond: float64(fired) / took, Scheduler: spent.cpu["scheduler"] / fired, Redis: spent.cpu["redis"] / fired, Kafka: spent.cpu["kafka"] / fired,
		Machine: spent.cpu[""].Seconds() / took / float64(runtime.NumCPU()),
	}
	b.say(name + ": " + f.String())
	return f, <-profiled
}

// firingRounds is how often firing is measured.
const firingRounds = 3

// rounds measures firing again and again.
func (b *retryBench) rounds(ctx context.Context, all *[]firing, name, cache string) error {
	for n := range firingRounds {
		f, err := b.firing(ctx, fmt.Sprintf("%s-%d", name, n), cache)
		if err != nil {
			return err
		}
		*all = append(*all, f)
	}
	return nil
}

// middle is the measurement with the median speed.
func middle(all []firing) firing {
	if len(all) == 0 {
		return firing{}
	}
	sorted := slices.SortedFunc(slices.Values(all), func(a, b firing) int { return cmp.Compare(a.PerSecond, b.PerSecond) })
	return sorted[len(sorted)/2]
}

// speeds are those of each round.
func speeds(all []firing) string {
	var text []string
	for _, f := range all {
		text = append(text, fmt.Sprintf("%.0f", f.PerSecond))
	}
	return strings.Join(text, ", ")
}

func (f firing) String() string {
	return fmt.Sprintf("%.0f/s; each used %v of the scheduler, %v of Redis, %v of Kafka; the machine was used to %.0f %%",
		f.PerSecond, f.Scheduler, f.Redis, f.Kafka, 100*f.Machine)
}

// profiling writes a CPU profile of the scheduler's next seconds, where one is asked for.
func (b *retryBench) profiling(ctx context.Context, scheduler *process, name string) <-chan error {
	done := make(chan error, 1)
	go func() {
		defer close(done)
		if b.profiles == "" {
			return
		}
		text, err := fetch(ctx, "http://"+scheduler.admin+"/debug/pprof/profile?seconds=8")
		if err == nil {
			err = os.WriteFile(filepath.Join(b.profiles, name+".pprof"), text, 0o600)
		}
		done <- err
	}()
	return done
}

func (b *retryBench) fired(ctx context.Context) int {
	ends, err := b.admin.ListEndOffsets(ctx, b.cluster.Topics.Deliveries)
	if err != nil {
		return 0
	}
	total := 0
	ends.Each(func(o kadm.ListedOffset) { total += int(o.Offset) })
	return total
}
