package strictjson

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner walks over a document once. Its methods start at the first byte of what they read and leave i behind the last
// one. Pointers of errors are made while unwinding, so that a good document pays nothing for them.
type scanner struct {
	b      []byte
	i      int
	strict bool
}

func (s *scanner) fail(code Code, detail string) *Error {
	return &Error{Code: code, Offset: s.i, Detail: detail}
}

// peek is the byte at i, or 0 at the end: a NUL is nowhere valid outside a string.
func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// end wants nothing but white space.
func (s *scanner) end() *Error {
	if s.space(); s.i < len(s.b) {
		return s.fail(TrailingData, "data after the end of the document")
	}
	return nil
}

// notA tells a document of another type from one that is no JSON at all.
func (s *scanner) notA(want string) *Error {
	start := s.i
	if err := s.value(MaxDepth); err != nil {
		return err
	}
	return &Error{Code: WrongType, Offset: start, Detail: "want an " + want}
}

func (s *scanner) unexpected() *Error {
	if s.i >= len(s.b) {
		return s.fail(Syntax, "unexpected end")
	}
	if r, size := utf8.DecodeRune(s.b[s.i:]); r == utf8.RuneError && size == 1 {
		return s.fail(InvalidUTF8, "invalid UTF-8")
	}
	return s.fail(Syntax, "unexpected character")
}

// value reads one value that may nest depth levels.
func (s *scanner) value(depth int) *Error {
	switch c := s.peek(); c {
	case '"':
		_, err := s.str()
		return err
	case '{':
		return s.object(depth)
	case '[':
		return s.array(depth)
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		if c == '-' || '0' <= c && c <= '9' {
			return s.number()
		}
		return s.unexpected()
	}
}

func (s *scanner) literal(word string) *Error {
	for j := range len(word) {
		if s.peek() != word[j] {
			return s.unexpected()
		}
		s.i++
	}
	return nil
}

func (s *scanner) object(depth int) *Error {
	if depth == 0 {
		return s.fail(TooDeep, "nested more than 64 deep")
	}
	if !s.strict {
		return s.members(nil, depth-1)
	}
	var keys keySet
	return s.members(&keys, depth-1)
}

func (s *scanner) members(keys *keySet, depth int) (err *Error) {
	for more := s.open('}'); more && err == nil; more, err = s.next('}') {
		if _, _, err := s.member(keys, depth); err != nil {
			return err
		}
	}
	return err
}

func (s *scanner) array(depth int) *Error {
	if depth == 0 {
		return s.fail(TooDeep, "nested more than 64 deep")
	}
	index := 0
	var err *Error
	for more := s.open(']'); more && err == nil; more, err = s.next(']') {
		if err := s.value(depth - 1); err != nil {
			return err.within(strconv.Itoa(index))
		}
		index++
	}
	return err
}

// open steps over the opening bracket; more says whether an element follows, at which it stands.
func (s *scanner) open(closing byte) (more bool) {
	s.i++
	s.space()
	if s.peek() == closing {
		s.i++
		return false
	}
	return true
}

// next steps over the comma or the closing bracket behind an element.
func (s *scanner) next(closing byte) (more bool, err *Error) {
	s.space()
	switch s.peek() {
	case ',':
		s.i++
		s.space()
		return true, nil
	case closing:
		s.i++
		return false, nil
	default:
		return false, s.unexpected()
	}
}

// member reads a key, which it unescapes, and its value. Where keys is given, the key must be new to it.
func (s *scanner) member(keys *keySet, depth int) (key, value []byte, err *Error) {
	if s.peek() != '"' {
		return nil, nil, s.unexpected()
	}
	at := s.i
	if key, err = s.str(); err != nil {
		return nil, nil, err
	}
	if bytes.IndexByte(key, '\\') >= 0 {
		key = unescape(key)
	}
	if keys != nil && !keys.add(key) {
		s.i = at
		return nil, nil, s.fail(DuplicateKey, "duplicate key").within(string(key))
	}
	if s.space(); s.peek() != ':' {
		return nil, nil, s.unexpected()
	}
	s.i++
	s.space()
	start := s.i
	if err = s.value(depth); err != nil {
		return nil, nil, err.within(string(key))
	}
	return key, s.b[start:s.i], nil
}

// str reads a string and returns what stands between its quotes, still escaped.
func (s *scanner) str() ([]byte, *Error) {
	s.i++
	start := s.i
	for {
		s.i += plainRun(s.b[s.i:])
		if s.i == len(s.b) {
			return nil, s.fail(Syntax, "unexpected end")
		}
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return s.b[start : s.i-1], nil
		case c == '\\':
			if err := s.escape(); err != nil {
				return nil, err
			}
		case c < ' ':
			return nil, s.fail(Syntax, "control character in a string")
		default:
			r, size := utf8.DecodeRune(s.b[s.i:])
			if r == utf8.RuneError && size == 1 {
				return nil, s.fail(InvalidUTF8, "invalid UTF-8")
			}
			s.i += size
		}
	}
}

// plainRun counts the bytes at the start of b that need no second look.
func plainRun(b []byte) int {
	for i, c := range b {
		if !plain[c] {
			return i
		}
	}
	return len(b)
}

// plain are the bytes of a string that need no second look.
var plain = func() (t [256]bool) {
	for c := ' '; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

func (s *scanner) escape() *Error {
	if s.i+1 == len(s.b) {
		s.i++
		return s.unexpected()
	}
	switch s.b[s.i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.i += 2
		return nil
	case 'u':
	default:
		return s.fail(Syntax, "unknown escape")
	}
	r, ok := hex4(s.b[s.i:])
	if !ok {
		return s.fail(Syntax, "unfinished \\u escape")
	}
	if !s.strict || !utf16.IsSurrogate(r) {
		s.i += 6
		return nil
	}
	low, ok := hex4(s.b[s.i+6:])
	if !ok || utf16.DecodeRune(r, low) == utf8.RuneError {
		return s.fail(LoneSurrogate, "lone surrogate")
	}
	s.i += 12
	return nil
}

// hex4 reads \uXXXX at the start of b.
func hex4(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	r, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	return rune(r), err == nil
}

func (s *scanner) number() *Error {
	start := s.i
	if s.peek() == '-' {
		s.i++
	}
	switch c := s.peek(); {
	case c == '0':
		s.i++
	case '1' <= c && c <= '9':
		s.digits()
	default:
		return s.unexpected()
	}
	if s.peek() == '.' {
		s.i++
		if !s.digits() {
			return s.unexpected()
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.i++
		if c := s.peek(); c == '+' || c == '-' {
			s.i++
		}
		if !s.digits() {
			return s.unexpected()
		}
	}
	if s.strict && s.i-start > MaxNumber {
		s.i = start
		return s.fail(NumberTooLong, "number longer than 64 characters")
	}
	return nil
}

func (s *scanner) digits() bool {
	start := s.i
	for s.i < len(s.b) && '0' <= s.b[s.i] && s.b[s.i] <= '9' {
		s.i++
	}
	return s.i > start
}

// unescape decodes the inside of a string that str accepted. A lone surrogate, which only a lax walk accepts, becomes
// U+FFFD.
func unescape(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); {
		if b[i] != '\\' {
			out = append(out, b[i])
			i++
			continue
		}
		if b[i+1] != 'u' {
			out = append(out, simpleEscapes[b[i+1]])
			i += 2
			continue
		}
		r, _ := hex4(b[i:])
		i += 6
		if utf16.IsSurrogate(r) {
			low, _ := hex4(b[i:])
			if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
				i += 6
			}
		}
		out = utf8.AppendRune(out, r)
	}
	return out
}

var simpleEscapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// keySet remembers the keys of one object: in a list while they are few, which most objects' are, then in a map, so that
// a hostile object costs no more than its size.
type keySet struct {
	few  [fewKeys][]byte
	n    int
	many map[string]struct{}
}

const fewKeys = 16

// add reports whether the key is new.
func (k *keySet) add(key []byte) bool {
	if k.many != nil {
		if _, ok := k.many[string(key)]; ok {
			return false
		}
		k.many[string(key)] = struct{}{}
		return true
	}
	for _, seen := range k.few[:k.n] {
		if string(seen) == string(key) {
			return false
		}
	}
	k.few[k.n] = key
	k.n++
	if k.n == fewKeys {
		k.many = make(map[string]struct{}, 2*fewKeys)
		for _, seen := range k.few {
			k.many[string(seen)] = struct{}{}
		}
	}
	return true
}
