package ecmajson

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how deep a text may be nested.
const maxDepth = 128

// Sorter prints JSON texts anew. It keeps its working memory for the next one; the zero value may be used, by one goroutine at a time.
type Sorter struct {
	members []sortedMember
	spare   []byte
	// parsed leaves members where JSON.parse puts them, and looks for no duplicates.
	parsed bool
}

// sortedMember is where one member of an object that is being written stands in dst.
type sortedMember struct {
	start, keyEnd, end int
	// index is the key as an array index, or -1.
	index int64
}

// AppendSorted appends the sorted form of one JSON text. Errors are *[Error].
func (s *Sorter) AppendSorted(dst, text []byte) ([]byte, error) {
	s.parsed = false
	return s.append(dst, text)
}

// AppendParsed appends what JSON.stringify prints of what JSON.parse has read: as in the sorted form, but of the members only those
// that are array indices change their place. The text must have a sorted form.
func (s *Sorter) AppendParsed(dst, text []byte) ([]byte, error) {
	s.parsed = true
	return s.append(dst, text)
}

// Size is how many bytes of working memory are kept.
func (s *Sorter) Size() int { return cap(s.spare) }

func (s *Sorter) append(dst, text []byte) ([]byte, error) {
	if !utf8.Valid(text) {
		return dst, refuse(NotJSON, "the body is not valid UTF-8")
	}
	s.members = s.members[:0]
	dst, i, err := s.value(dst, text, skipSpace(text, 0), 0)
	if err != nil {
		return dst, err
	}
	if skipSpace(text, i) != len(text) {
		return dst, notJSON(i)
	}
	return dst, nil
}

func notJSON(i int) error { return refuse(NotJSON, "the body is not valid JSON at byte %d", i) }

func (s *Sorter) value(dst, b []byte, i, depth int) ([]byte, int, error) {
	if i >= len(b) {
		return dst, i, notJSON(i)
	}
	switch c := b[i]; {
	case c == '{':
		return s.object(dst, b, i, depth+1)
	case c == '[':
		return s.array(dst, b, i, depth+1)
	case c == '"':
		return appendSortedString(dst, b, i)
	case c == '-' || '0' <= c && c <= '9':
		return appendSortedNumber(dst, b, i)
	}
	for _, word := range []string{"true", "false", "null"} {
		if bytes.HasPrefix(b[i:], []byte(word)) {
			return append(dst, word...), i + len(word), nil
		}
	}
	return dst, i, notJSON(i)
}

func (s *Sorter) array(dst, b []byte, i, depth int) ([]byte, int, error) {
	if depth > maxDepth {
		return dst, i, refuse(Depth, "the body is nested deeper than %d", maxDepth)
	}
	dst = append(dst, '[')
	if i = skipSpace(b, i+1); i < len(b) && b[i] == ']' {
		return append(dst, ']'), i + 1, nil
	}
	for {
		var err error
		if dst, i, err = s.value(dst, b, i, depth); err != nil {
			return dst, i, err
		}
		i = skipSpace(b, i)
		if i >= len(b) || b[i] != ',' && b[i] != ']' {
			return dst, i, notJSON(i)
		}
		dst = append(dst, b[i])
		if b[i] == ']' {
			return dst, i + 1, nil
		}
		i = skipSpace(b, i+1)
	}
}

// object writes the members as they come, each already sorted inside, and then puts them into order.
func (s *Sorter) object(dst, b []byte, i, depth int) ([]byte, int, error) {
	if depth > maxDepth {
		return dst, i, refuse(Depth, "the body is nested deeper than %d", maxDepth)
	}
	dst = append(dst, '{')
	if i = skipSpace(b, i+1); i < len(b) && b[i] == '}' {
		return append(dst, '}'), i + 1, nil
	}
	base := len(s.members)
	for {
		var err error
		if dst, i, err = s.member(dst, b, i, depth); err != nil {
			return dst, i, err
		}
		i = skipSpace(b, i)
		if i >= len(b) || b[i] != ',' && b[i] != '}' {
			return dst, i, notJSON(i)
		}
		if b[i] == '}' {
			break
		}
		dst = append(dst, ',')
		i = skipSpace(b, i+1)
	}
	if err := s.order(dst, base, i); err != nil {
		return dst, i, err
	}
	s.members = s.members[:base]
	return append(dst, '}'), i + 1, nil
}

func (s *Sorter) member(dst, b []byte, i, depth int) ([]byte, int, error) {
	if i >= len(b) || b[i] != '"' {
		return dst, i, notJSON(i)
	}
	m, at := sortedMember{start: len(dst)}, i
	dst, i, err := appendSortedString(dst, b, i)
	if err != nil {
		return dst, i, err
	}
	m.keyEnd = len(dst)
	key := dst[m.start+1 : m.keyEnd-1]
	if string(key) == "__proto__" {
		return dst, i, refuse(Proto, "the body has a key __proto__ at byte %d", at)
	}
	m.index = arrayIndex(key)
	if i = skipSpace(b, i); i >= len(b) || b[i] != ':' {
		return dst, i, notJSON(i)
	}
	if dst, i, err = s.value(append(dst, ':'), b, skipSpace(b, i+1), depth); err != nil {
		return dst, i, err
	}
	m.end = len(dst)
	s.members = append(s.members, m)
	return dst, i, nil
}

// order sorts the members from base on, which stand in dst from the first one's start to its end.
func (s *Sorter) order(dst []byte, base, at int) error {
	list := s.members[base:]
	compare := func(a, b sortedMember) int { return s.compare(dst, a, b) }
	sorted := slices.IsSortedFunc(list, compare)
	start := list[0].start
	if !sorted {
		slices.SortStableFunc(list, compare)
	}
	for i := 1; i < len(list) && !s.parsed; i++ {
		if compare(list[i-1], list[i]) == 0 {
			return refuse(Duplicate, "the object that ends at byte %d of the body has a key twice", at)
		}
	}
	if sorted {
		return nil
	}
	s.spare = append(s.spare[:0], dst[start:]...)
	out := dst[start:start]
	for i, m := range list {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, s.spare[m.start-start:m.end-start]...)
	}
	return nil
}

func (s *Sorter) compare(dst []byte, a, b sortedMember) int {
	switch {
	case a.index >= 0 && b.index >= 0:
		return cmp.Compare(a.index, b.index)
	case a.index >= 0:
		return -1
	case b.index >= 0:
		return 1
	case s.parsed:
		return 0
	}
	return compareKeys(dst[a.start+1:a.keyEnd-1], dst[b.start+1:b.keyEnd-1])
}

// arrayIndex is the key as an array index of ECMAScript (0 to 2^32-2 in canonical form), or -1.
func arrayIndex(key []byte) int64 {
	if len(key) == 0 || len(key) > 10 || key[0] == '0' && len(key) > 1 {
		return -1
	}
	var n int64
	for _, c := range key {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int64(c-'0')
	}
	if n > math.MaxUint32-1 {
		return -1
	}
	return n
}

// compareKeys orders two keys in their sorted spelling by UTF-16 code units.
func compareKeys(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] && plain(a[n]) {
		n++
	}
	if n < len(a) && n < len(b) && plain(a[n]) && plain(b[n]) {
		return cmp.Compare(a[n], b[n])
	}
	ua, ub := units{rest: a[n:]}, units{rest: b[n:]}
	for {
		x, y := ua.next(), ub.next()
		if x != y || x < 0 {
			return cmp.Compare(x, y)
		}
	}
}

// plain reports whether a byte is one code unit by itself.
func plain(c byte) bool { return c < utf8.RuneSelf && c != '\\' }

// units reads the UTF-16 code units of a string in its sorted spelling.
type units struct {
	rest []byte
	low  rune // the second half of a pair whose first was read
}

// next is the next code unit, or -1 at the end.
func (u *units) next() rune {
	if low := u.low; low != 0 {
		u.low = 0
		return low
	}
	if len(u.rest) == 0 {
		return -1
	}
	r, n := nextRune(u.rest)
	u.rest = u.rest[n:]
	if r > 0xffff {
		r, u.low = utf16.EncodeRune(r)
	}
	return r
}

// nextRune reads one code point of a string in its sorted spelling. A lone surrogate is its own value.
func nextRune(s []byte) (rune, int) {
	if s[0] != '\\' {
		return utf8.DecodeRune(s)
	}
	if s[1] == 'u' {
		return hex4(s[2:]), 6
	}
	return shortEscape(s[1]), 2
}

// shortEscape is what a backslash and one other character stand for, 0 where they are no escape.
func shortEscape(c byte) rune {
	switch c {
	case '"', '\\', '/':
		return rune(c)
	case 'b':
		return '\b'
	case 't':
		return '\t'
	case 'n':
		return '\n'
	case 'f':
		return '\f'
	case 'r':
		return '\r'
	default:
		return 0
	}
}

// appendSortedString appends the string that begins at b[i] in its sorted spelling, and returns the index after it.
func appendSortedString(dst, b []byte, i int) ([]byte, int, error) {
	dst = append(dst, '"')
	i++
	start := i
	for i < len(b) {
		switch c := b[i]; {
		case c == '"':
			return append(append(dst, b[start:i]...), '"'), i + 1, nil
		case c < ' ':
			return dst, i, notJSON(i)
		case c == '\\':
			r, n := unescape(b[i:])
			if n == 0 {
				return dst, i, notJSON(i)
			}
			dst = appendRune(append(dst, b[start:i]...), r)
			i += n
			start = i
		default:
			i++
		}
	}
	return dst, i, notJSON(i)
}

// unescape reads the escape at the start of s; n is 0 where it is not one. An escaped surrogate pair is one code point.
func unescape(s []byte) (r rune, n int) {
	switch {
	case len(s) < 2:
		return 0, 0
	case s[1] != 'u':
		if r = shortEscape(s[1]); r == 0 {
			return 0, 0
		}
		return r, 2
	case len(s) < 6:
		return 0, 0
	}
	if r = hex4(s[2:]); r < 0 {
		return 0, 0
	}
	if utf16.IsSurrogate(r) && len(s) >= 12 && s[6] == '\\' && s[7] == 'u' {
		if pair := utf16.DecodeRune(r, hex4(s[8:])); pair != utf8.RuneError {
			return pair, 12
		}
	}
	return r, 6
}

// hex4 is the value of four hexadecimal digits, or -1.
func hex4(s []byte) rune {
	r, err := strconv.ParseUint(string(s[:4]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(r)
}

func appendRune(dst []byte, r rune) []byte {
	switch {
	case r < ' ' || r == '"' || r == '\\':
		return appendEscape(dst, byte(r))
	case utf16.IsSurrogate(r):
		return append(dst, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
	default:
		return utf8.AppendRune(dst, r)
	}
}

// appendSortedNumber appends the number that begins at b[i] as JavaScript prints the double nearest to it.
func appendSortedNumber(dst, b []byte, i int) ([]byte, int, error) {
	end, plain := scanNumber(b, i)
	if end < 0 {
		return dst, i, notJSON(i)
	}
	// A whole number of up to 15 digits is a double exactly and prints as it stands; only -0 prints as 0.
	if plain && end-i <= 15 && b[i] != '-' {
		return append(dst, b[i:end]...), end, nil
	}
	f, err := strconv.ParseFloat(string(b[i:end]), 64)
	if err != nil {
		return dst, i, refuse(Number, "the number at byte %d of the body is greater than a double can hold", i)
	}
	return AppendNumber(dst, f), end, nil
}

// scanNumber returns the index after the JSON number at i (-1 where it is none), and whether it has digits only.
func scanNumber(b []byte, i int) (end int, plain bool) {
	plain = true
	if b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if i = digits(b, i); i < 0 {
		return -1, false
	}
	if i < len(b) && b[i] == '.' {
		plain = false
		if i = digits(b, i+1); i < 0 {
			return -1, false
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		plain = false
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if i = digits(b, i); i < 0 {
			return -1, false
		}
	}
	return i, plain
}

// digits returns the index after one or more digits at i, or -1.
func digits(b []byte, i int) int {
	start := i
	for i < len(b) && '0' <= b[i] && b[i] <= '9' {
		i++
	}
	if i == start {
		return -1
	}
	return i
}

// AppendNumber appends a finite double as JavaScript prints it.
func AppendNumber(dst []byte, f float64) []byte {
	if f == 0 {
		return append(dst, '0')
	}
	if size := math.Abs(f); size >= 1e-6 && size < 1e21 {
		return strconv.AppendFloat(dst, f, 'f', -1, 64)
	}
	dst = strconv.AppendFloat(dst, f, 'e', -1, 64)
	// Go writes at least two digits of exponent, JavaScript as few as there are.
	if n := len(dst); n >= 4 && dst[n-2] == '0' && (dst[n-3] == '-' || dst[n-3] == '+') {
		dst[n-2] = dst[n-1]
		dst = dst[:n-1]
	}
	return dst
}
