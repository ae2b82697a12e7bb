package profile

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/webhook"
)

var (
	testKey = []byte("Zm9yIHRlc3RzIG9ubHk6IDMyIGJ5dGVzIG9mIGtleSE=")
	oldKey  = []byte("dGhlIHByZXZpb3VzIG9uZSwgYWxzbyAzMiBieXRlcyE=")
	testAt  = time.Date(2026, 4, 14, 9, 54, 46, 123456789, time.UTC)
)

func testDelivery() *webhook.Delivery {
	return &webhook.Delivery{
		ID:             uuid.MustParse("0e2f7c1a-5d34-5b8e-9c4f-7a6b5c4d3e2f"),
		Attempts:       1,
		SubscriptionID: "sub-1",
		CreatedAt:      time.Date(2026, 4, 14, 9, 54, 45, 500e6, time.UTC),
		Event: webhook.Event{
			ID: "a3efc743-ac6c-463b-aa19-4dd9c45b5b96", Type: "balance.extracted", Tenant: "default",
			Timestamp: time.Date(2026, 4, 14, 9, 54, 45, 40e6, time.UTC),
			Data:      []byte(`{"amount": 1.0, "big": 12345678901234567890, "b":"\u003c"}`),
		},
	}
}

func contractOf(t testing.TB, name string) *Contract {
	t.Helper()
	p, ok := Builtin().Get(name)
	if !ok {
		t.Fatalf("no profile %s", name)
	}
	c, err := p.Contract(webhook.Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFynapseSendsWhatItsDocumentsSay(t *testing.T) {
	d := testDelivery()
	r, err := contractOf(t, "fynapse").Build(d, [][]byte{testKey, oldKey}, testAt)
	if err != nil {
		t.Fatal(err)
	}
	wantBody := `{"event_id":"a3efc743-ac6c-463b-aa19-4dd9c45b5b96","event_type":"balance.extracted",` +
		`"metadata":{"eventType":"balance.extracted","startedOn":"2026-04-14T09:54:45.040000Z"},` +
		`"event_timestamp":"2026-04-14T09:54:45.040Z","data":` + string(d.Event.Data) + `}`
	if string(r.Body) != wantBody {
		t.Errorf("body:\n%s\nwant:\n%s", r.Body, wantBody)
	}
	ts := strconv.FormatInt(testAt.Unix(), 10)
	sign := func(key []byte) string {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(ts + "." + wantBody))
		return hex.EncodeToString(h.Sum(nil))
	}
	want := map[string]string{
		"Content-Type":      "application/json",
		"Idempotency-Key":   d.ID.String(),
		"Webhook-Signature": "t=" + ts + ",v1=" + sign(testKey) + ",v1=" + sign(oldKey),
	}
	for name, value := range want {
		if got := r.Header.Get(name); got != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
	if len(r.Header) != len(want) {
		t.Errorf("headers: %v", r.Header)
	}
}
