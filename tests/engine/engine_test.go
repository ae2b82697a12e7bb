package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/topic"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const (
	partitions = 6
	session    = 6 * time.Second
	patience   = time.Minute
)

func install(t *testing.T) *Installation {
	t.Helper()
	i, err := Open(t.Context(), testenv.Kafka(t), testenv.Prefix(t), partitions, session)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Close)
	return i
}

// worker starts a delivery worker and returns when it is ready.
func (i *Installation) worker(t *testing.T) *testenv.Process {
	t.Helper()
	p := testenv.Start(t, i.Env(), "delivery")
	p.Ready(t, patience)
	return p
}

func (i *Installation) publish(t *testing.T, subscriptions ...*webhook.Subscription) {
	t.Helper()
	if err := i.Publish(t.Context(), subscriptions...); err != nil {
		t.Fatal(err)
	}
}

func (i *Installation) deliver(t *testing.T, subscription string, from, count int) {
	t.Helper()
	var records []*kgo.Record
	for n := from; n < from+count; n++ {
		records = append(records, i.Delivery(subscription, n, []byte(`{"n":1}`)))
	}
	if err := i.Client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// load produces deliveries at a rate until stop is called, which returns how many there were.
func (i *Installation) load(t *testing.T, subscription string, perSecond int) (stop func() int) {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	produced := 0
	running.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				i.Client.Produce(context.WithoutCancel(ctx), i.Delivery(subscription, produced, []byte(`{"n":1}`)), func(_ *kgo.Record, err error) {
					if err != nil {
						t.Errorf("produce: %v", err)
					}
				})
				produced++
			}
		}
	})
	return func() int {
		cancel()
		running.Wait()
		if err := i.Client.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		return produced
	}
}

// await returns when so many events have arrived at the receiver.
func (c *counting) await(t *testing.T, events int) {
	t.Helper()
	if err := testenv.Until(patience, func() bool { got, _ := c.requests(); return got >= events }); err != nil {
		got, _ := c.requests()
		t.Fatalf("%d of %d events arrived", got, events)
	}
}

// attempts reads until so many attempts are there.
func (i *Installation) attempts(t *testing.T, count int) []*webhook.Attempt {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var all []*webhook.Attempt
	err := i.Attempts(ctx, func(a *webhook.Attempt) bool {
		all = append(all, a)
		return len(all) < count
	})
	if err != nil {
		t.Fatalf("%d of %d attempts recorded: %v", len(all), count, err)
	}
	return all
}

// goroutines is how many a worker has.
func goroutines(t *testing.T, p *testenv.Process) int {
	t.Helper()
	response, err := http.Get("http://" + p.Admin + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "total ")
	n, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestEveryBadReceiverIsRecordedAndNoneLeaves(t *testing.T) {
	i := install(t)
	bad := misbehaviours()
	good := count(t, 0)
	subscriptions := []*webhook.Subscription{Subscription("good", good.url)}
	receivers := map[string]*receiver{}
	for n, m := range bad {
		url, r := m.url(t)
		sub := Subscription(fmt.Sprintf("bad-%d", n), url)
		sub.Overrides.Timeout = webhook.Duration(400 * time.Millisecond)
		subscriptions = append(subscriptions, sub)
		if r != nil {
			receivers[m.name] = r
		}
	}
	i.publish(t, subscriptions...)
	worker := i.worker(t)

	// So few that no breaker opens, and that none waits so long that it is put back.
	const each = 3
	var settled []int
	for round := range 3 {
		for _, sub := range subscriptions {
			i.deliver(t, sub.ID, round*each, each)
		}
		good.await(t, (round+1)*each)
		checkAttempts(t, bad, i.attempts(t, (round+1)*each*len(subscriptions)))
		for name, r := range receivers {
			if err := testenv.Until(patience, func() bool { return r.open.Load() == 0 }); err != nil {
				t.Errorf("%d connections to a receiver that %s are still open", r.open.Load(), name)
			}
			// What the kernel's buffers take counts as sent, too.
			if sent := r.sent.Load(); sent > int64(round+1)*each*(16<<20) {
				t.Errorf("a receiver that %s could send %d bytes", name, sent)
			}
		}
		settled = append(settled, goroutines(t, worker))
	}
	if settled[2] > settled[0]+len(bad) {
		t.Errorf("goroutines after each round: %v", settled)
	}
	if code := worker.Stop(t, patience); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
}

func checkAttempts(t *testing.T, bad []misbehaviour, attempts []*webhook.Attempt) {
	t.Helper()
	var connected time.Duration
	for _, a := range attempts {
		n, err := strconv.Atoi(strings.TrimPrefix(a.SubscriptionID, "bad-"))
		if err != nil {
			connected += a.Phases.Connect
			if a.Outcome.Status != webhook.Delivered || a.Phases.FirstByte <= 0 || a.Phases.FirstByte > a.Duration {
				t.Errorf("the good receiver: %+v", a)
			}
			continue
		}
		m := bad[n]
		if a.Error != m.class || a.StatusCode != m.status {
			t.Errorf("a receiver that %s: error %q, status %d, want %q and %d", m.name, a.Error, a.StatusCode, m.class, m.status)
		}
		if len(a.Response) > 1024 || a.ResponseBytes > 16<<10 || m.long && len(a.Response) != 1024 {
			t.Errorf("a receiver that %s: %d bytes kept of %d", m.name, len(a.Response), a.ResponseBytes)
		}
	}
	if connected <= 0 {
		t.Error("no attempt says how long it took to connect to the good receiver")
	}
}

func TestARollingRestartOfThreeWorkersUnderLoadRepeatsNoRequest(t *testing.T) {
	i := install(t)
	receiver := count(t, 30*time.Millisecond)
	i.publish(t, Subscription("s", receiver.url))
	workers := []*testenv.Process{i.worker(t), i.worker(t), i.worker(t)}
	stop := i.load(t, "s", 200)
	receiver.await(t, 300)
	for n, old := range workers {
		if code := old.Stop(t, patience); code != 0 {
			t.Errorf("exit code %d after SIGTERM", code)
		}
		workers[n] = i.worker(t)
		events, _ := receiver.requests()
		receiver.await(t, events+200)
	}
	produced := stop()
	receiver.await(t, produced)
	if events, requests := receiver.requests(); requests != produced || events != produced {
		t.Errorf("%d requests for %d of %d events", requests, events, produced)
	}
}

func TestAKilledWorkerRepeatsOnlyWhatItHadJustDone(t *testing.T) {
	i := install(t)
	receiver := count(t, 20*time.Millisecond)
	i.publish(t, Subscription("s", receiver.url))
	killed := i.worker(t)
	others := []*testenv.Process{i.worker(t), i.worker(t)}
	stop := i.load(t, "s", 300)
	receiver.await(t, 1500)
	killed.Kill()
	died := time.Now()
	events, _ := receiver.requests()
	receiver.await(t, events+1500)
	produced := stop()
	receiver.await(t, produced)

	receiver.mu.Lock()
	repeated, oldest := 0, time.Duration(0)
	for id, at := range receiver.seen {
		if len(at) == 1 {
			continue
		}
		repeated += len(at) - 1
		oldest = max(oldest, died.Sub(at[0]))
		// Ten times what is promised on a machine that is free: this one may be busy.
		if before := died.Sub(at[0]); before > 2*time.Second {
			t.Errorf("event %s was sent %v before the kill, and again", id, before)
		}
	}
	receiver.mu.Unlock()
	t.Logf("%d of %d requests repeated, the oldest of them made %v before the kill", repeated, produced, oldest)
	for _, p := range others {
		if code := p.Stop(t, patience); code != 0 {
			t.Errorf("exit code %d after SIGTERM", code)
		}
	}
}

func TestChangesReachAWorkerWhileItDelivers(t *testing.T) {
	i := install(t)
	before, after := count(t, 0), count(t, 0)
	i.publish(t, Subscription("s", before.url))
	i.worker(t)
	stop := i.load(t, "s", 100)
	before.await(t, 100)

	changed := time.Now()
	moved := Subscription("s", after.url)
	moved.Version = 1
	i.publish(t, moved)
	after.await(t, 1)
	t.Logf("the new endpoint had its first request %v after the change", time.Since(changed))
	after.await(t, 100)
	if events, _ := before.requests(); events > 0 {
		left := events
		after.await(t, 200)
		if events, _ := before.requests(); events != left {
			t.Errorf("%d requests to the old endpoint after the new one had a hundred", events-left)
		}
	}

	signed := func() string {
		after.mu.Lock()
		defer after.mu.Unlock()
		return after.signed[len(after.signed)-1]
	}
	if err := i.Client.ProduceSync(t.Context(), i.Secret(2, strings.Repeat("f", 32))).FirstErr(); err != nil {
		t.Fatal(err)
	}
	events, _ := after.requests()
	after.await(t, events+200)
	if newest := signed(); newest == "" {
		t.Error("unsigned after a rotation")
	}

	off := *moved
	off.Version, off.Status = 2, webhook.SubscriptionDisabled
	i.publish(t, &off)
	cancelled := func(a *webhook.Attempt) bool { return a.Outcome.Status != webhook.Cancelled }
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := i.Attempts(ctx, cancelled); err != nil {
		t.Errorf("no delivery was cancelled after the subscription was disabled: %v", err)
	}
	stop()
}

func TestARecordThatCannotBeReadIsMovedAndTheNextOnesGoOn(t *testing.T) {
	i := install(t)
	receiver := count(t, 0)
	i.publish(t, Subscription("s", receiver.url))
	i.worker(t)
	poison := [][]byte{[]byte("\xff\xff"), {}, []byte(strings.Repeat("\x0a", 1000))}
	for n, value := range poison {
		if err := i.Client.ProduceSync(t.Context(), &kgo.Record{Topic: i.Topics.Deliveries, Key: []byte{byte(n)}, Value: value}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		i.deliver(t, "s", n*20, 20)
	}
	receiver.await(t, 20*len(poison))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	reasons := map[string]int{}
	err := i.read(ctx, i.Topics.Rejected, func(r *kgo.Record) (bool, error) {
		headers := map[string]string{}
		for _, h := range r.Headers {
			headers[h.Key] = string(h.Value)
		}
		if headers[topic.HeaderSourceTopic] != i.Topics.Deliveries {
			return false, errors.New("from another topic: " + headers[topic.HeaderSourceTopic])
		}
		reasons[headers[topic.HeaderReason]]++
		return reasons["unreadable_delivery"] < len(poison), nil
	})
	if want := map[string]int{"unreadable_delivery": len(poison)}; err != nil || !maps.Equal(reasons, want) {
		t.Errorf("rejected %v, want %v (%v)", reasons, want, err)
	}
}
