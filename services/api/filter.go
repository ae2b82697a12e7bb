package api

import (
	"encoding/json"
	"errors"

	"github.com/hookline/hookline/pkg/filter"
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

func viewClauses(clauses []filter.Clause) []clauseView {
	views := make([]clauseView, len(clauses))
	for i, c := range clauses {
		views[i] = clauseView{Pointer: c.Pointer, Detail: c.Detail}
	}
	return views
}
