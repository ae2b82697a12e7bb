package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/topic"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

const partAudit = "audit"

// auditSettings are how much of the audit is measured.
type auditSettings struct {
	Rounds     int
	Deliveries int // a round, on the topics before the recorder starts
	Rows       int // deliveries in the database that is asked
	Asked      int // how often each question is asked
}

// runAudit measures how fast the recorder writes, and how fast the audit answers when it is large.
func runAudit(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench audit", flag.ExitOnError)
	short := flags.Bool("short", false, "few deliveries: shows that the bench works, says nothing about speed")
	hookline := flags.String("hookline", "bin/hookline", "Hookline's binary")
	out := flags.String("out", "tests/bench/results-audit.md", "where the results go; empty prints them only")
	rounds := flags.Int("rounds", 3, "how often the recorder is measured; 0 leaves it out")
	deliveries := flags.Int("deliveries", 300_000, "how many deliveries the recorder finds in a round")
	rows := flags.Int("rows", 10_000_000, "how many deliveries the questions are asked of; 0 leaves them out")
	profiles := flags.String("profile", "", "folder for a CPU profile of the recorder")
	if err := flags.Parse(args); err != nil {
		return err
	}
	settings := auditSettings{Rounds: *rounds, Deliveries: *deliveries, Rows: *rows, Asked: 300}
	if *short {
		settings = auditSettings{Rounds: min(*rounds, 1), Deliveries: 3000, Rows: min(*rows, 20_000), Asked: 5}
	}
	servers, err := serversFromEnvironment()
	if err != nil {
		return err
	}
	return published(*out, func(dir string) (string, error) {
		report, err := newBench(Settings{Hookline: *hookline, Profiles: *profiles}, servers, dir).audit(ctx, settings)
		if err != nil {
			return "", err
		}
		return report.markdown(), nil
	})
}

func (b *bench) audit(ctx context.Context, settings auditSettings) (*auditReport, error) {
	b.report = Report{Machine: describeMachine(ctx), Peak: map[string]int64{}}
	report := &auditReport{auditSettings: settings, Machine: b.report.Machine}
	for round := range settings.Rounds {
		measured, err := b.recording(ctx, settings.Deliveries)
		if err != nil {
			return nil, fmt.Errorf("recorder: %w", err)
		}
		report.Recorded = append(report.Recorded, measured)
		b.say(fmt.Sprintf("round %d: %.0f deliveries/s, recorder %v, postgres %v", round+1, measured.PerSecond, measured.perDelivery("recorder"), measured.perDelivery("postgres")))
	}
	if settings.Rows > 0 {
		if err := b.questions(ctx, settings, report); err != nil {
			return nil, fmt.Errorf("questions: %w", err)
		}
	}
	return report, nil
}

// recording measures one recorder that finds what so many deliveries leave on the topics.
func (b *bench) recording(ctx context.Context, deliveries int) (recording, error) {
	i, err := b.auditInstallation(ctx)
	if err != nil {
		return recording{}, err
	}
	defer i.removeAudit()
	t := newTraffic(b.Brokers, i.name+".")
	defer t.cluster.close()
	ends, err := t.produce(ctx, deliveries)
	if err != nil {
		return recording{}, err
	}
	before := measure(i.pids())
	began := time.Now()
	recorder, err := i.service(ctx, "recorder")
	if err != nil {
		return recording{}, err
	}
	profiled := i.profileNow(ctx, recorder)
	if err := i.recorded(ctx, recorder, ends, deliveries); err != nil {
		return recording{}, err
	}
	took := time.Since(began)
	measured := recording{Stage: newStage(deliveries, before, measure(i.pids()))}
	measured.PerSecond = float64(deliveries) / took.Seconds()
	if err := profiled(); err != nil {
		return measured, err
	}
	recorder.stop()
	measured.Changed, err = i.changed(ctx)
	return measured, err
}

// recording is what a recorder has used for so many deliveries, and how many of their rows were changed after they had been written.
type recording struct {
	Stage
	Changed int
}

// changed asks the database's statistics, which are up to date once the connections that wrote have ended.
func (i *installation) changed(ctx context.Context) (n int, err error) {
	conn, err := pgx.Connect(ctx, i.env["HOOKLINE_DATABASE_URL"])
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, `SELECT coalesce(sum(n_tup_upd), 0) FROM pg_stat_user_tables WHERE relid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'deliveries'::regclass)`).Scan(&n)
	return n, err
}

// auditInstallation is a database and topics, without services.
func (b *bench) auditInstallation(ctx context.Context) (*installation, error) {
	name := "audit-" + strings.ReplaceAll(uuid.NewString()[:8], "-", "")
	i := &installation{stage: &stage{bench: b, name: name, dir: filepath.Join(b.dir, name), running: map[string]*process{}}, database: strings.ReplaceAll(name, "-", "_")}
	if err := os.Mkdir(i.dir, 0o755); err != nil {
		return nil, err
	}
	if err := i.sql(ctx, "CREATE DATABASE "+i.database); err != nil {
		return nil, err
	}
	if err := i.environment(ctx); err != nil {
		return nil, err
	}
	migrate, err := start(ctx, i.dir, "migrate", i.env, i.Hookline, "migrate")
	if err != nil {
		return nil, err
	}
	<-migrate.done
	if !migrate.cmd.ProcessState.Success() {
		return nil, fmt.Errorf("migrate: %s\n%s", migrate.cmd.ProcessState, migrate.tail())
	}
	return i, nil
}

func (i *installation) removeAudit() {
	for _, p := range i.running {
		p.stop()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if p, err := newProducer(i.Brokers, i.name, i.name); err == nil {
		if err := p.deleteTopics(i.name + "."); err != nil {
			i.say("delete topics: " + err.Error())
		}
		p.close()
	}
	if err := i.sql(ctx, "DROP DATABASE IF EXISTS "+i.database+" WITH (FORCE)"); err != nil {
		i.say(err.Error())
	}
}

// profileNow takes a CPU profile of a process where the run asks for one.
func (i *installation) profileNow(ctx context.Context, p *process) (wait func() error) {
	if i.Profiles == "" {
		return func() error { return nil }
	}
	done := make(chan error, 1)
	go func() {
		if err := p.ready(ctx); err != nil {
			done <- err
			return
		}
		done <- i.save(ctx, p.admin, "profile?seconds=8", p.name+".cpu.pprof")
	}()
	return func() error { return <-done }
}

// recorded waits until the database stands at the ends of the topics, and has everything.
func (i *installation) recorded(ctx context.Context, recorder *process, ends map[string]int64, deliveries int) error {
	conn, err := pgx.Connect(ctx, i.env["HOOKLINE_DATABASE_URL"])
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	reached := 0
	for _, end := range ends {
		reached += int(end)
	}
	// An older recorder does not read the events topic.
	const stands = `SELECT coalesce(sum(next_offset) FILTER (WHERE topic NOT LIKE '%.events'), 0) + coalesce(least(sum(next_offset) FILTER (WHERE topic LIKE '%.events'), $1), $1)
		FROM consumer_offsets`
	err = i.progress(ctx, 50*time.Millisecond, reached+deliveries, "are recorded", func() (n int, err error) {
		err = conn.QueryRow(ctx, stands, deliveries).Scan(&n)
		return n, err
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, recorder.tail())
	}
	var rows, ended, attempts int
	if err := conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM deliveries), (SELECT count(*) FROM deliveries WHERE status IN ('DELIVERED', 'DEAD_LETTER')),
		(SELECT count(*) FROM attempts)`).Scan(&rows, &ended, &attempts); err != nil {
		return err
	}
	if rows != deliveries || ended != deliveries || attempts < deliveries {
		return fmt.Errorf("%d deliveries, %d of them ended, %d attempts; want %d", rows, ended, attempts, deliveries)
	}
	return nil
}

// traffic is what deliveries leave on the topics: of a hundred, ninety-seven arrive at once, two after a retry, one never.
type traffic struct {
	cluster *cluster
	names   topic.Names
	note    string
}

// cluster is Kafka as Hookline's services use it.
type cluster struct {
	*kafka.Cluster
	client *kgo.Client
}

func (c *cluster) close() {
	if c.client != nil {
		c.client.Close()
	}
}

func newTraffic(brokers []string, prefix string) *traffic {
	c := &cluster{Cluster: kafka.New(kafka.Config{Brokers: brokers, SessionTimeout: 10 * time.Second, TopicPrefix: prefix}, slog.New(slog.DiscardHandler))}
	return &traffic{cluster: c, names: c.Topics, note: strings.Repeat("a1b2c3d4e5f6", 28)}
}

// produce writes everything, and says how many records each topic besides events then has.
func (t *traffic) produce(ctx context.Context, deliveries int) (map[string]int64, error) {
	var err error
	if t.cluster.client, err = t.cluster.Client(t.cluster.Producer()...); err != nil {
		return nil, err
	}
	const between = 500 // deliveries under way at any time
	ends := map[string]int64{}
	var late [][]*kgo.Record
	send := func(records []*kgo.Record) {
		for _, r := range records {
			if r.Topic != t.names.Events {
				ends[r.Topic]++
			}
			t.cluster.client.Produce(ctx, r, nil)
		}
	}
	for n := range deliveries {
		begun, ended := t.delivery(n)
		send(begun)
		if late = append(late, ended); len(late) > between {
			send(late[0])
			late = late[1:]
		}
	}
	for _, ended := range late {
		send(ended)
	}
	return ends, t.cluster.client.Flush(ctx)
}

// delivery is what one leaves when it begins, and what when it ends.
func (t *traffic) delivery(n int) (begun, ended []*kgo.Record) {
	at := time.Now().UTC().Truncate(time.Millisecond)
	id, sub := uuid.NewString(), fmt.Sprintf("0198c1de-4a5b-7c6d-8e9f-%012d", n%100)
	value := fmt.Appendf(nil, `{"event_id":"%s","event_type":"%s","event_timestamp":"%s","data":{"note":"%s"}}`, id, eventType, at.Format(time.RFC3339Nano), t.note)
	d := &webhook.Delivery{
		ID: webhook.DeliveryID(webhook.DefaultTenant, id, sub), SubscriptionID: sub, Profile: "fynapse", ProfileVersion: 1, CreatedAt: at, Trigger: webhook.TriggerEvent,
		Event: webhook.Event{ID: id, Type: eventType, Tenant: webhook.DefaultTenant, Timestamp: at, RecordedAt: at, Data: value[len(value)-len(t.note)-12:],
			Source: webhook.Position{Topic: t.names.Events, Offset: int64(n)}},
	}
	begun = []*kgo.Record{{Topic: t.names.Events, Value: value}, t.record(t.names.Deliveries, d.ID.String(), wire.EncodeDelivery(d))}
	end := webhook.Delivered
	switch n % 100 {
	case 17, 67:
		ended = append(ended, t.attempt(d, webhook.Pending, 503))
		d.Trip++
		ended = append(ended, t.record(t.names.Deliveries, d.ID.String(), wire.EncodeDelivery(d)))
	case 42:
		end = webhook.DeadLetter
		ended = append(ended, t.record(t.names.DeadLetters, sub, wire.EncodeDeadLetter(&wire.DeadLetter{Delivery: *d, Reason: webhook.ReasonHTTPStatus, StatusCode: 400})))
	}
	code := 200
	if end == webhook.DeadLetter {
		code = 400
	}
	return begun, append(ended, t.attempt(d, end, code))
}

func (t *traffic) attempt(d *webhook.Delivery, status webhook.Status, code int) *kgo.Record {
	d.Attempts++
	a := &webhook.Attempt{
		ID: uuid.Must(uuid.NewV7()), DeliveryID: d.ID, Tenant: d.Event.Tenant, EventID: d.Event.ID, EventType: d.Event.Type, SubscriptionID: d.SubscriptionID,
		Profile: d.Profile, ProfileVersion: d.ProfileVersion, Trigger: d.Trigger, DeliveryCreatedAt: d.CreatedAt, Number: d.Attempts, Try: 1, StartedAt: time.Now(),
		Duration: 20 * time.Millisecond, StatusCode: code, Response: []byte(`{"ok":true}`), RequestBytes: eventSize, ResponseBytes: 11,
		Outcome: webhook.Outcome{Status: status}, TraceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	}
	if status == webhook.Pending {
		a.Outcome.Reason, a.Outcome.NextAttemptAt = webhook.ReasonHTTPStatus, a.StartedAt.Add(30*time.Second)
	}
	return t.record(t.names.Attempts, d.SubscriptionID, wire.EncodeAttempt(a))
}

func (t *traffic) record(name, key string, value []byte) *kgo.Record {
	return &kgo.Record{Topic: name, Key: []byte(key), Value: value}
}
