package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/metric/noop"
	nooptrace "go.opentelemetry.io/otel/trace/noop"

	"github.com/hookline/hookline/pkg/health"
	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/kafka/kafkatest"
	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/seal"
	"github.com/hookline/hookline/pkg/snapshot"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/topic"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

// receiver answers requests: the endpoints of a test.
type receiver func(r *http.Request) (status int, err error)

func (f receiver) RoundTrip(r *http.Request) (*http.Response, error) {
	status, err := f(r)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("seen"))}, nil
}

// busy answers like a receiver that asks for less.
type busy struct {
	status     int
	retryAfter string
}

func (b busy) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: b.status, Header: http.Header{"Retry-After": {b.retryAfter}}, Body: http.NoBody}, nil
}

// heard notes every request.
type heard struct {
	*world
	answer http.RoundTripper
}

func (h heard) RoundTrip(r *http.Request) (*http.Response, error) {
	h.mu.Lock()
	h.requests = append(h.requests, r)
	h.mu.Unlock()
	return h.answer.RoundTrip(r)
}

// world is a Kafka with configuration, in which workers run. It lives in a synctest bubble.
type world struct {
	*testing.T
	cluster *kafka.Cluster
	client  *kgo.Client
	topics  topic.Names
	metrics *telemetry.Metrics
	keys    *seal.Ring

	mu       sync.Mutex
	requests []*http.Request
}

func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		var network kfake.VirtualNetwork
		log := slog.New(slog.DiscardHandler)
		fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(9092), kfake.ListenFn(network.Listen),
			kfake.BrokerConfigs(map[string]string{"group.consumer.heartbeat.interval.ms": "5000"}))
		if err != nil {
			t.Fatal(err)
		}
		defer fake.Close()
		cluster := kafka.New(kafka.Config{Brokers: []string{"127.0.0.1:9092"}, SessionTimeout: 10 * time.Second, TopicPrefix: "hookline."}, log,
			kgo.Dialer(network.DialContext), kgo.FetchMaxWait(500*time.Millisecond))
		client, err := cluster.Client(cluster.Producer()...)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if err := kafka.Ensure(t.Context(), client, cluster.Topics.Specs(2), 1); err != nil {
			t.Fatal(err)
		}
		metrics, err := telemetry.NewMetrics(noop.NewMeterProvider())
		if err != nil {
			t.Fatal(err)
		}
		keys, err := seal.ParseRing(seal.NewKey("test"))
		if err != nil {
			t.Fatal(err)
		}
		test(t, &world{T: t, cluster: cluster, client: client, topics: cluster.Topics, metrics: metrics, keys: keys})
	})
}

// start runs a worker until the returned stop is called; stop returns when it has ended.
func (w *world) start(cfg Config, answer http.RoundTripper) (stop func()) {
	ctx, cancel := context.WithCancel(w.Context())
	applied := snapshot.New(snapshot.Deps{Kafka: w.cluster, Log: slog.New(slog.DiscardHandler), Metrics: w.metrics})
	service, err := New(cfg, Deps{
		Log: slog.New(slog.DiscardHandler), Metrics: w.metrics, Tracer: nooptrace.NewTracerProvider().Tracer(""),
		Health: health.New(), Kafka: w.cluster, Snapshot: applied, Profiles: profile.Builtin(), Keys: w.keys,
		Transport: heard{w, answer},
	})
	if err != nil {
		w.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = applied.Run(ctx) })
	running.Go(func() {
		if err := service.Run(ctx); err != nil {
			w.Errorf("run: %v", err)
		}
	})
	return func() { cancel(); running.Wait() }
}

func testConfig() Config {
	return Config{
		MaxInflight: 64, EndpointInflight: 8, WindowRecords: 2000, WindowBytes: 32 << 20,
		RememberedTrips: 10_000, ResponseBytes: 1024, DrainTimeout: 20 * time.Second,
	}
}

func (w *world) produce(records ...*kgo.Record) {
	w.Helper()
	if err := w.client.ProduceSync(w.Context(), records...).FirstErr(); err != nil {
		w.Fatal(err)
	}
}

// subscribe publishes a fynapse subscription whose endpoint is named after it.
func (w *world) subscribe(id string, change func(*webhook.Subscription)) {
	w.Helper()
	secret := &webhook.Secret{ID: "secret-" + id, Tenant: "default", Name: id, Profile: "fynapse"}
	secret.Versions = []webhook.SecretVersion{{Number: 1, Sealed: w.keys.Seal([]byte("0123456789abcdef0123456789abcdef"), secret, 1)}}
	sub := &webhook.Subscription{
		ID: id, Tenant: "default", Name: id, Status: webhook.SubscriptionActive, EndpointURL: "https://" + id + ".example/hook",
		SecretID: secret.ID, SecretRef: id, Profile: "fynapse", Ordering: webhook.OrderingNone,
	}
	if change != nil {
		change(sub)
	}
	value, err := wire.EncodeSubscription(sub)
	if err != nil {
		w.Fatal(err)
	}
	w.produce(
		&kgo.Record{Topic: w.topics.Config, Key: []byte(wire.ConfigKey(wire.KindSecret, secret.ID)), Value: wire.EncodeSecret(secret)},
		&kgo.Record{Topic: w.topics.Config, Key: []byte(wire.ConfigKey(wire.KindSubscription, sub.ID)), Value: value},
	)
}

// deliver produces deliveries of the numbered events to a subscription.
func (w *world) deliver(subscription string, events ...int) {
	w.Helper()
	for _, n := range events {
		w.produce(deliveryRecord(w.topics, subscription, n))
	}
}

func deliveryRecord(topics topic.Names, subscription string, n int) *kgo.Record {
	event := webhook.Event{
		ID: fmt.Sprintf("event-%d", n), Type: "balance.extracted", Tenant: "default",
		Timestamp: time.Now(), RecordedAt: time.Now(), Data: []byte(`{"n":1}`),
	}
	d := &webhook.Delivery{
		ID: webhook.DeliveryID("default", event.ID, subscription), SubscriptionID: subscription, Profile: "fynapse", ProfileVersion: 1,
		CreatedAt: time.Now(), Trigger: webhook.TriggerEvent, Event: event,
	}
	return &kgo.Record{Topic: topics.Deliveries, Key: []byte(d.ID.String()), Value: wire.EncodeDelivery(d)}
}

// read returns everything on a topic.
func (w *world) read(name string) []*kgo.Record {
	w.Helper()
	return kafkatest.Records(w, w.cluster, name)
}

func (w *world) attempts() []*webhook.Attempt {
	w.Helper()
	var all []*webhook.Attempt
	for _, r := range w.read(w.topics.Attempts) {
		a, err := wire.DecodeAttempt(r.Value)
		if err != nil {
			w.Fatal(err)
		}
		all = append(all, a)
	}
	return all
}

func (w *world) retries() []*webhook.Retry {
	w.Helper()
	var all []*webhook.Retry
	for _, r := range w.read(w.topics.Retries) {
		retry, err := wire.DecodeRetry(r.Value)
		if err != nil {
			w.Fatal(err)
		}
		if string(r.Key) != retry.Delivery.Key().String() {
			w.Errorf("retry's key is %s, want %s", r.Key, retry.Delivery.Key())
		}
		all = append(all, retry)
	}
	return all
}

func (w *world) sent() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.requests)
}

func always(status int) receiver { return func(*http.Request) (int, error) { return status, nil } }

// settle lets virtual time pass until nothing more happens within it.
func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestADeliveryIsSentSignedRecordedAndNotRepeated(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.subscribe("s1", nil)
		w.deliver("s1", 1, 2, 3)
		stop := w.start(testConfig(), always(200))
		settle(10 * time.Second)
		stop()
		stop = w.start(testConfig(), always(200))
		settle(10 * time.Second)
		stop()
		if w.sent() != 3 {
			t.Fatalf("%d requests for 3 deliveries", w.sent())
		}
		r := w.requests[0]
		if r.Method != http.MethodPost || r.URL.String() != "https://s1.example/hook" || !strings.HasPrefix(r.Header.Get("Webhook-Signature"), "t=") {
			t.Errorf("request %s %s with headers %v", r.Method, r.URL, r.Header)
		}
		attempts := w.attempts()
		if len(attempts) != 3 {
			t.Fatalf("%d attempts recorded", len(attempts))
		}
		for _, a := range attempts {
			if a.Outcome.Status != webhook.Delivered || a.StatusCode != 200 || a.Number != 1 || a.Try != 1 || string(a.Response) != "seen" {
				t.Errorf("attempt %+v", a)
			}
		}
	})
}

func TestARetryableFailureGoesToRetriesWithTheNextTrip(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.subscribe("s1", nil)
		w.deliver("s1", 1)
		stop := w.start(testConfig(), always(503))
		settle(10 * time.Second)
		stop()
		attempts, retries := w.attempts(), w.retries()
		if len(attempts) != 2 || attempts[0].Try != 1 || attempts[1].Try != 2 || attempts[1].Number != 1 {
			t.Fatalf("attempts %+v, want two tries of the first attempt", attempts)
		}
		if gap := attempts[1].StartedAt.Sub(attempts[0].StartedAt); gap < 200*time.Millisecond || gap > 2*time.Second {
			t.Errorf("%v between the tries", gap)
		}
		if len(retries) != 1 {
			t.Fatalf("%d retries", len(retries))
		}
		r := retries[0]
		if r.Delivery.Trip != 1 || r.Delivery.Attempts != 1 || r.Delay < 24*time.Second || r.Delay > 36*time.Second || r.Reason != webhook.ReasonHTTPStatus {
			t.Errorf("retry %+v", r)
		}
		if attempts[1].Outcome.NextAttemptAt.IsZero() || attempts[1].Outcome.Status != webhook.Pending {
			t.Errorf("outcome %+v", attempts[1].Outcome)
		}
	})
}

func TestRetryAfterSlowsTheEndpointAndIsNotHeldAgainstIt(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.subscribe("s1", nil)
		w.deliver("s1", 1)
		stop := w.start(testConfig(), busy{503, "40"})
		settle(3 * time.Second)
		w.deliver("s1", 2, 3)
		settle(3 * time.Second)
		stop()
		attempts := w.attempts()
		if len(attempts) != 1 || !attempts[0].Outcome.Uncounted || attempts[0].Outcome.Status != webhook.Pending {
			t.Fatalf("attempts %+v, want one that is not counted, and no second try", attempts)
		}
		reasons := map[webhook.Reason]int{}
		for _, r := range w.retries() {
			reasons[r.Reason]++
			if r.Delay < 30*time.Second || r.Reason == webhook.ReasonRate && r.Delivery.Attempts != 0 {
				t.Errorf("retry %+v", r)
			}
		}
		if reasons[webhook.ReasonRate] != 2 || reasons[webhook.ReasonHTTPStatus] != 1 {
			t.Errorf("reasons %v", reasons)
		}
	})
}

func TestAnEndpointThatIsDownIsProbedAndTheRestWaitsWithoutAnAttempt(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.subscribe("s1", func(s *webhook.Subscription) { s.Overrides.MicroRetry = &webhook.MicroRetry{Attempts: 1} })
		stop := w.start(testConfig(), receiver(func(*http.Request) (int, error) { return 0, errors.New("no route") }))
		for n := range 60 {
			w.deliver("s1", n)
			settle(time.Second)
		}
		stop()
		if n := w.sent(); n < breakAfter || n > breakAfter+6 {
			t.Errorf("%d requests in a minute to an endpoint that is down", n)
		}
		waiting := 0
		for _, r := range w.retries() {
			if r.Reason == webhook.ReasonBreaker && r.Delivery.Attempts == 0 {
				waiting++
			}
		}
		if waiting+w.sent() != 60 {
			t.Errorf("%d requests and %d put back by the breaker, of 60", w.sent(), waiting)
		}
	})
}

func TestARateBoundsRequestsAndNotAttempts(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.subscribe("s1", func(s *webhook.Subscription) { s.Overrides.Rate = &webhook.Rate{PerSecond: 2} })
		stop := w.start(testConfig(), always(200))
		w.deliver("s1", 0)
		settle(2 * time.Second)
		for n := range 50 {
			w.deliver("s1", n+1)
		}
		settle(10 * time.Second)
		stop()
		if n := w.sent() - 1; n < 4 || n > 7 {
			t.Errorf("%d requests, want what two a second make of two seconds", n)
		}
		for _, r := range w.retries() {
			if r.Reason != webhook.ReasonRate || r.Delivery.Attempts != 0 || r.Delivery.Trip != 1 {
				t.Errorf("retry %+v", r)
			}
		}
		if left := 51 - w.sent() - len(w.retries()); left != 0 {
			t.Errorf("%d deliveries neither sent nor put back", left)
		}
	})
}

func TestANonRetryableStatusEndsAsADeadLetter(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.subscribe("s1", nil)
		w.deliver("s1", 1)
		stop := w.start(testConfig(), always(400))
		settle(5 * time.Second)
		stop()
		dead := w.read(w.topics.DeadLetters)
		if len(dead) != 1 || len(w.retries()) != 0 {
			t.Fatalf("%d dead letters, %d retries", len(dead), len(w.retries()))
		}
		letter, err := wire.DecodeDeadLetter(dead[0].Value)
		if err != nil {
			t.Fatal(err)
		}
		if letter.StatusCode != 400 || string(letter.Response) != "seen" || letter.Delivery.Event.ID != "event-1" {
			t.Errorf("dead letter %+v", letter)
		}
		if a := w.attempts(); len(a) != 1 || a[0].Outcome.Status != webhook.DeadLetter {
			t.Errorf("attempts %+v", a)
		}
	})
}

func TestAnInactiveSubscriptionCancelsWithoutARequest(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.subscribe("off", func(s *webhook.Subscription) { s.Status = webhook.SubscriptionDisabled })
		w.subscribe("paused", func(s *webhook.Subscription) { s.Status = webhook.SubscriptionPaused })
		w.deliver("off", 1)
		w.deliver("gone", 2)
		w.deliver("paused", 3)
		stop := w.start(testConfig(), always(200))
		settle(5 * time.Second)
		stop()
		reasons := map[string]webhook.Reason{}
		for _, a := range w.attempts() {
			if a.Outcome.Status != webhook.Cancelled || a.Number != 0 {
				t.Errorf("attempt %+v", a)
			}
			reasons[a.SubscriptionID] = a.Outcome.Reason
		}
		if w.sent() != 0 || len(reasons) != 2 || reasons["off"] != webhook.ReasonSubscriptionInactive || reasons["gone"] != webhook.ReasonSubscriptionDeleted {
			t.Errorf("%d requests, reasons %v", w.sent(), reasons)
		}
		if r := w.retries(); len(r) != 1 || r[0].Reason != webhook.ReasonPaused || r[0].Delivery.Attempts != 0 || r[0].Delivery.Trip != 1 {
			t.Errorf("retries %+v, want the paused delivery put back uncounted", r)
		}
	})
}

func TestATripSeenTwiceIsSentOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.subscribe("s1", nil)
		w.deliver("s1", 1, 1, 1, 2)
		stop := w.start(testConfig(), always(200))
		settle(5 * time.Second)
		w.deliver("s1", 1)
		settle(5 * time.Second)
		stop()
		if w.sent() != 2 {
			t.Fatalf("%d requests for 2 trips", w.sent())
		}
	})
}

func TestAStopLetsTheRequestUnderWayFinishAndBeginsNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.subscribe("s1", nil)
		for n := range 40 {
			w.deliver("s1", n)
		}
		// Before the first measure nothing is deferred.
		slow := receiver(func(*http.Request) (int, error) { time.Sleep(5 * time.Second); return 200, nil })
		stop := w.start(testConfig(), slow)
		settle(200 * time.Millisecond)
		begun := w.sent()
		stop()
		if n := len(w.retries()); begun == 0 || n != 0 {
			t.Fatalf("%d begun, %d deferred before the stop", begun, n)
		}
		if w.sent() != begun || len(w.attempts()) != begun {
			t.Fatalf("%d begun before the stop, %d sent and %d recorded after it", begun, w.sent(), len(w.attempts()))
		}
		stop = w.start(testConfig(), always(200))
		settle(time.Minute)
		stop()
		seen := map[string]int{}
		for _, r := range w.requests {
			seen[r.Header.Get("Idempotency-Key")]++
		}
		if w.sent() != 40 || len(seen) != 40 {
			t.Errorf("%d requests for %d of 40 deliveries: a stop must repeat nothing", w.sent(), len(seen))
		}
	})
}

func TestAKilledWorkerLosesNothingAndRepeatsOnlyWhatWasUnderWay(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.subscribe("s1", nil)
		w.subscribe("hangs", nil)
		w.deliver("hangs", 100)
		for n := range 50 {
			w.deliver("s1", n)
		}
		hang := receiver(func(r *http.Request) (int, error) {
			if strings.HasPrefix(r.URL.Host, "hangs") {
				<-r.Context().Done()
				return 0, r.Context().Err()
			}
			return 200, nil
		})
		killed := testConfig()
		killed.DrainTimeout = 0
		stop := w.start(killed, hang)
		settle(5 * time.Second)
		stop()
		first := w.sent()
		if first != 51 {
			t.Fatalf("%d requests before the kill, want all 51", first)
		}
		stop = w.start(testConfig(), always(200))
		settle(time.Minute)
		stop()
		if again := w.sent() - first; again != 1 {
			t.Errorf("%d requests repeated, want only the one that was under way: the others stand in the commit's metadata", again)
		}
		if last := w.requests[len(w.requests)-1]; last.URL.Host != "hangs.example" || last.Header.Get("Idempotency-Key") != w.requests[0].Header.Get("Idempotency-Key") && first == 51 && w.requests[0].URL.Host == "hangs.example" {
			t.Errorf("repeated %s with key %s", last.URL, last.Header.Get("Idempotency-Key"))
		}
	})
}

func TestAnUnreadableRecordIsRejectedWithItsOrigin(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.subscribe("s1", nil)
		w.produce(&kgo.Record{Topic: w.topics.Deliveries, Key: []byte("k"), Value: []byte("\xff not a delivery")})
		w.deliver("s1", 1, 2)
		stop := w.start(testConfig(), always(200))
		settle(5 * time.Second)
		stop()
		rejected := w.read(w.topics.Rejected)
		if len(rejected) != 1 || string(rejected[0].Value) != "\xff not a delivery" {
			t.Fatalf("rejected %v", rejected)
		}
		headers := map[string]string{}
		for _, h := range rejected[0].Headers {
			headers[h.Key] = string(h.Value)
		}
		if headers[topic.HeaderReason] != "unreadable_delivery" || headers[topic.HeaderSourceTopic] != w.topics.Deliveries || headers[topic.HeaderSourceOffset] != "0" {
			t.Errorf("headers %v", headers)
		}
		if w.sent() != 2 {
			t.Errorf("%d requests, want the two readable ones", w.sent())
		}
	})
}

func TestAPanicEndsTheDeliveryNotTheWorker(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.subscribe("s1", nil)
		w.deliver("s1", 1, 2)
		var first sync.Once
		stop := w.start(testConfig(), receiver(func(*http.Request) (int, error) {
			first.Do(func() { panic("a defect") })
			return 200, nil
		}))
		settle(5 * time.Second)
		stop()
		statuses := map[webhook.Status]int{}
		for _, a := range w.attempts() {
			statuses[a.Outcome.Status]++
		}
		dead := w.read(w.topics.DeadLetters)
		if statuses[webhook.Delivered] != 1 || statuses[webhook.DeadLetter] != 1 || len(dead) != 1 {
			t.Fatalf("statuses %v, %d dead letters", statuses, len(dead))
		}
		if letter, err := wire.DecodeDeadLetter(dead[0].Value); err != nil || letter.Reason != webhook.ReasonInternal {
			t.Errorf("dead letter %+v, %v", letter, err)
		}
	})
}

func TestAnEndpointThatHangsDoesNotHoldTheOthers(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.subscribe("s1", nil)
		w.subscribe("hangs", nil)
		stop := w.start(testConfig(), receiver(func(r *http.Request) (int, error) {
			if strings.HasPrefix(r.URL.Host, "hangs") {
				<-r.Context().Done()
				return 0, r.Context().Err()
			}
			return 200, nil
		}))
		settle(5 * time.Second)
		for n := range 1500 {
			w.deliver("hangs", n)
		}
		begun := time.Now()
		for n := range 20 {
			w.deliver("s1", n)
		}
		settle(5 * time.Second)
		delivered := 0
		for _, a := range w.attempts() {
			if a.SubscriptionID == "s1" && a.Outcome.Status == webhook.Delivered {
				delivered++
				if late := a.StartedAt.Sub(begun); late > 3*time.Second {
					t.Errorf("a healthy delivery began %v late", late)
				}
			}
		}
		if delivered != 20 {
			t.Errorf("%d of 20 healthy deliveries within five seconds", delivered)
		}
		settle(30 * time.Second)
		stop()
		deferred := 0
		for _, r := range w.retries() {
			if r.Reason == webhook.ReasonConcurrency {
				deferred++
				if r.Delivery.Attempts != 0 || r.Delay < minDeferral {
					t.Fatalf("deferral %+v", r)
				}
			}
		}
		if deferred < 1400 {
			t.Errorf("%d of 1500 deliveries to the hanging endpoint were deferred", deferred)
		}
	})
}

func TestANetworkErrorIsRecordedWithItsClass(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.subscribe("s1", nil)
		w.deliver("s1", 1)
		stop := w.start(testConfig(), receiver(func(*http.Request) (int, error) { return 0, errors.New("read: connection reset by peer: EOF") }))
		settle(5 * time.Second)
		stop()
		for _, a := range w.attempts() {
			if a.Error != webhook.ErrorConnection || a.StatusCode != 0 {
				t.Errorf("attempt %+v", a)
			}
		}
		if len(w.retries()) != 1 {
			t.Errorf("%d retries", len(w.retries()))
		}
	})
}

func TestASecretRotatedWhileADeliveryWaitsSignsTheNextAttempt(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.subscribe("s1", nil)
		stop := w.start(testConfig(), always(200))
		settle(time.Second)
		w.deliver("s1", 1)
		settle(time.Second)
		secret := &webhook.Secret{ID: "secret-s1", Tenant: "default", Name: "s1", Profile: "fynapse"}
		secret.Versions = []webhook.SecretVersion{
			{Number: 2, Sealed: w.keys.Seal([]byte("ffffffffffffffffffffffffffffffff"), secret, 2)},
			{Number: 1, Sealed: w.keys.Seal([]byte("0123456789abcdef0123456789abcdef"), secret, 1), ExpiresAt: time.Now().Add(time.Hour)},
		}
		w.produce(&kgo.Record{Topic: w.topics.Config, Key: []byte(wire.ConfigKey(wire.KindSecret, secret.ID)), Value: wire.EncodeSecret(secret)})
		settle(2 * time.Second)
		w.deliver("s1", 2)
		settle(time.Second)
		time.Sleep(2 * time.Hour)
		w.deliver("s1", 3)
		settle(time.Second)
		stop()
		var signatures []int
		for _, r := range w.requests {
			signatures = append(signatures, strings.Count(r.Header.Get("Webhook-Signature"), "v1="))
		}
		if fmt.Sprint(signatures) != "[1 2 1]" {
			t.Errorf("signatures per request %v, want one, two within the overlap, one after it", signatures)
		}
	})
}

func TestRunStopsBeforeItIsReady(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx, cancel := context.WithCancel(t.Context())
		applied := snapshot.New(snapshot.Deps{Kafka: w.cluster, Log: slog.New(slog.DiscardHandler), Metrics: w.metrics})
		state := health.New()
		service, err := New(testConfig(), Deps{Log: slog.New(slog.DiscardHandler), Metrics: w.metrics, Health: state, Kafka: w.cluster, Snapshot: applied})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- service.Run(ctx) }()
		settle(time.Second)
		if unmet := state.Unmet(); unmet["delivery: config"] == "" {
			t.Errorf("ready without a config snapshot: %v", unmet)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
}

func TestEveryProblemOfTheConfigurationIsReported(t *testing.T) {
	err := Config{DrainTimeout: -1, ResponseBytes: -1}.Validate()
	for _, name := range []string{"MAX_INFLIGHT", "ENDPOINT_INFLIGHT", "WINDOW_RECORDS", "WINDOW_BYTES", "REMEMBERED_TRIPS", "RESPONSE_BYTES", "DRAIN_TIMEOUT"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not reported: %v", name, err)
		}
	}
}
