package api

import (
	"encoding/json"
	"errors"

	"github.com/hookline/hookline/pkg/filter"
	"github.com/hookline/hookline/pkg/webhook"
)

// clauseView is a condition that an event does not meet.
type clauseView struct {
	Pointer string `json:"pointer" doc:"An RFC 6901 pointer into the subscription, such as /filter/data/amount."`
	Detail  string `json:"detail"`
}

// filterOf is the filter to store: one that says nothing is none.
func filterOf(given json.RawMessage) json.RawMessage {
	if filter.None(given) {
		return nil
	}
	return given
}

// compileFilter compiles the filter of a body.
func compileFilter(given json.RawMessage) (*filter.Filter, fieldErrors) {
	compiled, err := filter.Compile(given)
	var refused *filter.Error
	var f fieldErrors
	if errors.As(err, &refused) {
		f.add("/filter"+refused.Pointer, string(refused.Code), "%s", refused.Detail)
	}
	return compiled, f
}

// selection is what a subscription wants: types, then a filter.
type selection struct {
	types  webhook.Subscription // only its EventTypes
	filter *filter.Filter
}

// selectionOf compiles what has been saved. A filter that does not compile here was saved by a newer process.
func selectionOf(eventTypes []string, saved json.RawMessage) (selection, error) {
	compiled, err := filter.Compile(saved)
	return selection{types: webhook.Subscription{EventTypes: eventTypes}, filter: compiled}, err
}

func (s *selection) wants(e *webhook.Event) bool {
	if !s.types.Wants(e.Type) {
		return false
	}
	matched, _ := s.filter.Match(e) // a filter that cannot be evaluated matches nothing
	return matched
}

// explain lists what an event does not meet; nothing where it matches.
func (s *selection) explain(e *webhook.Event) []clauseView {
	clauses := []clauseView{}
	if !s.types.Wants(e.Type) {
		clauses = append(clauses, clauseView{Pointer: "/eventTypes", Detail: "no pattern covers the type " + e.Type})
	}
	for _, c := range s.filter.Explain(e) {
		clauses = append(clauses, clauseView{Pointer: "/filter" + c.Pointer, Detail: c.Detail})
	}
	return clauses
}
