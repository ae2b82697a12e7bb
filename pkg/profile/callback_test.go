package profile

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/hookline/hookline/pkg/webhook"
)

func fuseBody(t *testing.T, remote string) []byte {
	t.Helper()
	text, err := json.Marshal(remote)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(`{"type":"financial_connection.sync_data","financial_connection_id":"c1","environment":"sandbox","source":"plaid","remote_data":` + string(text) + `}`)
}

func TestWhatFollowsFromASyncIsWhatTheAggregatorSaid(t *testing.T) {
	profile, _ := Builtin().Get("fuse")
	callback := profile.Callback()
	for name, c := range map[string]struct {
		remote string
		want   string
	}{
		"new transactions at Plaid":        {`{"webhook_type":"TRANSACTIONS","webhook_code":"DEFAULT_UPDATE","new_transactions":3,"error":null}`, `transactions.updates true`},
		"the first part of the history":    {`{"webhook_type":"TRANSACTIONS","webhook_code":"INITIAL_UPDATE","new_transactions":3}`, `transactions.updates false`},
		"a sync that is not complete":      {`{"webhook_type":"TRANSACTIONS","webhook_code":"SYNC_UPDATES_AVAILABLE","historical_update_complete":false}`, `transactions.updates false`},
		"removed transactions":             {`{"webhook_type":"TRANSACTIONS","webhook_code":"TRANSACTIONS_REMOVED","removed_transactions":["a","b"]}`, `transactions.updates true ["a","b"]`},
		"new transactions at MX":           {`{"type":"AGGREGATION","action":"member_data_updated","transactions_created_count":2,"transactions_updated_count":0}`, `transactions.updates true`},
		"nothing new at MX":                {`{"type":"AGGREGATION","action":"member_data_updated","transactions_created_count":0,"transactions_updated_count":0}`, ``},
		"a login that is required":         {`{"webhook_type":"ITEM","webhook_code":"ERROR","error":{"error_code":"ITEM_LOGIN_REQUIRED","status":400}}`, `financial_connection.disconnected`},
		"another error":                    {`{"webhook_type":"ITEM","webhook_code":"ERROR","error":{"error_code":"RATE_LIMIT"}}`, ``},
		"a challenge at MX":                {`{"type":"CONNECTION_STATUS","action":"CHALLENGED"}`, `financial_connection.disconnected`},
		"the user has left":                {`{"webhook_type":"ITEM","webhook_code":"USER_PERMISSION_REVOKED","error":null}`, `financial_connection.finished`},
		"the connection was closed":        {`{"type":"CONNECTION_STATUS","action":"CLOSED"}`, `financial_connection.finished`},
		"transactions and a broken login":  {`{"webhook_type":"TRANSACTIONS","error":{"error_code":"ITEM_LOGIN_REQUIRED"}}`, `transactions.updates true, financial_connection.disconnected`},
		"no JSON":                          {`hello`, ``},
		"a list":                           {`[1]`, ``},
		"fields of another kind":           {`{"webhook_type":7,"error":"x","transactions_created_count":"many"}`, ``},
		"counts that no integer can hold":  {`{"transactions_created_count":12345678901234567890}`, `transactions.updates true`},
		"what nobody has thought of":       {`{}`, ``},
		"a key twice is nothing to act on": {`{"webhook_type":"TRANSACTIONS","webhook_type":"ITEM"}`, ``},
	} {
		t.Run(name, func(t *testing.T) {
			requested, followUps, err := callback.Follow(fuseBody(t, c.remote))
			if err != nil {
				t.Fatal(err)
			}
			if len(requested) != 1 || requested[0].Type != "financial_connection.sync_requested" {
				t.Errorf("requested %+v", requested)
			}
			var got []string
			for _, f := range followUps {
				var data struct {
					ID         string `json:"financial_connection_id"`
					Source     string
					Remote     string          `json:"remote_data"`
					Historical *bool           `json:"historical_transactions_available"`
					Removed    json.RawMessage `json:"removed_transaction_ids"`
				}
				if err := json.Unmarshal(f.Data, &data); err != nil || data.ID != "c1" || data.Source != "fuse" || data.Remote != c.remote {
					t.Errorf("%s: %s (%v)", f.Type, f.Data, err)
				}
				word := f.Type
				if data.Historical != nil {
					word += map[bool]string{true: " true", false: " false"}[*data.Historical]
				}
				if data.Removed != nil {
					word += " " + string(data.Removed)
				}
				got = append(got, word)
			}
			if joined := strings.Join(got, ", "); joined != c.want {
				t.Errorf("got %q, want %q", joined, c.want)
			}
		})
	}
}

func TestABodyIsRecognisedAsItWasSentOrAsAClientPrintsItAgain(t *testing.T) {
	profile, _ := Builtin().Get("fuse")
	e := &webhook.Event{Type: "financial_connection.sync_data", Data: json.RawMessage(`{"financial_connection_id":"c1","source":"mx", "n": 1.0,"7":"\u00e9"}`)}
	sent, signed, key, err := profile.Expect(e)
	if err != nil || key != "c1" {
		t.Fatalf("key %q, %v", key, err)
	}
	const unknown, reordered, known = "unknown", "reordered", "known"
	for body, want := range map[string]string{
		`{"type":"financial_connection.sync_data","financial_connection_id":"c1","source":"mx", "n": 1.0,"7":"\u00e9"}`:          known,
		`{"7":"é","type":"financial_connection.sync_data","financial_connection_id":"c1","source":"mx","n":1}`:                   known,
		`{ "type": "financial_connection.sync_data", "financial_connection_id": "c1", "source": "mx", "n": 1e0, "7": "\u00E9" }`: known,
		`{"7":"é","financial_connection_id":"c1","type":"financial_connection.sync_data","source":"mx","n":1}`:                   reordered,
		`{"7":"é","type":"financial_connection.sync_data","financial_connection_id":"c1","n":1,"source":"mx"}`:                   reordered,
		`{"7":"é","type":"financial_connection.sync_data","financial_connection_id":"c1","source":"mx","n":2}`:                   unknown,
		`{"7":"é","type":"financial_connection.sync_data","financial_connection_id":"c1","source":"mx"}`:                         unknown,
		`{"7":"é","type":"financial_connection.sync_data","financial_connection_id":"c1","source":"mx","n":1,"N":null}`:          unknown,
	} {
		got, gotSigned, err := profile.Fingerprint([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		is := map[[2]bool]string{{true, true}: known, {false, true}: reordered, {false, false}: unknown}[[2]bool{got == sent, gotSigned == signed}]
		if is != want {
			t.Errorf("%s: %q, want %s", body, is, want)
		}
	}
	for _, name := range []string{"fuse", "standard"} {
		p, _ := Builtin().Get(name)
		a, aSigned, err := p.Fingerprint([]byte(`{"a":1,"b":2}`))
		b, bSigned, second := p.Fingerprint([]byte(`{"b":2,"a":1}`))
		if err != nil || second != nil || a == b || (aSigned == bSigned) != (name == "fuse") {
			t.Errorf("%s: the order of keys: %t %t (%v, %v)", name, a == b, aSigned == bSigned, err, second)
		}
	}
}

func TestACallbackThatCannotWorkIsRefused(t *testing.T) {
	profile, _ := Builtin().Get("fuse")
	for name, change := range map[string][2]string{
		"a rule that does not compile": {`remote.action in ["CLOSED", "DISCONTINUED"]`, `remote.action in [`},
		"a window without end":         {"within: 72h", "within: 999999h"},
		"two rules of one name":        {"name: finished\n", "name: disconnected\n"},
		"a value of nothing":           {"{name: source, const: fuse}", "{name: source}"},
		"a type that is none":          {"type: financial_connection.finished", "type: a b"},
	} {
		text := strings.Replace(string(profile.YAML()), change[0], change[1], 1)
		if text == string(profile.YAML()) {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := Parse("fuse.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), "fuse.yaml:") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
