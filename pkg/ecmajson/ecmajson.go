// Package ecmajson prints JSON texts as ECMAScript does, to the byte: a receiver that runs JavaScript checks signatures of what
// JSON.stringify makes of what JSON.parse has read.
//
// The sorted form of a text is what becomes of it with JSON.parse and then
//
//	JSON.stringify(value, (key, v) => v is an object ? its members re-inserted in the order of Object.keys(v).sort() : v)
//
// Members come in the order of the property table, not in the order of insertion: keys that are array indices first, by
// number, then the others by UTF-16 code units. Numbers print as doubles do, strings with the fewest escapes, lone
// surrogates as \udxxx. https://tc39.es/ecma262/#sec-ordinaryownpropertykeys, #sec-numeric-types-number-tostring,
// #sec-quotejsonstring.
//
// Refused is what a JavaScript receiver would not see as it was written: duplicate keys, a key __proto__ (which the
// re-insertion would make the object's prototype), a number that overflows a double, and what is not JSON at all.
package ecmajson

import "fmt"

// Kind says what is wrong with a text that has no sorted form.
type Kind string

// The kinds of [Error].
const (
	NotJSON   Kind = "not_json" // or not UTF-8
	Duplicate Kind = "duplicate_key"
	Proto     Kind = "proto_key"
	Number    Kind = "number"
	Depth     Kind = "depth"
)

// Error is a text that has no sorted form. Detail names places, never what the text holds there.
type Error struct {
	Kind   Kind
	Detail string
}

func (e *Error) Error() string { return string(e.Kind) + ": " + e.Detail }

func refuse(kind Kind, format string, args ...any) error {
	return &Error{Kind: kind, Detail: fmt.Sprintf(format, args...)}
}
