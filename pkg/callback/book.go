// Package callback keeps account of deliveries that their receivers should call back, and decides what follows when they do:
// which delivery a call belongs to, and when the next follow-up of a connection may go out. It is a function of the records of
// the callbacks topic, which are its whole state: whoever has read them knows the same. It does no I/O.
//
//	expectation ──call──▶ follow-ups queued ──the delivery that was called back has ended──▶
//	      the first in flight ──all of its deliveries have ended──▶ the next in flight … ──▶ done
package callback

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

// The kinds of keys. All but ended stand behind their group, which fixes their partition.
const (
	kindExpectation = "x"
	kindMatch       = "m"
	kindCall        = "c"
	kindFollowUp    = "f"
	kindFlight      = "i"
	kindEnded       = "e"
)

// ExpectationKey is the key of a callbacks record.
func ExpectationKey(group string, delivery uuid.UUID) string {
	return group + "/" + kindExpectation + "/" + delivery.String()
}

// CallKey is the key of a callbacks record.
func CallKey(group string, call uuid.UUID) string {
	return group + "/" + kindCall + "/" + call.String()
}

// EndedKey is the key of a callbacks record. It stands by itself: who sees a delivery end does not know its group.
func EndedKey(delivery uuid.UUID) string { return delivery.String() + "/" + kindEnded }

// matchKey is apart from the expectation's: who writes that again, because an event came twice, must not undo the match.
func matchKey(group string, delivery uuid.UUID) string {
	return group + "/" + kindMatch + "/" + delivery.String()
}

func followUpKey(group, event string) string { return group + "/" + kindFollowUp + "/" + event }

func flightKey(group string) string { return group + "/" + kindFlight }

// Book is the state of the callbacks topic. All methods may be called concurrently.
type Book struct {
	mu     sync.Mutex
	groups map[string]*group
	ended  map[uuid.UUID]end
	// waiting says which groups look for the end of a delivery.
	waiting map[uuid.UUID]string
	dirty   map[string]bool
}

// end is when a delivery ended, and where that stands.
type end struct {
	at        time.Time
	partition int32
}

// NewBook is empty.
func NewBook() *Book {
	return &Book{groups: map[string]*group{}, ended: map[uuid.UUID]end{}, waiting: map[uuid.UUID]string{}, dirty: map[string]bool{}}
}

// group is one connection of one tenant. The lists are in the order in which their records were first written.
type group struct {
	partition    int32
	expectations []*webhook.Expectation
	matches      map[uuid.UUID]uuid.UUID // of deliveries with their calls
	calls        []*webhook.Call
	followUps    []*webhook.FollowUp
	flight       *webhook.Flight
}

func (g *group) empty() bool {
	return len(g.expectations) == 0 && len(g.matches) == 0 && len(g.calls) == 0 && len(g.followUps) == 0 && g.flight == nil
}

// Apply takes one record of a partition; a nil value deletes. Records of one partition must come in their order. The error says that
// the record is not one of the topic; it changes nothing.
func (b *Book) Apply(partition int32, key string, value []byte) error {
	name, rest, _ := strings.Cut(key, "/")
	kind, id, _ := strings.Cut(rest, "/")
	var decoded any
	if value != nil {
		var err error
		if decoded, err = wire.DecodeCallback(value); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if kind == kindEnded {
		return b.applyEnded(partition, key, name, decoded)
	}
	g := b.groups[name]
	if g == nil {
		if decoded == nil {
			return nil
		}
		g = &group{partition: partition, matches: map[uuid.UUID]uuid.UUID{}}
		b.groups[name] = g
	}
	fits := b.applyTo(g, name, kind, id, decoded)
	if g.empty() {
		delete(b.groups, name)
	}
	if !fits {
		return fmt.Errorf("callbacks record %q: its value, a %T, does not belong to the key", key, decoded)
	}
	b.dirty[name] = true
	return nil
}

func (b *Book) applyEnded(partition int32, key, name string, decoded any) error {
	delivery, err := uuid.Parse(name)
	if err != nil {
		return fmt.Errorf("callbacks record %q: %w", key, err)
	}
	at, ok := decoded.(time.Time)
	switch {
	case ok:
		b.ended[delivery] = end{at, partition}
	case decoded == nil:
		delete(b.ended, delivery)
	default:
		return fmt.Errorf("callbacks record %q: its value is a %T", key, decoded)
	}
	if waiting, ok := b.waiting[delivery]; ok {
		b.dirty[waiting] = true
	}
	return nil
}

func (b *Book) applyTo(g *group, name, kind, id string, decoded any) bool {
	var ok bool
	switch kind {
	case kindExpectation:
		g.expectations, ok = put(g.expectations, decoded, func(x *webhook.Expectation) bool { return x.Delivery.String() == id })
		if x, is := decoded.(*webhook.Expectation); is {
			x.Call = g.matches[x.Delivery]
			b.waiting[x.Delivery] = name
		} else if delivery, err := uuid.Parse(id); err == nil {
			delete(b.waiting, delivery)
		}
	case kindMatch:
		ok = g.applyMatch(id, decoded)
	case kindCall:
		g.calls, ok = put(g.calls, decoded, func(c *webhook.Call) bool { return c.ID.String() == id })
	case kindFollowUp:
		g.followUps, ok = put(g.followUps, decoded, func(f *webhook.FollowUp) bool { return f.Event.ID == id })
	case kindFlight:
		if g.flight != nil {
			for _, delivery := range g.flight.Deliveries {
				delete(b.waiting, delivery)
			}
		}
		g.flight, ok = decoded.(*webhook.Flight)
		if ok {
			for _, delivery := range g.flight.Deliveries {
				b.waiting[delivery] = name
			}
		}
		ok = ok || decoded == nil
	}
	return ok
}

func (g *group) applyMatch(id string, decoded any) bool {
	delivery, err := uuid.Parse(id)
	matched, ok := decoded.(*webhook.Expectation)
	switch {
	case err != nil:
		return decoded == nil
	case decoded == nil:
		delete(g.matches, delivery)
	case !ok || matched.Delivery != delivery || matched.Call == uuid.Nil:
		return false
	default:
		g.matches[delivery] = matched.Call
	}
	for i, x := range g.expectations {
		if x.Delivery == delivery {
			changed := *x
			changed.Call = g.matches[delivery]
			g.expectations[i] = &changed
		}
	}
	return true
}

// put replaces the element in its place, adds it at the end, or, with nothing, removes it.
func put[T any](list []*T, decoded any, same func(*T) bool) ([]*T, bool) {
	at := -1
	for i := range list {
		if same(list[i]) {
			at = i
		}
	}
	element, ok := decoded.(*T)
	switch {
	case decoded == nil && at >= 0:
		return append(list[:at:at], list[at+1:]...), true
	case decoded == nil:
		return list, true
	case !ok || !same(element):
		return list, false
	case at >= 0:
		list[at] = element
		return list, true
	default:
		return append(list, element), true
	}
}

// Standing is what a body that is called back is known as.
type Standing int

// The standings.
const (
	Unknown   Standing = iota // no such delivery was made
	Reordered                 // one was made with its keys in another order
	Late                      // all of them were made too long ago
	Open                      // one was not called back yet
	Done                      // all were called back: the answer is the same, and nothing follows again
)

// Look finds what a body is known as, by what [profile.Profile.Fingerprint] says of it, and, where that is Open, the delivery that a
// call now is about.
func (b *Book) Look(group, subscription string, sent, signed [32]byte, now time.Time) (Standing, *webhook.Expectation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := b.groups[group]
	if g == nil {
		return Unknown, nil
	}
	found := Unknown
	var open []*webhook.Expectation
	for _, x := range g.expectations {
		switch {
		case x.SubscriptionID != subscription || x.Signed != signed:
		case x.Sent != sent:
			found = max(found, Reordered)
		case x.Call != uuid.Nil:
			found = max(found, Done)
		case now.Before(x.Until):
			open = append(open, x)
		default:
			found = max(found, Late)
		}
	}
	waiting := 0
	for _, c := range g.calls {
		if c.SubscriptionID == subscription && c.Sent == sent {
			waiting++
		}
	}
	switch {
	case waiting < len(open):
		return Open, open[waiting]
	case len(open) > 0:
		return Done, nil
	default:
		return found, nil
	}
}

// TakeDirty returns groups of these partitions in which something has changed since they were last returned, at most so many. What has
// changed in other partitions is theirs to care for who owns them.
func (b *Book) TakeDirty(owned func(partition int32) bool, most int) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var names []string
	for name := range b.dirty {
		if len(names) == most {
			break
		}
		if g := b.groups[name]; g != nil && owned(g.partition) {
			names = append(names, name)
		}
		delete(b.dirty, name)
	}
	return names
}

// Touch takes every group of these partitions for changed: they have come, or time has passed.
func (b *Book) Touch(owned func(partition int32) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, g := range b.groups {
		if owned(g.partition) {
			b.dirty[name] = true
		}
	}
}

// Forgotten are the keys of these partitions that say of a delivery that it ended, and that nobody has asked for within keep.
func (b *Book) Forgotten(owned func(partition int32) bool, now time.Time, keep time.Duration) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var keys []string
	for delivery, e := range b.ended {
		if owned(e.partition) && now.Sub(e.at) > keep && b.waiting[delivery] == "" {
			keys = append(keys, EndedKey(delivery))
		}
	}
	return keys
}

// Sizes are what a book holds.
type Sizes struct{ Expectations, Calls, FollowUps, InFlight int }

// Sizes counts.
func (b *Book) Sizes() Sizes {
	b.mu.Lock()
	defer b.mu.Unlock()
	var s Sizes
	for _, g := range b.groups {
		s.Expectations += len(g.expectations)
		s.Calls += len(g.calls)
		s.FollowUps += len(g.followUps)
		if g.flight != nil {
			s.InFlight++
		}
	}
	return s
}
