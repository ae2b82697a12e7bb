package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/config"
	"github.com/hookline/hookline/pkg/egress"
	"github.com/hookline/hookline/pkg/retryqueue"
	"github.com/hookline/hookline/pkg/topic"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

// doctorConfig is what all services together read of the servers.
type doctorConfig struct {
	Base     baseConfig
	Database databaseConfig
	Redis    redisConfig
	Egress   egress.Config
	Keys     keysConfig
	Profiles profilesConfig
	Topics   topicsConfig
}

// grade is how bad a finding is.
type grade string

const (
	good grade = "ok"
	warn grade = "warn"
	bad  grade = "FAIL"
)

// finding is the result of one check: what was looked at, and what to do about it where it is not as it should be.
type finding struct {
	Check  string `json:"check"`
	Grade  grade  `json:"grade"`
	Detail string `json:"detail"`
}

func newDoctor(t terminal) *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use: "doctor", Short: "Check the servers and settings that the services need; exit code 1 if anything is wrong", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var cfg doctorConfig
			if err := config.Load(&cfg, t.environ); err != nil {
				return err
			}
			p, err := openProcess(cmd.Context(), "hookline-doctor", t.environ.With(map[string]string{"HOOKLINE_LOG_LEVEL": "error"}), t.err)
			if err != nil {
				return err
			}
			defer p.close()
			d := doctor{process: p, cfg: cfg}
			d.examine(cmd.Context())
			return d.report(t.out, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the findings as JSON")
	return cmd
}

// doctor changes nothing anywhere.
type doctor struct {
	*process
	cfg      doctorConfig
	findings []finding
}

func (d *doctor) found(check string, g grade, format string, args ...any) {
	d.findings = append(d.findings, finding{check, g, fmt.Sprintf(format, args...)})
}

// judge reports one thing that is right or not.
func (d *doctor) judge(check string, err error, whenGood string) bool {
	if err != nil {
		d.found(check, bad, "%v", err)
		return false
	}
	d.found(check, good, "%s", whenGood)
	return true
}

const checkPatience = 10 * time.Second

func (d *doctor) examine(ctx context.Context) {
	for _, check := range []func(context.Context){d.checkKafka, d.checkRedis, d.checkDatabase, d.checkEgress} {
		bounded, cancel := context.WithTimeout(ctx, checkPatience)
		check(bounded)
		cancel()
	}
}

func (d *doctor) report(out io.Writer, asJSON bool) error {
	failed := 0
	for _, f := range d.findings {
		if f.Grade == bad {
			failed++
		}
		if !asJSON {
			fmt.Fprintf(out, "%-4s  %-24s  %s\n", f.Grade, f.Check, f.Detail)
		}
	}
	if asJSON {
		if err := json.NewEncoder(out).Encode(d.findings); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d checks failed", failed, len(d.findings))
	}
	return nil
}

func (d *doctor) checkKafka(ctx context.Context) {
	cl, err := d.kafka.Client()
	if !d.judge("configuration", err, "valid") {
		return
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	brokers, err := adm.ListBrokers(ctx)
	if !d.judge("kafka", err, fmt.Sprintf("%d brokers", len(brokers))) {
		return
	}
	d.checkTopics(ctx, adm)
	d.checkGroups(ctx, adm)
	d.checkSecrets(ctx)
}

func (d *doctor) checkTopics(ctx context.Context, adm *kadm.Client) {
	names := d.kafka.Topics.All()
	topics, err := adm.ListTopics(ctx, names...)
	if err != nil {
		d.found("topics", bad, "%v", err)
		return
	}
	described, err := adm.DescribeTopicConfigs(ctx, names...)
	if err != nil {
		d.found("topics", bad, "read their settings: %v", err)
		return
	}
	longest := d.cfg.Profiles.catalog().LongestDelay()
	for _, spec := range d.kafka.Topics.Specs(d.cfg.Topics.Partitions) {
		if !topics.Has(spec.Name) {
			d.found("topic "+spec.Name, bad, "missing: run hookline migrate")
			continue
		}
		settings := map[string]string{}
		if one, err := described.On(spec.Name, nil); err == nil {
			for _, c := range one.Configs {
				settings[c.Key] = c.MaybeValue()
			}
		}
		g, detail := examineTopic(spec, len(topics[spec.Name].Partitions), settings)
		if spec.Name == d.kafka.Topics.Retries && g == good && retention(settings) < longest {
			g, detail = bad, fmt.Sprintf("keeps records for %v, and a retry may wait %v: raise retention.ms", retention(settings), longest)
		}
		d.found("topic "+spec.Name, g, "%s", detail)
	}
}

// examineTopic compares a topic with how it should exist. More partitions than asked for are as good.
func examineTopic(spec topic.Spec, partitions int, settings map[string]string) (grade, string) {
	var differences []string
	for name, wanted := range spec.Settings {
		if got, known := settings[name]; known && got != wanted {
			differences = append(differences, fmt.Sprintf("%s is %s, not %s", name, got, wanted))
		}
	}
	if len(differences) > 0 {
		return warn, strings.Join(differences, "; ") + ": hookline migrate sets it"
	}
	if partitions < int(spec.Partitions) {
		return warn, fmt.Sprintf("%d partitions, and HOOKLINE_TOPIC_PARTITIONS asks for %d", partitions, spec.Partitions)
	}
	return good, fmt.Sprintf("%d partitions", partitions)
}

// retention is how long a topic keeps records; for ever where it does not say.
func retention(settings map[string]string) time.Duration {
	ms, err := strconv.ParseInt(settings["retention.ms"], 10, 64)
	if err != nil || ms < 0 {
		return time.Duration(1<<63 - 1)
	}
	return time.Duration(ms) * time.Millisecond
}

// checkGroups says who consumes, and how far behind they are.
func (d *doctor) checkGroups(ctx context.Context, adm *kadm.Client) {
	names := d.kafka.Topics
	for service, topic := range map[string]string{"router": names.Events, "delivery": names.Deliveries} {
		group := d.kafka.GroupID(service)
		lag, err := waiting(ctx, adm, group, topic)
		if err != nil {
			d.found(service, bad, "%v", err)
			continue
		}
		running := members(ctx, adm, group)
		g := good
		if running == 0 {
			g = warn
		}
		d.found(service, g, "%d running, %d records wait", running, lag)
	}
}

// waiting counts the records of a topic that a group has not committed.
func waiting(ctx context.Context, adm *kadm.Client, group, topic string) (records int64, err error) {
	starts, err := adm.ListStartOffsets(ctx, topic)
	if err != nil {
		return 0, fmt.Errorf("list start offsets: %w", err)
	}
	ends, err := adm.ListEndOffsets(ctx, topic)
	if err != nil {
		return 0, fmt.Errorf("list end offsets: %w", err)
	}
	committed, err := adm.FetchOffsets(ctx, group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) && !errors.Is(err, kerr.CoordinatorNotAvailable) {
		return 0, fmt.Errorf("fetch offsets of %s: %w", group, err)
	}
	ends.Each(func(end kadm.ListedOffset) {
		start, _ := starts.Lookup(topic, end.Partition)
		next := start.Offset
		if at, ok := committed.Lookup(topic, end.Partition); ok {
			next = max(next, at.At)
		}
		records += max(0, end.Offset-next)
	})
	return records, nil
}

// members counts the processes of a group, whichever protocol it uses.
func members(ctx context.Context, adm *kadm.Client, group string) int {
	if described, err := adm.DescribeConsumerGroups(ctx, group); err == nil && described[group].Err == nil {
		return len(described[group].Members)
	}
	if described, err := adm.DescribeGroups(ctx, group); err == nil {
		return len(described[group].Members)
	}
	return 0
}

// checkSecrets reads the config topic as workers do, and opens every secret in it.
func (d *doctor) checkSecrets(ctx context.Context) {
	const check = "secrets"
	secrets, err := d.sealedSecrets(ctx)
	if err != nil {
		d.found(check, bad, "read the config topic: %v", err)
		return
	}
	closed := 0
	ring := d.cfg.Keys.ring()
	for _, secret := range secrets {
		for _, v := range secret.Versions {
			if _, err := ring.Open(secret, v); err != nil {
				closed++
			}
		}
	}
	if closed > 0 {
		d.found(check, bad, "%d values cannot be opened: HOOKLINE_ENCRYPTION_KEYS lacks the key that sealed them", closed)
		return
	}
	d.found(check, good, "%d, and the key ring opens all of them", len(secrets))
}

// sealedSecrets are those that the config topic holds, by key.
func (d *doctor) sealedSecrets(ctx context.Context) (map[string]*webhook.Secret, error) {
	name := d.kafka.Topics.Config
	cl, err := d.kafka.Client(kgo.ConsumeTopics(name), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, name)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, err
	}
	end, _ := ends.Lookup(name, 0)
	secrets := map[string]*webhook.Secret{}
	for next := int64(0); next < end.Offset; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, err
		}
		fetches.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			delete(secrets, string(r.Key))
			decoded, err := wire.DecodeConfig(r.Value)
			if secret, ok := decoded.(*webhook.Secret); ok && err == nil {
				secrets[string(r.Key)] = secret
			}
		})
	}
	return secrets, nil
}

func (d *doctor) checkRedis(ctx context.Context) {
	index, err := retryqueue.Open(d.cfg.Redis.URL, retryqueue.Options{Prefix: d.cfg.Base.Kafka.TopicPrefix})
	if !d.judge("redis", err, redacted(d.cfg.Redis.URL)) {
		return
	}
	// Its connections end with the process in any case.
	defer func() { _ = index.Close() }()
	if !d.judge("redis memory policy", index.CheckPolicy(ctx), "noeviction") {
		return
	}
	began := time.Now()
	stats, err := index.Stats(ctx, 0)
	if err != nil {
		d.found("redis clock", bad, "%v", err)
		return
	}
	// The answer was made between the two readings.
	if off := stats.Now.Sub(began.Add(time.Since(began) / 2)).Abs(); off > time.Second {
		d.found("redis clock", warn, "differs by %v from this machine's: retries are due by Redis's", off.Round(time.Millisecond))
		return
	}
	d.found("redis clock", good, "as this machine's")
}

func (d *doctor) checkDatabase(ctx context.Context) {
	db, err := d.openDatabase(ctx, d.cfg.Database)
	if err == nil {
		err = db.Ping(ctx)
	}
	if !d.judge("database", err, "answers") {
		return
	}
	behind, err := db.Behind(ctx)
	if err == nil && behind {
		err = errors.New("is of an older version: run hookline migrate")
	}
	d.judge("database schema", err, "current")
}

func (d *doctor) checkEgress(context.Context) {
	g, detail := good, "public addresses over HTTPS only"
	if len(d.cfg.Egress.Allow) > 0 || d.cfg.Egress.AllowHTTP {
		g = warn
		detail = fmt.Sprintf("also %v, http:// %t: right for tests, rarely for production", d.cfg.Egress.Allow, d.cfg.Egress.AllowHTTP)
	}
	d.found("egress", g, "%s", detail)
}
