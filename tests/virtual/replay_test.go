package virtual

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// got counts the requests to a path by event, and holds each event to one key.
func (w *world) got(path string) map[string]int {
	w.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	counts, keys := map[string]int{}, map[string]string{}
	for _, a := range w.arrivals {
		if a.path != path {
			continue
		}
		var body struct {
			EventID string `json:"event_id"`
		}
		if err := json.Unmarshal(a.body, &body); err != nil {
			w.Fatalf("%s: %v", a.body, err)
		}
		counts[body.EventID]++
		key := a.header.Get("Idempotency-Key")
		if known := keys[body.EventID]; key == "" || known != "" && known != key {
			w.Errorf("%s came under the keys %q and %q", body.EventID, known, key)
		}
		keys[body.EventID] = key
	}
	return counts
}

// complete wants every event from first to last at a path, each at most so many times, and nothing else.
func (w *world) complete(path string, first, last, most int) {
	w.Helper()
	counts := w.got(path)
	for i := first; i <= last; i++ {
		id := fmt.Sprintf("wanted-%02d", i)
		if n := counts[id]; n < 1 || n > most {
			w.Errorf("%s got %s %d times", path, id, n)
		}
		delete(counts, id)
	}
	for id, n := range counts {
		w.Errorf("%s got %s %d times, and did not want it", path, id, n)
	}
}

// awaitReplay lets time pass until a replay has ended, and returns how many events it delivered.
func (w *world) awaitReplay(id string) (matched int) {
	w.Helper()
	var replay struct {
		State   string
		Matched int
	}
	for range 100 {
		w.call(http.MethodGet, "/replays/"+id, nil, &replay)
		if replay.State == "done" {
			settle(10 * time.Second) // what it made is delivered
			return replay.Matched
		}
		settle(5 * time.Second)
	}
	w.Fatalf("the replay is %+v", replay)
	return 0
}

// TestASubscriptionThatIsDeletedAndMadeAgainMissesNothing covers the time in which nobody was there, and in which the routers did
// not know the new one yet.
func TestASubscriptionThatIsDeletedAndMadeAgainMissesNothing(t *testing.T) {
	inWorld(t, func(string, int) (int, map[string]string) { return http.StatusOK, nil }, func(w *world) {
		begin := time.Now()
		filter := map[string]any{"filter": map[string]any{"data": map[string]any{"id": []any{map[string]any{"prefix": "wanted-"}}}}}
		old := w.subscribe("old", "fynapse", filter)
		publish := func(first, last int) {
			for i := first; i <= last; i++ {
				w.publish(fmt.Sprintf("wanted-%02d", i), "a.b")
				w.publish(fmt.Sprintf("other-%02d", i), "a.b")
			}
		}
		publish(1, 10)
		settle(5 * time.Second)
		w.complete("/old", 1, 10, 1)

		w.call(http.MethodDelete, "/subscriptions/"+old, nil, nil)
		settle(5 * time.Second)
		publish(11, 20)
		body := map[string]any{"name": "new", "endpointUrl": hookURL + "/new", "profile": "fynapse", "startFrom": begin.Format(time.RFC3339), "filter": filter["filter"]}
		var made struct{ ID, ReplayID string }
		unheard := w.broker.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: w.cluster.Topics.Config, Err: kerr.NotLeaderForPartition, Count: -1})
		w.call(http.MethodPost, "/subscriptions", body, &made)
		publish(21, 30) // the routers do not know it yet
		settle(time.Second)
		unheard.Remove()
		settle(5 * time.Second)
		publish(31, 40)
		matched := w.awaitReplay(made.ReplayID)
		w.complete("/new", 1, 40, 1)
		w.complete("/old", 1, 10, 1)
		if matched < 20 || matched > 30 {
			t.Errorf("%d events were replayed, the others routed", matched)
		}

		var why struct {
			Subscriptions []struct {
				Outcome string
				Clauses []struct{ Pointer, Detail string }
			}
		}
		w.call(http.MethodGet, "/events/other-35/explain", nil, &why)
		if s := why.Subscriptions; len(s) != 1 || s[0].Outcome != "filter" || len(s[0].Clauses) != 1 || s[0].Clauses[0].Pointer != "/filter/data/id" ||
			!strings.Contains(s[0].Clauses[0].Detail, "other-35") {
			t.Errorf("explained: %+v", why)
		}
	})
}

// TestAReplayGoesOnWhereverItIsInterrupted stops every part of the way in the middle of one.
func TestAReplayGoesOnWhereverItIsInterrupted(t *testing.T) {
	inWorld(t, func(string, int) (int, map[string]string) { return http.StatusOK, nil }, func(w *world) {
		begin := time.Now()
		w.subscribe("early", "fynapse", nil)
		for i := 1; i <= 60; i++ {
			w.publish(fmt.Sprintf("wanted-%02d", i), "a.b")
		}
		settle(5 * time.Second)
		w.complete("/early", 1, 60, 1)
		late := w.subscribe("late", "fynapse", nil)
		var made struct{ ID string }
		w.call(http.MethodPost, "/replays", map[string]any{"subscriptionId": late, "from": begin, "ratePerSecond": 2}, &made)
		for _, part := range []string{"api", "scheduler", "delivery", "recorder"} {
			settle(7 * time.Second)
			w.stop(part)
			settle(3 * time.Second)
			w.start(part)
		}
		if matched := w.awaitReplay(made.ID); matched != 60 {
			t.Errorf("%d events were replayed", matched)
		}
		w.complete("/late", 1, 60, 2)
		w.complete("/early", 1, 60, 1)

		// Again, to a subscription that has had everything: the same ids.
		w.call(http.MethodPost, "/replays", map[string]any{"subscriptionId": late, "from": begin, "statuses": []string{"DELIVERED"}, "ratePerSecond": 100}, &made)
		if matched := w.awaitReplay(made.ID); matched != 60 {
			t.Errorf("%d events were replayed again", matched)
		}
		w.complete("/late", 1, 60, 4)
		for _, row := range w.deliveries() {
			if row.Status != "DELIVERED" {
				t.Errorf("%+v", row)
			}
		}
	})
}
