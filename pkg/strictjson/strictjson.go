// Package strictjson checks JSON from outside before anything reads it, and hands out the raw bytes of its parts, so that
// what passes through passes byte for byte. encoding/json takes the last of two equal keys, replaces invalid UTF-8,
// matches keys whatever their case and nests 10,000 deep: two readers of one document can then see two documents.
// The package decodes nothing but strings.
package strictjson

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// Bounds of what is accepted.
const (
	MaxDepth  = 64 // arrays and objects within each other
	MaxNumber = 64 // bytes of one number
)

// Code is a stable name for what is wrong with a document.
type Code string

// The codes.
const (
	Syntax        Code = "invalid_json"
	TrailingData  Code = "trailing_data"
	InvalidUTF8   Code = "invalid_utf8"
	TooDeep       Code = "too_deep"
	DuplicateKey  Code = "duplicate_key"
	LoneSurrogate Code = "lone_surrogate"
	NumberTooLong Code = "number_too_long"
	WrongType     Code = "wrong_type"
)

// Error says what is wrong, and where.
type Error struct {
	Code Code
	// Pointer is the RFC 6901 pointer of the innermost value that could still be named; "" is the whole document.
	Pointer string
	// Offset counts bytes from the start of what was checked.
	Offset int
	Detail string
}

func (e *Error) Error() string {
	if e.Pointer == "" {
		return fmt.Sprintf("%s at byte %d", e.Detail, e.Offset)
	}
	return fmt.Sprintf("%s at byte %d, in %s", e.Detail, e.Offset, e.Pointer)
}

// within puts a key or an index in front of the pointer.
func (e *Error) within(segment string) *Error {
	e.Pointer = "/" + Escape(segment) + e.Pointer
	return e
}

var escaper = strings.NewReplacer("~", "~0", "/", "~1")

// Escape writes a key as a segment of an RFC 6901 pointer.
func Escape(key string) string { return escaper.Replace(key) }

// WellFormed checks that data is exactly one JSON value (RFC 8259) in valid UTF-8, nested at most [MaxDepth] deep.
// Duplicate keys, lone surrogates in escapes and long numbers pass. The error is an [*Error].
func WellFormed(data []byte) error { return document(data, false) }

// Check is [WellFormed] and also refuses duplicate keys, lone surrogates and numbers longer than [MaxNumber], at every
// depth: the document means the same to every reader.
func Check(data []byte) error { return document(data, true) }

func document(data []byte, strict bool) error {
	s := scanner{b: data, strict: strict}
	s.space()
	if err := s.value(MaxDepth); err != nil {
		return err
	}
	if err := s.end(); err != nil {
		return err
	}
	return nil
}

// Members checks that data is one object without duplicate keys whose values are each [WellFormed] on their own, and
// calls visit with each key, unescaped, and the raw bytes of its value, without the white space around. Both alias data
// or are valid during the call only. visit's error ends the walk and is returned as it is. What visit has seen counts
// only once Members returned nil: what is wrong may come later.
func Members(data []byte, visit func(key, value []byte) error) error {
	s := scanner{b: data}
	s.space()
	if s.peek() != '{' {
		return s.notA("object")
	}
	var seen keySet
	var err *Error
	for more := s.open('}'); more && err == nil; more, err = s.next('}') {
		key, value, wrong := s.member(&seen, MaxDepth)
		if wrong != nil {
			return wrong
		}
		if err := visit(key, value); err != nil {
			return err
		}
	}
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return err
	}
	return nil
}

// Elements is [Members] for one array: visit gets the index and the raw bytes of each element. An element may be an
// object whose members are each [WellFormed].
func Elements(data []byte, visit func(index int, value []byte) error) error {
	s := scanner{b: data}
	s.space()
	if s.peek() != '[' {
		return s.notA("array")
	}
	index := 0
	var err *Error
	for more := s.open(']'); more && err == nil; more, err = s.next(']') {
		start := s.i
		if wrong := s.value(MaxDepth + 1); wrong != nil {
			return wrong.within(strconv.Itoa(index))
		}
		if err := visit(index, s.b[start:s.i]); err != nil {
			return err
		}
		index++
	}
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return err
	}
	return nil
}

// String decodes one JSON string; a lone surrogate in it is an error, not U+FFFD.
func String(value []byte) (string, error) {
	s := scanner{b: value, strict: true}
	if s.peek() != '"' {
		return "", &Error{Code: WrongType, Detail: "want a string"}
	}
	text, err := s.str()
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return "", err
	}
	if bytes.IndexByte(text, '\\') < 0 {
		return string(text), nil
	}
	return string(unescape(text)), nil
}
