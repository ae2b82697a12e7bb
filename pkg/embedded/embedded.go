// Package embedded runs the servers that Hookline needs inside the process: a Kafka broker and a Redis, and the place of a SQLite
// database. It is for development and tests: `hookline dev` puts its addresses where those of real servers would stand, and
// no other code knows the difference. Kafka and SQLite keep their data in a directory and survive a kill of the
// process; Redis starts empty each time, as it may anywhere.
package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/alicebob/miniredis/v2"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kversion"
)

// Config says where the servers listen and keep their data.
type Config struct {
	// DataDir is made if it does not exist. Only one process at a time can use it.
	DataDir string
	// KafkaAddr is the host:port to listen on, and the one that clients are told. Port 0 is any free one.
	KafkaAddr string
	Log       *slog.Logger
}

// Servers are running.
type Servers struct {
	// Brokers, RedisURL and DatabaseURL are what HOOKLINE_KAFKA_BROKERS, HOOKLINE_REDIS_URL and HOOKLINE_DATABASE_URL expect.
	Brokers     string
	RedisURL    string
	DatabaseURL string

	kafka *kfake.Cluster
	redis *miniredis.Miniredis
	lock  *os.File
}

// Start starts the servers and returns when they accept connections. An error leaves nothing running.
func Start(cfg Config) (*Servers, error) {
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("start embedded servers: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("start embedded servers: %w", err)
	}
	s := &Servers{DatabaseURL: "sqlite://" + filepath.ToSlash(filepath.Join(dir, "hookline.db"))}
	if s.lock, err = lock(filepath.Join(dir, "lock")); err != nil {
		return nil, fmt.Errorf("start embedded servers: %s is in use by another process: %w", dir, err)
	}
	if err := s.start(dir, cfg); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Servers) start(dir string, cfg Config) (err error) {
	if s.kafka, err = startKafka(filepath.Join(dir, "kafka"), cfg); err != nil {
		return fmt.Errorf("start embedded kafka on %s: %w", cfg.KafkaAddr, err)
	}
	s.Brokers = strings.Join(s.kafka.ListenAddrs(), ",")
	s.redis = miniredis.NewMiniRedis()
	s.redis.ClockTTL(true)
	if err := s.redis.Start(); err != nil {
		return fmt.Errorf("start embedded redis: %w", err)
	}
	s.RedisURL = "redis://" + s.redis.Addr() + "/0"
	return nil
}

func startKafka(dir string, cfg Config) (*kfake.Cluster, error) {
	// Without key 75 the Java tools fall back to the metadata request, which they can read.
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(75, -1)
	return kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.ListenFn(func(network, _ string) (net.Listener, error) {
			return new(net.ListenConfig).Listen(context.Background(), network, cfg.KafkaAddr)
		}),
		// Every write reaches the operating system before it is acknowledged, which is enough for a killed process. Only a
		// machine that loses power can lose the last seconds.
		kfake.DataDir(dir),
		kfake.MaxVersions(versions),
		kfake.WithLogger(kafkaLog{cfg.Log.With("component", "embedded kafka")}),
		kfake.BrokerConfigs(map[string]string{
			"group.consumer.session.timeout.ms":    "6000",
			"group.consumer.heartbeat.interval.ms": "1000",
			"message.max.bytes":                    "4194304",
		}),
	)
}

// Close stops the servers. What clients were acknowledged is on disk before and after.
func (s *Servers) Close() {
	if s.redis != nil {
		s.redis.Close()
	}
	if s.kafka != nil {
		s.kafka.Close()
	}
	// The lock ends with its file.
	_ = s.lock.Close()
}

type kafkaLog struct{ log *slog.Logger }

// Logf passes errors on as warnings: they are the broker's answers to single requests. All else is for debugging.
func (l kafkaLog) Logf(level kfake.LogLevel, format string, args ...any) {
	to := slog.LevelDebug
	if level == kfake.LogLevelError {
		to = slog.LevelWarn
	}
	ctx := context.Background()
	if l.log.Enabled(ctx, to) {
		l.log.Log(ctx, to, "broker", "says", fmt.Sprintf(format, args...))
	}
}
