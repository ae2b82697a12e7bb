// Package expression is CEL with bounds: what an expression may cost is estimated when it is saved and limited when it is evaluated. Filters of
// subscriptions, sources and profiles' rules are written in it, each in a language with variables of its own. It knows no event.
package expression

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
)

const (
	// costLimit bounds one evaluation, in CEL's units; an ordinary comparison has a cost of about 3.
	costLimit = 100_000
	// assumedSize is how long lists and texts are taken to be when the cost of an expression is estimated.
	assumedSize = 100
	maxNesting  = 50
)

var (
	// ErrTooCostly: the expression is sound, and may cost too much.
	ErrTooCostly = fmt.Errorf("for lists and texts of %d elements the expression costs more than %d", assumedSize, costLimit)
	// ErrMissing: the expression asks for a field that is not there.
	ErrMissing = errors.New("there is no such field")
	// ErrNoBool: the expression gives something other than true or false.
	ErrNoBool = errors.New("the expression gives no true or false")
)

// Kind is of a variable.
type Kind int

// The kinds of variables: anything that JSON has, a text, an object of texts, an object of anything.
const (
	Any Kind = iota
	Text
	Texts
	Object
)

func (k Kind) cel() *cel.Type {
	switch k {
	case Text:
		return cel.StringType
	case Texts:
		return cel.MapType(cel.StringType, cel.StringType)
	case Object:
		return cel.MapType(cel.StringType, cel.DynType)
	default:
		return cel.DynType
	}
}

// Language is CEL with certain variables. It may be used concurrently.
type Language struct {
	// Made once: it takes a millisecond and does not change.
	env func() (*cel.Env, error)
}

// NewLanguage makes nothing yet.
func NewLanguage(variables map[string]Kind) *Language {
	return &Language{env: sync.OnceValues(func() (*cel.Env, error) {
		options := []cel.EnvOption{cel.CrossTypeNumericComparisons(true), cel.DefaultUTCTimeZone(true), cel.ParserRecursionLimit(maxNesting)}
		for name, kind := range variables {
			options = append(options, cel.Variable(name, kind.cel()))
		}
		return cel.NewEnv(options...)
	})}
}

// Expression is compiled. It may be used concurrently.
type Expression struct {
	program cel.Program
	ast     *ast.AST
}

// Compile reads an expression; a condition must give true or false. The error is for people, one line, and may be [ErrTooCostly].
func (l *Language) Compile(text string, condition bool) (*Expression, error) {
	env, err := l.env()
	if err != nil {
		return nil, err
	}
	compiled, issues := env.Compile(text)
	if issues.Err() != nil {
		return nil, firstLine(issues.Err())
	}
	if t := compiled.OutputType(); condition && !t.IsExactType(types.BoolType) && !t.IsExactType(types.DynType) {
		return nil, fmt.Errorf("the expression is of type %s, want bool", t)
	}
	if estimate, err := env.EstimateCost(compiled, sizes{}); err != nil || estimate.Max > costLimit {
		return nil, ErrTooCostly
	}
	program, err := env.Program(compiled, cel.CostLimit(costLimit), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, firstLine(err)
	}
	return &Expression{program: program, ast: compiled.NativeRep()}, nil
}

// sizes says how large what an expression looks at is taken to be.
type sizes struct{}

func (sizes) EstimateSize(cost.AstNode) *cost.SizeEstimate {
	return &cost.SizeEstimate{Min: 0, Max: assumedSize}
}

func (sizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}

// Uses reports whether the expression has a variable. One that a macro binds under the same name counts too, and does no harm.
func (x *Expression) Uses(variable string) bool {
	found := false
	ast.PostOrderVisit(x.ast.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		found = found || e.Kind() == ast.IdentKind && e.AsIdent() == variable
	}))
	return found
}

// Holds evaluates a condition. The error may be [ErrMissing] or [ErrNoBool].
func (x *Expression) Holds(variables map[string]any) (bool, error) {
	result, _, err := x.program.Eval(variables)
	if err != nil {
		return false, explained(err)
	}
	holds, ok := result.Value().(bool)
	if !ok {
		return false, ErrNoBool
	}
	return holds, nil
}

// JSON evaluates to JSON, in which whole numbers keep every digit. The error may be [ErrMissing].
func (x *Expression) JSON(variables map[string]any) ([]byte, error) {
	result, _, err := x.program.Eval(variables)
	if err != nil {
		return nil, explained(err)
	}
	return appendValue(nil, result)
}

// explained tells a field that is not there from other errors, for which CEL has no type.
func explained(err error) error {
	if text := err.Error(); strings.HasPrefix(text, "no such key") || strings.HasPrefix(text, "no such attribute") {
		return missing{firstLine(err)}
	}
	return firstLine(err)
}

// missing is an [ErrMissing] in CEL's words, which name the field.
type missing struct{ error }

func (missing) Is(target error) bool { return target == ErrMissing }

// firstLine leaves out the picture of the source that CEL draws below.
func firstLine(err error) error {
	line, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), "ERROR: <input>:"), "\n")
	return errors.New(line)
}
