package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func nested(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }

func TestWhatIsWrongHasACodeAndAPlace(t *testing.T) {
	long := strings.Repeat("1", MaxNumber+1)
	for _, test := range []struct {
		name, in string
		lax      Code // of WellFormed
		strict   Code // of Check
		pointer  string
	}{
		{"nothing", "", Syntax, Syntax, ""},
		{"white space", " \n", Syntax, Syntax, ""},
		{"a byte order mark", "\ufeff{}", Syntax, Syntax, ""},
		{"two documents", "{} {}", TrailingData, TrailingData, ""},
		{"a NUL at the end", "{}\x00", TrailingData, TrailingData, ""},
		{"a bare word", "nul", Syntax, Syntax, ""},
		{"a word that goes on", "nullx", TrailingData, TrailingData, ""},
		{"a single quote", "'a'", Syntax, Syntax, ""},
		{"a trailing comma", `[1,]`, Syntax, Syntax, "/1"},
		{"a trailing comma in an object", `{"a":1,}`, Syntax, Syntax, ""},
		{"no colon", `{"a" 1}`, Syntax, Syntax, ""},
		{"an open object", `{"a":{"b":1`, Syntax, Syntax, "/a"},
		{"a leading zero", `01`, TrailingData, TrailingData, ""},
		{"a leading plus", `+1`, Syntax, Syntax, ""},
		{"a number without digits", `-`, Syntax, Syntax, ""},
		{"a fraction without digits", `{"a":1.}`, Syntax, Syntax, "/a"},
		{"an exponent without digits", `1e`, Syntax, Syntax, ""},
		{"a control character", "\"\t\"", Syntax, Syntax, ""},
		{"an unknown escape", `"\x"`, Syntax, Syntax, ""},
		{"a short escape", `"\u12"`, Syntax, Syntax, ""},
		{"a backslash at the end", `"\`, Syntax, Syntax, ""},
		{"invalid UTF-8 in a string", "{\"a\":[0,\"\xff\"]}", InvalidUTF8, InvalidUTF8, "/a/1"},
		{"invalid UTF-8 in a key", "{\"\xc3\":1}", InvalidUTF8, InvalidUTF8, ""},
		{"invalid UTF-8 outside", "[\xff]", InvalidUTF8, InvalidUTF8, "/0"},
		{"an encoded surrogate", "\"\xed\xa0\x80\"", InvalidUTF8, InvalidUTF8, ""},
		{"an overlong encoding", "\"\xc0\xaf\"", InvalidUTF8, InvalidUTF8, ""},
		{"64 levels", nested(64), "", "", ""},
		{"65 levels", nested(65), TooDeep, TooDeep, strings.Repeat("/0", 64)},
		{"a hundred thousand levels", strings.Repeat(`{"a":`, 100_000), TooDeep, TooDeep, strings.Repeat("/a", 64)},
		{"a duplicate key", `{"a":1,"b":2,"a":3}`, "", DuplicateKey, "/a"},
		{"a duplicate key in another spelling", `{"a":1,"\u0061":3}`, "", DuplicateKey, "/a"},
		{"a duplicate key below", `[{"x":{"a/b":1,"a/b":2}}]`, "", DuplicateKey, "/0/x/a~1b"},
		{"the same key in two objects", `[{"a":1},{"a":{"a":2}}]`, "", "", ""},
		{"keys that differ in case", `{"a":1,"A":2}`, "", "", ""},
		{"a lone high surrogate", `{"a~":"\ud800"}`, "", LoneSurrogate, "/a~0"},
		{"a lone low surrogate", `"\udc00"`, "", LoneSurrogate, ""},
		{"surrogates the wrong way round", `"\udc00\ud800"`, "", LoneSurrogate, ""},
		{"a surrogate before another escape", `"\ud800\u0041"`, "", LoneSurrogate, ""},
		{"a lone surrogate in a key", `{"\ud800":1}`, "", LoneSurrogate, ""},
		{"a pair of surrogates", `"\ud83d\ude00"`, "", "", ""},
		{"a number of 64 characters", long[:MaxNumber], "", "", ""},
		{"a number of 65 characters", `{"n":` + long + `}`, "", NumberTooLong, "/n"},
		{"numbers", `[0,-0,1.5,1e9,1E+9,-1.0e-9]`, "", "", ""},
		{"the empty key", `{"":{"":1,"":2}}`, "", DuplicateKey, "//"},
		{"everything", ` { "a" : [ true , false , null , "\"\\\/\b\f\n\r\t\u00e9é" ] } `, "", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			expect(t, "WellFormed", WellFormed([]byte(test.in)), test.lax, test.pointer)
			expect(t, "Check", Check([]byte(test.in)), test.strict, test.pointer)
		})
	}
}

func expect(t *testing.T, what string, err error, code Code, pointer string) {
	t.Helper()
	if code == "" {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		return
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Errorf("%s: got %v, want %s", what, err, code)
		return
	}
	if e.Code != code || e.Pointer != pointer || e.Error() == "" {
		t.Errorf("%s: got %s at %q (%v), want %s at %q", what, e.Code, e.Pointer, e, code, pointer)
	}
}

func TestManyKeysAreStillToldApart(t *testing.T) {
	var doc bytes.Buffer
	for i := range 200 {
		doc.WriteString(`,"k` + strings.Repeat("x", i) + `":1`)
	}
	doc.Bytes()[0] = '{'
	if err := Check(append(bytes.Clone(doc.Bytes()), '}')); err != nil {
		t.Error(err)
	}
	for _, again := range []string{`"k"`, `"k` + strings.Repeat("x", 15) + `"`, `"k` + strings.Repeat("x", 199) + `"`} {
		if err := Check([]byte(doc.String() + "," + again + ":1}")); err == nil {
			t.Errorf("%s passed twice", again)
		}
	}
}

func TestMembersArePassedByteForByte(t *testing.T) {
	doc := ` {"a" : 1.0e0 ,"\u0062":{"x":1,"x":[ 2 ]} , "c": "\ud800", "" :null} `
	var got []string
	if err := Members([]byte(doc), func(k, v []byte) error { got = append(got, string(k)+"="+string(v)); return nil }); err != nil {
		t.Fatal(err)
	}
	if g, want := strings.Join(got, "|"), `a=1.0e0|b={"x":1,"x":[ 2 ]}|c="\ud800"|=null`; g != want {
		t.Errorf("got %s, want %s", g, want)
	}
}

func TestMembersRefuse(t *testing.T) {
	for in, want := range map[string]Error{
		`[1]`:                                {Code: WrongType},
		`"x"`:                                {Code: WrongType},
		`7`:                                  {Code: WrongType},
		`nope`:                               {Code: Syntax},
		``:                                   {Code: Syntax},
		`{} x`:                               {Code: TrailingData},
		`{"a":1,"a":2}`:                      {Code: DuplicateKey, Pointer: "/a"},
		`{"a":1,"\u0061":2}`:                 {Code: DuplicateKey, Pointer: "/a"},
		`{"\\":tru}`:                         {Code: Syntax, Pointer: `/\`},
		`{"d":` + nested(65) + `}`:           {Code: TooDeep, Pointer: "/d" + strings.Repeat("/0", 64)},
		`{"a":1`:                             {Code: Syntax},
		"{\"a\":{\"b\":\"\xff\"}}":           {Code: InvalidUTF8, Pointer: "/a/b"},
		`{"d":` + nested(64) + `,"d":1}`:     {Code: DuplicateKey, Pointer: "/d"},
		`{"d":` + nested(64) + `,"e":[1 2]}`: {Code: Syntax, Pointer: "/e"},
	} {
		expect(t, in, Members([]byte(in), func(_, _ []byte) error { return nil }), want.Code, want.Pointer)
	}
}

func TestElementsOfAnArray(t *testing.T) {
	var got []string
	visit := func(i int, v []byte) error { got = append(got, string(v)); return nil }
	if err := Elements([]byte(` [ {"a": 1} ,2, [ ] ] `), visit); err != nil {
		t.Fatal(err)
	}
	if g := strings.Join(got, "|"); g != `{"a": 1}|2|[ ]` {
		t.Errorf("got %s", g)
	}
	if err := Elements([]byte(`[]`), visit); err != nil {
		t.Error(err)
	}
	expect(t, "an object", Elements([]byte(`{}`), visit), WrongType, "")
	expect(t, "a bad element", Elements([]byte(`[1,{"a":-}]`), visit), Syntax, "/1/a")
	expect(t, "trailing data", Elements([]byte(`[1]]`), visit), TrailingData, "")
}

func TestTheVisitorsErrorEndsTheWalk(t *testing.T) {
	stop := errors.New("stop")
	if err := Members([]byte(`{"a":1,"b":2}`), func(_, _ []byte) error { return stop }); err != stop {
		t.Errorf("Members: %v", err)
	}
	if err := Elements([]byte(`[1,2]`), func(int, []byte) error { return stop }); err != stop {
		t.Errorf("Elements: %v", err)
	}
}

func TestStringsAreDecoded(t *testing.T) {
	for in, want := range map[string]string{
		`""`:                                 "",
		`"plain é"`:                          "plain é",
		`"\"\\\/\b\f\n\r\t"`:                 "\"\\/\b\f\n\r\t",
		`"\u00e9\ud83d\ude00\u0000"`:         "é😀\x00",
		`"x\\u0041"`:                         `x\u0041`,
		`"` + strings.Repeat("a", 300) + `"`: strings.Repeat("a", 300),
	} {
		if got, err := String([]byte(in)); err != nil || got != want {
			t.Errorf("%s: got %q, %v", in, got, err)
		}
	}
	for in, code := range map[string]Code{`1`: WrongType, `null`: WrongType, ``: WrongType, `"a`: Syntax, `"a"b`: TrailingData, `"\ud800"`: LoneSurrogate} {
		_, err := String([]byte(in))
		expect(t, in, err, code, "")
	}
}

const sample = `{"event_id":"a3ef2c1e-5b7d-4e0e-9a27-d5a2c5b9f101","event_type":"balance.extracted","event_timestamp":"2026-04-14T09:54:45.040Z",` +
	`"tenant":"default","ordering_key":"acct-7","metadata":{"source":"core-banking","region":"eu-west-1"},` +
	`"data":{"account":{"id":"acct-7","iban":"DE89370400440532013000","holder":"Jürgen Müller"},"balance":{"amount":"1234567.89","currency":"EUR"},` +
	`"lines":[{"n":1,"v":12.5},{"n":2,"v":-3},{"n":3,"v":1e3}],"final":true,"note":null,"big":12345678901234567890}}`

func BenchmarkMembersOf500Bytes(b *testing.B) {
	data := []byte(sample)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if err := Members(data, func(_, _ []byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheckOf500Bytes(b *testing.B) {
	data := []byte(sample)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if err := Check(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodingJSONValidOf500Bytes(b *testing.B) {
	data := []byte(sample)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if !json.Valid(data) {
			b.Fatal("invalid")
		}
	}
}
