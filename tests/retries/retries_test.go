// Package retries holds the retry engine to its promise on real servers: what waits is fired, through kills, rebalances and the
// loss of everything in Redis, and hardly anything twice.
package retries

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
	"github.com/hookline/hookline/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// rig is a scheduler between real servers, and a book of what it fires.
type rig struct {
	*testing.T
	*testenv.Deployment
	redis   *redis.Client
	cluster *kafka.Cluster
	client  *kgo.Client

	mu    sync.Mutex
	fired map[webhook.Trip]int
}

func open(t *testing.T) *rig {
	servers := testenv.Own(t, 1, "redis")
	env := testenv.Env{
		"HOOKLINE_KAFKA_BROKERS":    strings.Join(testenv.Kafka(t), ","),
		"HOOKLINE_TOPIC_PREFIX":     testenv.Prefix(t),
		"HOOKLINE_TOPIC_PARTITIONS": "6",
		"HOOKLINE_REDIS_URL":        servers.RedisURL,
		"HOOKLINE_DATABASE_URL":     "sqlite://" + filepath.Join(t.TempDir(), "hookline.db"),
	}
	r := &rig{T: t, Deployment: testenv.Deploy(t, env, "scheduler"), fired: map[webhook.Trip]int{}}
	options, err := redis.ParseURL(servers.RedisURL)
	r.must(err)
	r.redis = redis.NewClient(options)
	t.Cleanup(func() { _ = r.redis.Close() })
	r.cluster = kafka.New(kafka.Config{Brokers: testenv.Kafka(t), SessionTimeout: 10 * time.Second, TopicPrefix: env["HOOKLINE_TOPIC_PREFIX"]},
		slog.New(slog.DiscardHandler))
	r.client, err = r.cluster.Client(append(r.cluster.Producer(), kgo.ProducerLinger(20*time.Millisecond),
		kgo.ConsumeTopics(r.cluster.Topics.Deliveries), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	r.must(err)
	reading := make(chan struct{})
	go func() { defer close(reading); r.read() }()
	t.Cleanup(func() { r.client.Close(); <-reading })
	return r
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) read() {
	for {
		fetches := r.client.PollFetches(context.Background())
		if fetches.IsClientClosed() {
			return
		}
		r.mu.Lock()
		fetches.EachRecord(func(record *kgo.Record) {
			if delivery, err := wire.DecodeDelivery(record.Value); err != nil {
				r.Errorf("a delivery that no worker can read: %v", err)
			} else {
				r.fired[delivery.Key()]++
			}
		})
		r.mu.Unlock()
	}
}

// counted is how many different trips have been fired, and how often one was fired again.
func (r *rig) counted() (different, again int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.fired {
		again += n - 1
	}
	return len(r.fired), again
}

// await returns when so many trips have been fired.
func (r *rig) await(n int, within time.Duration) {
	r.Helper()
	if err := testenv.Until(within, func() bool { different, _ := r.counted(); return different >= n }); err != nil {
		different, again := r.counted()
		r.Fatalf("%d of %d fired, %d again: %v", different, n, again, err)
	}
}

// awaitCalm returns when so many trips have been fired, and then, if it comes to that soon, all that are due but for a second's: a
// moment like any other, not amid what piled up while nobody fired.
func (r *rig) awaitCalm(n int, due func() int) {
	r.Helper()
	r.await(n, 2*time.Minute)
	_ = testenv.Until(5*time.Second, func() bool { different, _ := r.counted(); return different > due()-1000 })
}

// failOverSoon has the broker miss a killed member after 6 s, the least it permits.
func (r *rig) failOverSoon() {
	r.Helper()
	request := kmsg.NewPtrIncrementalAlterConfigsRequest()
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeGroupConfig, r.cluster.GroupID("scheduler")
	config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	config.Name, config.Value = "consumer.session.timeout.ms", kmsg.StringPtr("6000")
	resource.Configs = append(resource.Configs, config)
	request.Resources = append(request.Resources, resource)
	response, err := request.RequestWith(context.Background(), r.client)
	r.must(err)
	for _, answer := range response.Resources {
		if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
			r.Logf("the test takes longer: %v", err)
		}
	}
}

// schedule writes n retries as workers do, due in equal steps from first to last from began on.
func (r *rig) schedule(n int, began time.Time, first, last time.Duration) {
	r.Helper()
	data := []byte(`{"text":"` + strings.Repeat("x", 400) + `"}`)
	for i := range n {
		retry := &webhook.Retry{
			Delay: time.Until(began.Add(first + (last-first)*time.Duration(i)/time.Duration(n))), Reason: webhook.ReasonHTTPStatus,
			Delivery: webhook.Delivery{
				ID: uuid.NewSHA1(uuid.Nil, fmt.Append(nil, i)), Trip: 1, Attempts: 1, SubscriptionID: fmt.Sprintf("sub-%d", i%50),
				Profile: "fynapse", CreatedAt: time.Now(), Trigger: webhook.TriggerEvent,
				Event: webhook.Event{ID: fmt.Sprintf("event-%d", i), Type: "a.b", Tenant: "default", Data: data},
			},
		}
		r.client.Produce(context.Background(), &kgo.Record{
			Topic: r.cluster.Topics.Retries, Key: []byte(retry.Delivery.Key().String()), Value: wire.EncodeRetry(retry),
		}, func(_ *kgo.Record, err error) {
			if err != nil {
				r.Error(err)
			}
		})
	}
	r.must(r.client.Flush(context.Background()))
}

// waiting is how many trips the index has.
func (r *rig) waiting() int64 {
	r.Helper()
	total := int64(0)
	for _, key := range r.redis.Keys(context.Background(), "*:due").Val() {
		total += r.redis.ZCard(context.Background(), key).Val()
	}
	return total
}

// A hundred thousand retries become due while the scheduler is killed ten times, a second one comes and goes, and Redis loses
// everything.
func TestEveryRetryArrivesThroughKillsRebalancesAndALostIndex(t *testing.T) {
	const total, kills, first, last = 100_000, 10, 20 * time.Second, 100 * time.Second
	r := open(t)
	r.failOverSoon()
	began := time.Now()
	r.schedule(total, began, first, last)
	for kill := range kills {
		r.awaitCalm(total*(kill+1)/(kills+2), func() int { return int(min(total, total*(time.Since(began)-first)/(last-first))) })
		r.Crew["scheduler"].Kill()
		r.Start("scheduler")
		switch kill {
		case 2:
			r.Start("scheduler 2")
		case 5:
			if code := r.Crew["scheduler 2"].Stop(t, time.Minute); code != 0 {
				t.Errorf("the second scheduler: exit code %d", code)
			}
			delete(r.Crew, "scheduler 2")
		case 7:
			r.must(r.redis.FlushAll(t.Context()).Err())
		}
	}
	r.await(total, 2*time.Minute)
	if err := testenv.Until(time.Minute, func() bool { return r.waiting() == 0 }); err != nil {
		t.Errorf("%d still wait although all have been fired", r.waiting())
	}
	r.Deployment.Stop()
	different, again := r.counted()
	t.Logf("%d retries arrived, %d of them again", different, again)
	if different != total || again >= total/100 {
		t.Errorf("%d of %d arrived, %d again", different, total, again)
	}
}

func TestAFullRedisIsWaitedFor(t *testing.T) {
	r := open(t)
	r.must(r.redis.ConfigSet(t.Context(), "maxmemory", "1").Err())
	r.schedule(1000, time.Now(), time.Second, 2*time.Second)
	r.Crew["scheduler"].Printed(t, "OOM command not allowed", time.Minute)
	if different, _ := r.counted(); different > 0 {
		t.Errorf("%d fired from a Redis that takes nothing", different)
	}
	r.must(r.redis.ConfigSet(t.Context(), "maxmemory", "0").Err())
	r.await(1000, time.Minute)
	r.Deployment.Stop()
	if _, again := r.counted(); again > 0 {
		t.Errorf("%d fired again", again)
	}
}
