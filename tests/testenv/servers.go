package testenv

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Kafka returns the brokers of a cluster that other tests use too: keep to topics under [Prefix].
func Kafka(t testing.TB) []string {
	t.Helper()
	return strings.Split(kafkaServer.get(t), ",")
}

// Prefix returns a topic prefix that no other test has, such as "t4k2.". The topics under it are deleted when the test
// ends.
func Prefix(t testing.TB) string {
	t.Helper()
	prefix := "t" + unique() + "."
	brokers := Kafka(t)
	t.Cleanup(func() {
		if err := deleteTopics(brokers, prefix); err != nil {
			t.Logf("delete the topics %s*: %v", prefix, err)
		}
	})
	return prefix
}

func deleteTopics(brokers []string, prefix string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	topics, err := admin.ListTopics(ctx)
	if err != nil {
		return err
	}
	var ours []string
	for _, name := range topics.Names() {
		if strings.HasPrefix(name, prefix) {
			ours = append(ours, name)
		}
	}
	if len(ours) == 0 {
		return nil
	}
	_, err = admin.DeleteTopics(ctx, ours...)
	return err
}

// Redis returns the URL of an empty database that no other test uses; it is emptied when the test ends.
func Redis(t testing.TB) string {
	t.Helper()
	options, err := redis.ParseURL(redisServer.get(t))
	if err != nil {
		t.Fatalf("redis: %v", err)
	}
	options.DB = 0
	client := redis.NewClient(options)
	t.Cleanup(func() { _ = client.Close() })
	ctx := context.Background()
	database, err := takeDatabase(ctx, client)
	if err != nil {
		t.Fatalf("redis: %v", err)
	}
	t.Cleanup(func() {
		mine := *options
		mine.DB = database
		emptying := redis.NewClient(&mine)
		defer emptying.Close()
		if err := emptying.FlushDB(ctx).Err(); err == nil {
			client.Del(ctx, lockOf(database))
		}
	})
	return fmt.Sprintf("redis://%s/%d", options.Addr, database)
}

// takeDatabase reserves one of the numbered databases; number 0 holds the reservations, which outlast a test that was
// killed by half an hour.
func takeDatabase(ctx context.Context, client *redis.Client) (int, error) {
	databases := 16
	if config, err := client.ConfigGet(ctx, "databases").Result(); err == nil {
		if n, err := strconv.Atoi(config["databases"]); err == nil {
			databases = n
		}
	}
	for n := 1; n < databases; n++ {
		free, err := client.SetNX(ctx, lockOf(n), "taken", 30*time.Minute).Result()
		if err != nil {
			return 0, err
		}
		if free {
			return n, nil
		}
	}
	return 0, fmt.Errorf("all %d databases are taken", databases-1)
}

func lockOf(database int) string { return "testenv:" + strconv.Itoa(database) }

// Postgres returns the URL of a fresh database, dropped when the test ends. It skips the test where there is no
// PostgreSQL, unless a real one is required.
func Postgres(t testing.TB) string {
	t.Helper()
	return freshDatabase(t, postgresServer.get(t))
}

// Database is [Postgres] where there is one, otherwise a fresh SQLite file.
func Database(t testing.TB) string {
	t.Helper()
	if postgresServer.absent() {
		return "sqlite://" + filepath.Join(t.TempDir(), "hookline.db")
	}
	return Postgres(t)
}

// Fresh makes a database in this test's own PostgreSQL.
func (s *Servers) Fresh(t testing.TB) string {
	t.Helper()
	return freshDatabase(t, s.DatabaseURL)
}

func freshDatabase(t testing.TB, server string) string {
	t.Helper()
	name := "t" + unique()
	if err := execute(server, "CREATE DATABASE "+name); err != nil {
		t.Fatalf("postgres: create a database: %v", err)
	}
	t.Cleanup(func() {
		if err := execute(server, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			t.Logf("postgres: drop %s: %v", name, err)
		}
	})
	fresh, err := url.Parse(server)
	if err != nil {
		t.Fatalf("postgres: %v", err)
	}
	fresh.Path = "/" + name
	return fresh.String()
}

func execute(server, statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, statement)
	return err
}

// unique is a short name in lower case, fit for topics and databases.
func unique() string { return strings.ToLower(rand.Text())[:10] }
