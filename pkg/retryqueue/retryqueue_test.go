package retryqueue_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/hookline/hookline/pkg/retryqueue"
	"github.com/hookline/hookline/pkg/retryqueue/indextest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheEmbeddedRedisIsATimerIndex(t *testing.T) {
	indextest.Run(t, func(t *testing.T) indextest.Fixture {
		server := miniredis.NewMiniRedis()
		t.Cleanup(server.Close)
		dial := func(context.Context, string, string) (net.Conn, error) { return server.Dial() }
		index, err := retryqueue.Open("redis://127.0.0.1:6379", retryqueue.Options{Prefix: "test.", Embedded: true, Dialer: dial})
		if err != nil {
			t.Fatal(err)
		}
		client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379", Dialer: dial})
		t.Cleanup(func() {
			for _, closer := range []interface{ Close() error }{index, client} {
				if err := closer.Close(); err != nil {
					t.Error(err)
				}
			}
		})
		now := time.UnixMilli(1_763_772_000_000)
		server.SetTime(now)
		return indextest.Fixture{Index: index, Redis: client, Prefix: "test.", Advance: func(d time.Duration) {
			now = now.Add(d)
			server.SetTime(now)
		}}
	})
}

func TestURLsOfEveryKindOfRedisAreUnderstood(t *testing.T) {
	for raw, problem := range map[string]string{
		"redis://127.0.0.1:6379/0":                                                 "",
		"rediss://user:secret@redis.example:6380/2?dial_timeout=3s":                "",
		"unix:///run/redis.sock?db=1":                                              "",
		"redis+cluster://user:secret@a.example:6379?addr=b.example:6379":           "",
		"redis://a.example:6379?addr=b.example:6379":                               "",
		"rediss+cluster://a.example:6379":                                          "",
		"redis+sentinel://a.example:26379/0?master_name=main&addr=b.example:26379": "",
		"redis://a.example:26379?master_name=main&username=app&password=secret":    "",
		"redis+sentinel://a.example:26379":                                         "master_name",
		"redis+ring://a.example:6379":                                              "redis+ring",
		"http://a.example":                                                         "scheme",
		"redis://user:secret@a.example:notaport/0":                                 "port",
		"redis://a.example:6379/0?dial_timout=3s":                                  "dial_timout",
	} {
		index, err := retryqueue.Open(raw, retryqueue.Options{})
		switch {
		case err == nil && problem != "":
			t.Errorf("%s was taken", raw)
		case err != nil && (problem == "" || !strings.Contains(err.Error(), problem)):
			t.Errorf("%s: %v, want a word about %q", raw, err, problem)
		case err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("%s: the error repeats the password: %v", raw, err)
		}
		if index != nil {
			if err := index.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
