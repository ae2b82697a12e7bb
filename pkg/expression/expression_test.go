package expression

import (
	"errors"
	"testing"
)

var language = NewLanguage(map[string]Kind{"body": Any, "headers": Texts})

func evaluate(t *testing.T, text, body string) (string, error) {
	t.Helper()
	x, err := language.Compile(text, false)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := Tree([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	result, err := x.JSON(map[string]any{"body": tree, "headers": map[string]string{}})
	return string(result), err
}

func TestResultsAreJSONAndKeepEveryDigit(t *testing.T) {
	const body = `{"i":9223372036854775807,"u":18446744073709551615,"d":1.5,"s":"<&>\u00e9","l":[1,null,true],"m":{"b":1,"a":2}}`
	for text, want := range map[string]string{
		"body.i": "9223372036854775807", "body.u": "18446744073709551615", "body.d": "1.5", "body.s": `"<&>é"`,
		"body.l": "[1,null,true]", "body.m": `{"a":2,"b":1}`, "size(body.l) > 2": "true",
	} {
		if got, err := evaluate(t, text, body); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", text, got, err, want)
		}
	}
}

func TestWhatIsMissingIsToldFromWhatIsWrong(t *testing.T) {
	if _, err := evaluate(t, "body.a.b", `{"a":{}}`); !errors.Is(err, ErrMissing) {
		t.Errorf("a field that is not there: %v", err)
	}
	if _, err := evaluate(t, "body.a + 1", `{"a":"x"}`); err == nil || errors.Is(err, ErrMissing) {
		t.Errorf("a sum of text and number: %v", err)
	}
}

func TestExpressionsAreHeldToTheirBoundsWhenTheyAreCompiled(t *testing.T) {
	if _, err := language.Compile("body.all(a, body.all(b, body.all(c, a == b && b == c)))", true); !errors.Is(err, ErrTooCostly) {
		t.Errorf("three loops in each other: %v", err)
	}
	for _, text := range []string{"", "body.", "unknown == 1", "headers.a"} {
		if _, err := language.Compile(text, true); err == nil || errors.Is(err, ErrTooCostly) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestAConditionGivesTrueOrFalse(t *testing.T) {
	x, err := language.Compile("body", true)
	if err != nil {
		t.Fatal(err)
	}
	if holds, err := x.Holds(map[string]any{"body": true}); !holds || err != nil {
		t.Errorf("true: %v, %v", holds, err)
	}
	if _, err := x.Holds(map[string]any{"body": "true"}); !errors.Is(err, ErrNoBool) {
		t.Errorf("a text: %v", err)
	}
	if !x.Uses("body") || x.Uses("headers") {
		t.Error("it uses body alone")
	}
}
