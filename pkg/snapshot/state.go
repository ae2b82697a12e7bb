package snapshot

import (
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/filter"
	"github.com/hookline/hookline/pkg/source"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

// state is everything applied so far. The values in its maps are never changed, only replaced.
type state struct {
	offset        int64
	tenants       map[string]*webhook.Tenant
	subscriptions map[string]*webhook.Subscription
	filters       map[string]*filter.Filter // of the subscriptions that have one which compiles
	secrets       map[string]*webhook.Secret
	keys          map[string]*webhook.APIKey
	keysByHash    map[[32]byte]*webhook.APIKey
	indexes       map[string]*index // by tenant
	sources       map[string]*Source
	connections   map[string]*webhook.Connection
}

// Source is a source with its compiled specification.
type Source struct {
	*webhook.Source
	Rules *source.Source
}

func newState() *state {
	return &state{
		offset:        -1,
		tenants:       map[string]*webhook.Tenant{},
		subscriptions: map[string]*webhook.Subscription{},
		filters:       map[string]*filter.Filter{},
		secrets:       map[string]*webhook.Secret{},
		keys:          map[string]*webhook.APIKey{},
		keysByHash:    map[[32]byte]*webhook.APIKey{},
		indexes:       map[string]*index{},
		sources:       map[string]*Source{},
		connections:   map[string]*webhook.Connection{},
	}
}

// decode reads a record outside the lock. The change is nil for a record that says nothing. A change with an error is to be
// made nevertheless.
func decode(r *kgo.Record) (func(*state), error) {
	if r.Attrs.IsControl() {
		return nil, nil
	}
	kind, id, err := wire.ParseConfigKey(string(r.Key))
	if err != nil {
		return nil, err
	}
	if r.Value == nil {
		return deletion(kind, id)
	}
	value, err := wire.DecodeConfig(r.Value)
	if err != nil {
		return nil, err
	}
	return replacement(kind, id, value)
}

func deletion(kind wire.Kind, id string) (func(*state), error) {
	switch kind {
	case wire.KindTenant:
		return func(s *state) { delete(s.tenants, id) }, nil
	case wire.KindSubscription:
		return func(s *state) { s.setSubscription(id, nil, nil) }, nil
	case wire.KindSecret:
		return func(s *state) { delete(s.secrets, id) }, nil
	case wire.KindAPIKey:
		return func(s *state) { s.setKey(id, nil) }, nil
	case wire.KindSource:
		return func(s *state) { delete(s.sources, id) }, nil
	case wire.KindConnection:
		return func(s *state) { delete(s.connections, id) }, nil
	default:
		return nil, fmt.Errorf("unknown kind %q", kind)
	}
}

// replacement holds the value to the key it stands under: a record under another's key could never be deleted.
func replacement(kind wire.Kind, id string, value any) (func(*state), error) {
	switch v := value.(type) {
	case *webhook.Tenant:
		if kind == wire.KindTenant && v.ID == id {
			return func(s *state) { s.tenants[id] = v }, nil
		}
	case *webhook.Subscription:
		if kind == wire.KindSubscription && v.ID == id {
			compiled, err := filter.Compile(v.Filter)
			if err != nil { // a newer API knows operators that this process does not
				err = fmt.Errorf("the subscription gets nothing: its filter: %w", err)
			}
			return func(s *state) { s.setSubscription(id, v, compiled) }, err
		}
	case *webhook.Secret:
		if kind == wire.KindSecret && v.ID == id {
			return func(s *state) { s.secrets[id] = v }, nil
		}
	case *webhook.APIKey:
		if kind == wire.KindAPIKey && v.ID == id {
			return func(s *state) { s.setKey(id, v) }, nil
		}
	case *webhook.Source:
		if kind == wire.KindSource && v.ID == id {
			rules, err := source.Compile(v.Spec)
			if err != nil { // a newer API knows more than this process
				return func(s *state) { delete(s.sources, id) }, fmt.Errorf("the source takes nothing: %w", err)
			}
			return func(s *state) { s.sources[id] = &Source{v, rules} }, nil
		}
	case *webhook.Connection:
		if kind == wire.KindConnection && v.ID == id {
			return func(s *state) { s.connections[id] = v }, nil
		}
	}
	return nil, fmt.Errorf("the value, a %T, does not belong to the key", value)
}

// setSubscription keeps the newer version: a relay that lost its lock in the middle of a produce may publish an older one late.
func (s *state) setSubscription(id string, now *webhook.Subscription, compiled *filter.Filter) {
	before := s.subscriptions[id]
	if before != nil && now != nil && now.Version < before.Version {
		return
	}
	if before != nil && routed(before) {
		s.indexes[before.Tenant].remove(before)
	}
	delete(s.filters, id)
	if now == nil {
		delete(s.subscriptions, id)
		return
	}
	s.subscriptions[id] = now
	if compiled != nil {
		s.filters[id] = compiled
	}
	if !routed(now) {
		return
	}
	if s.indexes[now.Tenant] == nil {
		s.indexes[now.Tenant] = newIndex()
	}
	s.indexes[now.Tenant].add(now)
}

// routed reports whether a subscription gets deliveries. A paused one does: they wait.
func routed(sub *webhook.Subscription) bool {
	return sub.Status == webhook.SubscriptionActive || sub.Status == webhook.SubscriptionPaused
}

func (s *state) setKey(id string, now *webhook.APIKey) {
	// Another key may have taken over the hash since.
	if before := s.keys[id]; before != nil && s.keysByHash[before.Hash] == before {
		delete(s.keysByHash, before.Hash)
	}
	if now == nil {
		delete(s.keys, id)
		return
	}
	s.keys[id] = now
	s.keysByHash[now.Hash] = now
}

// wants applies a subscription's filter. It fails where the filter cannot be evaluated; the event does not match then.
func (s *state) wants(sub *webhook.Subscription, e *webhook.Event) (bool, error) {
	compiled, ok := s.filters[sub.ID]
	if !ok {
		if filter.None(sub.Filter) {
			return true, nil
		}
		return false, errNotCompiled
	}
	return compiled.Match(e)
}

var errNotCompiled = errors.New("the filter is not understood by this process")
