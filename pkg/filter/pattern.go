package filter

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hookline/hookline/pkg/strictjson"
	"github.com/hookline/hookline/pkg/webhook"
)

// object is a pattern for an object. The fields that it and its alternatives name are read in one pass; of a key that stands
// twice, the last one counts, as for nearly every reader of JSON.
type object struct {
	keys []string
	all  conjunction
}

// conjunction matches where every part does.
type conjunction struct {
	members []member
	unions  []union
}

// union is a $or: it matches where one of its options does.
type union struct {
	pointer string
	options []conjunction
}

// member is a condition on one field: a pattern for an object, or a list of alternatives.
type member struct {
	slot    int // of object.keys
	pointer string
	path    string // for people: data.amount
	sub     *object
	list    *alternatives
}

// matchEvent matches the pattern of a whole filter.
func (o *object) matchEvent(e *webhook.Event, r *report) bool {
	var room [8]value
	slots := append(room[:0], make([]value, len(o.keys))...)
	for i, key := range o.keys {
		slots[i] = fieldOf(e, key)
	}
	return o.all.match(slots, r)
}

// match matches a value of an event. In a list one object that matches is enough: all conditions hold for the same one. What
// is no object has none of the fields.
func (o *object) match(v value, at *member, r *report) bool {
	if v.kind != array {
		return o.matchObject(v, r)
	}
	objects, matched := 0, false
	elements(v.bytes, func(element []byte) bool {
		if element := raw(element); element.kind == structure {
			objects++
			matched = o.matchObject(element, nil)
		}
		return !matched
	})
	switch {
	case objects == 0:
		return o.matchObject(value{}, r)
	case !matched:
		r.add(at.pointer, "none of the %d objects in %s matches", objects, at.path)
	}
	return matched
}

func (o *object) matchObject(v value, r *report) bool {
	var room [8]value
	slots := append(room[:0], make([]value, len(o.keys))...)
	if v.kind == structure {
		members(v.bytes, func(key, value []byte) {
			for i, wanted := range o.keys {
				if named(key, wanted) {
					slots[i] = raw(value)
				}
			}
		})
	}
	return o.all.match(slots, r)
}

// named reports whether a key, as it stands between its quotes, says name.
func named(key []byte, name string) bool {
	return string(key) == name || len(key) > len(name) && string(unescaped(key)) == name
}

// unescaped is a key with its escapes resolved.
func unescaped(key []byte) []byte {
	if !slices.Contains(key, '\\') {
		return key
	}
	return unquote(slices.Concat([]byte(`"`), key, []byte(`"`))).bytes
}

// match looks at every part where somebody wants to know which ones fail, otherwise up to the first one that does.
func (c *conjunction) match(slots []value, r *report) bool {
	matched := true
	for i := range c.members {
		m := &c.members[i]
		if m.match(slots[m.slot], r) {
			continue
		}
		if matched = false; r == nil {
			return false
		}
	}
	for i := range c.unions {
		if c.unions[i].match(slots, r) {
			continue
		}
		if matched = false; r == nil {
			return false
		}
	}
	return matched
}

func (u *union) match(slots []value, r *report) bool {
	for i := range u.options {
		if u.options[i].match(slots, nil) {
			return true
		}
	}
	if r != nil {
		for i := range u.options {
			u.options[i].match(slots, r)
		}
	}
	return false
}

func (m *member) match(v value, r *report) bool {
	if m.sub != nil {
		return m.sub.match(v, m, r)
	}
	if m.list.match(v) {
		return true
	}
	if r != nil {
		r.add(m.pointer, "%s is %s, wanted %s", m.path, v.quoted(), m.list)
	}
	return false
}

// compiler counts what a filter consists of.
type compiler struct {
	tests, unions int
}

func compilePattern(fields []field) (*object, error) {
	c := &compiler{}
	o := new(object)
	err := c.conjunction(&o.all, o, place{}, fields)
	return o, err
}

// place is where a compiler stands: in the filter, and in the event.
type place struct {
	pointer string
	path    []string
}

func (p place) in(segment string) place {
	return place{pointer: p.pointer + "/" + strictjson.Escape(segment), path: p.path}
}

func (p place) under(key string) place {
	q := p.in(key)
	q.path = append(slices.Clip(p.path), key)
	return q
}

func (p place) refuse(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Pointer: p.pointer, Detail: fmt.Sprintf(format, args...)}
}

// conjunction compiles the fields of an object, or of an option of a $or, into one of the object o.
func (c *compiler) conjunction(into *conjunction, o *object, at place, fields []field) error {
	for _, f := range fields {
		if f.key == "$or" {
			if err := c.union(into, o, at.in(f.key), f.value); err != nil {
				return err
			}
			continue
		}
		here := at.under(f.key)
		if len(at.path) == 0 && !slices.Contains(root, f.key) {
			return here.refuse(UnknownField, "an event has no such field; it has %s", strings.Join(root, ", "))
		}
		m := member{slot: o.slot(f.key), pointer: here.pointer, path: strings.Join(here.path, ".")}
		var err error
		switch f.value[0] {
		case '{':
			m.sub, err = c.object(here, f.value)
		case '[':
			m.list, err = c.alternatives(here, f.value)
		default:
			err = here.refuse(Invalid, "want a list of the accepted values, as in [%s]", clip(f.value))
		}
		if err != nil {
			return err
		}
		into.members = append(into.members, m)
	}
	return nil
}

func (c *compiler) object(at place, b []byte) (*object, error) {
	if len(at.path) > maxDepth {
		return nil, at.refuse(TooCostly, "objects nest more than %d deep", maxDepth)
	}
	fields := fieldsOf(b)
	if len(fields) == 0 {
		return nil, at.refuse(Invalid, `{} says nothing; to ask for the field alone, write [{"exists": true}]`)
	}
	if len(at.path) == 1 && at.path[0] != "data" && at.path[0] != "metadata" {
		return nil, at.refuse(Invalid, "%s is text: want a list of the accepted values", at.path[0])
	}
	o := new(object)
	return o, c.conjunction(&o.all, o, at, fields)
}

func (c *compiler) union(into *conjunction, o *object, at place, b []byte) error {
	if b[0] != '[' {
		return at.refuse(Invalid, "want a list of patterns, of which one must match")
	}
	options := elementsOf(b)
	if len(options) == 0 {
		return at.refuse(Invalid, "a list without patterns never matches")
	}
	if c.unions += len(options); c.unions > maxUnions {
		return at.refuse(TooCostly, "more than %d alternatives in $or", maxUnions)
	}
	u := union{pointer: at.pointer, options: make([]conjunction, len(options))}
	for i, option := range options {
		here := at.in(strconv.Itoa(i))
		fields := fieldsOf(option)
		if len(fields) == 0 {
			return here.refuse(Invalid, "want a pattern with at least one field")
		}
		if err := c.conjunction(&u.options[i], o, here, fields); err != nil {
			return err
		}
	}
	into.unions = append(into.unions, u)
	return nil
}

func (o *object) slot(key string) int {
	if i := slices.Index(o.keys, key); i >= 0 {
		return i
	}
	o.keys = append(o.keys, key)
	return len(o.keys) - 1
}

// clip quotes the beginning of a part of the filter.
func clip(b []byte) string {
	const most = 40
	if len(b) <= most {
		return string(b)
	}
	return strings.ToValidUTF8(string(b[:most]), "") + "…"
}
