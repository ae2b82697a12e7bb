package testenv_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestARecordComesBackFromKafka(t *testing.T) {
	brokers, topic := testenv.Kafka(t), testenv.Prefix(t)+"events"
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := kadm.NewClient(client).CreateTopic(ctx, 1, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
	sent := &kgo.Record{Topic: topic, Value: []byte("hello")}
	if err := client.ProduceSync(ctx, sent).FirstErr(); err != nil {
		t.Fatal(err)
	}
	fetched := client.PollFetches(ctx).Records()
	if len(fetched) != 1 || string(fetched[0].Value) != "hello" {
		t.Fatalf("read %v", fetched)
	}
}

func TestEveryTestHasARedisOfItsOwn(t *testing.T) {
	for _, name := range []string{"one", "another"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options, err := redis.ParseURL(testenv.Redis(t))
			if err != nil {
				t.Fatal(err)
			}
			client := redis.NewClient(options)
			defer client.Close()
			if n := client.Incr(t.Context(), "seen").Val(); n != 1 {
				t.Fatalf("the key was there already: %d", n)
			}
		})
	}
}

func TestEveryTestHasADatabaseOfItsOwn(t *testing.T) {
	for range 2 {
		conn, err := pgx.Connect(t.Context(), testenv.Postgres(t))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		if _, err := conn.Exec(t.Context(), "CREATE TABLE only_once (n int)"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAKilledServerComesBackWithItsData(t *testing.T) {
	servers := testenv.Own(t, 1, "redis")
	options, err := redis.ParseURL(servers.RedisURL)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	defer client.Close()
	if err := client.Do(t.Context(), "CONFIG", "SET", "appendfsync", "always").Err(); err != nil {
		t.Fatal(err)
	}
	if err := client.Set(t.Context(), "kept", "yes", 0).Err(); err != nil {
		t.Fatal(err)
	}
	servers.Kill(t, "redis")
	if err := client.Get(t.Context(), "kept").Err(); err == nil {
		t.Fatal("a killed server answered")
	}
	servers.Start(t, "redis")
	if kept := client.Get(t.Context(), "kept").Val(); kept != "yes" {
		t.Fatalf("after the restart: %q", kept)
	}
}

func TestAProcessIsRunAndItsOutputKept(t *testing.T) {
	p := testenv.StartCommand(t, testenv.Env{"WORD": "ready"}, "sh", "-c", `echo "$WORD"; trap 'exit 3' TERM; while :; do sleep 0.05; done`)
	p.Printed(t, "ready", 10*time.Second)
	if code := p.Stop(t, 10*time.Second); code != 3 {
		t.Fatalf("exit code %d", code)
	}
	if !strings.Contains(p.Output(), "ready") {
		t.Fatalf("printed %q", p.Output())
	}
}
