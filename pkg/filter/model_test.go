package filter

import (
	"bytes"
	"encoding/json"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/hookline/hookline/pkg/strictjson"
	"github.com/hookline/hookline/pkg/webhook"
)

// The model decides over decoded trees, slowly and in another way than the package does.

func tree(t rapid.TB, b []byte) any {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(b))
	decoder.UseNumber()
	var v any
	if err := decoder.Decode(&v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return v
}

// modelObject: there says whether the value is there at all.
func modelObject(pattern map[string]any, v any, there bool) bool {
	if list, ok := v.([]any); ok && there {
		objects := false
		for _, element := range list {
			if _, ok := element.(map[string]any); ok {
				objects = true
				if modelObject(pattern, element, true) {
					return true
				}
			}
		}
		if objects {
			return false
		}
	}
	object, _ := v.(map[string]any)
	for key, condition := range pattern {
		if key == "$or" {
			one := false
			for _, option := range condition.([]any) {
				one = one || modelObject(option.(map[string]any), v, there)
			}
			if !one {
				return false
			}
			continue
		}
		field, has := object[key]
		switch condition := condition.(type) {
		case map[string]any:
			if !modelObject(condition, field, has) {
				return false
			}
		case []any:
			if !modelList(condition, field, has) {
				return false
			}
		}
	}
	return true
}

func modelList(alternatives []any, v any, there bool) bool {
	for _, a := range alternatives {
		if operator, ok := a.(map[string]any); ok && operator["exists"] != nil {
			if operator["exists"] == there {
				return true
			}
			continue
		}
		if there && modelValue(a, v) {
			return true
		}
	}
	return false
}

func modelValue(alternative, v any) bool {
	if list, ok := v.([]any); ok {
		for _, element := range list {
			if modelValue(alternative, element) {
				return true
			}
		}
		return false
	}
	operator, ok := alternative.(map[string]any)
	if !ok {
		return modelEqual(alternative, v)
	}
	text, isText := v.(string)
	for name, want := range operator {
		switch name {
		case "prefix":
			return isText && strings.HasPrefix(text, want.(string))
		case "suffix":
			return isText && strings.HasSuffix(text, want.(string))
		case "equals-ignore-case":
			return isText && strings.EqualFold(text, want.(string))
		case "numeric":
			comparisons := want.([]any)
			for i := 0; i < len(comparisons); i += 2 {
				if !modelCompare(comparisons[i].(string), comparisons[i+1], v) {
					return false
				}
			}
			return true
		case "anything-but":
			if _, isObject := v.(map[string]any); isObject {
				return false
			}
			for _, not := range want.([]any) {
				if modelEqual(not, v) {
					return false
				}
			}
			return true
		}
	}
	return false
}

func modelEqual(a, b any) bool {
	x, isNumber := a.(json.Number)
	if !isNumber {
		if _, isObject := b.(map[string]any); isObject {
			return false
		}
		return a == b
	}
	y, isNumber := b.(json.Number)
	return isNumber && rational(x).Cmp(rational(y)) == 0
}

func modelCompare(operation string, want, have any) bool {
	number, isNumber := have.(json.Number)
	if !isNumber {
		return false
	}
	c := rational(number).Cmp(rational(want.(json.Number)))
	return map[string]bool{"=": c == 0, "<": c < 0, "<=": c <= 0, ">": c > 0, ">=": c >= 0}[operation]
}

func rational(n json.Number) *big.Rat {
	r, _ := new(big.Rat).SetString(n.String())
	return r
}

var (
	keys     = rapid.SampledFrom([]string{"a", "b", "é", "a b", "", "exists"})
	texts    = rapid.SampledFrom([]string{"", "x", "xy", "X", "é", "a\"b", "{", "\\"})
	decimal_ = rapid.SampledFrom([]string{"0", "-0", "0.0", "1", "1.0", "10e-1", "0.1e1", "100", "1e2", "-1", "-1.50", "12345678901234567890", "12345678901234567891", "1E+2", "0.000", "1e-3"})
)

func scalar() *rapid.Generator[json.RawMessage] {
	return rapid.Custom(func(t *rapid.T) json.RawMessage {
		switch rapid.IntRange(0, 3).Draw(t, "scalar") {
		case 0:
			return json.RawMessage(decimal_.Draw(t, "number"))
		case 1:
			return json.RawMessage(rapid.SampledFrom([]string{"true", "false", "null"}).Draw(t, "word"))
		default:
			return encode(texts.Draw(t, "text"))
		}
	})
}

func encode(v any) json.RawMessage {
	b, _ := json.Marshal(v)
	return b
}

func join(open string, parts []string, closing string) json.RawMessage {
	return json.RawMessage(open + strings.Join(parts, ",") + closing)
}

// document draws JSON with white space in it, nested a few levels.
func document(depth int) *rapid.Generator[json.RawMessage] {
	return rapid.Custom(func(t *rapid.T) json.RawMessage {
		kind := rapid.IntRange(0, 4).Draw(t, "kind")
		if depth == 0 || kind < 2 {
			return scalar().Draw(t, "value")
		}
		var parts []string
		if kind == 2 {
			for range rapid.IntRange(0, 3).Draw(t, "elements") {
				parts = append(parts, string(document(depth-1).Draw(t, "element")))
			}
			return join("[ ", parts, "]")
		}
		for _, key := range rapid.SliceOfNDistinct(keys, 0, 4, rapid.ID).Draw(t, "keys") {
			parts = append(parts, string(encode(key))+" : "+string(document(depth-1).Draw(t, "member")))
		}
		return join("{\n", parts, " }")
	})
}

func alternative() *rapid.Generator[json.RawMessage] {
	return rapid.Custom(func(t *rapid.T) json.RawMessage {
		operator := func(name string, value json.RawMessage) json.RawMessage {
			return join("{", []string{`"` + name + `":` + string(value)}, "}")
		}
		switch name := rapid.SampledFrom([]string{"literal", "exists", "prefix", "suffix", "equals-ignore-case", "numeric", "anything-but"}).Draw(t, "operator"); name {
		case "literal":
			return scalar().Draw(t, "literal")
		case "exists":
			return operator(name, encode(rapid.Bool().Draw(t, "exists")))
		case "numeric":
			comparison := `["` + rapid.SampledFrom([]string{"=", "<", "<=", ">", ">="}).Draw(t, "comparison") + `",` + decimal_.Draw(t, "bound") + `]`
			return operator(name, json.RawMessage(comparison))
		case "anything-but":
			return operator(name, join("[", []string{string(scalar().Draw(t, "not")), string(scalar().Draw(t, "not"))}, "]"))
		default:
			return operator(name, encode(texts.Draw(t, "text")))
		}
	})
}

func patternOf(depth int) *rapid.Generator[json.RawMessage] {
	return rapid.Custom(func(t *rapid.T) json.RawMessage {
		var parts []string
		for _, key := range rapid.SliceOfNDistinct(keys, 1, 3, rapid.ID).Draw(t, "fields") {
			var condition json.RawMessage
			if depth > 0 && rapid.Bool().Draw(t, "nested") {
				condition = patternOf(depth-1).Draw(t, "pattern")
			} else {
				var list []string
				for range rapid.IntRange(1, 3).Draw(t, "alternatives") {
					list = append(list, string(alternative().Draw(t, "alternative")))
				}
				condition = join("[", list, "]")
			}
			parts = append(parts, string(encode(key))+":"+string(condition))
		}
		if depth > 0 && rapid.IntRange(0, 3).Draw(t, "or") == 0 {
			parts = append(parts, `"$or":[`+string(patternOf(0).Draw(t, "option"))+","+string(patternOf(depth-1).Draw(t, "option"))+"]")
		}
		return join("{", parts, "}")
	})
}

func TestAPatternDecidesAsTheModelDoes(t *testing.T) {
	matches := 0
	rapid.Check(t, func(t *rapid.T) {
		filter := json.RawMessage(`{"data":` + string(patternOf(2).Draw(t, "filter")) + `}`)
		data := document(3).Draw(t, "data")
		f, err := Compile(filter)
		if err != nil {
			t.Fatalf("%s: %v", filter, err)
		}
		e := &webhook.Event{Data: data}
		got, err := f.Match(e)
		want := modelObject(tree(t, filter).(map[string]any)["data"].(map[string]any), tree(t, data), true)
		if got != want || err != nil {
			t.Fatalf("%s on %s: got %v, %v, want %v", filter, data, got, err, want)
		}
		if (len(f.Explain(e)) == 0) != want {
			t.Fatalf("%s on %s: matched %v, explained by %v", filter, data, want, f.Explain(e))
		}
		if want {
			matches++
		}
	})
	if matches == 0 {
		t.Error("nothing ever matched")
	}
}

func TestNumbersCompareAsRationalsDo(t *testing.T) {
	digits := rapid.StringMatching(`-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,2})?`)
	rapid.Check(t, func(t *rapid.T) {
		a := digits.Draw(t, "a")
		b := digits.Draw(t, "b")
		if rapid.Bool().Draw(t, "near") {
			b = a + "0"
			if !strings.Contains(a, ".") || strings.ContainsAny(a, "eE") {
				b = a
			}
		}
		x, y := parseNumber([]byte(a)), parseNumber([]byte(b))
		if got, want := x.compare(&y), rational(json.Number(a)).Cmp(rational(json.Number(b))); got != want {
			t.Fatalf("%s and %s: got %d, want %d", a, b, got, want)
		}
	})
}

func FuzzAnyFilterOnAnyBytes(f *testing.F) {
	for _, seed := range [][2]string{
		{`{"data":{"a":[{"numeric":[">",1]}]}}`, `{"a":2}`}, {`{"data":{"a":{"b":[{"exists":false}]}}}`, `{"a":[{"b":"\"}"}]}`},
		{`{"$or":[{"metadata":["x"]},{"data":[{"wildcard":"a*\\*"}]}]}`, `"a**"`}, {`{"cel":"event.data.a > 1"}`, `{"a":1e999}`},
		{`{"data":{"a":["\ud83d\ude00"]}}`, `{"\u0061":"\ud800"}`}, {`{"data":[{"anything-but":{"prefix":"x"}}]}`, `[[],"`}, {`{"data":[1]}`, `1e`},
	} {
		f.Add([]byte(seed[0]), []byte(seed[1]))
	}
	f.Fuzz(func(t *testing.T, filter, data []byte) {
		compiled, err := Compile(filter)
		if err != nil {
			if e, ok := err.(*Error); !ok || e.Code == "" {
				t.Fatalf("refused by %v", err)
			}
			return
		}
		e := &webhook.Event{ID: "e", Type: "a.b", Data: data}
		matched, err := compiled.Match(e)
		if matched && err != nil {
			t.Fatal("a match and an error")
		}
		if clauses := compiled.Explain(e); matched && len(clauses) > 0 || !matched && len(clauses) == 0 {
			t.Fatalf("matched %v, explained by %v", matched, clauses)
		}
		if strictjson.Check(data) != nil || compiled == nil || compiled.cel != nil {
			return
		}
		// White space and the spelling of strings mean nothing.
		var compact bytes.Buffer
		if json.Compact(&compact, data) == nil {
			again, _ := compiled.Match(&webhook.Event{ID: "e", Type: "a.b", Data: compact.Bytes()})
			if again != matched {
				t.Fatalf("%s on %s: %v, compacted %v", filter, data, matched, again)
			}
		}
	})
}
