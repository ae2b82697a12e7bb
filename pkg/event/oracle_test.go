package event

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/binding/format"
	"github.com/cloudevents/sdk-go/v2/binding/spec"
	ce "github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"
	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"
)

// What the CloudEvents project's own library writes, in each mode and binding, is read as the same event.
func TestWhatTheCloudEventsLibraryWritesIsRead(t *testing.T) {
	text := rapid.StringMatching(`[a-zA-Z0-9/"'<>%\\üé😀.:~_-]{1,20}`)
	rapid.Check(t, func(t *rapid.T) {
		e := ce.New("1.0")
		e.SetID(text.Draw(t, "id"))
		e.SetType(text.Draw(t, "type"))
		e.SetSource("/s" + rapid.StringMatching(`[a-z0-9]{0,9}`).Draw(t, "source"))
		if rapid.Bool().Draw(t, "has time") {
			e.SetTime(time.UnixMicro(rapid.Int64Range(0, 1<<52).Draw(t, "time")).UTC())
		}
		if rapid.Bool().Draw(t, "has subject") {
			e.SetSubject(text.Draw(t, "subject"))
		}
		if rapid.Bool().Draw(t, "has extensions") {
			e.SetExtension("partitionkey", text.Draw(t, "partition key"))
			e.SetExtension("tenant", text.Draw(t, "tenant"))
			e.SetExtension("custom", text.Draw(t, "extension"))
		}
		data, _ := json.Marshal(map[string]string{"k": text.Draw(t, "data")})
		if err := e.SetData("application/json", json.RawMessage(data)); err != nil {
			t.Fatal(err)
		}

		structured := write(t, &e, binding.WithForceStructured)
		binary := write(t, &e, binding.WithForceBinary)
		same(t, &e, "HTTP, structured", fromRequest(t, structured))
		same(t, &e, "HTTP, binary", fromRequest(t, binary))
		same(t, &e, "Kafka, structured", fromKafka(t, structured))
		same(t, &e, "Kafka, binary", fromKafka(t, binary))
	})
}

// written is a message as the library's bindings write it: attributes by name, and a body.
type written struct {
	contentType string
	attributes  map[string]string
	body        []byte
}

func write(t *rapid.T, e *ce.Event, mode func(context.Context) context.Context) *written {
	w := &written{attributes: map[string]string{}}
	if _, err := binding.Write(mode(context.Background()), binding.ToMessage(e), w, w); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *written) SetStructuredEvent(_ context.Context, f format.Format, e io.Reader) (err error) {
	w.contentType = f.MediaType()
	w.body, err = io.ReadAll(e)
	return err
}

func (w *written) Start(context.Context) error { return nil }
func (w *written) End(context.Context) error   { return nil }

func (w *written) SetData(data io.Reader) (err error) {
	w.body, err = io.ReadAll(data)
	return err
}

func (w *written) SetAttribute(attribute spec.Attribute, value any) error {
	if attribute.Kind() != spec.DataContentType {
		return w.SetExtension(attribute.Name(), value)
	}
	text, err := types.Format(value)
	w.contentType = text
	return err
}

func (w *written) SetExtension(name string, value any) error {
	if value == nil {
		return nil
	}
	text, err := types.Format(value)
	w.attributes[name] = text
	return err
}

// fromRequest reads the message as HTTP carries it.
func fromRequest(t *rapid.T, w *written) Decoded {
	h := http.Header{"Content-Type": {w.contentType}}
	for name, value := range w.attributes {
		h.Set("ce-"+name, url.PathEscape(value))
	}
	events, _, err := FromRequest(h, w.body)
	if err != nil {
		t.Fatalf("%v in %v %s", err, h, w.body)
	}
	return events[0]
}

// fromKafka reads the message as Kafka carries it.
func fromKafka(t *rapid.T, w *written) Decoded {
	record := &kgo.Record{Value: w.body, Timestamp: time.Unix(1, 0), Headers: []kgo.RecordHeader{{Key: "content-type", Value: []byte(w.contentType)}}}
	for name, value := range w.attributes {
		record.Headers = append(record.Headers, kgo.RecordHeader{Key: "ce_" + name, Value: []byte(value)})
	}
	d, err := FromRecord(record)
	if err != nil {
		t.Fatalf("%v in %v %s", err, record.Headers, record.Value)
	}
	return d
}

func same(t *rapid.T, want *ce.Event, how string, got Decoded) {
	var data bytes.Buffer
	if json.Compact(&data, got.Data) != nil || !bytes.Equal(data.Bytes(), want.Data()) {
		t.Fatalf("%s: data %s, want %s", how, got.Data, want.Data())
	}
	wantMeta := map[string]string{"source": want.Source()}
	if want.Subject() != "" {
		wantMeta["subject"] = want.Subject()
	}
	if v, ok := want.Extensions()["custom"].(string); ok {
		wantMeta["custom"] = v
	}
	gotMeta := map[string]string{}
	if err := json.Unmarshal(got.Metadata, &gotMeta); err != nil {
		t.Fatalf("%s: metadata %s: %v", how, got.Metadata, err)
	}
	extension := func(name string) string { v, _ := want.Extensions()[name].(string); return v }
	type stated struct{ ID, Type, Tenant, Key string }
	w := stated{want.ID(), want.Type(), extension("tenant"), extension("partitionkey")}
	g := stated{got.ID, got.Type, got.Tenant, got.OrderingKey}
	if strings.HasPrefix(how, "Kafka") && w.Tenant == "" {
		w.Tenant = "default"
	}
	if diff := cmp.Diff(w, g) + cmp.Diff(wantMeta, gotMeta); diff != "" {
		t.Fatalf("%s: %s", how, diff)
	}
	if !want.Time().IsZero() && !got.Timestamp.Equal(want.Time()) {
		t.Fatalf("%s: time %v, want %v", how, got.Timestamp, want.Time())
	}
}
