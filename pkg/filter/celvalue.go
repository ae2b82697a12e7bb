package filter

import (
	"iter"
	"reflect"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/hookline/hookline/pkg/webhook"
)

// fields is an object as CEL sees it. What an expression asks for by name is looked for in the bytes of the event; a map is made
// only for what wants all of it.
type fields struct {
	find func(name string) value
	all  iter.Seq2[string, value]
}

var _ traits.Mapper = fields{}

// eventFields is the variable event.
func eventFields(e *webhook.Event) fields {
	find := func(name string) value {
		v := fieldOf(e, name)
		if name == "event_timestamp" {
			v.kind = instant
		}
		return v
	}
	return fields{find: find, all: func(yield func(string, value) bool) {
		for _, name := range root {
			if v := find(name); v.kind != absent && !yield(name, v) {
				return
			}
		}
	}}
}

func jsonFields(b []byte) fields {
	return fields{
		find: func(name string) (found value) {
			members(b, func(key, v []byte) {
				if named(key, name) {
					found = raw(v)
				}
			})
			return found
		},
		all: func(yield func(string, value) bool) {
			more := true
			members(b, func(key, v []byte) { more = more && yield(string(unescaped(key)), raw(v)) })
		},
	}
}

// celValue is a value as CEL sees it. A whole number that fits is an int, or a uint, so that no digit gets lost; another number is
// a double.
func celValue(v value) ref.Val {
	switch v.kind {
	case instant:
		at, _ := time.Parse(time.RFC3339Nano, string(v.bytes))
		return types.Timestamp{Time: at}
	case str:
		return types.String(strings.ToValidUTF8(string(v.bytes), "\uFFFD"))
	case boolean:
		return types.Bool(v.bytes[0] == 't')
	case number:
		return celNumber(string(v.bytes))
	case structure:
		return jsonFields(v.bytes)
	case array:
		var list []ref.Val
		elements(v.bytes, func(element []byte) bool {
			list = append(list, celValue(raw(element)))
			return true
		})
		return types.NewRefValList(types.DefaultTypeAdapter, list)
	default:
		return types.NullValue
	}
}

func celNumber(s string) ref.Val {
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return types.Int(i)
	}
	if u, err := strconv.ParseUint(s, 10, 64); err == nil {
		return types.Uint(u)
	}
	// Out of range it is ±Inf, which compares as it should.
	f, _ := strconv.ParseFloat(s, 64)
	return types.Double(f)
}

// Find is for [traits.Mapper], as are the methods below.
func (f fields) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return nil, false
	}
	v := f.find(string(name))
	if v.kind == absent {
		return nil, false
	}
	return celValue(v), true
}

func (f fields) Get(key ref.Val) ref.Val {
	if v, ok := f.Find(key); ok {
		return v
	}
	return types.NewErr("no such key: %v", key)
}

func (f fields) Contains(key ref.Val) ref.Val {
	_, ok := f.Find(key)
	return types.Bool(ok)
}

func (f fields) Type() ref.Type { return types.MapType }

func (f fields) Value() any { return f.whole().Value() }

func (f fields) Size() ref.Val { return f.whole().Size() }

func (f fields) Iterator() traits.Iterator { return f.whole().Iterator() }

func (f fields) Equal(other ref.Val) ref.Val { return f.whole().Equal(other) }

func (f fields) ConvertToType(t ref.Type) ref.Val { return f.whole().ConvertToType(t) }

func (f fields) ConvertToNative(t reflect.Type) (any, error) { return f.whole().ConvertToNative(t) }

func (f fields) whole() traits.Mapper {
	m := map[ref.Val]ref.Val{}
	for name, v := range f.all {
		m[types.String(name)] = celValue(v)
	}
	return types.NewRefValMap(types.DefaultTypeAdapter, m)
}
