package filter

import (
	"errors"
	"strconv"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"

	"github.com/hookline/hookline/pkg/webhook"
)

const (
	// costLimit bounds one evaluation, in CEL's units; an ordinary comparison has a cost of about 3.
	costLimit = 100_000
	// assumedSize is how long lists and texts of events are taken to be when the cost of an expression is estimated.
	assumedSize = 100
)

// expression is a filter in CEL. It sees one variable, event.
type expression struct{ program cel.Program }

// language is made once: it takes a millisecond and does not change.
var language = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Variable("event", cel.MapType(cel.StringType, cel.DynType)),
		cel.CrossTypeNumericComparisons(true),
		cel.DefaultUTCTimeZone(true),
		cel.ParserRecursionLimit(50),
	)
})

func compileCEL(fields []field) (*Filter, error) {
	const pointer = "/cel"
	refuse := func(code Code, detail string) (*Filter, error) {
		return nil, &Error{Code: code, Pointer: pointer, Detail: detail}
	}
	source := raw(fields[0].value)
	if len(fields) > 1 {
		return nil, &Error{Code: Invalid, Detail: "cel stands alone: a filter is a pattern or an expression"}
	}
	if source.kind != str {
		return refuse(Invalid, "want a CEL expression as a string")
	}
	env, err := language()
	if err != nil {
		return refuse(Invalid, err.Error())
	}
	ast, issues := env.Compile(string(source.bytes))
	if issues.Err() != nil {
		return refuse(Invalid, firstLine(issues.Err().Error()))
	}
	if t := ast.OutputType(); !t.IsExactType(types.BoolType) && !t.IsExactType(types.DynType) {
		return refuse(Invalid, "the expression is of type "+t.String()+", want bool")
	}
	if estimate, err := env.EstimateCost(ast, sizes{}); err != nil || estimate.Max > costLimit {
		return refuse(TooCostly, "for lists and texts of "+strconv.Itoa(assumedSize)+" elements the expression costs more than "+strconv.Itoa(costLimit))
	}
	program, err := env.Program(ast, cel.CostLimit(costLimit), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return refuse(Invalid, firstLine(err.Error()))
	}
	return &Filter{cel: &expression{program}}, nil
}

// sizes says how large what an expression looks at is taken to be.
type sizes struct{}

func (sizes) EstimateSize(cost.AstNode) *cost.SizeEstimate {
	return &cost.SizeEstimate{Min: 0, Max: assumedSize}
}

func (sizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}

var errNoBool = errors.New("the expression gives no true or false for this event")

func (x *expression) match(e *webhook.Event) (bool, error) {
	matched, err := x.evaluate(e)
	if err != nil && missing(err) {
		return false, nil
	}
	return matched, err
}

func (x *expression) evaluate(e *webhook.Event) (bool, error) {
	result, _, err := x.program.Eval(map[string]any{"event": eventFields(e)})
	if err != nil {
		return false, err
	}
	matched, ok := result.Value().(bool)
	if !ok {
		return false, errNoBool
	}
	return matched, nil
}

func (x *expression) explain(e *webhook.Event) []Clause {
	matched, err := x.evaluate(e)
	var r report
	switch {
	case matched:
	case err == nil:
		r.add("/cel", "the expression is false for this event")
	case missing(err):
		r.add("/cel", "the event does not have what the expression asks for: %s", firstLine(err.Error()))
	default:
		r.add("/cel", "the expression cannot be evaluated for this event: %s", firstLine(err.Error()))
	}
	return r.clauses
}

// missing reports whether an expression asked for a field that the event does not have. CEL has no type for it.
func missing(err error) bool {
	return strings.HasPrefix(err.Error(), "no such key") || strings.HasPrefix(err.Error(), "no such attribute")
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimPrefix(s, "ERROR: <input>:"), "\n")
	return line
}
