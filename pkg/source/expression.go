package source

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/checker"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

const (
	// costLimit bounds one evaluation, in CEL's units; an ordinary comparison has a cost of about 3.
	costLimit = 100_000
	// assumedSize is how long lists and texts are taken to be when the cost of an expression is estimated.
	assumedSize   = 100
	maxExpression = 4 << 10
)

// expression is compiled CEL. It may be used concurrently.
type expression struct {
	program cel.Program
	body    bool // looks at the body as JSON
}

// messageLanguage is what the values of a source are written in.
var messageLanguage = sync.OnceValues(func() (*cel.Env, error) {
	text := cel.MapType(cel.StringType, cel.StringType)
	return cel.NewEnv(append(common(),
		cel.Variable("body", cel.DynType), cel.Variable("headers", text), cel.Variable("raw", cel.StringType), cel.Variable("connection", text))...)
})

// ruleLanguage is what rules are written in.
var ruleLanguage = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(append(common(), cel.Variable("body", cel.DynType), cel.Variable("remote", cel.DynType))...)
})

func common() []cel.EnvOption {
	return []cel.EnvOption{cel.CrossTypeNumericComparisons(true), cel.DefaultUTCTimeZone(true), cel.ParserRecursionLimit(50)}
}

func compileExpression(language func() (*cel.Env, error), text string, condition bool) (*expression, error) {
	if len(text) > maxExpression {
		return nil, fmt.Errorf("%d bytes, at most %d are accepted", len(text), maxExpression)
	}
	env, err := language()
	if err != nil {
		return nil, err
	}
	compiled, issues := env.Compile(text)
	if issues.Err() != nil {
		return nil, errors.New(firstLine(issues.Err().Error()))
	}
	if t := compiled.OutputType(); condition && !t.IsExactType(types.BoolType) && !t.IsExactType(types.DynType) {
		return nil, fmt.Errorf("the expression is of type %s, want bool", t)
	}
	if estimate, err := env.EstimateCost(compiled, sizes{}); err != nil || estimate.Max > costLimit {
		return nil, fmt.Errorf("for lists and texts of %d elements the expression costs more than %d", assumedSize, costLimit)
	}
	program, err := env.Program(compiled, cel.CostLimit(costLimit), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, errors.New(firstLine(err.Error()))
	}
	return &expression{program: program, body: uses(compiled.NativeRep(), "body")}, nil
}

// uses reports whether an expression has a variable. One that a macro binds under the same name counts too, and does no harm.
func uses(a *ast.AST, variable string) bool {
	found := false
	ast.PostOrderVisit(a.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		found = found || e.Kind() == ast.IdentKind && e.AsIdent() == variable
	}))
	return found
}

// sizes says how large what an expression looks at is taken to be.
type sizes struct{}

func (sizes) EstimateSize(checker.AstNode) *checker.SizeEstimate {
	return &checker.SizeEstimate{Min: 0, Max: assumedSize}
}

func (sizes) EstimateCallCost(string, string, *checker.AstNode, []checker.AstNode) *checker.CallEstimate {
	return nil
}

// json evaluates over a message. A field that it does not have makes it nil.
func (x *expression) json(in *input) ([]byte, error) {
	if x.body && !in.parsed {
		tree, err := parse(in.request.Body)
		if err != nil {
			return nil, err
		}
		in.tree, in.parsed = tree, true
	}
	headers := make(map[string]string, len(in.request.Header))
	for name, values := range in.request.Header {
		headers[strings.ToLower(name)] = strings.Join(values, ",")
	}
	connection := map[string]string{}
	if in.connection != nil {
		for _, name := range []string{"id", "environment", "aggregator"} {
			connection[name] = field(in.connection, name)
		}
	}
	return x.evaluate(map[string]any{"body": in.tree, "headers": headers, "raw": string(in.request.Body), "connection": connection})
}

func (x *expression) evaluate(variables map[string]any) ([]byte, error) {
	result, _, err := x.program.Eval(variables)
	if err != nil {
		if missing(err) {
			return nil, nil
		}
		return nil, errors.New(firstLine(err.Error()))
	}
	return appendValue(nil, result)
}

// missing reports whether an expression asked for a field that is not there. CEL has no type for it.
func missing(err error) bool {
	return strings.HasPrefix(err.Error(), "no such key") || strings.HasPrefix(err.Error(), "no such attribute")
}

// appendValue writes a result as JSON; whole numbers keep every digit.
func appendValue(dst []byte, v ref.Val) ([]byte, error) {
	switch v := v.(type) {
	case types.Null:
		return append(dst, "null"...), nil
	case types.Bool:
		return strconv.AppendBool(dst, bool(v)), nil
	case types.Int:
		return strconv.AppendInt(dst, int64(v), 10), nil
	case types.Uint:
		return strconv.AppendUint(dst, uint64(v), 10), nil
	case types.Double:
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return nil, errors.New("the result is no number that JSON has")
		}
		return strconv.AppendFloat(dst, float64(v), 'g', -1, 64), nil
	case types.String:
		return append(dst, quote(string(v))...), nil
	case traits.Mapper:
		return appendMap(dst, v)
	case traits.Lister:
		return appendList(dst, v)
	}
	return nil, fmt.Errorf("the result is of type %s, which JSON does not have", v.Type().TypeName())
}

func appendList(dst []byte, list traits.Lister) (_ []byte, err error) {
	dst = append(dst, '[')
	for i, it := 0, list.Iterator(); it.HasNext() == types.True; i++ {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = appendValue(dst, it.Next()); err != nil {
			return nil, err
		}
	}
	return append(dst, ']'), nil
}

// appendMap writes the members in the order of their keys, so that the same message always makes the same event.
func appendMap(dst []byte, m traits.Mapper) ([]byte, error) {
	members := map[string]json.RawMessage{}
	for it := m.Iterator(); it.HasNext() == types.True; {
		key := it.Next()
		name, ok := key.(types.String)
		if !ok {
			return nil, errors.New("a key of the result is no text")
		}
		value, err := appendValue(nil, m.Get(key))
		if err != nil {
			return nil, err
		}
		members[string(name)] = value
	}
	text, err := json.Marshal(members)
	return append(dst, text...), err
}

// parse makes the tree of a checked document. A whole number that fits is an int, or a uint, so that no digit gets lost.
func parse(doc []byte) (any, error) {
	decoder := json.NewDecoder(strings.NewReader(string(doc)))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		return nil, errors.New("the body is no JSON")
	}
	return numbers(tree), nil
}

func numbers(tree any) any {
	switch t := tree.(type) {
	case map[string]any:
		for key := range t {
			t[key] = numbers(t[key])
		}
	case []any:
		for i := range t {
			t[i] = numbers(t[i])
		}
	case json.Number:
		if i, err := strconv.ParseInt(t.String(), 10, 64); err == nil {
			return i
		}
		if u, err := strconv.ParseUint(t.String(), 10, 64); err == nil {
			return u
		}
		// Out of range it is ±Inf, which compares as it should.
		f, _ := strconv.ParseFloat(t.String(), 64)
		return f
	}
	return tree
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimPrefix(s, "ERROR: <input>:"), "\n")
	return line
}
