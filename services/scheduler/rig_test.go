package scheduler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/goleak"

	"github.com/hookline/hookline/pkg/health"
	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/retryqueue"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is one installation in a bubble: a broker, a Redis, and a reader of the deliveries topic that keeps book.
type rig struct {
	t       *testing.T
	network kfake.VirtualNetwork
	broker  *kfake.Cluster
	redis   *miniredis.Miniredis
	wires   wires
	cluster *kafka.Cluster
	client  *kgo.Client
	clock   chan struct{} // closed when Redis's clock is set otherwise

	mu    sync.Mutex
	fired map[webhook.Trip][]time.Time
	// onFired, if set, is told of every delivery, in the goroutine that reads.
	onFired func(*webhook.Delivery)
}

const partitions = 3

// inBubble runs a test against a rig, in virtual time.
func inBubble(t *testing.T, test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, fired: map[webhook.Trip][]time.Time{}}
		var err error
		r.broker, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.ListenFn(r.network.Listen), kfake.BrokerConfigs(map[string]string{
			"group.consumer.heartbeat.interval.ms": "15000", "group.consumer.session.timeout.ms": "45000",
		}))
		r.must(err)
		t.Cleanup(r.broker.Close)
		r.redis = miniredis.NewMiniRedis()
		r.redis.ClockTTL(true)
		t.Cleanup(r.redis.Close)
		r.cluster = r.kafka(&r.wires)
		r.client = r.open(r.cluster, append(r.cluster.Producer(), kgo.ConsumeTopics(r.cluster.Topics.Deliveries),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
		r.must(kafka.Ensure(t.Context(), r.client, r.cluster.Topics.Specs(partitions), 1))
		reading := make(chan struct{})
		go func() { defer close(reading); r.read() }()
		t.Cleanup(func() { r.client.Close(); <-reading })
		test(r)
	})
}

// whileRunning runs a test against a rig with a scheduler that has got its partitions.
func whileRunning(t *testing.T, test func(r *rig, p *process)) {
	t.Helper()
	inBubble(t, func(r *rig) {
		p := r.start()
		r.after(20 * time.Second)
		test(r, p)
	})
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) kafka(w *wires) *kafka.Cluster {
	return kafka.New(kafka.Config{Brokers: r.broker.ListenAddrs(), SessionTimeout: 45 * time.Second, TopicPrefix: "hookline."}, slog.New(slog.DiscardHandler),
		kgo.Dialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
			return w.dial(func() (net.Conn, error) { return r.network.DialContext(ctx, network, addr) })
		}),
		kgo.FetchMaxWait(time.Minute), kgo.MetadataMaxAge(time.Hour), kgo.DisableClientMetrics())
}

func (r *rig) open(cluster *kafka.Cluster, opts ...kgo.Opt) *kgo.Client {
	client, err := cluster.Client(opts...)
	r.must(err)
	return client
}

// read keeps book of what is fired.
func (r *rig) read() {
	for {
		fetches := r.client.PollFetches(context.Background())
		if fetches.IsClientClosed() {
			return
		}
		fetches.EachRecord(func(record *kgo.Record) {
			delivery, err := wire.DecodeDelivery(record.Value)
			if err != nil || string(record.Key) != delivery.ID.String() {
				r.t.Errorf("a delivery that no worker would read: key %q, %v", record.Key, err)
				return
			}
			if got, want := telemetry.RecordTrace(record), delivery.Event.Trace; got != want {
				r.t.Errorf("trace %v, want %v", got, want)
			}
			r.mu.Lock()
			r.fired[delivery.Key()] = append(r.fired[delivery.Key()], time.Now())
			onFired := r.onFired
			r.mu.Unlock()
			if onFired != nil {
				onFired(delivery)
			}
		})
	}
}

// wires are the connections of one process: they can be cut.
type wires struct {
	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

var errCut = errors.New("the wire is cut")

func (w *wires) dial(connect func() (net.Conn, error)) (net.Conn, error) {
	w.mu.Lock()
	cut := w.cut
	w.mu.Unlock()
	if cut {
		return nil, errCut
	}
	conn, err := connect()
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		_ = conn.Close()
		return nil, errCut
	}
	w.conns = append(w.conns, conn)
	return conn, nil
}

func (w *wires) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
	if cut {
		for _, conn := range w.conns {
			_ = conn.Close() // it may have been closed before
		}
		w.conns = nil
	}
}

// process is one running scheduler.
type process struct {
	r      *rig
	kafka  wires
	redis  wires
	health *health.Health
	log    *lines
	stop   context.CancelFunc
	ended  chan error
	once   sync.Once
}

// lines keeps what is logged.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Count(l.buf.Bytes(), []byte(text))
}

// start starts a scheduler with its own connections.
func (r *rig) start(change ...func(*Config)) *process {
	r.t.Helper()
	p := &process{r: r, health: health.New(), log: &lines{}, ended: make(chan error, 1)}
	index, err := retryqueue.Open("redis://127.0.0.1:6379", retryqueue.Options{Prefix: "hookline.", Embedded: true,
		Dialer: func(context.Context, string, string) (net.Conn, error) { return p.redis.dial(r.redis.Dial) }})
	r.must(err)
	metrics, err := telemetry.NewMetrics(noop.NewMeterProvider())
	r.must(err)
	cfg := Config{Inflight: 100, CacheBytes: 64 << 20, Lease: 30 * time.Second, DrainTimeout: 20 * time.Second}
	for _, c := range change {
		c(&cfg)
	}
	service, err := New(cfg, Deps{Log: slog.New(slog.NewTextHandler(p.log, nil)), Metrics: metrics, Health: p.health, Kafka: r.kafka(&p.kafka), Index: index})
	r.must(err)
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	go func() {
		err := service.Run(ctx)
		p.ended <- errors.Join(err, index.Close())
	}()
	r.t.Cleanup(func() { p.end() })
	return p
}

// end stops the scheduler gracefully and returns how long that took.
func (p *process) end() time.Duration {
	began := time.Now()
	p.once.Do(func() {
		p.stop()
		if err := <-p.ended; err != nil {
			p.r.t.Errorf("the scheduler ended with %v", err)
		}
	})
	return time.Since(began)
}

// kill cuts every connection first: whatever the process still does reaches nobody.
func (p *process) kill() {
	p.kafka.set(true)
	p.redis.set(true)
	p.end()
}

func (p *process) ready() bool { return len(p.health.Unmet()) == 0 }

// trip is the first trip of delivery n.
func trip(n int) webhook.Trip {
	return webhook.Trip{Delivery: uuid.NewSHA1(uuid.Nil, fmt.Append(nil, n)), Number: 1}
}

func retryOf(t webhook.Trip, delay time.Duration) *webhook.Retry {
	return &webhook.Retry{Delay: delay, Reason: webhook.ReasonHTTPStatus, Delivery: webhook.Delivery{
		ID: t.Delivery, Generation: t.Generation, Trip: t.Number, Attempts: t.Number, SubscriptionID: "sub", Profile: "fynapse",
		CreatedAt: time.Now(), Trigger: webhook.TriggerEvent,
		Event: webhook.Event{ID: "e-" + t.Delivery.String(), Type: "a.b", Tenant: "default", Data: []byte(`{"n":1}`),
			Trace: webhook.TraceContext{Parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}},
	}}
}

func (r *rig) record(retry *webhook.Retry) *kgo.Record {
	return &kgo.Record{Topic: r.cluster.Topics.Retries, Key: []byte(retry.Delivery.Key().String()), Value: wire.EncodeRetry(retry)}
}

// retry writes retries as a worker does.
func (r *rig) retry(delay time.Duration, trips ...webhook.Trip) {
	r.t.Helper()
	records := make([]*kgo.Record, len(trips))
	for i, t := range trips {
		records[i] = r.record(retryOf(t, delay))
	}
	r.must(r.client.ProduceSync(context.Background(), records...).FirstErr())
}

// tripsTo lists the first trips of deliveries from..to.
func tripsTo(from, to int) []webhook.Trip {
	list := make([]webhook.Trip, 0, to-from)
	for n := from; n < to; n++ {
		list = append(list, trip(n))
	}
	return list
}

// tripsOfOne lists so many trips whose retries are in one partition.
func tripsOfOne(count int) []webhook.Trip {
	list := make([]webhook.Trip, 0, count)
	for n := 0; len(list) < count; n++ {
		if t := trip(n); kafka.PartitionOf(t.String(), partitions) == 0 {
			list = append(list, t)
		}
	}
	return list
}

// after lets virtual time pass.
func (r *rig) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// times says when a trip was fired.
func (r *rig) times(t webhook.Trip) []time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.fired[t])
}

// want checks how often each of the trips has been fired.
func (r *rig) want(least, most int, trips ...webhook.Trip) {
	r.t.Helper()
	wrong := 0
	for _, t := range trips {
		if n := len(r.times(t)); n < least || n > most {
			if wrong++; wrong <= 3 {
				r.t.Errorf("trip %s fired %d times, want %d to %d", t, n, least, most)
			}
		}
	}
	if wrong > 0 {
		r.t.Errorf("%d of %d trips fired too seldom or too often", wrong, len(trips))
	}
}

// tombstones counts the tombstones in the retries topic.
func (r *rig) tombstones() int {
	count := 0
	r.eachRecord(r.cluster.Topics.Retries, func(record *kgo.Record) {
		if record.Value == nil {
			count++
		}
	})
	return count
}

func (r *rig) eachRecord(topic string, f func(*kgo.Record)) {
	r.t.Helper()
	end := int64(0)
	for _, p := range r.broker.PartitionInfos(topic) {
		end += p.HighWatermark - p.LogStartOffset
	}
	client := r.open(r.cluster, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(time.Second))
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for seen := int64(0); seen < end && ctx.Err() == nil; {
		client.PollFetches(ctx).EachRecord(func(record *kgo.Record) {
			seen++
			f(record)
		})
	}
}

// saved is what Redis holds, as its disk or a replica would have it.
type saved map[string]any

func (r *rig) redisClient() *redis.Client {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379", Dialer: func(context.Context, string, string) (net.Conn, error) { return r.redis.Dial() }})
	r.t.Cleanup(func() { _ = client.Close() })
	return client
}

func (r *rig) save() saved {
	ctx, client, s := context.Background(), r.redisClient(), saved{}
	for _, key := range client.Keys(ctx, "*").Val() {
		switch client.Type(ctx, key).Val() {
		case "zset":
			s[key] = client.ZRangeWithScores(ctx, key, 0, -1).Val()
		case "hash":
			s[key] = client.HGetAll(ctx, key).Val()
		case "string":
			s[key] = client.Get(ctx, key).Val()
		}
	}
	return s
}

// restore makes Redis what it was. No time passes meanwhile.
func (r *rig) restore(s saved) {
	r.redis.FlushAll()
	for key, value := range s {
		switch v := value.(type) {
		case []redis.Z:
			for _, z := range v {
				_, err := r.redis.ZAdd(key, z.Score, z.Member.(string))
				r.must(err)
			}
		case map[string]string:
			for field, value := range v {
				r.redis.HSet(key, field, value)
			}
		case string:
			r.must(r.redis.Set(key, v))
		}
	}
}

// blockProduce lets nothing be written to a topic until the fault is removed; writers try again.
func (r *rig) blockProduce(topic string) *kfake.FaultHandle {
	return r.broker.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: kerr.NotLeaderForPartition, Count: -1})
}
