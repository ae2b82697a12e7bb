package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestAMomentIsATimeOrHowLongAgo(t *testing.T) {
	now := time.Date(2026, 4, 14, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"2h":                        "2026-04-14T10:00:00Z",
		"0s":                        "2026-04-14T12:00:00Z",
		"2026-04-14T09:54:45.04Z":   "2026-04-14T09:54:45.04Z",
		"2026-04-14T09:54:45+02:00": "2026-04-14T07:54:45Z",
	} {
		if got, err := moment(text, now); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", text, got, err, want)
		}
	}
	if got, err := moment("soon", now); err == nil {
		t.Errorf("soon: %s", got)
	}
}

var items = []json.RawMessage{
	json.RawMessage(`{"id":"a","status":"DELIVERED","big":12345678901234567890,"progress":{"done":3},"types":["x","true"],"none":null}`),
	json.RawMessage("{\"id\":\"b\",\"status\":\"PENDING\",\"big\":1.50,\"types\":[],\"none\":\"line\\nbreak\\u001b[31m\"}"),
}

func TestATableShowsMembersAsTheyWereWritten(t *testing.T) {
	var out bytes.Buffer
	if err := (printer{out: &out, format: formatTable}).list(items, columns("ID id", "BIG big", "DONE progress.done", "TYPES types", "NONE none")); err != nil {
		t.Fatal(err)
	}
	want := "ID  BIG                   DONE  TYPES   NONE\n" +
		"a   12345678901234567890  3     x,true  -\n" +
		"b   1.50                  -             line\ufffdbreak\ufffd[31m\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
}

func TestColoursDoNotMoveColumns(t *testing.T) {
	var plain, colored bytes.Buffer
	cols := columns("STATUS status", "ID id")
	if err := (printer{out: &plain, format: formatTable}).list(items, cols); err != nil {
		t.Fatal(err)
	}
	if err := (printer{out: &colored, format: formatTable, color: true}).list(items, cols); err != nil {
		t.Fatal(err)
	}
	stripped := strings.NewReplacer("\x1b[32m", "", "\x1b[33m", "", "\x1b[0m", "").Replace(colored.String())
	if stripped != plain.String() || stripped == colored.String() {
		t.Errorf("got %q, want colours in %q", colored.String(), plain.String())
	}
}

func TestYAMLKeepsOrderAndNumbers(t *testing.T) {
	var out bytes.Buffer
	if err := (printer{out: &out, format: formatYAML}).value(items[0]); err != nil {
		t.Fatal(err)
	}
	want := "id: a\nstatus: DELIVERED\nbig: 12345678901234567890\nprogress:\n  done: 3\ntypes:\n  - x\n  - \"true\"\nnone: null\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
}

func TestEmptyListsSayThatNothingWasFound(t *testing.T) {
	for format, want := range map[string]string{formatTable: "Nothing found.\n", formatJSON: "[]\n"} {
		var out bytes.Buffer
		if err := (printer{out: &out, format: format}).list([]json.RawMessage{}, columns("ID id")); err != nil || out.String() != want {
			t.Errorf("%s: %q, %v", format, out.String(), err)
		}
	}
}
