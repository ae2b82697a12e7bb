package expression

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

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
		return appendText(dst, string(v))
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

func appendText(dst []byte, text string) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(text)
	return append(dst, bytes.TrimSuffix(out.Bytes(), []byte("\n"))...), err
}

// Tree is a document as an expression sees it. A whole number that fits is an int, or a uint, so that no digit gets lost.
func Tree(doc []byte) (any, error) {
	decoder := json.NewDecoder(bytes.NewReader(doc))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		return nil, errors.New("not JSON")
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
