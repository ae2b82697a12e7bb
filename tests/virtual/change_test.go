package virtual

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"
	"time"
)

// refusesFirst answers the first request to a path so that it is tried again in half a minute, by the contract fynapse.
func refusesFirst(_ string, n int) (int, map[string]string) {
	if n == 1 {
		return http.StatusRequestTimeout, nil
	}
	return http.StatusOK, nil
}

// signedWith are the secrets, of those given, that signed a fynapse request, in the order of the signatures.
func signedWith(a arrival, secrets map[string]string) (names []string) {
	parts := strings.Split(a.header.Get("Webhook-Signature"), ",")
	at, _ := strings.CutPrefix(parts[0], "t=")
	for _, part := range parts[1:] {
		found := "unknown"
		for name, secret := range secrets {
			mac := hmac.New(sha256.New, []byte(secret))
			mac.Write([]byte(at + "."))
			mac.Write(a.body)
			if part == "v1="+hex.EncodeToString(mac.Sum(nil)) {
				found = name
			}
		}
		names = append(names, found)
	}
	return names
}

func TestASecretRotatedInFlightSignsFromTheNextAttemptOn(t *testing.T) {
	inWorld(t, refusesFirst, func(w *world) {
		var made struct{ SecretValue string }
		w.call(http.MethodPost, "/subscriptions", map[string]any{"name": "rotated", "endpointUrl": hookURL + "/rotated", "profile": "fynapse"}, &made)
		var kept struct{ Items []struct{ ID string } }
		w.call(http.MethodGet, "/secrets", nil, &kept)
		settle(3 * time.Second)
		w.publish("event-1", "balance.extracted")
		settle(5 * time.Second)

		var rotated struct{ Value string }
		w.call(http.MethodPost, "/secrets/"+kept.Items[0].ID+"/rotate", map[string]any{"overlap": "1h"}, &rotated)
		settle(10 * time.Minute)
		w.publish("event-2", "balance.extracted")
		settle(2 * time.Hour)
		w.publish("event-3", "balance.extracted")
		settle(time.Minute)

		secrets := map[string]string{"old": made.SecretValue, "new": rotated.Value}
		want := []string{"old", "new old", "new old", "new"} // the first attempt, the second, within the overlap, after it
		if len(w.arrivals) != len(want) {
			t.Fatalf("%d requests, want %d", len(w.arrivals), len(want))
		}
		for n, a := range w.arrivals {
			if got := strings.Join(signedWith(a, secrets), " "); got != want[n] {
				t.Errorf("request %d is signed with %s, want %s", n+1, got, want[n])
			}
		}
	})
}

func TestAChangedSubscriptionIsWhatWorkersGoByWithinASecond(t *testing.T) {
	inWorld(t, refusesFirst, func(w *world) {
		id := w.subscribe("before", "fynapse", nil)
		w.publish("event-1", "balance.extracted")
		settle(10 * time.Second)
		w.call(http.MethodPatch, "/subscriptions/"+id, map[string]any{"endpointUrl": hookURL + "/after"}, nil)
		settle(time.Second)
		w.publish("event-2", "balance.extracted")
		settle(10 * time.Minute)
		w.call(http.MethodPost, "/subscriptions/"+id+"/disable", nil, nil)
		settle(time.Second)
		w.publish("event-3", "balance.extracted")
		settle(10 * time.Minute)
		// Both events have a second attempt: the first to either path is refused.
		if before, after := len(w.at("/before")), len(w.at("/after")); before != 1 || after != 3 {
			t.Errorf("%d requests to the endpoint before the change, %d to the one after it, want 1 and 3", before, after)
		}
	})
}
