package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.opentelemetry.io/otel/metric/noop"
	"go.uber.org/goleak"

	"github.com/hookline/hookline/pkg/event"
	"github.com/hookline/hookline/pkg/health"
	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/kafka/kafkatest"
	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/topic"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a Kafka in memory whose network can be cut. It lives in a synctest bubble.
type world struct {
	*testing.T
	fake    *kfake.Cluster
	cluster *kafka.Cluster
	client  *kgo.Client
	topics  topic.Names
	metrics *telemetry.Metrics
	cut     atomic.Bool
}

func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		var network kfake.VirtualNetwork
		fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(network.Listen),
			kfake.BrokerConfigs(map[string]string{"group.consumer.heartbeat.interval.ms": "1000"}))
		if err != nil {
			t.Fatal(err)
		}
		defer fake.Close()
		w := &world{T: t, fake: fake}
		open := func(dial func(context.Context, string, string) (net.Conn, error)) *kafka.Cluster {
			return kafka.New(kafka.Config{Brokers: []string{"127.0.0.1:9092"}, SessionTimeout: 10 * time.Second, TopicPrefix: "hookline."},
				slog.New(slog.DiscardHandler), kgo.Dialer(dial), kgo.FetchMaxWait(time.Second))
		}
		w.cluster = open(func(ctx context.Context, network_, addr string) (net.Conn, error) {
			if w.cut.Load() {
				return nil, errors.New("the network is cut")
			}
			return network.DialContext(ctx, network_, addr)
		})
		w.topics = w.cluster.Topics
		if w.client, err = open(network.DialContext).Client(w.cluster.Producer()...); err != nil {
			t.Fatal(err)
		}
		defer w.client.Close()
		if err := kafka.Ensure(t.Context(), w.client, w.topics.Specs(2), 1); err != nil {
			t.Fatal(err)
		}
		if w.metrics, err = telemetry.NewMetrics(noop.NewMeterProvider()); err != nil {
			t.Fatal(err)
		}
		test(t, w)
	})
}

// table is a configuration that a test holds in its hands.
type table struct {
	ready  chan struct{}
	mu     sync.Mutex
	offset int64
	subs   []*webhook.Subscription
}

func newTable(ids ...string) *table {
	c := &table{ready: make(chan struct{}), offset: 7}
	close(c.ready)
	for _, id := range ids {
		c.subs = append(c.subs, &webhook.Subscription{ID: id, Tenant: webhook.DefaultTenant, Profile: "fynapse"})
	}
	return c
}

func (c *table) Ready() <-chan struct{} { return c.ready }

func (c *table) Offset() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.offset
}

func (c *table) Tenant(id string) (*webhook.Tenant, bool) {
	return &webhook.Tenant{ID: id}, id == "acme"
}

func (c *table) Match(e *webhook.Event) (out []*webhook.Subscription, failed int) {
	for _, sub := range c.subs {
		if sub.Tenant == e.Tenant && sub.Wants(e.Type) {
			out = append(out, sub)
		}
	}
	return out, 0
}

func many(n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("sub-%04d", i))
	}
	return ids
}

// start runs a router until the returned stop is called; stop returns when it has ended.
func (w *world) start(c Snapshot, change func(*Service)) (stop func()) {
	w.Helper()
	return w.startIn(w.T, c, change)
}

func (w *world) startIn(t testing.TB, c Snapshot, change func(*Service)) (stop func()) {
	t.Helper()
	s, err := New(Config{DrainTimeout: 2 * time.Second}, Deps{
		Log: slog.New(slog.DiscardHandler), Metrics: w.metrics, Health: health.New(), Kafka: w.cluster, Snapshot: c, Profiles: profile.Builtin(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func (w *world) produce(records ...*kgo.Record) {
	w.Helper()
	for _, r := range records {
		r.Topic = w.topics.Events
	}
	if err := w.client.ProduceSync(w.Context(), records...).FirstErr(); err != nil {
		w.Fatal(err)
	}
}

func native(id string) *kgo.Record {
	return &kgo.Record{Key: []byte(id), Value: []byte(`{"event_id":"` + id + `","event_type":"a.b","data":{"n":1.0}}`)}
}

// read returns everything that a topic holds now.
func (w *world) read(name string) []*kgo.Record {
	w.Helper()
	return kafkatest.Records(w, w.cluster, name)
}

// delivered counts the deliveries by event and subscription.
func (w *world) delivered() map[string]int {
	w.Helper()
	out := map[string]int{}
	for _, r := range w.read(w.topics.Deliveries) {
		d, err := wire.DecodeDelivery(r.Value)
		if err != nil {
			w.Fatal(err)
		}
		out[d.Event.ID+" "+d.SubscriptionID]++
	}
	return out
}

// allDelivered holds that every event went to every subscription, and that at most some went twice.
func (w *world) allDelivered(events int, subs []string, atMostTwice int) {
	w.Helper()
	got := w.delivered()
	twice := 0
	for i := range events {
		for _, sub := range subs {
			n := got[strconv.Itoa(i)+" "+sub]
			if n == 0 {
				w.Fatalf("event %d is lost for %s", i, sub)
			}
			twice += n - 1
		}
	}
	if twice > atMostTwice || len(got) != events*len(subs) {
		w.Errorf("%d deliveries, of which %d are repeated; want %d, at most %d repeated", len(got), twice, events*len(subs), atMostTwice)
	}
}

func (w *world) committed() (total int64, metadata string) {
	w.Helper()
	offsets, err := kadm.NewClient(w.client).FetchOffsets(w.Context(), w.cluster.GroupID("router"))
	if err != nil {
		w.Fatal(err)
	}
	offsets.Each(func(o kadm.OffsetResponse) {
		total += o.At
		metadata += o.Metadata
	})
	return total, metadata
}

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

func TestEachMatchBecomesOneDelivery(t *testing.T) {
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	inWorld(t, func(t *testing.T, w *world) {
		c := newTable("s1", "s2", "s3")
		c.subs[1].EventTypes = []string{"other"}
		w.produce(&kgo.Record{Value: []byte(`{"event_type":"a.b","data": {"n":1.00},"ordering_key":"k"}`),
			Headers: []kgo.RecordHeader{{Key: "traceparent", Value: []byte(parent)}, {Key: "tracestate", Value: []byte("x=y")}}})
		stop := w.start(c, nil)
		time.Sleep(5 * time.Second)
		stop()
		source := w.read(w.topics.Events)[0]
		got := w.read(w.topics.Deliveries)
		if len(got) != 2 {
			t.Fatalf("%d deliveries, want 2", len(got))
		}
		position := webhook.Position{Topic: w.topics.Events, Partition: source.Partition, Offset: source.Offset}
		fynapse, _ := profile.Builtin().Get("fynapse")
		for _, r := range got {
			d, err := wire.DecodeDelivery(r.Value)
			if err != nil {
				t.Fatal(err)
			}
			want := webhook.Delivery{
				ID: webhook.DeliveryID("default", webhook.DerivedEventID(position), d.SubscriptionID), SubscriptionID: d.SubscriptionID,
				Profile: "fynapse", ProfileVersion: fynapse.Version, CreatedAt: source.Timestamp.UTC(), Trigger: webhook.TriggerEvent, ConfigOffset: 7,
				Event: webhook.Event{
					ID: webhook.DerivedEventID(position), Type: "a.b", Tenant: "default", OrderingKey: "k", Timestamp: source.Timestamp.UTC(),
					Data: []byte(`{"n":1.00}`), Trace: webhook.TraceContext{Parent: parent, State: "x=y"}, Source: position, RecordedAt: source.Timestamp.UTC(),
				},
			}
			if fmt.Sprintf("%+v", *d) != fmt.Sprintf("%+v", want) || d.SubscriptionID == "s2" {
				t.Errorf("got  %+v\nwant %+v", *d, want)
			}
			if string(r.Key) != d.ID.String() || header(r, "traceparent") != parent || header(r, "tracestate") != "x=y" {
				t.Errorf("key %s, headers %v", r.Key, r.Headers)
			}
		}
		if n, _ := w.committed(); n != 1 {
			t.Errorf("committed %d, want 1", n)
		}
	})
}

func TestWhatIsNoEventIsRejectedWithItsReasonAndThePartitionGoesOn(t *testing.T) {
	large := `{"event_type":"a","data":"` + strings.Repeat("x", event.MaxSize) + `"}`
	inWorld(t, func(t *testing.T, w *world) {
		bad := func(value, code string) *kgo.Record {
			return &kgo.Record{Key: []byte("k"), Value: []byte(value), Headers: []kgo.RecordHeader{{Key: "want", Value: []byte(code)}}}
		}
		w.produce(bad(`{"data":1}`, "missing_event_type"), bad(`{"event_type":"a","data":1,"tenant":"nobody"}`, "unknown_tenant"),
			bad(large, "too_large"), bad(``, "empty"), bad(`{"event_type":"a","event_type":"a","data":1}`, "duplicate_key"), native("0"),
			&kgo.Record{Key: []byte("k"), Value: []byte(`{"event_id":"1","event_type":"a","data":1,"tenant":"acme"}`)})
		stop := w.start(newTable("s"), nil)
		time.Sleep(5 * time.Second)
		stop()
		got := w.read(w.topics.Rejected)
		if len(got) != 5 {
			t.Fatalf("%d rejected, want 5", len(got))
		}
		originals := map[string]*kgo.Record{}
		for _, r := range w.read(w.topics.Events) {
			originals[fmt.Sprintf("%d@%d", r.Partition, r.Offset)] = r
		}
		for _, r := range got {
			original := originals[header(r, topic.HeaderSourcePartition)+"@"+header(r, topic.HeaderSourceOffset)]
			if original == nil || header(r, topic.HeaderSourceTopic) != w.topics.Events || header(r, topic.HeaderDetail) == "" {
				t.Fatalf("headers %v", r.Headers)
			}
			if header(r, topic.HeaderReason) != header(original, "want") || header(r, "want") != header(original, "want") || string(r.Key) != "k" {
				t.Errorf("reason %q of %q, key %q", header(r, topic.HeaderReason), header(original, "want"), r.Key)
			}
			want := original.Value
			if len(want) > event.MaxSize {
				want = want[:64<<10]
			}
			if string(r.Value) != string(want) {
				t.Errorf("%s: a value of %d bytes, want %d", header(r, topic.HeaderReason), len(r.Value), len(want))
			}
		}
		w.allDelivered(1, []string{"s"}, 0)
		if n, _ := w.committed(); n != 7 {
			t.Errorf("committed %d, want 7", n)
		}
	})
}

func TestNothingIsRoutedBeforeTheConfigurationIsApplied(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := newTable("s")
		c.ready = make(chan struct{})
		w.produce(native("0"))
		stop := w.start(c, nil)
		defer stop()
		time.Sleep(time.Minute)
		if got := w.delivered(); len(got) > 0 {
			t.Fatalf("routed %v", got)
		}
		close(c.ready)
		time.Sleep(10 * time.Second)
		w.allDelivered(1, []string{"s"}, 0)
	})
}

// R1: a router that dies between the acknowledgements and its commit leaves the batch to the next, which writes the same ids.
func TestARouterThatDiesBeforeItsCommitIsRepeatedUnderTheSameIDs(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for i := range 20 {
			w.produce(native(strconv.Itoa(i)), &kgo.Record{Value: []byte(`{`)})
		}
		lost := w.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.OffsetCommit}, Err: kerr.UnknownServerError, Count: -1})
		stop := w.start(newTable("s1", "s2"), nil)
		time.Sleep(10 * time.Second)
		stop()
		if n, _ := w.committed(); n > 0 || lost.Hits() == 0 {
			t.Fatalf("committed %d in %d tries", n, lost.Hits())
		}
		lost.Remove()
		stop = w.start(newTable("s1", "s2"), nil)
		time.Sleep(10 * time.Second)
		stop()
		w.allDelivered(20, []string{"s1", "s2"}, 40)
		ids := map[string]bool{}
		for _, r := range w.read(w.topics.Deliveries) {
			ids[string(r.Key)] = true
		}
		if len(ids) != 40 {
			t.Errorf("%d ids, want 40", len(ids))
		}
		if n, _ := w.committed(); n != 40 {
			t.Errorf("committed %d, want 40", n)
		}
	})
}

func TestALostAcknowledgementLosesNothing(t *testing.T) {
	for _, fault := range []*kerr.Error{kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend, kerr.NotLeaderForPartition} {
		t.Run(fault.Message, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				for i := range 20 {
					w.produce(native(strconv.Itoa(i)))
				}
				h := w.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: w.topics.Deliveries, Err: fault, Count: 3})
				stop := w.start(newTable("s1", "s2"), nil)
				time.Sleep(30 * time.Second)
				stop()
				if h.Hits() == 0 {
					t.Error("the fault did not happen")
				}
				w.allDelivered(20, []string{"s1", "s2"}, 0)
			})
		})
	}
}

// R4: an error that a producer does not get over is answered with a new client, from the last commit.
func TestAProducerThatCannotGoOnIsReplaced(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for i := range 20 {
			w.produce(native(strconv.Itoa(i)))
		}
		h := w.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: w.topics.Deliveries, Err: kerr.TopicAuthorizationFailed, Count: 3})
		stop := w.start(newTable("s1", "s2"), nil)
		time.Sleep(time.Minute)
		stop()
		if h.Hits() != 3 {
			t.Errorf("%d faults", h.Hits())
		}
		w.allDelivered(20, []string{"s1", "s2"}, 3*40)
		if n, _ := w.committed(); n != 20 {
			t.Errorf("committed %d, want 20", n)
		}
	})
}

func TestABatchThatIsTooLargeIsSentRecordByRecord(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for i := range 20 {
			w.produce(native(strconv.Itoa(i)))
		}
		h := w.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: w.topics.Deliveries, Err: kerr.MessageTooLarge, Count: -1, When: several})
		stop := w.start(newTable("s1", "s2"), nil)
		time.Sleep(30 * time.Second)
		stop()
		if h.Hits() == 0 {
			t.Error("the fault did not happen")
		}
		w.allDelivered(20, []string{"s1", "s2"}, 40)
		if got := len(w.read(w.topics.Rejected)); got > 0 {
			t.Errorf("%d rejected", got)
		}
	})
}

// several reports whether a produce request has a batch of more than one record.
func several(request kmsg.Request) bool {
	for _, t := range request.(*kmsg.ProduceRequest).Topics {
		for _, p := range t.Partitions {
			var batch kmsg.RecordBatch
			if batch.ReadFrom(p.Records) == nil && batch.NumRecords > 1 {
				return true
			}
		}
	}
	return false
}

func TestAnEventWhoseDeliveriesAreTooLargeIsRejected(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.produce(native("0"))
		w.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: w.topics.Deliveries, Err: kerr.MessageTooLarge, Count: -1},
			kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: w.topics.Rejected, Err: kerr.MessageTooLarge, Count: 1})
		stop := w.start(newTable("s1", "s2"), func(s *Service) { s.chunk.deliveries = 1 })
		time.Sleep(30 * time.Second)
		stop()
		got := w.read(w.topics.Rejected)
		if len(got) == 0 || header(got[0], topic.HeaderReason) != "too_large" {
			t.Fatalf("rejected %v", got)
		}
		if n, _ := w.committed(); n != 1 {
			t.Errorf("committed %d, want 1", n)
		}
	})
}

// R2: the next router goes on behind the last chunk that was acknowledged.
func TestALargeFanOutContinuesWhereItsRouterDied(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ids := many(95)
		small := func(s *Service) { s.chunk.deliveries = 10 }
		w.produce(native("0"))
		var seen atomic.Int32
		h := w.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: w.topics.Deliveries, Err: kerr.NotLeaderForPartition, Count: -1,
			When: func(kmsg.Request) bool { return seen.Add(1) > 8 }})
		stop := w.start(newTable(ids...), small)
		time.Sleep(30 * time.Second)
		stop()
		h.Remove()
		before := len(w.delivered())
		n, metadata := w.committed()
		if n != 0 || !strings.HasPrefix(metadata, "r1:7:sub-00") || before == 0 || before >= 95 {
			t.Fatalf("committed %d %q after %d deliveries", n, metadata, before)
		}
		w.produce(native("1"))
		stop = w.start(newTable(ids...), small)
		time.Sleep(30 * time.Second)
		stop()
		w.allDelivered(2, ids, 10)
		if n, metadata := w.committed(); n != 2 || metadata != "" {
			t.Errorf("committed %d %q", n, metadata)
		}
	})
}

func TestAContinuedFanOutWaitsForTheConfigurationItBeganWith(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.produce(native("0"))
		var offsets kadm.Offsets
		for p := range int32(2) {
			offsets.Add(kadm.Offset{Topic: w.topics.Events, Partition: p, At: 0, Metadata: "r1:9:sub-0001"})
		}
		if err := kadm.NewClient(w.client).CommitAllOffsets(w.Context(), w.cluster.GroupID("router"), offsets); err != nil {
			t.Fatal(err)
		}
		c := newTable(many(4)...)
		stop := w.start(c, nil)
		defer stop()
		time.Sleep(8 * time.Second)
		if got := w.delivered(); len(got) > 0 {
			t.Fatalf("routed under an older configuration: %v", got)
		}
		c.mu.Lock()
		c.offset = 9
		c.mu.Unlock()
		time.Sleep(8 * time.Second)
		if got := w.delivered(); len(got) != 2 || got["0 sub-0002"] != 1 || got["0 sub-0003"] != 1 {
			t.Errorf("got %v", got)
		}
	})
}

func TestRoutersComeAndGoWithoutLoss(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ids := many(25)
		small := func(s *Service) { s.chunk.deliveries = 10 }
		next := 0
		more := func() {
			for range 10 {
				w.produce(native(strconv.Itoa(next)))
				next++
			}
			time.Sleep(700 * time.Millisecond)
		}
		var running []func()
		for range 3 {
			running = append(running, w.start(newTable(ids...), small))
			for range 4 {
				more()
			}
		}
		for _, stop := range running {
			more()
			stop()
			more()
		}
		stop := w.start(newTable(ids...), small)
		time.Sleep(time.Minute)
		stop()
		w.allDelivered(next, ids, 500)
		if n, _ := w.committed(); n != int64(next) {
			t.Errorf("committed %d, want %d", n, next)
		}
	})
}

func TestWithoutKafkaItWaits(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cut.Store(true)
		w.produce(native("0"))
		stop := w.start(newTable("s"), nil)
		time.Sleep(2 * time.Minute)
		w.cut.Store(false)
		time.Sleep(time.Minute)
		stop()
		w.allDelivered(1, []string{"s"}, 0)
	})
}

func TestItStopsBeforeItIsReady(t *testing.T) {
	for _, missing := range []string{"kafka", "config"} {
		t.Run(missing, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				c := newTable("s")
				if w.cut.Store(missing == "kafka"); missing == "config" {
					c.ready = make(chan struct{})
				}
				stop := w.start(c, nil)
				time.Sleep(5 * time.Second)
				began := time.Now()
				stop()
				if took := time.Since(began); took > time.Second {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

func TestAStopWithKafkaAwayEndsWithTheDrainTimeoutAndLosesNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		h := w.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: w.topics.Deliveries, Err: kerr.NotLeaderForPartition, Count: -1})
		w.produce(native("0"))
		stop := w.start(newTable("s"), nil)
		time.Sleep(5 * time.Second)
		began := time.Now()
		stop()
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("it took %v", took)
		}
		if n, _ := w.committed(); n > 0 {
			t.Errorf("committed %d", n)
		}
		h.Remove()
		stop = w.start(newTable("s"), nil)
		time.Sleep(5 * time.Second)
		stop()
		w.allDelivered(1, []string{"s"}, 0)
	})
}

func TestAnEventIsRoutedWithinMilliseconds(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		stop := w.start(newTable("s"), nil)
		time.Sleep(5 * time.Second)
		for i := range 100 {
			w.produce(native(strconv.Itoa(i)))
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(time.Second)
		stop()
		events := map[string]time.Time{}
		for _, r := range w.read(w.topics.Events) {
			events[string(r.Key)] = r.Timestamp
		}
		var hops []time.Duration
		for _, r := range w.read(w.topics.Deliveries) {
			d, _ := wire.DecodeDelivery(r.Value)
			hops = append(hops, r.Timestamp.Sub(events[d.Event.ID]))
		}
		slices.Sort(hops)
		if len(hops) != 100 || hops[50] > 5*time.Millisecond {
			t.Errorf("%d hops, median %v", len(hops), hops[len(hops)/2])
		}
	})
}
