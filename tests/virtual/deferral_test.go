package virtual

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// TestWhatHoldsADeliveryBackIsShownWhileItWaits asks of real deferrals: the API finds the trip in the index that the scheduler made.
func TestWhatHoldsADeliveryBackIsShownWhileItWaits(t *testing.T) {
	answer := func(string, int) (int, map[string]string) { return http.StatusOK, nil }
	inWorld(t, answer, func(w *world) {
		rate := w.subscribe("rate", "fynapse", map[string]any{"overrides": map[string]any{"rate": map[string]any{"perSecond": 0.1}}})
		breaker := w.subscribe("breaker", "fynapse", map[string]any{"endpointUrl": "https://127.0.0.1:9443/nobody"})
		paused := w.subscribe("paused", "fynapse", nil)
		w.call(http.MethodPatch, "/subscriptions/"+paused, map[string]any{"status": "paused"}, nil)
		settle(5 * time.Second)
		for i := range 20 {
			w.publish(fmt.Sprint("e", i), "a.b")
			settle(time.Second)
		}
		settle(5 * time.Second)
		for reason, subscription := range map[string]string{"rate": rate, "breaker": breaker, "paused": paused} {
			var list struct {
				Items []struct{ ID, EventID string }
			}
			w.call(http.MethodGet, "/deliveries?status=PENDING&subscriptionId="+subscription, nil, &list)
			found := 0
			for _, item := range list.Items {
				var d struct {
					WaitsFor      string
					NextAttemptAt time.Time
					Deferral      *struct {
						Reason string
						Until  time.Time
					}
				}
				w.call(http.MethodGet, "/deliveries/"+item.ID, nil, &d)
				if d.Deferral == nil || d.Deferral.Reason != reason {
					continue
				}
				found++
				if !d.Deferral.Until.After(time.Now()) || !d.NextAttemptAt.Equal(d.Deferral.Until) || d.WaitsFor == "" {
					t.Errorf("%s: shown %+v at %v", reason, d, time.Now())
				}
			}
			if found == 0 {
				t.Errorf("%s: none of %d pending deliveries is shown as put back", reason, len(list.Items))
			}
		}
	})
}
