package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/modules/postgres"
	"github.com/testcontainers/testcontainers-go/modules/redis"
	"github.com/testcontainers/testcontainers-go/wait"
	"github.com/twmb/franz-go/pkg/kgo"
)

const containerStart = 3 * time.Minute

// engine says whether a Docker engine answers.
var engine = sync.OnceValue(func() (err error) {
	// Looking for an engine panics where a rootless one is half set up.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("docker: %v: %w", r, errNone)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	provider, err := testcontainers.NewDockerProvider()
	if err != nil {
		return errors.Join(errNone, err)
	}
	defer provider.Close()
	if err := provider.Health(ctx); err != nil {
		return errors.Join(errNone, err)
	}
	return nil
})

func image(variable, official string) string {
	if name := os.Getenv(variable); name != "" {
		return name
	}
	return official
}

// ender ends a container with the test process. Without the reaper nobody else would.
func ender(c testcontainers.Container) func() {
	return func() {
		if err := testcontainers.TerminateContainer(c); err != nil {
			fmt.Fprintln(os.Stderr, "testenv:", err)
		}
	}
}

func dockerPostgres() (string, func(), error) {
	if err := engine(); err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), containerStart)
	defer cancel()
	c, err := postgres.Run(ctx, image("TEST_POSTGRES_IMAGE", "postgres:16-alpine"),
		testcontainers.WithWaitStrategyAndDeadline(2*time.Minute, wait.ForListeningPort("5432/tcp")))
	if err != nil {
		ender(c)()
		return "", nil, err
	}
	url, err := c.ConnectionString(ctx, "sslmode=disable")
	if err != nil {
		return "", ender(c), err
	}
	// It listens before it takes connections.
	if err := Until(time.Minute, func() bool { return execute(url, "SELECT 1") == nil }); err != nil {
		return "", ender(c), fmt.Errorf("wait for postgres to answer: %w", execute(url, "SELECT 1"))
	}
	return url, ender(c), nil
}

func dockerRedis() (string, func(), error) {
	if err := engine(); err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), containerStart)
	defer cancel()
	c, err := redis.Run(ctx, image("TEST_REDIS_IMAGE", "redis:7-alpine"),
		testcontainers.WithCmd("redis-server", "--databases", "256", "--maxmemory-policy", "noeviction", "--appendonly", "yes"))
	if err != nil {
		ender(c)()
		return "", nil, err
	}
	url, err := c.ConnectionString(ctx)
	return url + "/0", ender(c), err
}

// dockerKafka runs a broker that clients find at a host port chosen beforehand: a broker tells its clients its own
// address, so it must know it before it starts.
func dockerKafka() (string, func(), error) {
	if err := engine(); err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), containerStart)
	defer cancel()
	address, err := freeAddr()
	if err != nil {
		return "", nil, err
	}
	inside := network.MustParsePort("9092/tcp")
	c, err := testcontainers.Run(ctx, image("TEST_KAFKA_IMAGE", "apache/kafka:4.1.0"),
		testcontainers.WithExposedPorts("9092/tcp"),
		testcontainers.WithHostConfigModifier(func(host *container.HostConfig) {
			host.PortBindings = network.PortMap{inside: {{HostIP: address.Addr(), HostPort: fmt.Sprint(address.Port())}}}
		}),
		testcontainers.WithEnv(map[string]string{
			"KAFKA_NODE_ID":                                  "1",
			"KAFKA_PROCESS_ROLES":                            "broker,controller",
			"KAFKA_CONTROLLER_QUORUM_VOTERS":                 "1@localhost:9093",
			"KAFKA_LISTENERS":                                "PLAINTEXT://:9092,CONTROLLER://:9093",
			"KAFKA_ADVERTISED_LISTENERS":                     "PLAINTEXT://" + address.String(),
			"KAFKA_CONTROLLER_LISTENER_NAMES":                "CONTROLLER",
			"KAFKA_LISTENER_SECURITY_PROTOCOL_MAP":           "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
			"KAFKA_AUTO_CREATE_TOPICS_ENABLE":                "false",
			"KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR":         "1",
			"KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
			"KAFKA_TRANSACTION_STATE_LOG_MIN_ISR":            "1",
			"KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS":         "0",
			"KAFKA_GROUP_CONSUMER_MIN_SESSION_TIMEOUT_MS":    "6000",
			"KAFKA_GROUP_CONSUMER_SESSION_TIMEOUT_MS":        "10000",
			"KAFKA_GROUP_CONSUMER_MIN_HEARTBEAT_INTERVAL_MS": "1000",
			"KAFKA_GROUP_CONSUMER_HEARTBEAT_INTERVAL_MS":     "1000",
		}),
		testcontainers.WithWaitStrategyAndDeadline(2*time.Minute, wait.ForLog("Kafka Server started")),
	)
	if err != nil {
		ender(c)()
		return "", nil, err
	}
	// The port is forwarded by the engine, which accepts connections before the broker does.
	client, err := kgo.NewClient(kgo.SeedBrokers(address.String()))
	if err != nil {
		ender(c)()
		return "", nil, err
	}
	defer client.Close()
	if err := Until(time.Minute, func() bool { return client.Ping(ctx) == nil }); err != nil {
		ender(c)()
		return "", nil, fmt.Errorf("kafka in a container: %w", err)
	}
	return address.String(), ender(c), nil
}
