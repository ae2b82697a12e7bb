package api

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/event"
	"github.com/hookline/hookline/pkg/topic"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

func mxSpec() map[string]any {
	return map[string]any{
		"verify":     map[string]any{"scheme": "hmac", "header": "X-Signature"},
		"id":         map[string]any{"header": "X-Request-Id"},
		"connection": map[string]any{"aggregator": "mx", "remoteId": map[string]any{"pointer": "/member_guid"}},
		"event": map[string]any{
			"type": map[string]any{"const": "financial_connection.sync_data"}, "orderingKey": map[string]any{"connection": "id"},
			"data": []any{map[string]any{"name": "financial_connection_id", "connection": "id"}, map[string]any{"name": "remote_data", "raw": true}},
		},
	}
}

func (r *running) source(name string) answer {
	r.t.Helper()
	return r.must(http.StatusCreated, http.MethodPost, "/sources", map[string]any{"name": name, "spec": mxSpec()})
}

func (r *running) connect(remoteID, connectionID string) string {
	r.t.Helper()
	made := r.must(http.StatusCreated, http.MethodPost, "/connections", map[string]any{"items": []any{
		map[string]any{"aggregator": "mx", "remoteId": remoteID, "connectionId": connectionID, "environment": "sandbox"},
	}})
	return made.items()[0]["id"].(string)
}

func TestASourceIsMadeChangedAndRotated(t *testing.T) {
	t.Parallel()
	r := start(t)
	made := r.source("mx")
	id, value := made.str("id"), made.str("secretValue")
	if value == "" || made.str("path") != "/v1/sources/"+id || made.str("status") != "active" {
		t.Fatalf("made %s", made.text)
	}
	if got := r.must(http.StatusOK, http.MethodGet, "/sources/"+id, nil); strings.Contains(got.text, value) || got.body["spec"] == nil {
		t.Errorf("got %s", got.text)
	}
	if a := r.must(http.StatusConflict, http.MethodPost, "/sources", map[string]any{"name": "mx", "spec": mxSpec()}); a.code() != "name_taken" {
		t.Errorf("twice: %s", a.text)
	}
	patched := r.must(http.StatusOK, http.MethodPatch, "/sources/"+id, map[string]any{"status": "disabled"}, "If-Match", made.header.Get("ETag"))
	if patched.str("status") != "disabled" || patched.header.Get("ETag") == made.header.Get("ETag") {
		t.Errorf("patched %s", patched.text)
	}
	if a := r.must(http.StatusPreconditionFailed, http.MethodPatch, "/sources/"+id, map[string]any{"name": "lost"}, "If-Match", made.header.Get("ETag")); a.code() != "version_mismatch" {
		t.Errorf("lost update: %s", a.text)
	}
	rotated := r.must(http.StatusOK, http.MethodPost, "/sources/"+id+"/rotate", map[string]any{"secretValue": "chosen by the third party"})
	if versions := rotated.body["secretVersions"].([]any); len(versions) != 2 || rotated.body["secretValue"] != nil {
		t.Errorf("rotated %s", rotated.text)
	}
	if again := r.call(http.MethodPost, "/sources/"+id+"/rotate", map[string]any{"overlap": "0s"}); again.code() != "rotation_in_progress" {
		t.Errorf("rotated within the overlap: %s", again.text)
	}
	if at := r.must(http.StatusOK, http.MethodPost, "/sources/"+id+"/rotate", map[string]any{"overlap": "0s", "force": true}); len(at.body["secretVersions"].([]any)) != 1 || at.str("secretValue") == "" {
		t.Errorf("rotated at once %s", at.text)
	}
	stored, err := r.db.Source(t.Context(), webhook.DefaultTenant, id)
	if err != nil || len(stored.Versions) != 1 || stored.Versions[0].Number != 3 {
		t.Errorf("stored %+v (%v)", stored, err)
	}
	if list := r.must(http.StatusOK, http.MethodGet, "/sources", nil); len(list.items()) != 1 {
		t.Errorf("list %s", list.text)
	}
	r.must(http.StatusNoContent, http.MethodDelete, "/sources/"+id, nil)
	r.must(http.StatusNotFound, http.MethodGet, "/sources/"+id, nil)
}

func TestASourceThatCannotWorkIsRefusedWithThePlace(t *testing.T) {
	t.Parallel()
	r := start(t)
	spec := mxSpec()
	spec["verify"] = map[string]any{"scheme": "hmac", "header": "X", "encoding": "base32"}
	spec["event"] = map[string]any{"type": map[string]any{"cel": "body."}}
	a := r.must(http.StatusUnprocessableEntity, http.MethodPost, "/sources", map[string]any{"name": "s", "spec": spec})
	if got := a.pointers(); a.code() != "source_spec_invalid" || !slices.Equal(got, []string{"/spec/verify/encoding", "/spec/event/type/cel"}) {
		t.Errorf("got %s", a.text)
	}
	spec = mxSpec()
	spec["verify"] = map[string]any{"scheme": "ed25519", "header": "X", "key": map[string]any{"encoding": "hex"}}
	for _, value := range []string{"", "00"} { // one that is made is no public key of theirs
		a := r.must(http.StatusUnprocessableEntity, http.MethodPost, "/sources", map[string]any{"name": "s", "spec": spec, "secretValue": value})
		if a.code() != "secret_does_not_fit" {
			t.Errorf("secret %q: %s", value, a.text)
		}
	}
}

func TestConnectionsAreTakenWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	r := start(t)
	item := func(remoteID, client string) map[string]any {
		return map[string]any{"aggregator": "mx", "remoteId": remoteID, "connectionId": "c-" + remoteID, "client": client}
	}
	id := r.connect("a", "c-a")
	if a := r.must(http.StatusConflict, http.MethodPost, "/connections", map[string]any{"items": []any{item("b", ""), item("a", "")}}); a.code() != "remote_id_taken" {
		t.Errorf("taken: %s", a.text)
	}
	a := r.must(http.StatusUnprocessableEntity, http.MethodPost, "/connections", map[string]any{"items": []any{item("b", ""), item("b", ""), item("c", "nobody")}})
	if !slices.Equal(a.pointers(), []string{"/items/1/remoteId", "/items/2/client"}) {
		t.Errorf("refused: %s", a.text)
	}
	r.must(http.StatusCreated, http.MethodPost, "/tenants", map[string]any{"id": "acme"})
	r.must(http.StatusCreated, http.MethodPost, "/connections", map[string]any{"items": []any{item("b", "acme"), item("c", "")}})
	if list := r.must(http.StatusOK, http.MethodGet, "/connections?remoteId=b&aggregator=mx", nil); len(list.items()) != 1 || list.items()[0]["client"] != "acme" {
		t.Errorf("list %s", list.text)
	}
	acme := r.key("acme", webhook.Permissions()...)
	if a := r.callAs(acme, http.MethodPost, "/connections", map[string]any{"items": []any{item("d", "default")}}); a.status != http.StatusUnprocessableEntity || a.code() != "unknown_tenant" {
		t.Errorf("another tenant named by one that may not: %d %s", a.status, a.text)
	}
	if got := r.must(http.StatusOK, http.MethodGet, "/connections/"+id, nil); got.str("connectionId") != "c-a" || got.str("client") != "default" {
		t.Errorf("got %s", got.text)
	}
	r.must(http.StatusNoContent, http.MethodDelete, "/connections/"+id, nil)
	r.must(http.StatusNotFound, http.MethodGet, "/connections/"+id, nil)
}

// rejected writes what ingest writes of a request whose connection is unknown.
func (r *running) rejected(sourceID, requestID, remoteID string) {
	r.t.Helper()
	client, err := r.kafka.Client(r.kafka.Producer()...)
	if err != nil {
		r.t.Fatal(err)
	}
	defer client.Close()
	header := func(name, value string) kgo.RecordHeader { return kgo.RecordHeader{Key: name, Value: []byte(value)} }
	body := &kgo.Record{Topic: r.kafka.Topics.Rejected, Key: []byte(sourceID), Value: []byte(`{"member_guid":"` + remoteID + `"}`), Headers: []kgo.RecordHeader{
		header(topic.HeaderReason, "unknown_connection"), header(topic.HeaderSourceID, sourceID), header(topic.HeaderSourceHeader+"x-request-id", requestID),
	}}
	if err := client.ProduceSync(r.t.Context(), body).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
	told := &webhook.SourceRequest{
		ID: requestID, SourceID: sourceID, Tenant: webhook.DefaultTenant, At: time.Now(), Outcome: webhook.SourceRejected, Reason: "unknown_connection",
		EventID: webhook.SourceEventID(sourceID, requestID), Bytes: len(body.Value), Aggregator: "mx", RemoteID: remoteID,
		Rejected: webhook.Position{Partition: body.Partition, Offset: body.Offset},
	}
	if err := client.ProduceSync(r.t.Context(), &kgo.Record{Topic: r.kafka.Topics.SourceRequests, Key: []byte(sourceID), Value: wire.EncodeSourceRequest(told)}).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
}

func TestWhatWasRejectedIsShownAndSentAgainOnceItsConnectionIsKnown(t *testing.T) {
	t.Parallel()
	r := start(t)
	id, other := r.source("mx").str("id"), r.source("other").str("id")
	if list := r.must(http.StatusOK, http.MethodGet, "/sources/"+id+"/requests", nil); len(list.items()) != 0 {
		t.Errorf("at first %s", list.text)
	}
	r.rejected(id, "r1", "m1")
	r.rejected(id, "r2", "m2")
	r.rejected(other, "r3", "m1")
	list := r.must(http.StatusOK, http.MethodGet, "/sources/"+id+"/requests?outcome=rejected", nil)
	if items := list.items(); len(items) != 2 || items[0]["id"] != "r2" || items[0]["reason"] != "unknown_connection" || items[0]["remoteId"] != "m2" {
		t.Fatalf("list %s", list.text)
	}
	if a := r.must(http.StatusOK, http.MethodPost, "/sources/"+id+"/requests/replay", nil); a.body["replayed"] != float64(0) || a.body["rejected"] != float64(2) {
		t.Errorf("too early: %s", a.text)
	}
	r.connect("m1", "conn-1")
	if a := r.must(http.StatusOK, http.MethodPost, "/sources/"+id+"/requests/replay", nil); a.body["replayed"] != float64(1) || a.body["rejected"] != float64(1) {
		t.Errorf("replayed: %s", a.text)
	}
	if a := r.must(http.StatusOK, http.MethodPost, "/sources/"+id+"/requests/replay", map[string]any{"requestId": "r1"}); a.body["replayed"] != float64(0) || a.body["rejected"] != float64(0) {
		t.Errorf("again: %s", a.text)
	}
	records := r.records(r.kafka.Topics.Events, 1)
	e, err := event.FromRecord(records[0])
	if err != nil || len(records) != 1 || e.ID != webhook.SourceEventID(id, "r1") || e.OrderingKey != "conn-1" || e.Tenant != webhook.DefaultTenant {
		t.Fatalf("%d events, %+v (%v)", len(records), e, err)
	}
	var data struct {
		ID     string `json:"financial_connection_id"`
		Remote string `json:"remote_data"`
	}
	if err := json.Unmarshal(e.Data, &data); err != nil || data.ID != "conn-1" || data.Remote != `{"member_guid":"m1"}` {
		t.Errorf("data %s", e.Data)
	}
	list = r.must(http.StatusOK, http.MethodGet, "/sources/"+id+"/requests", nil)
	if items := list.items(); len(items) != 2 || items[1]["outcome"] != "accepted" || items[1]["eventType"] != "financial_connection.sync_data" || items[0]["outcome"] != "rejected" {
		t.Errorf("afterwards %s", list.text)
	}
}
