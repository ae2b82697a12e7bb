package filter

import (
	"errors"

	"github.com/hookline/hookline/pkg/expression"
	"github.com/hookline/hookline/pkg/webhook"
)

// language is what filters in CEL are written in: they see one variable, event.
var language = expression.NewLanguage(map[string]expression.Kind{"event": expression.Object})

func compileCEL(fields []field) (*Filter, error) {
	source := raw(fields[0].value)
	if len(fields) > 1 {
		return nil, &Error{Code: Invalid, Detail: "cel stands alone: a filter is a pattern or an expression"}
	}
	if source.kind != str {
		return nil, &Error{Code: Invalid, Pointer: "/cel", Detail: "want a CEL expression as a string"}
	}
	compiled, err := language.Compile(string(source.bytes), true)
	switch {
	case errors.Is(err, expression.ErrTooCostly):
		return nil, &Error{Code: TooCostly, Pointer: "/cel", Detail: err.Error()}
	case err != nil:
		return nil, &Error{Code: Invalid, Pointer: "/cel", Detail: err.Error()}
	}
	return &Filter{cel: compiled}, nil
}

func evaluate(x *expression.Expression, e *webhook.Event) (bool, error) {
	return x.Holds(map[string]any{"event": eventFields(e)})
}

func explain(x *expression.Expression, e *webhook.Event) []Clause {
	matched, err := evaluate(x, e)
	var r report
	switch {
	case matched:
	case err == nil:
		r.add("/cel", "the expression is false for this event")
	case errors.Is(err, expression.ErrMissing):
		r.add("/cel", "the event does not have what the expression asks for: %v", err)
	default:
		r.add("/cel", "the expression cannot be evaluated for this event: %v", err)
	}
	return r.clauses
}
