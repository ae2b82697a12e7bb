package filter

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/hookline/hookline/pkg/strictjson"
)

type kind byte

const (
	absent kind = iota
	null
	boolean
	number
	str
	array
	structure // an object
	instant   // a time as RFC 3339, for CEL; to a pattern it is text
)

// value is a value of an event, still as the producer wrote it. Of a string it is what stands between the quotes, with escapes
// resolved.
type value struct {
	kind  kind
	bytes []byte
}

// text is a field that Hookline knows as a string; an empty one was not stated.
func text(s string) value {
	if s == "" {
		return value{}
	}
	return value{kind: str, bytes: []byte(s)}
}

// raw looks at a JSON value, white space around it allowed. What is not JSON is absent: events have been checked before.
func raw(b []byte) value {
	b = bytes.Trim(b, " \t\r\n")
	if len(b) == 0 {
		return value{}
	}
	switch c := b[0]; c {
	case '"':
		return unquote(b)
	case '{':
		return value{kind: structure, bytes: b}
	case '[':
		return value{kind: array, bytes: b}
	case 't', 'f':
		return value{kind: boolean, bytes: b}
	case 'n':
		return value{kind: null, bytes: b}
	default:
		if c == '-' || '0' <= c && c <= '9' {
			return value{kind: number, bytes: b}
		}
		return value{}
	}
}

func unquote(b []byte) value {
	if len(b) < 2 {
		return value{}
	}
	if bytes.IndexByte(b, '\\') < 0 {
		return value{kind: str, bytes: b[1 : len(b)-1]}
	}
	s, err := strictjson.String(b)
	if err != nil { // a lone surrogate: no text equals it, and yet it is there
		return value{kind: str, bytes: b[1 : len(b)-1]}
	}
	return value{kind: str, bytes: []byte(s)}
}

// quoted is the beginning of the value, for people.
func (v value) quoted() string {
	const most = 80
	switch v.kind {
	case absent:
		return "absent"
	case array:
		return "a list"
	case structure:
		return "an object"
	}
	s := string(v.bytes)
	if len(s) > most {
		s = s[:most]
		for !utf8.ValidString(s) && len(s) > most-utf8.UTFMax {
			s = s[:len(s)-1]
		}
		s += "…"
	}
	if v.kind == str {
		return `"` + strings.ToValidUTF8(s, "\uFFFD") + `"`
	}
	return s
}

// members calls visit with every member of an object: its key, between its quotes, and the bytes of its value. It wants JSON
// that has been checked, and ends early where it is none. It is fast because it looks at nothing but strings and brackets.
func members(b []byte, visit func(key, value []byte)) {
	for i := space(b, 1); i < len(b) && b[i] == '"'; {
		end := skipString(b, i)
		key := b[i+1 : max(end-1, i+1)]
		if i = space(b, end); i >= len(b) || b[i] != ':' {
			return
		}
		i = space(b, i+1)
		start := i
		if i = skip(b, i); i <= start {
			return
		}
		visit(key, b[start:i])
		if i = space(b, i); i >= len(b) || b[i] != ',' {
			return
		}
		i = space(b, i+1)
	}
}

// elements calls visit with every element of an array until it returns false.
func elements(b []byte, visit func(value []byte) bool) {
	for i := space(b, 1); i < len(b) && b[i] != ']'; {
		start := i
		if i = skip(b, i); i <= start || !visit(b[start:i]) {
			return
		}
		if i = space(b, i); i >= len(b) || b[i] != ',' {
			return
		}
		i = space(b, i+1)
	}
}

func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// skip returns where the value that begins at i ends.
func skip(b []byte, i int) int {
	if i >= len(b) {
		return i
	}
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
		return skipNested(b, i)
	}
	for i < len(b) && b[i] != ',' && b[i] != '}' && b[i] != ']' && b[i] > ' ' {
		i++
	}
	return i
}

func skipNested(b []byte, i int) int {
	for depth := 0; i < len(b); i++ {
		switch structural[b[i]] {
		case 0:
		case '"':
			i = skipString(b, i) - 1
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return i
}

// structural are the bytes that matter outside strings: a quote, an opening and a closing bracket.
var structural = [256]byte{'"': '"', '{': '{', '[': '{', '}': '}', ']': '}'}

// skipString looks for the next quote, which is the end unless an odd number of backslashes stands before it.
func skipString(b []byte, i int) int {
	for start := i + 1; ; {
		n := bytes.IndexByte(b[min(start, len(b)):], '"')
		if n < 0 {
			return len(b)
		}
		end := start + n
		slashes := 0
		for end-1-slashes > i && b[end-1-slashes] == '\\' {
			slashes++
		}
		if start = end + 1; slashes%2 == 0 {
			return start
		}
	}
}
