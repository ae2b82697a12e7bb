package main

import (
	"context"
	"errors"
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
	Stored    int // events to replay
	PerSecond int // the replay's own limit
	Live      int // events a second to another endpoint
	Alone     time.Duration
	Within    time.Duration // the replay may take no longer, done or not
}

// runReplay measures how long live events take alone, and while a replay of stored events to another endpoint runs.
func runReplay(ctx context.Context, args []string) error {
	s := replaySettings{}
	flags := flag.NewFlagSet("bench replay", flag.ExitOnError)
	short := flags.Bool("short", false, "few events: shows that the bench works, says nothing about speed")
	hookline := flags.String("hookline", "bin/hookline", "Hookline's binary")
	out := flags.String("out", "tests/bench/results-replay.md", "where the results go; empty prints them only")
	profiles := flags.String("profile", "", "folder for CPU profiles of the services during the replay")
	flags.IntVar(&s.Stored, "stored", 1_000_000, "how many stored events are replayed")
	flags.IntVar(&s.PerSecond, "rate", 500, "the replay's own limit, deliveries a second")
	flags.IntVar(&s.Live, "live", 100, "live events a second")
	flags.DurationVar(&s.Alone, "alone", 30*time.Second, "for how long live events are measured alone, before and after")
	flags.DurationVar(&s.Within, "within", 10*time.Minute, "when to cut the replay off")
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

func quickReplay() replaySettings {
	return replaySettings{Stored: 1000, PerSecond: 500, Live: 50, Alone: 2 * time.Second, Within: 20 * time.Second}
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
	b.WarmUp = 2 * s.Alone // long enough for Kafka's compiler
	if report.Before, err = i.live(ctx, s.Alone); err != nil {
		return nil, fmt.Errorf("alone, before: %w", err)
	}
	b.say(fmt.Sprintf("alone: p99 %v", quantile(report.Before, 0.99)))
	if err := i.beside(ctx, report, from, to); err != nil {
		return nil, fmt.Errorf("beside a replay: %w", err)
	}
	b.say(fmt.Sprintf("beside: p99 %v, %d replayed", quantile(report.Beside, 0.99), report.Replayed))
	if report.After, err = i.live(ctx, s.Alone); err != nil {
		return nil, fmt.Errorf("alone, after: %w", err)
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

// beside starts a replay and measures live events, a few seconds at a time, from its first arrival until it is done or cut off.
func (i *installation) beside(ctx context.Context, report *replayReport, from, to time.Time) error {
	address, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	replayed := receiverClient{address}
	p, err := part(ctx, i.dir, partReceiver, address)
	if err != nil {
		return err
	}
	i.running[partReceiver+" of the replay"] = p
	if err := p.listening(ctx, address); err != nil {
		return err
	}
	if err := replayed.expect(ctx, 0, report.Stored); err != nil {
		return err
	}
	id, err := i.startReplay(ctx, replayed.hook(), report.PerSecond, from, to)
	if err != nil {
		return err
	}
	if err := i.progress(ctx, 50*time.Millisecond, 1, "have been replayed", func() (int, error) { return arrivedAt(ctx, replayed) }); err != nil {
		return err
	}
	i.WarmUp = 0
	profiled := i.profile(ctx)
	before, began := measure(i.pids()), time.Now()
	for last := -1; time.Since(began) < report.Within; {
		times, err := i.live(ctx, min(5*time.Second, report.Alone))
		if err != nil {
			return err
		}
		report.Beside = append(report.Beside, times...)
		if report.Replayed, err = arrivedAt(ctx, replayed); err != nil {
			return err
		}
		if report.Replayed >= report.Stored || report.Replayed == last {
			break
		}
		last = report.Replayed
	}
	report.Took = time.Since(began)
	report.Stage = newStage(max(report.Replayed, 1), before, measure(i.pids()))
	slices.Sort(report.Beside)
	if report.Replayed < report.Stored {
		return errors.Join(i.cancelReplay(ctx, id), profiled())
	}
	return profiled()
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
		"name": "replayed", "endpointUrl": hook, "eventTypes": []string{storedType}, "profile": "fynapse",
	}, &made); err != nil {
		return "", err
	}
	err = i.call(ctx, http.MethodPost, "/replays", http.StatusAccepted, map[string]any{
		"subscriptionId": made.ID, "from": from, "to": to, "ratePerSecond": perSecond,
	}, &made)
	return made.ID, err
}

// cancelReplay ends a replay and waits until nothing more of it arrives, so that what follows is alone again.
func (i *installation) cancelReplay(ctx context.Context, id string) error {
	var answer struct{}
	if err := i.call(ctx, http.MethodPost, "/replays/"+id+"/cancel", http.StatusOK, map[string]any{}, &answer); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(3 * time.Second):
		return nil
	}
}
