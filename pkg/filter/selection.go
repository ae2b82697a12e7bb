package filter

import (
	"encoding/json"

	"github.com/hookline/hookline/pkg/webhook"
)

// Selection is what a subscription wants: types, then a filter. The zero value is every event. It may be used concurrently.
type Selection struct {
	Types  []string // as [webhook.Subscription.EventTypes]
	Filter *Filter
}

// Select compiles a saved filter. One that does not compile was saved by a process that knows more.
func Select(types []string, saved json.RawMessage) (Selection, error) {
	compiled, err := Compile(saved)
	return Selection{Types: types, Filter: compiled}, err
}

func (s *Selection) wantsType(e *webhook.Event) bool {
	return (&webhook.Subscription{EventTypes: s.Types}).Wants(e.Type)
}

// Wants reports whether an event is wanted. A filter that cannot be evaluated wants nothing.
func (s *Selection) Wants(e *webhook.Event) bool {
	if !s.wantsType(e) {
		return false
	}
	matched, err := s.Filter.Match(e)
	return matched && err == nil
}

// Explain lists what an event does not meet, as pointers into the subscription; nothing where it is wanted.
func (s *Selection) Explain(e *webhook.Event) []Clause {
	var clauses []Clause
	if !s.wantsType(e) {
		clauses = append(clauses, Clause{Pointer: "/eventTypes", Detail: "no pattern covers the type " + e.Type})
	}
	for _, c := range s.Filter.Explain(e) {
		clauses = append(clauses, Clause{Pointer: "/filter" + c.Pointer, Detail: c.Detail})
	}
	return clauses
}
