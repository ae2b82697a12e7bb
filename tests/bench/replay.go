package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	partReplay = "replay"
	storedType = "bench.stored"
)

// replaySettings are how much is replayed beside how much live traffic.
type replaySettings struct {
	Stored int   // events to replay
	Rates  []int // of replays, one after another, deliveries a second
	Live   int   // events a second to another endpoint
	WarmUp time.Duration
	Round  time.Duration // alone, and as long again beside the replay
	Rounds int
}

// runReplay measures how long live events take while a replay of stored events to another endpoint is paused and while it runs, in turn.
func runReplay(ctx context.Context, args []string) error {
	s := replaySettings{Rates: []int{defaultRate, 5 * defaultRate}}
	flags := flag.NewFlagSet("bench replay", flag.ExitOnError)
	short := flags.Bool("short", false, "few events: shows that the bench works, says nothing about speed")
	hookline := flags.String("hookline", "bin/hookline", "Hookline's binary")
	out := flags.String("out", "tests/bench/results-replay.md", "where the results go; empty prints them only")
	profiles := flags.String("profile", "", "folder for CPU profiles of the services during the replay")
	flags.IntVar(&s.Stored, "stored", 1_000_000, "how many stored events are to be replayed")
	flags.IntVar(&s.Live, "live", 100, "live events a second")
	flags.IntVar(&s.Rounds, "rounds", 7, "how often live events are measured with and without each replay")
	flags.DurationVar(&s.Round, "round", 15*time.Second, "for how long each time")
	flags.DurationVar(&s.WarmUp, "warmup", 40*time.Second, "for how long before, long enough for Kafka's compiler")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *short {
		s = quickReplay()
	}
	servers, err := serversFromEnvironment()
	if err != nil {
		return err
	}
	return published(*out, func(dir string) (string, error) {
		report, err := newBench(Settings{Hookline: *hookline, Profiles: *profiles}, servers, dir).replay(ctx, s)
		if err != nil {
			return "", err
		}
		return report.markdown(), nil
	})
}

// defaultRate is what a replay has for which nobody asks for another.
const defaultRate = 100

func quickReplay() replaySettings {
	return replaySettings{Stored: 20_000, Rates: []int{500}, Live: 50, Round: 2 * time.Second, Rounds: 2}
}

func (b *bench) replay(ctx context.Context, s replaySettings) (*replayReport, error) {
	b.report = Report{Machine: describeMachine(ctx), Peak: map[string]int64{}}
	report := &replayReport{replaySettings: s, Machine: b.report.Machine}
	b.Pace = s.Live
	i, err := b.install(ctx)
	if err != nil {
		return nil, err
	}
	defer i.remove()
	routing, err := i.service(ctx, router)
	if err != nil {
		return nil, err
	}
	if err := routing.ready(ctx); err != nil {
		return nil, err
	}
	from, to, err := i.store(ctx, s.Stored)
	if err != nil {
		return nil, err
	}
	b.say(fmt.Sprintf("%d events are stored", s.Stored))
	b.WarmUp = s.WarmUp
	if _, err := i.live(ctx, time.Second); err != nil {
		return nil, fmt.Errorf("warm up: %w", err)
	}
	b.WarmUp = 0
	for _, rate := range s.Rates {
		one := besideReplay{PerSecond: rate}
		if err := i.beside(ctx, s, &one, from, to); err != nil {
			return nil, fmt.Errorf("beside a replay of %d a second: %w", rate, err)
		}
		report.Replays = append(report.Replays, one)
	}
	return report, nil
}

// store puts events into the database that nobody has wanted so far, recorded in the course of yesterday.
func (i *installation) store(ctx context.Context, count int) (from, to time.Time, err error) {
	conn, err := pgx.Connect(ctx, i.env["HOOKLINE_DATABASE_URL"])
	if err != nil {
		return from, to, err
	}
	defer conn.Close(ctx)
	to = time.Now().UTC().Truncate(24 * time.Hour)
	from = to.AddDate(0, 0, -1)
	const insert = `INSERT INTO events (created_at, tenant, id, type, ordering_key, occurred_at, data, traceparent, tracestate, source_topic, source_partition, source_offset)
		SELECT at, 'default', 'stored-' || n, $1, '', at, convert_to('{"sequence":"' || lpad(n::text, $2, '0') || '","note":"' || repeat(md5(n::text), 10) || '"}', 'UTF8'),
			'', '', $3, n % $4, n / $4
		FROM (SELECT n, $5::timestamptz + n * (interval '1 day' / $6::bigint) AS at FROM generate_series(0, $6::bigint - 1) AS n) drawn`
	_, err = conn.Exec(ctx, insert, storedType, sequenceDigits, i.name+".events", partitions, from, count)
	if err == nil {
		_, err = conn.Exec(ctx, "ANALYZE events")
	}
	return from, to, err
}

// live measures live events for so long.
func (i *installation) live(ctx context.Context, long time.Duration) ([]time.Duration, error) {
	i.Paced = long
	return i.paced(ctx)
}

// beside starts a replay and measures live events, in turn while it is paused and while it runs.
func (i *installation) beside(ctx context.Context, s replaySettings, one *besideReplay, from, to time.Time) error {
	address, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	replayed := receiverClient{address}
	p, err := part(ctx, i.dir, partReceiver, address)
	if err != nil {
		return err
	}
	name := partReceiver + " of the replay"
	i.running[name] = p
	defer func() {
		p.stop()
		delete(i.running, name)
	}()
	if err := p.listening(ctx, address); err != nil {
		return err
	}
	if err := replayed.expect(ctx, 0, s.Stored); err != nil {
		return err
	}
	id, err := i.startReplay(ctx, replayed.hook(), one.PerSecond, from, to)
	if err != nil {
		return err
	}
	for range s.Rounds {
		if err := i.round(ctx, s.Round, one, id, replayed); err != nil {
			return err
		}
		i.say(fmt.Sprintf("beside %d/s the p99 is %.2f of that alone", one.PerSecond, one.Ratios[len(one.Ratios)-1]))
	}
	slices.Sort(one.Alone)
	slices.Sort(one.Beside)
	return i.steer(ctx, id, "cancel")
}

// round measures live events without the replay, and then with it.
func (i *installation) round(ctx context.Context, long time.Duration, one *besideReplay, id string, replayed receiverClient) error {
	if err := i.steer(ctx, id, "pause"); err != nil {
		return err
	}
	alone, err := i.watched(ctx, long, &one.AloneCPU)
	if err != nil {
		return fmt.Errorf("alone: %w", err)
	}
	begun, err := arrivedAt(ctx, replayed)
	if err != nil {
		return err
	}
	if err := i.steer(ctx, id, "resume"); err != nil {
		return err
	}
	if err := i.progress(ctx, 50*time.Millisecond, begun+1, "have been replayed", func() (int, error) { return arrivedAt(ctx, replayed) }); err != nil {
		return err
	}
	profiled := i.profile(ctx)
	if begun, err = arrivedAt(ctx, replayed); err != nil {
		return err
	}
	beside, err := i.watched(ctx, long, &one.BesideCPU)
	if err != nil {
		return fmt.Errorf("beside: %w", err)
	}
	arrived, err := arrivedAt(ctx, replayed)
	if err != nil {
		return err
	}
	one.Replayed += arrived - begun
	one.Ratios = append(one.Ratios, float64(quantile(beside, 0.99))/float64(max(quantile(alone, 0.99), 1)))
	one.Alone, one.Beside = append(one.Alone, alone...), append(one.Beside, beside...)
	return profiled()
}

// watched measures live events for so long, and adds what the processes spent meanwhile.
func (i *installation) watched(ctx context.Context, long time.Duration, spent *Stage) ([]time.Duration, error) {
	before := measure(i.pids())
	times, err := i.live(ctx, long)
	if err == nil {
		spent.add(newStage(len(times), before, measure(i.pids())))
	}
	return times, err
}

func arrivedAt(ctx context.Context, c receiverClient) (int, error) {
	n, err := c.counts(ctx)
	return n.Arrived, err
}

func (i *installation) startReplay(ctx context.Context, hook string, perSecond int, from, to time.Time) (id string, err error) {
	var made struct {
		ID string `json:"id"`
	}
	if err := i.call(ctx, http.MethodPost, "/subscriptions", http.StatusCreated, map[string]any{
		"name": fmt.Sprintf("replayed-%d", perSecond), "endpointUrl": hook, "eventTypes": []string{storedType}, "profile": "fynapse",
	}, &made); err != nil {
		return "", err
	}
	err = i.call(ctx, http.MethodPost, "/replays", http.StatusAccepted, map[string]any{
		"subscriptionId": made.ID, "from": from, "to": to, "ratePerSecond": perSecond,
	}, &made)
	return made.ID, err
}

// steer pauses, resumes or cancels a replay, and waits until what it had under way is over.
func (i *installation) steer(ctx context.Context, id, verb string) error {
	var answer struct{}
	if err := i.call(ctx, http.MethodPost, "/replays/"+id+"/"+verb, http.StatusOK, map[string]any{}, &answer); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(3 * time.Second):
		return nil
	}
}
