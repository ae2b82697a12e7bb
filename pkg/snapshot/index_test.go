package snapshot

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/hookline/hookline/pkg/webhook"
)

// A scan over every subscription is the definition of a match: the index must agree with it after any changes.
func TestTheIndexAgreesWithAScan(t *testing.T) {
	pattern := rapid.SampledFrom([]string{"*", "a", "a.b", "a.b.c", "b", "a.*", "a.b.*", "b.*", "a*", ".*", "a.", "a..*", "**", "x.*.*", "hookline.*", "hookline.a"})
	eventType := rapid.SampledFrom([]string{"a", "a.b", "a.b.c", "a.b.c.d", "b", "b.c", "a.", "a*", "a.*", "*", ".", ".a", "a..b", "", "ab", "hookline.a", "hookline."})
	rapid.Check(t, func(t *rapid.T) {
		s := newState()
		for range rapid.IntRange(0, 30).Draw(t, "changes") {
			id := fmt.Sprint(rapid.IntRange(0, 8).Draw(t, "id"))
			if rapid.IntRange(0, 4).Draw(t, "delete") == 0 {
				s.setSubscription(id, nil, nil)
				continue
			}
			s.setSubscription(id, &webhook.Subscription{
				ID:         id,
				Tenant:     rapid.SampledFrom([]string{"t1", "t2"}).Draw(t, "tenant"),
				Status:     rapid.SampledFrom([]webhook.SubscriptionStatus{"active", "paused", "disabled"}).Draw(t, "status"),
				EventTypes: rapid.SliceOfN(pattern, 0, 3).Draw(t, "patterns"),
			}, nil)
			tenant := rapid.SampledFrom([]string{"t1", "t2"}).Draw(t, "of")
			event := eventType.Draw(t, "event type")
			if got, want := matched(s, tenant, event), scan(s, tenant, event); !slices.Equal(got, want) {
				t.Fatalf("%s of %s: index %v, scan %v", event, tenant, got, want)
			}
		}
	})
}

func matched(s *state, tenant, eventType string) []string {
	if s.indexes[tenant] == nil {
		return []string{}
	}
	return ids(s.indexes[tenant].match(eventType))
}

func scan(s *state, tenant, eventType string) []string {
	out := []string{}
	for id, sub := range s.subscriptions {
		if sub.Tenant == tenant && sub.Status != webhook.SubscriptionDisabled && sub.Wants(eventType) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

func BenchmarkMatchAmongTenThousandSubscriptions(b *testing.B) {
	s := newState()
	for i := range 10_000 {
		s.setSubscription(fmt.Sprint(i), &webhook.Subscription{ID: fmt.Sprint(i), Tenant: "t", Status: webhook.SubscriptionActive,
			EventTypes: []string{fmt.Sprintf("type%d.happened", i/2), fmt.Sprintf("type%d.*", i)}}, nil)
	}
	for b.Loop() {
		if got := len(s.indexes["t"].match("type42.happened")); got != 3 {
			b.Fatal(got)
		}
	}
}

func TestAnOlderVersionThatComesLateChangesNothing(t *testing.T) {
	s := newState()
	newer := &webhook.Subscription{ID: "s", Tenant: "default", Status: webhook.SubscriptionDisabled, Version: 2}
	s.setSubscription("s", newer, nil)
	s.setSubscription("s", &webhook.Subscription{ID: "s", Tenant: "default", Status: webhook.SubscriptionActive, Version: 1}, nil)
	if s.subscriptions["s"] != newer {
		t.Error("version 1 replaced version 2")
	}
	s.setSubscription("s", nil, nil)
	if len(s.subscriptions) != 0 {
		t.Error("a deletion was ignored")
	}
}
