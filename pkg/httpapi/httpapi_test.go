package httpapi

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestAProblemIsWrittenAsItsMediaType(t *testing.T) {
	w := httptest.NewRecorder()
	Write(w, Problem{Status: 422, Code: "invalid_event", Errors: []FieldError{{Pointer: "/3/event_type", Code: "missing", Detail: "is required"}}})
	if w.Code != 422 || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Fatalf("got %d %q", w.Code, w.Header().Get("Content-Type"))
	}
	want := `{"title":"Unprocessable Entity","status":422,"code":"invalid_event","errors":[{"pointer":"/3/event_type","code":"missing","detail":"is required"}]}` + "\n"
	if got := w.Body.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestOnlyABearerTokenIsAToken(t *testing.T) {
	for header, want := range map[string]string{
		"":                 "",
		"Bearer":           "",
		"Bearer ":          "",
		"Basic abc":        "",
		"Bearer abc":       "abc",
		"bearer abc":       "abc",
		"Bearer  abc ":     "abc",
		"Bearerabc":        "",
		"Token Bearer abc": "",
	} {
		r := &http.Request{Header: http.Header{"Authorization": {header}}}
		if got, ok := Bearer(r); got != want || ok != (want != "") {
			t.Errorf("%q: got %q %v, want %q", header, got, ok, want)
		}
	}
}
