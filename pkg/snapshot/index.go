package snapshot

import (
	"cmp"
	"iter"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/hookline/hookline/pkg/webhook"
)

// index finds the subscriptions of one tenant by event type. It decides as [webhook.MatchType] does: every pattern has
// a bucket under its own text, and "prefix.*" has one more under "prefix.".
type index struct {
	all      *bucket            // every type but the operational ones
	exact    map[string]*bucket // by the pattern itself
	prefixes map[string]*bucket // by the prefix with its dot
}

func newIndex() *index {
	return &index{all: newBucket(), exact: map[string]*bucket{}, prefixes: map[string]*bucket{}}
}

func (x *index) add(sub *webhook.Subscription) {
	for m, key := range x.places(sub) {
		if m[key] == nil {
			m[key] = newBucket()
		}
		m[key].add(sub)
	}
	if everything(sub) {
		x.all.add(sub)
	}
}

func (x *index) remove(sub *webhook.Subscription) {
	for m, key := range x.places(sub) {
		if m[key] == nil {
			continue
		}
		m[key].remove(sub)
		if len(m[key].members) == 0 {
			delete(m, key)
		}
	}
	x.all.remove(sub)
}

// places are the buckets, besides all, that a subscription belongs in.
func (x *index) places(sub *webhook.Subscription) iter.Seq2[map[string]*bucket, string] {
	return func(yield func(map[string]*bucket, string) bool) {
		for _, pattern := range sub.EventTypes {
			if !yield(x.exact, pattern) {
				return
			}
			prefix, ok := strings.CutSuffix(pattern, "*")
			if ok && strings.HasSuffix(prefix, ".") && !yield(x.prefixes, prefix) {
				return
			}
		}
	}
}

func everything(sub *webhook.Subscription) bool {
	return len(sub.EventTypes) == 0 || slices.Contains(sub.EventTypes, "*")
}

// match must hold the state still: a read lock is enough.
func (x *index) match(eventType string) []*webhook.Subscription {
	var room [8][]*webhook.Subscription
	lists := room[:0]
	collect := func(b *bucket) {
		if b != nil && len(b.members) > 0 {
			lists = append(lists, b.list())
		}
	}
	if !webhook.Operational(eventType) {
		collect(x.all)
	}
	collect(x.exact[eventType])
	for i := range len(eventType) - 1 {
		if eventType[i] == '.' {
			collect(x.prefixes[eventType[:i+1]])
		}
	}
	switch len(lists) {
	case 0:
		return nil
	case 1:
		return lists[0]
	default:
		return union(lists)
	}
}

// union puts lists together, ordered by id and without repetitions.
func union(lists [][]*webhook.Subscription) []*webhook.Subscription {
	out := slices.Concat(lists...)
	slices.SortFunc(out, byID)
	return slices.CompactFunc(out, func(a, b *webhook.Subscription) bool { return a.ID == b.ID })
}

func byID(a, b *webhook.Subscription) int { return cmp.Compare(a.ID, b.ID) }

// bucket is a set of subscriptions, and the list made from it when one is asked for: building it at each change would
// make the loading of many subscriptions quadratic.
type bucket struct {
	members map[string]*webhook.Subscription
	sorted  atomic.Pointer[[]*webhook.Subscription]
}

func newBucket() *bucket { return &bucket{members: map[string]*webhook.Subscription{}} }

func (b *bucket) add(sub *webhook.Subscription) {
	b.members[sub.ID] = sub
	b.sorted.Store(nil)
}

func (b *bucket) remove(sub *webhook.Subscription) {
	delete(b.members, sub.ID)
	b.sorted.Store(nil)
}

// list may be called by several readers at once: each that finds none makes the same one.
func (b *bucket) list() []*webhook.Subscription {
	if made := b.sorted.Load(); made != nil {
		return *made
	}
	out := make([]*webhook.Subscription, 0, len(b.members))
	for _, sub := range b.members {
		out = append(out, sub)
	}
	slices.SortFunc(out, byID)
	b.sorted.Store(&out)
	return out
}
