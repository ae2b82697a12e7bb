package filter

import (
	"encoding/json"
	"testing"

	"github.com/hookline/hookline/pkg/webhook"
)

func TestASelectionIsOfTypesAndThenOfWhatIsInTheEvent(t *testing.T) {
	for name, c := range map[string]struct {
		types    []string
		filter   string
		pointers []string // of what the event does not meet
	}{
		"everything":            {nil, ``, nil},
		"its type":              {[]string{"card.issued", "order.*"}, `{}`, nil},
		"another type":          {[]string{"card.*"}, ``, []string{"/eventTypes"}},
		"its data":              {nil, `{"data":{"amount":[5]}}`, nil},
		"other data":            {nil, `{"data":{"amount":[6]}}`, []string{"/filter/data/amount"}},
		"neither":               {[]string{"card.*"}, `{"data":{"amount":[6]}}`, []string{"/eventTypes", "/filter/data/amount"}},
		"what cannot be judged": {nil, `{"cel":"event.data.amount > 'x'"}`, []string{"/filter/cel"}},
	} {
		s, err := Select(c.types, json.RawMessage(c.filter))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		e := &webhook.Event{ID: "e", Type: "order.paid", Tenant: "t", Data: json.RawMessage(`{"amount":5}`)}
		clauses := s.Explain(e)
		if s.Wants(e) != (len(c.pointers) == 0) || len(clauses) != len(c.pointers) {
			t.Errorf("%s: wanted %v, does not meet %v", name, s.Wants(e), clauses)
			continue
		}
		for i := range clauses {
			if clauses[i].Pointer != c.pointers[i] || clauses[i].Detail == "" {
				t.Errorf("%s: %+v, want %s", name, clauses[i], c.pointers[i])
			}
		}
	}
	if _, err := Select(nil, json.RawMessage(`{"magic":1}`)); err == nil {
		t.Error("a filter that is not understood is selected by")
	}
}
