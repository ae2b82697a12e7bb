// Package kafka opens franz-go clients as Hookline uses them: how a cluster is reached, how groups balance, how
// producers acknowledge and partition, and which topics must exist. What is consumed and when it is committed is each
// service's own matter.
package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"github.com/twmb/franz-go/plugin/kslog"

	"github.com/hookline/hookline/pkg/run"
	"github.com/hookline/hookline/pkg/topic"
)

// Config is how to reach Kafka.
type Config struct {
	Brokers        []string      `env:"HOOKLINE_KAFKA_BROKERS" envDefault:"127.0.0.1:9092" envSeparator:","`
	TLS            bool          `env:"HOOKLINE_KAFKA_TLS" envDefault:"false"`
	SASLMechanism  string        `env:"HOOKLINE_KAFKA_SASL_MECHANISM"`
	SASLUser       string        `env:"HOOKLINE_KAFKA_SASL_USER"`
	SASLPassword   string        `env:"HOOKLINE_KAFKA_SASL_PASSWORD"`
	SessionTimeout time.Duration `env:"HOOKLINE_KAFKA_SESSION_TIMEOUT" envDefault:"10s"`
	TopicPrefix    string        `env:"HOOKLINE_TOPIC_PREFIX" envDefault:"hookline."`
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	var problems []error
	if len(c.Brokers) == 0 {
		problems = append(problems, errors.New("HOOKLINE_KAFKA_BROKERS: name at least one broker, as host:port"))
	}
	switch c.SASLMechanism {
	case "", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512":
	default:
		problems = append(problems, fmt.Errorf("HOOKLINE_KAFKA_SASL_MECHANISM: %q is not PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", c.SASLMechanism))
	}
	if c.SASLMechanism != "" && (c.SASLUser == "" || c.SASLPassword == "") {
		problems = append(problems, errors.New("HOOKLINE_KAFKA_SASL_USER, HOOKLINE_KAFKA_SASL_PASSWORD: both are needed with a SASL mechanism"))
	}
	if c.SessionTimeout < time.Second {
		problems = append(problems, fmt.Errorf("HOOKLINE_KAFKA_SESSION_TIMEOUT: %v is below 1s", c.SessionTimeout))
	}
	return errors.Join(problems...)
}

// Cluster opens clients of one Kafka cluster. It holds no connection itself.
type Cluster struct {
	Topics topic.Names
	cfg    Config
	opts   []kgo.Opt
}

// New takes a validated configuration. The options are added to every client; tests give a dialer with them.
func New(cfg Config, log *slog.Logger, opts ...kgo.Opt) *Cluster {
	base := []kgo.Opt{
		kgo.SeedBrokers(cfg.Brokers...),
		kgo.ClientID("hookline"),
		kgo.WithLogger(kslog.New(log.With("component", "kafka"))),
		kgo.MaxDecompressBatchBytes(64 << 20),
		kgo.DisableClientMetrics(),
		// A partition that is resumed joins the next fetch from its broker, and that waits for the one under way.
		kgo.FetchMaxWait(500 * time.Millisecond),
	}
	if cfg.TLS {
		base = append(base, kgo.DialTLSConfig(&tls.Config{MinVersion: tls.VersionTLS12}))
	}
	switch cfg.SASLMechanism {
	case "PLAIN":
		base = append(base, kgo.SASL(plain.Auth{User: cfg.SASLUser, Pass: cfg.SASLPassword}.AsMechanism()))
	case "SCRAM-SHA-256":
		base = append(base, kgo.SASL(scram.Auth{User: cfg.SASLUser, Pass: cfg.SASLPassword}.AsSha256Mechanism()))
	case "SCRAM-SHA-512":
		base = append(base, kgo.SASL(scram.Auth{User: cfg.SASLUser, Pass: cfg.SASLPassword}.AsSha512Mechanism()))
	}
	return &Cluster{Topics: topic.WithPrefix(cfg.TopicPrefix), cfg: cfg, opts: append(base, opts...)}
}

// Client opens a client. Connections are made when it is used, so a broker that is down is no error here.
func (c *Cluster) Client(opts ...kgo.Opt) (*kgo.Client, error) {
	cl, err := kgo.NewClient(append(c.opts[:len(c.opts):len(c.opts)], opts...)...)
	if err != nil {
		return nil, fmt.Errorf("open kafka client: %w", err)
	}
	return cl, nil
}

// GroupID is the consumer group of a service.
func (c *Cluster) GroupID(service string) string { return c.cfg.TopicPrefix + service }

// Group are the options of a member of a service's consumer group: KIP-848 where the broker has it, otherwise cooperative
// balancing; offsets are committed by the service alone.
//
// There is no instance id: under KIP-848 a killed static member locks its replacement out until its session ends.
func (c *Cluster) Group(service string, topics ...string) []kgo.Opt {
	return []kgo.Opt{
		kgo.ConsumerGroup(c.GroupID(service)),
		kgo.ConsumeTopics(topics...),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.ServerSideBalancer(),
		kgo.SessionTimeout(c.cfg.SessionTimeout),
		kgo.HeartbeatInterval(c.cfg.SessionTimeout / 4),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.DisableAutoCommit(),
	}
}

// Producer are the options of a producer: acknowledged by all in-sync replicas, idempotent, without lingering, and
// partitioned by [topic.PartitionKey].
func (c *Cluster) Producer() []kgo.Opt {
	return []kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(0),
		kgo.ProducerBatchMaxBytes(4 << 20),
		kgo.ProducerBatchCompression(kgo.Lz4Compression(), kgo.NoCompression()),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(partitionOf)),
	}
}

var partitionOf = kgo.KafkaHasher(func(key []byte) uint32 {
	h := fnv.New32a()
	h.Write([]byte(topic.PartitionKey(string(key))))
	return h.Sum32()
})

// PartitionOf is where a [Cluster.Producer] writes records of a key, in a topic of so many partitions.
func PartitionOf(key string, partitions int) int32 {
	return int32(partitionOf([]byte(key), partitions))
}

// WaitTopics returns once every topic exists, or with an error when ctx ends or no client can be made. It says in the log
// what it waits for, at once and then every minute, and tells set each time; nil in the end.
func (c *Cluster) WaitTopics(ctx context.Context, log *slog.Logger, set func(error), topics ...string) error {
	const pause = time.Second
	cl, err := c.Client()
	if err != nil {
		return err
	}
	defer cl.Close()
	var quiet run.Throttle
	for {
		err := missingTopics(ctx, cl, topics)
		set(err)
		if err == nil {
			return nil
		}
		if quiet.Allow() {
			log.WarnContext(ctx, "waiting for kafka", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// Watch asks the brokers whether they are there, and tells set, until ctx ends: seldom while they answer, often while
// they do not.
func (c *Cluster) Watch(ctx context.Context, cl *kgo.Client, set func(error)) {
	const seldom, often, patience = 15 * time.Second, 2 * time.Second, 5 * time.Second
	timer := time.NewTimer(seldom)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		asked, cancel := context.WithTimeout(ctx, patience)
		err := cl.Ping(asked)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			set(fmt.Errorf("kafka does not answer: %w", err))
			timer.Reset(often)
		} else {
			set(nil)
			timer.Reset(seldom)
		}
	}
}
