package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/hookline/hookline/pkg/strictjson"
)

// Whatever a record holds, it is an event that goes on without loss, or it is refused with a code.
func FuzzFromRecord(f *testing.F) {
	for _, value := range [][]byte{
		[]byte(sample), []byte(`{"event_type":"a","data":1}`), []byte(`{"specversion":"1.0","id":"1","source":"/s","type":"a","data_base64":"MQ==","time":"2020-01-02T03:04:05Z"}`),
		[]byte("\x12\x01a:\x011"), []byte(`{"event_type":"\ud800","metadata":{"a":[]},"data":"\ud800"}`), nil,
	} {
		for _, contentType := range []string{"", "application/json", ContentTypeCloudEvent, ContentTypeProtobuf, "text/plain"} {
			f.Add(value, contentType, "", "")
			f.Add(value, contentType, "id", "a b")
		}
	}
	f.Fuzz(func(t *testing.T, value []byte, contentType, attr, said string) {
		headers := []string{"content-type", contentType, "traceparent", said, "ce_" + attr, said}
		plain := record(string(value), headers...)
		inBinary := binaryRecord(string(value), headers...)
		holds(t, string(value), headers...)
		if d, err := FromRecord(plain); err == nil {
			lossless(t, d)
		} else {
			coded(t, err)
		}
		if d, err := FromRecord(inBinary); err == nil {
			lossless(t, d)
		} else {
			coded(t, err)
		}
	})
}

func holds(t *testing.T, value string, headers ...string) {
	a, errA := FromRecord(record(value, headers...))
	b, errB := FromRecord(record(value, headers...))
	if (errA == nil) != (errB == nil) || !cmp.Equal(a, b) {
		t.Fatalf("the same record gives %+v (%v) and %+v (%v)", a, errA, b, errB)
	}
}

func coded(t *testing.T, err error) {
	var e *Error
	if !errors.As(err, &e) || e.Code == "" || e.Detail == "" {
		t.Fatalf("refused without a code: %v", err)
	}
}

// lossless: what was accepted in one form is the same event as protobuf.
func lossless(t *testing.T, d Decoded) {
	if d.ID == "" || d.Type == "" || d.Tenant == "" || d.Timestamp.IsZero() || !json.Valid(d.Data) {
		t.Fatalf("accepted though incomplete: %+v", d)
	}
	if d.Metadata != nil && (strictjson.Check(d.Metadata) != nil || bytes.TrimSpace(d.Metadata)[0] != '{') {
		t.Fatalf("accepted with metadata %q", d.Metadata)
	}
	written, err := Record("events", &d.Event)
	if err != nil {
		t.Fatal(err)
	}
	again, err := FromRecord(record(string(written.Value), "content-type", ContentTypeProtobuf))
	if err != nil {
		t.Fatalf("%+v is refused as protobuf: %v", d, err)
	}
	again.Trace, again.Unknown = d.Trace, d.Unknown
	if diff := cmp.Diff(d, again, cmpopts.EquateEmpty()); diff != "" {
		t.Fatal(diff)
	}
}

func FuzzFromRequest(f *testing.F) {
	for _, body := range []string{sample, `[` + sample + `,{"event_type":"a","data":1}]`, `[]`, ` [{"specversion":"1.0"}]`, `{}`, ``, "\xff"} {
		for _, contentType := range []string{"", ContentTypeBatch, ContentTypeCloudEvent, ContentTypeProtobuf} {
			f.Add([]byte(body), contentType, "Ce-Id", "%20")
		}
	}
	f.Fuzz(func(t *testing.T, body []byte, contentType, header, said string) {
		events, batch, err := FromRequest(http.Header{"Content-Type": {contentType}, header: {said}}, body)
		var all Errors
		switch {
		case err == nil && !batch && len(events) != 1:
			t.Fatalf("%d events", len(events))
		case err == nil && batch && !MayBeBatch(http.Header{"Content-Type": {contentType}, header: {said}}):
			t.Fatal("a batch that could not be one")
		case err != nil && (!errors.As(err, &all) || len(all) == 0 || len(events) > 0):
			t.Fatalf("%v with %d events", err, len(events))
		}
		for _, e := range events {
			if e.Type == "" || !json.Valid(e.Data) {
				t.Fatalf("accepted though incomplete: %+v", e)
			}
		}
		for _, e := range all {
			coded(t, e)
		}
	})
}
