package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// What encoding/json and the rules of this package say must agree on every input.
func FuzzAgreesWithEncodingJSON(f *testing.F) {
	for _, seed := range []string{
		sample, ``, `{}`, `[]`, `null`, `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `"\ud800"`, `"\ud83d\ude00"`, "\"\xff\"",
		nested(64), nested(65), `{"a":{"b":[1,-0.5e+3,"\\\"\/"]}} `, `[1,]`, `01`, `1e`, `"\u12"`, "\ufeff{}", `{"__proto__":1}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		lax, strict := WellFormed(data), Check(data)
		want := json.Valid(data) && utf8.Valid(data) && depth(data) <= MaxDepth
		if (lax == nil) != want {
			t.Fatalf("WellFormed: %v, the oracle says %v", lax, want)
		}
		if lax != nil && strict == nil {
			t.Fatalf("Check accepts what WellFormed refuses: %v", lax)
		}
		if lax == nil && strict != nil {
			agreesOnStrictness(t, data, strict)
		}
		if strict == nil && json.Valid(data) {
			roundTrips(t, data)
		}
		membersAgree(t, data, lax)
	})
}

// depth counts the brackets outside strings of a valid document.
func depth(data []byte) (deepest int) {
	level, inString := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '[' || c == '{':
			level++
			deepest = max(deepest, level)
		case c == ']' || c == '}':
			level--
		}
	}
	return deepest
}

func agreesOnStrictness(t *testing.T, data []byte, err error) {
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is no *Error", err)
	}
	switch e.Code {
	case DuplicateKey:
		var value any
		var compact bytes.Buffer
		if json.Compact(&compact, data) == nil && json.Unmarshal(data, &value) == nil {
			again, _ := json.Marshal(value)
			var whole, fewer bytes.Buffer
			json.HTMLEscape(&whole, compact.Bytes())
			fewer.Write(again)
			if strings.Count(whole.String(), ":") <= strings.Count(fewer.String(), ":") && !strings.ContainsAny(whole.String(), `\`) {
				t.Fatalf("no key is missing after decoding, but %v", err)
			}
		}
	case LoneSurrogate:
		if !bytes.Contains(bytes.ToLower(data), []byte(`\ud`)) {
			t.Fatalf("no surrogate, but %v", err)
		}
	case NumberTooLong:
		if len(data) <= MaxNumber {
			t.Fatalf("no room for a long number, but %v", err)
		}
	default:
		t.Fatalf("WellFormed accepts what is wrong in general: %v", err)
	}
}

// roundTrips: a strict document has as many members after decoding and encoding as before.
func roundTrips(t *testing.T, data []byte) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		t.Fatalf("strict, but %v", err)
	}
	again, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := tokens(t, data), tokens(t, again); a != b {
		t.Fatalf("%d tokens became %d", a, b)
	}
}

func tokens(t *testing.T, data []byte) (n int) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	for {
		if _, err := decoder.Token(); err != nil {
			return n
		}
		n++
	}
}

func membersAgree(t *testing.T, data []byte, lax error) {
	var object map[string]json.RawMessage
	seen := 0
	err := Members(data, func(key, value []byte) error {
		seen++
		if e := WellFormed(value); e != nil {
			t.Fatalf("member %q is not well formed: %v", key, e)
		}
		if !bytes.Contains(data, value) {
			t.Fatalf("member %q is not a part of the document", key)
		}
		return nil
	})
	if err != nil {
		return
	}
	if lax != nil {
		var e *Error
		if errors.As(lax, &e) && e.Code == TooDeep { // a member may nest as deep as a document
			return
		}
		t.Fatalf("Members accepts what WellFormed refuses: %v", lax)
	}
	if e := json.Unmarshal(data, &object); e != nil || len(object) != seen {
		t.Fatalf("%d members, encoding/json has %d (%v)", seen, len(object), e)
	}
}

// A string is decoded as encoding/json decodes it, where that loses nothing.
func FuzzStringsAgreeWithEncodingJSON(f *testing.F) {
	for _, seed := range []string{`""`, `"a\u00e9\n"`, `"\ud83d\ude00"`, `"\ud800"`, `"\\u0041"`, `"x" `, "\"\xff\""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := String(data)
		if err != nil {
			return
		}
		var want string
		if e := json.Unmarshal(data, &want); e != nil || got != want {
			t.Fatalf("got %q, encoding/json %q (%v)", got, want, e)
		}
	})
}
