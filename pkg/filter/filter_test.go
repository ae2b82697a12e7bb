package filter

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pkg/webhook"
)

func event(data string) *webhook.Event {
	return &webhook.Event{
		ID: "e-1", Type: "card.issued", Tenant: "default", Timestamp: time.Date(2026, 4, 14, 9, 54, 45, 40_000_000, time.UTC),
		Metadata: json.RawMessage(`{"region":"eu","n":1}`), Data: json.RawMessage(data),
	}
}

func compiled(t testing.TB, filter string) *Filter {
	t.Helper()
	f, err := Compile(json.RawMessage(filter))
	if err != nil {
		t.Fatalf("%s: %v", filter, err)
	}
	return f
}

func TestAPatternDecidesByWhatIsInTheEvent(t *testing.T) {
	for _, c := range []struct {
		filter, data string
		want         bool
	}{
		// Literals are alternatives, and compared exactly.
		{`{"data":{"a":["x","y"]}}`, `{"a":"y"}`, true},
		{`{"data":{"a":["x"]}}`, `{"a":"X"}`, false},
		{`{"data":{"a":["é"]}}`, `{"a":"\u00e9"}`, true},
		{`{"data":{"é":["x"]}}`, `{"\u00e9":"x"}`, true},
		{`{"data":{"a":[100]}}`, `{"a":100.0}`, true},
		{`{"data":{"a":[100]}}`, `{"a":1e2}`, true},
		{`{"data":{"a":[100]}}`, `{"a":"100"}`, false},
		{`{"data":{"a":[0]}}`, `{"a":-0.00}`, true},
		{`{"data":{"a":[12345678901234567890]}}`, `{"a":12345678901234567891}`, false},
		{`{"data":{"a":[0.1]}}`, `{"a":0.10000000000000000001}`, false},
		{`{"data":{"a":[true,null]}}`, `{"a":null}`, true},
		{`{"data":{"a":[true,null]}}`, `{"a":false}`, false},
		// A missing field never matches.
		{`{"data":{"a":[null]}}`, `{}`, false},
		{`{"data":{"a":[{"anything-but":1}]}}`, `{}`, false},
		{`{"data":{"a":{"b":[1]}}}`, `{"a":5}`, false},
		{`{"data":{"a":[{"exists":false}]}}`, `{"b":1}`, true},
		{`{"data":{"a":[{"exists":false},1]}}`, `{"a":2}`, false},
		{`{"data":{"a":{"b":[{"exists":false}]}}}`, `{"c":1}`, true},
		{`{"data":{"a":{"b":[{"exists":false}]}}}`, `{"a":[]}`, true},
		{`{"data":{"a":[{"exists":true}]}}`, `{"a":null}`, true},
		{`{"data":{"a":[{"exists":true}]}}`, `{"a":{}}`, true},
		{`{"data":{"a":[{"exists":true}]}}`, `{"b":{"a":1}}`, false},
		// Operators.
		{`{"data":{"a":[{"prefix":"ab"}]}}`, `{"a":"abc"}`, true},
		{`{"data":{"a":[{"prefix":"ab"}]}}`, `{"a":"a"}`, false},
		{`{"data":{"a":[{"suffix":".png"}]}}`, `{"a":"x.png"}`, true},
		{`{"data":{"a":[{"equals-ignore-case":"ABC"}]}}`, `{"a":"aBc"}`, true},
		{`{"data":{"a":[{"wildcard":"a*b*c"}]}}`, `{"a":"aXXbYYc"}`, true},
		{`{"data":{"a":[{"wildcard":"a*b*c"}]}}`, `{"a":"acb"}`, false},
		{`{"data":{"a":[{"wildcard":"ab*ba"}]}}`, `{"a":"aba"}`, false},
		{`{"data":{"a":[{"wildcard":"a\\*b"}]}}`, `{"a":"a*b"}`, true},
		{`{"data":{"a":[{"wildcard":"a\\*b"}]}}`, `{"a":"axb"}`, false},
		{`{"data":{"a":[{"anything-but":["x",5]}]}}`, `{"a":"y"}`, true},
		{`{"data":{"a":[{"anything-but":["x",5]}]}}`, `{"a":5.0}`, false},
		{`{"data":{"a":[{"anything-but":"x"}]}}`, `{"a":{}}`, false},
		{`{"data":{"a":[{"anything-but":{"prefix":["x","y"]}}]}}`, `{"a":"yy"}`, false},
		{`{"data":{"a":[{"anything-but":{"suffix":"x"}}]}}`, `{"a":1}`, true},
		{`{"data":{"a":[{"numeric":[">",0,"<=",5]}]}}`, `{"a":5.0}`, true},
		{`{"data":{"a":[{"numeric":[">",0,"<=",5]}]}}`, `{"a":5.01}`, false},
		{`{"data":{"a":[{"numeric":["<",-1e3]}]}}`, `{"a":-1000.5}`, true},
		{`{"data":{"a":[{"numeric":[">",1e300]}]}}`, `{"a":1e999999999999999999999}`, true},
		{`{"data":{"a":[{"numeric":["<",1]}]}}`, `{"a":1e-999999999999999999999}`, true},
		{`{"data":{"a":[{"numeric":["=",3]}]}}`, `{"a":"3"}`, false},
		{`{"data":{"amount":[{"numeric":[">",100]}]}}`, `{"amount":100.00000000000000000001}`, true},
		// Several fields must all match, and of a $or one.
		{`{"data":{"a":[1],"b":[2]}}`, `{"b":2,"a":1}`, true},
		{`{"data":{"a":[1],"b":[2]}}`, `{"b":2,"a":2}`, false},
		{`{"data":{"$or":[{"a":[1]},{"b":[2],"c":[3]}]}}`, `{"a":0,"b":2,"c":3}`, true},
		{`{"data":{"$or":[{"a":[1]},{"b":[2],"c":[3]}],"d":[4]}}`, `{"a":1}`, false},
		{`{"$or":[{"event_type":["x"]},{"data":{"a":[1]}}]}`, `{"a":1}`, true},
		{`{"data":{"$or":[{"$or":[{"a":[1]}]},{"a":[2]}]}}`, `{"a":1}`, true},
		// Of a list one element is enough; conditions on objects in a list hold for the same one.
		{`{"data":{"a":["x"]}}`, `{"a":["w",["x"]]}`, true},
		{`{"data":{"a":["x"]}}`, `{"a":[]}`, false},
		{`{"data":{"a":{"b":[1],"c":[2]}}}`, `{"a":[{"b":1,"c":0},{"b":0,"c":2}]}`, false},
		{`{"data":{"a":{"b":[1],"c":[2]}}}`, `{"a":[7,{"b":1,"c":2}]}`, true},
		{`{"data":{"b":[1]}}`, `[{"b":0},{"b":1}]`, true},
		{`{"data":[5]}`, `5`, true},
		{`{"data":["x"]}`, ` "x" `, true},
		{`{"data":{"a":[1]}}`, `null`, false},
		// Of a key that stands twice, the last one counts.
		{`{"data":{"a":[1]}}`, `{"a":1,"a":2}`, false},
		// What looks like structure inside a string is none.
		{`{"data":{"a":[1]}}`, `{"s":"\",\"a\":1,{[","a":2}`, false},
		{`{"data":{"a":[1]}}`, "{\n \"s\" : { \"a\":2 , \"t\":[ \"]\" ] } ,\t\"a\" : 1 }", true},
		// The envelope.
		{`{"event_type":[{"prefix":"card."}],"tenant":["default"]}`, `{}`, true},
		{`{"event_timestamp":[{"prefix":"2026-04-14T09:54:45.04Z"}]}`, `{}`, true},
		{`{"ordering_key":[{"exists":false}]}`, `{}`, true},
		{`{"metadata":{"region":["eu"]},"event_id":["e-1"]}`, `{}`, true},
		{`{"metadata":{"region":["us"]}}`, `{}`, false},
		// CEL.
		{`{"cel":"event.data.amount > 100"}`, `{"amount":100.5}`, true},
		{`{"cel":"event.data.amount > 100"}`, `{"amount":100}`, false},
		{`{"cel":"event.data.amount > 100"}`, `{}`, false},
		{`{"cel":"has(event.data.a) && event.data.a == 'x' || event.event_type.startsWith('card.')"}`, `{}`, true},
		{`{"cel":"event.data.items.exists(i, i.sku == 'a' && i.n >= 2)"}`, `{"items":[{"sku":"a","n":1},{"sku":"a","n":2}]}`, true},
		{`{"cel":"event.event_timestamp.getFullYear() == 2026 && event.metadata.region == 'eu'"}`, `{}`, true},
		{`{"cel":"event.data.id == 9007199254740993"}`, `{"id":9007199254740993}`, true},
		{`{"cel":"event.data.id == 9007199254740993"}`, `{"id":9007199254740992}`, false},
		{`{"cel":"event.data.ok"}`, `{"ok":true}`, true},
	} {
		f, e := compiled(t, c.filter), event(c.data)
		got, err := f.Match(e)
		if got != c.want || err != nil {
			t.Errorf("%s on %s: got %v, %v", c.filter, c.data, got, err)
		}
		if clauses := f.Explain(e); (len(clauses) == 0) != c.want {
			t.Errorf("%s on %s: explained by %v", c.filter, c.data, clauses)
		}
	}
}

func TestNothingIsAFilterThatMatchesEverything(t *testing.T) {
	for _, filter := range []string{"", "null", " {} "} {
		f := compiled(t, filter)
		if matched, err := f.Match(event(`1`)); f != nil || !matched || err != nil || f.Explain(event(`1`)) != nil {
			t.Errorf("%q: %v %v %v", filter, f, matched, err)
		}
	}
}

func TestWhatAFilterCannotMeanIsRefusedWithItsPlace(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 20) + `[1]` + strings.Repeat(`}`, 20)
	for filter, want := range map[string]string{
		`[]`:                               "filter_invalid ",
		`{"data":{`:                        "invalid_json /data",
		`{"data":5}`:                       "filter_invalid /data",
		`{"data":[1],"data":[2]}`:          "duplicate_key /data",
		`{"dta":[1]}`:                      "filter_unknown_field /dta",
		`{"$or":[{"data":[1]},{"x":[2]}]}`: "filter_unknown_field /$or/1/x",
		`{"$or":[]}`:                       "filter_invalid /$or",
		`{"$or":[{}]}`:                     "filter_invalid /$or/0",
		`{"$or":{}}`:                       "filter_invalid /$or",
		`{"event_type":{"a":[1]}}`:         "filter_invalid /event_type",
		`{"data":{"a":[]}}`:                "filter_invalid /data/a",
		`{"data":{"a":{}}}`:                "filter_invalid /data/a",
		`{"data":{"a":"x"}}`:               "filter_invalid /data/a",
		`{"data":{"a/b":[{"cidr":"10.0.0.0/8"}]}}`:                                    "filter_unknown_operator /data/a~1b/0/cidr",
		`{"data":{"a":[1,{"prefix":5}]}}`:                                             "filter_invalid /data/a/1/prefix",
		`{"data":{"a":[{"prefix":"x","suffix":"y"}]}}`:                                "filter_invalid /data/a/0",
		`{"data":{"a":[{}]}}`:                                                         "filter_invalid /data/a/0",
		`{"data":{"a":[[1]]}}`:                                                        "filter_invalid /data/a/0",
		`{"data":{"a":[{"exists":1}]}}`:                                               "filter_invalid /data/a/0/exists",
		`{"data":{"a":[{"numeric":5}]}}`:                                              "filter_invalid /data/a/0/numeric",
		`{"data":{"a":[{"numeric":["!=",5]}]}}`:                                       "filter_invalid /data/a/0/numeric",
		`{"data":{"a":[{"numeric":[">","5"]}]}}`:                                      "filter_invalid /data/a/0/numeric",
		`{"data":{"a":[{"numeric":[">"]}]}}`:                                          "filter_invalid /data/a/0/numeric",
		`{"data":{"a":[{"anything-but":[]}]}}`:                                        "filter_invalid /data/a/0/anything-but",
		`{"data":{"a":[{"anything-but":[{}]}]}}`:                                      "filter_invalid /data/a/0/anything-but",
		`{"data":{"a":[{"anything-but":{"numeric":[]}}]}}`:                            "filter_unknown_operator /data/a/0/anything-but",
		`{"data":{"a":[{"anything-but":{"prefix":[]}}]}}`:                             "filter_invalid /data/a/0/anything-but/prefix",
		`{"data":` + deep + `}`:                                                       "filter_too_costly /data" + strings.Repeat("/a", maxDepth),
		`{"data":{"a":[` + strings.Repeat(`1,`, maxTests) + `1]}}`:                    "filter_too_costly /data/a/250",
		`{"data":{"$or":[` + strings.Repeat(`{"a":[1]},`, maxUnions) + `{"a":[1]}]}}`: "filter_too_costly /data/$or",
		`{"data":["` + strings.Repeat("x", MaxSize) + `"]}`:                           "filter_too_large ",
		`{"cel":5}`:                "filter_invalid /cel",
		`{"cel":"1","data":[1]}`:   "filter_invalid ",
		`{"cel":"event.data.a >"}`: "filter_invalid /cel",
		`{"cel":"evnt.data"}`:      "filter_invalid /cel",
		`{"cel":"1 + 1"}`:          "filter_invalid /cel",
		`{"cel":"event.data.a.all(x, event.data.a.all(y, event.data.a.all(z, x + y + z > 0)))"}`: "filter_too_costly /cel",
		`{"cel":"` + strings.Repeat("(", 100) + "true" + strings.Repeat(")", 100) + `"}`:         "filter_invalid /cel",
	} {
		_, err := Compile(json.RawMessage(filter))
		var refused *Error
		if !errors.As(err, &refused) || string(refused.Code)+" "+refused.Pointer != want || refused.Detail == "" {
			t.Errorf("%.100s: got %v, want %s", filter, err, want)
		}
	}
}

func TestAnExpressionThatCannotBeEvaluatedIsAnErrorAndNoMatch(t *testing.T) {
	list := "[" + strings.Repeat("1,", 50_000) + "1]"
	for expression, data := range map[string]string{
		"event.data.a > 5":                              `{"a":"text"}`,
		"event.data.a / 0 == 1":                         `{"a":1}`,
		"event.data.a":                                  `{"a":1}`,
		"event.data.startsWith(5":                       ``,
		"event.data.a.all(x, x > 0 && x < 5 && x != 3)": `{"a":` + list + `}`,
	} {
		f, err := Compile(json.RawMessage(fmt.Sprintf(`{"cel":%q}`, expression)))
		if data == "" {
			if err == nil {
				t.Errorf("%s is accepted", expression)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		matched, err := f.Match(event(data))
		if matched || err == nil {
			t.Errorf("%s: got %v, %v", expression, matched, err)
		}
		if clauses := f.Explain(event(data)); len(clauses) != 1 || clauses[0].Pointer != "/cel" {
			t.Errorf("%s: explained by %v", expression, clauses)
		}
	}
}

func TestAnExplanationNamesEveryClauseThatFails(t *testing.T) {
	f := compiled(t, `{"event_type":["card.issued"],"data":{"amount":[{"numeric":[">",100]}],"$or":[{"a":[1]},{"b":{"c":["x"]}}],"items":{"n":[9]}}}`)
	got := fmt.Sprint(f.Explain(event(`{"amount":99.50,"b":{"c":"` + strings.Repeat("y", 500) + `"},"items":[{"n":1},{"n":2}]}`)))
	want := `[{/data/amount data.amount is 99.50, wanted [{"numeric":[">",100]}]} {/data/items none of the 2 objects in data.items matches}` +
		` {/data/$or/0/a data.a is absent, wanted [1]} {/data/$or/1/b/c data.b.c is "` + strings.Repeat("y", 80) + `…", wanted ["x"]}]`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func BenchmarkMatch(b *testing.B) {
	var data strings.Builder
	data.WriteString(`{"account":{"id":"acct-7","owner":{"name":"Jane"}},"lines":[`)
	for i := range 12 {
		fmt.Fprintf(&data, `{"sku":"sku-%d","n":%d,"note":"a line of an order, as they are"},`, i, i)
	}
	data.WriteString(`{}],"amount":120.50,"currency":"EUR"}`)
	e := event(data.String())
	for name, filter := range map[string]string{
		"pattern": `{"data":{"amount":[{"numeric":[">",100]}],"currency":["EUR","USD"],"account":{"id":[{"prefix":"acct-"}]}}}`,
		"type":    `{"event_type":[{"prefix":"card."}]}`,
		"cel":     `{"cel":"event.data.amount > 100 && event.data.currency == 'EUR' && event.data.account.id.startsWith('acct-')"}`,
	} {
		f := compiled(b, filter)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(e.Data)))
			for b.Loop() {
				if matched, _ := f.Match(e); !matched {
					b.Fatal("no match")
				}
			}
		})
	}
}
