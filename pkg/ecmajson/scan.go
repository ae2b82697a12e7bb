package ecmajson

import (
	"bytes"
	"errors"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// AppendString appends a JSON string as JavaScript prints it: only what must be escaped is. Invalid UTF-8 becomes U+FFFD.
func AppendString(dst []byte, s string) []byte {
	return append(AppendText(append(dst, '"'), s), '"')
}

// AppendText is [AppendString] without the quotes.
func AppendText(dst []byte, s string) []byte {
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(append(dst, s[start:i]...), "\ufffd"...)
				start = i + 1
			}
			i += size
			continue
		}
		if c < ' ' || c == '"' || c == '\\' {
			dst = appendEscape(append(dst, s[start:i]...), c)
			start = i + 1
		}
		i++
	}
	return append(dst, s[start:]...)
}

func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\b':
		return append(dst, '\\', 'b')
	case '\t':
		return append(dst, '\\', 't')
	case '\n':
		return append(dst, '\\', 'n')
	case '\f':
		return append(dst, '\\', 'f')
	case '\r':
		return append(dst, '\\', 'r')
	default:
		return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
	}
}

// Errors of [Members].
var (
	ErrNotObject = errors.New("not a JSON object")
	ErrNotJSON   = errors.New("not valid JSON")
)

// Members calls f with each member of a JSON object (the key with its quotes) and returns what stands between the
// braces. It finds the ends of values without validating what is inside them.
func Members(object []byte, f func(key []byte) error) (inner []byte, err error) {
	b := bytes.Trim(object, " \t\r\n")
	if len(b) < 2 || b[0] != '{' || b[len(b)-1] != '}' {
		return nil, ErrNotObject
	}
	i := skipSpace(b, 1)
	for first := true; b[i] != '}' || !first; first = false {
		end := SkipString(b, i)
		if end < 0 {
			return nil, ErrNotJSON
		}
		if err := f(b[i:end]); err != nil {
			return nil, err
		}
		if i = skipSpace(b, end); i >= len(b) || b[i] != ':' {
			return nil, ErrNotJSON
		}
		if i = skipValue(b, skipSpace(b, i+1)); i < 0 {
			return nil, ErrNotJSON
		}
		if i = skipSpace(b, i); i >= len(b) || b[i] != ',' {
			break
		}
		i = skipSpace(b, i+1)
	}
	if i != len(b)-1 {
		return nil, ErrNotJSON
	}
	return bytes.Trim(b[1:i], " \t\r\n"), nil
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r') {
		i++
	}
	return i
}

// SkipString returns the index after the string that begins at i, or -1.
func SkipString(b []byte, i int) int {
	if i >= len(b) || b[i] != '"' {
		return -1
	}
	for i++; i < len(b); i++ {
		switch b[i] {
		case '"':
			return i + 1
		case '\\':
			i++
		}
	}
	return -1
}

// skipValue returns the index after the value that begins at i, or -1.
func skipValue(b []byte, i int) int {
	start, depth := i, 0
	for i < len(b) {
		switch b[i] {
		case '"':
			if i = SkipString(b, i); i < 0 {
				return -1
			}
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth < 0 {
				return nonEmpty(start, i)
			}
			if depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return nonEmpty(start, i)
			}
		}
		i++
	}
	return -1
}

func nonEmpty(start, end int) int {
	if start == end {
		return -1
	}
	return end
}

// SameKey reports whether a JSON string with its quotes spells a name, however it is escaped.
func SameKey(quoted []byte, name string) bool {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1:len(quoted)-1]) == name
	}
	var buf [64]byte
	plain, _, err := appendSortedString(buf[:0], quoted, 0)
	return err == nil && string(plain) == `"`+string(AppendText(nil, name))+`"`
}
