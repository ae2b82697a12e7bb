package retries

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hookline/hookline/pkg/retryqueue"
	"github.com/hookline/hookline/pkg/retryqueue/indextest"
	"github.com/hookline/hookline/tests/testenv"
)

// The suite empties its server again and again, so that it has one of its own.
func TestARealRedisIsATimerIndex(t *testing.T) {
	servers := testenv.Own(t, 1, "redis")
	options, err := redis.ParseURL(servers.RedisURL)
	if err != nil {
		t.Fatal(err)
	}
	indextest.Run(t, func(t *testing.T) indextest.Fixture {
		index, err := retryqueue.Open(servers.RedisURL, retryqueue.Options{Prefix: "test."})
		if err != nil {
			t.Fatal(err)
		}
		client := redis.NewClient(options)
		t.Cleanup(func() {
			for _, closer := range []interface{ Close() error }{index, client} {
				if err := closer.Close(); err != nil {
					t.Error(err)
				}
			}
		})
		if err := client.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		return indextest.Fixture{Index: index, Redis: client, Prefix: "test.", Advance: func(d time.Duration) {
			began := serverTime(t, client)
			if err := testenv.Until(time.Minute, func() bool { return serverTime(t, client).Sub(began) >= d }); err != nil {
				t.Fatal(err)
			}
		}}
	})
}

func serverTime(t *testing.T, client *redis.Client) time.Time {
	t.Helper()
	now, err := client.Time(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	return now
}
