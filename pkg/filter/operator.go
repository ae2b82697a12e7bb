package filter

import (
	"bytes"
	"strconv"
	"strings"
)

// alternatives is a list of which one must match.
type alternatives struct {
	tests []test
	// present and missing are {"exists": true} and {"exists": false}.
	present, missing bool
	text             string
}

// test decides about one value that is neither absent nor a list.
type test func(v value) bool

// String is the list as it stands in the filter.
func (a *alternatives) String() string { return a.text }

// match: of a list in an event one element that matches is enough, at any depth of lists.
func (a *alternatives) match(v value) bool {
	switch v.kind {
	case absent:
		return a.missing
	case array:
		if a.present {
			return true
		}
		matched := false
		elements(v.bytes, func(element []byte) bool {
			matched = a.match(raw(element))
			return !matched
		})
		return matched
	}
	if a.present {
		return true
	}
	for _, test := range a.tests {
		if test(v) {
			return true
		}
	}
	return false
}

func (c *compiler) alternatives(at place, b []byte) (*alternatives, error) {
	list := elementsOf(b)
	if len(list) == 0 {
		return nil, at.refuse(Invalid, "an empty list never matches")
	}
	a := &alternatives{text: clip(b)}
	for i, element := range list {
		if err := c.alternative(a, at.in(strconv.Itoa(i)), element); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (c *compiler) alternative(a *alternatives, at place, b []byte) error {
	if b[0] == '{' {
		fields := fieldsOf(b)
		if len(fields) == 1 && fields[0].key == "exists" {
			switch string(fields[0].value) {
			case "true":
				a.present = true
			case "false":
				a.missing = true
			default:
				return at.in("exists").refuse(Invalid, "want true or false")
			}
			return c.count(at)
		}
		if len(fields) != 1 {
			return at.refuse(Invalid, "want one operator in an object; several conditions on a field are numeric, or fields of a $or")
		}
		t, err := c.operator(at.in(fields[0].key), fields[0])
		a.tests = append(a.tests, t)
		return err
	}
	t, err := c.literal(at, b)
	a.tests = append(a.tests, t)
	return err
}

func (c *compiler) count(at place) error {
	if c.tests++; c.tests > maxTests {
		return at.refuse(TooCostly, "more than %d alternatives in all", maxTests)
	}
	return nil
}

// literal compares exactly: 100 and 1e2 are the same number, 100 and "100" are not the same value.
func (c *compiler) literal(at place, b []byte) (test, error) {
	if err := c.count(at); err != nil {
		return nil, err
	}
	switch want := raw(b); want.kind {
	case str:
		return func(v value) bool { return v.kind == str && bytes.Equal(v.bytes, want.bytes) }, nil
	case number:
		return compare("=", want.bytes), nil
	case boolean, null:
		return func(v value) bool { return v.kind == want.kind && bytes.Equal(v.bytes, want.bytes) }, nil
	default:
		return nil, at.refuse(Invalid, "want a string, a number, true, false, null or an operator")
	}
}

// operators on text, by their names.
var operators = map[string]func(want string) func(have []byte) bool{
	"prefix": func(want string) func([]byte) bool {
		return func(have []byte) bool { return bytes.HasPrefix(have, []byte(want)) }
	},
	"suffix": func(want string) func([]byte) bool {
		return func(have []byte) bool { return bytes.HasSuffix(have, []byte(want)) }
	},
	"equals-ignore-case": func(want string) func([]byte) bool {
		return func(have []byte) bool { return bytes.EqualFold(have, []byte(want)) }
	},
	"wildcard": wildcard,
}

func (c *compiler) operator(at place, f field) (test, error) {
	if _, known := operators[f.key]; known {
		return c.text(at, f)
	}
	switch f.key {
	case "anything-but":
		return c.anythingBut(at, f.value)
	case "numeric":
		return c.numeric(at, f.value)
	default:
		return nil, at.refuse(UnknownOperator, "unknown operator; there are prefix, suffix, equals-ignore-case, wildcard, anything-but, numeric, exists")
	}
}

// text compiles an operator that compares with a string.
func (c *compiler) text(at place, f field) (test, error) {
	if err := c.count(at); err != nil {
		return nil, err
	}
	want := raw(f.value)
	if want.kind != str {
		return nil, at.refuse(Invalid, "want a string")
	}
	holds := operators[f.key](string(want.bytes))
	return func(v value) bool { return v.kind == str && holds(v.bytes) }, nil
}

// anythingBut matches every string, number, boolean and null but those listed. In a list of the event one such element is
// enough, as for every operator.
func (c *compiler) anythingBut(at place, b []byte) (test, error) {
	var not []test
	add := func(t test, err error) error {
		not = append(not, t)
		return err
	}
	var err error
	switch b[0] {
	case '{':
		fields := fieldsOf(b)
		if len(fields) != 1 || operators[fields[0].key] == nil {
			return nil, at.refuse(UnknownOperator, "want values, or one of prefix, suffix, equals-ignore-case, wildcard")
		}
		at = at.in(fields[0].key)
		for _, want := range listed(fields[0].value) {
			if err = add(c.text(at, field{fields[0].key, want})); err != nil {
				return nil, err
			}
		}
	default:
		for _, want := range listed(b) {
			if err = add(c.literal(at, want)); err != nil {
				return nil, err
			}
		}
	}
	if len(not) == 0 {
		return nil, at.refuse(Invalid, "want at least one value")
	}
	return func(v value) bool {
		if v.kind == structure {
			return false
		}
		for _, t := range not {
			if t(v) {
				return false
			}
		}
		return true
	}, nil
}

// listed are the elements of a list, or the one value.
func listed(b []byte) [][]byte {
	if b[0] == '[' {
		return elementsOf(b)
	}
	return [][]byte{b}
}

// numeric is a list of comparisons that must all hold: [">", 0, "<=", 5].
func (c *compiler) numeric(at place, b []byte) (test, error) {
	form := func() error {
		return at.refuse(Invalid, `want a list such as [">", 0, "<=", 5] with =, <, <=, > or >=`)
	}
	if b[0] != '[' {
		return nil, form()
	}
	parts := elementsOf(b)
	if len(parts) == 0 || len(parts)%2 != 0 || len(parts) > 4 {
		return nil, form()
	}
	var all []test
	for i := 0; i < len(parts); i += 2 {
		if err := c.count(at); err != nil {
			return nil, err
		}
		operation, want := raw(parts[i]), raw(parts[i+1])
		t := compare(string(operation.bytes), want.bytes)
		if operation.kind != str || want.kind != number || t == nil {
			return nil, form()
		}
		all = append(all, t)
	}
	return func(v value) bool {
		for _, t := range all {
			if !t(v) {
				return false
			}
		}
		return true
	}, nil
}

// compare is nil for an unknown operation.
func compare(operation string, number_ []byte) test {
	var holds func(int) bool
	switch operation {
	case "=":
		holds = func(c int) bool { return c == 0 }
	case "<":
		holds = func(c int) bool { return c < 0 }
	case "<=":
		holds = func(c int) bool { return c <= 0 }
	case ">":
		holds = func(c int) bool { return c > 0 }
	case ">=":
		holds = func(c int) bool { return c >= 0 }
	default:
		return nil
	}
	want := parseNumber(number_)
	return func(v value) bool {
		if v.kind != number {
			return false
		}
		have := parseNumber(v.bytes)
		return holds(have.compare(&want))
	}
}

// wildcard knows * for any text; \* and \\ are the characters themselves. It looks at every byte about once.
func wildcard(want string) func(have []byte) bool {
	parts := wildcardParts(want)
	first, last := []byte(parts[0]), []byte(parts[len(parts)-1])
	if len(parts) == 1 {
		return func(have []byte) bool { return bytes.Equal(have, first) }
	}
	middle := parts[1 : len(parts)-1]
	return func(have []byte) bool {
		if len(have) < len(first)+len(last) || !bytes.HasPrefix(have, first) || !bytes.HasSuffix(have, last) {
			return false
		}
		have = have[len(first) : len(have)-len(last)]
		for _, part := range middle {
			i := bytes.Index(have, []byte(part))
			if i < 0 {
				return false
			}
			have = have[i+len(part):]
		}
		return true
	}
}

// wildcardParts are the texts between the stars.
func wildcardParts(want string) []string {
	var parts []string
	var part strings.Builder
	for i := 0; i < len(want); i++ {
		switch c := want[i]; {
		case c == '\\' && i+1 < len(want) && (want[i+1] == '*' || want[i+1] == '\\'):
			i++
			part.WriteByte(want[i])
		case c == '*':
			parts = append(parts, part.String())
			part.Reset()
		default:
			part.WriteByte(c)
		}
	}
	return append(parts, part.String())
}
