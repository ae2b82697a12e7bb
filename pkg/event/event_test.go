package event

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/webhook"
)

var recordedAt = time.Date(2026, 4, 14, 9, 54, 45, 40_000_000, time.UTC)

const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// record makes a record with headers given as name, value, name, value.
func record(value string, headers ...string) *kgo.Record {
	r := &kgo.Record{Topic: "hookline.events", Partition: 3, Offset: 42, Timestamp: recordedAt, Value: []byte(value)}
	for i := 0; i < len(headers); i += 2 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: headers[i], Value: []byte(headers[i+1])})
	}
	return r
}

func structuredRecord(value string) *kgo.Record {
	return record(value, "content-type", "application/cloudevents+json; charset=UTF-8")
}

func binaryRecord(value string, more ...string) *kgo.Record {
	return record(value, append([]string{"ce_specversion", "1.0", "ce_id", "1", "ce_source", "/s", "ce_type", "a.b"}, more...)...)
}

func protobufRecord(e webhook.Event) *kgo.Record {
	r, err := Record("events", &e)
	if err != nil {
		panic(err)
	}
	return record(string(r.Value), "content-type", "application/protobuf")
}

func nested(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }

func TestEveryRejectionHasItsCode(t *testing.T) {
	ce := func(more string) *kgo.Record {
		return structuredRecord(`{"specversion":"1.0","id":"1","source":"/s","type":"a.b"` + more + `}`)
	}
	ok := webhook.Event{Type: "a.b", Data: []byte("1")}
	with := func(change func(*webhook.Event)) *kgo.Record {
		e := ok
		change(&e)
		return protobufRecord(e)
	}
	for _, test := range []struct {
		name    string
		record  *kgo.Record
		code    Code
		pointer string
	}{
		{"no value", &kgo.Record{}, Empty, ""},
		{"too large", record(`{"event_type":"a","data":"` + strings.Repeat("x", MaxSize) + `"}`), TooLarge, ""},
		{"no JSON", record(`hello`), "invalid_json", ""},
		{"cut off", record(`{"event_type":"a","data":{"x":`), "invalid_json", "/data/x"},
		{"not an object", record(`["event_type"]`), "wrong_type", ""},
		{"trailing data", record(`{"event_type":"a","data":1}{}`), "trailing_data", ""},
		{"invalid UTF-8 in data", record("{\"event_type\":\"a\",\"data\":{\"k\":\"\xff\"}}"), "invalid_utf8", "/data/k"},
		{"data nested too deep", record(`{"event_type":"a","data":` + nested(65) + `}`), "too_deep", "/data" + strings.Repeat("/0", 64)},
		{"a duplicate key", record(`{"event_type":"a","data":1,"data":2}`), "duplicate_key", "/data"},
		{"a duplicate unknown key", record(`{"event_type":"a","x":1,"data":1,"x":2}`), "duplicate_key", "/x"},
		{"a duplicate key in metadata", record(`{"event_type":"a","data":1,"metadata":{"a":{"b":1,"b":2}}}`), "duplicate_key", "/metadata/a/b"},
		{"a lone surrogate in an id", record(`{"event_type":"a","data":1,"event_id":"\ud800"}`), "lone_surrogate", "/event_id"},
		{"a lone surrogate in metadata", record(`{"event_type":"a","data":1,"metadata":{"a":"\ud800"}}`), "lone_surrogate", "/metadata/a"},
		{"a long number in metadata", record(`{"event_type":"a","data":1,"metadata":{"a":` + strings.Repeat("1", 65) + `}}`), "number_too_long", "/metadata/a"},
		{"no type", record(`{"data":1}`), MissingType, "/event_type"},
		{"a null type", record(`{"event_type":null,"data":1}`), MissingType, "/event_type"},
		{"an empty type", record(`{"event_type":"","data":1}`), MissingType, "/event_type"},
		{"a CloudEvent without its content type", record(`{"specversion":"1.0","id":"1","type":"a","data":1}`), MissingType, "/event_type"},
		{"a type that is no string", record(`{"event_type":7,"data":1}`), InvalidType, "/event_type"},
		{"a type with a control character", record(`{"event_type":"a\u0000","data":1}`), InvalidType, "/event_type"},
		{"a long type", record(`{"event_type":"` + strings.Repeat("a", 257) + `","data":1}`), InvalidType, "/event_type"},
		{"no data", record(`{"event_type":"a"}`), MissingData, "/data"},
		{"keys in another case", record(`{"Event_Type":"a","data":1}`), MissingType, "/event_type"},
		{"an id that is no string", record(`{"event_type":"a","data":1,"event_id":7}`), InvalidID, "/event_id"},
		{"an id with a line break", record(`{"event_type":"a","data":1,"event_id":"a\r\nb"}`), InvalidID, "/event_id"},
		{"an id that a header would trim", record(`{"event_type":"a","data":1,"event_id":" a"}`), InvalidID, "/event_id"},
		{"a tenant that is no string", record(`{"event_type":"a","data":1,"tenant":{}}`), InvalidTenant, "/tenant"},
		{"an ordering key that is no string", record(`{"event_type":"a","data":1,"ordering_key":[]}`), InvalidOrderingKey, "/ordering_key"},
		{"metadata that is no object", record(`{"event_type":"a","data":1,"metadata":[]}`), InvalidMetadata, "/metadata"},
		{"a timestamp that is no string", record(`{"event_type":"a","data":1,"event_timestamp":1700000000}`), InvalidTimestamp, "/event_timestamp"},
		{"an empty timestamp", record(`{"event_type":"a","data":1,"event_timestamp":""}`), InvalidTimestamp, "/event_timestamp"},
		{"a timestamp without a zone", record(`{"event_type":"a","data":1,"event_timestamp":"2026-04-14T09:54:45"}`), InvalidTimestamp, "/event_timestamp"},
		{"a timestamp with a comma", record(`{"event_type":"a","data":1,"event_timestamp":"2026-04-14T09:54:45,5Z"}`), InvalidTimestamp, "/event_timestamp"},
		{"a timestamp with an hour of one digit", record(`{"event_type":"a","data":1,"event_timestamp":"2026-04-14T9:54:45Z"}`), InvalidTimestamp, "/event_timestamp"},
		{"a timestamp with an offset of a day", record(`{"event_type":"a","data":1,"event_timestamp":"2026-04-14T09:54:45+24:00"}`), InvalidTimestamp, "/event_timestamp"},
		{"a timestamp with an offset of sixty minutes", record(`{"event_type":"a","data":1,"event_timestamp":"2026-04-14T09:54:45+01:60"}`), InvalidTimestamp, "/event_timestamp"},
		{"a day that does not exist", record(`{"event_type":"a","data":1,"event_timestamp":"2026-02-30T09:54:45Z"}`), InvalidTimestamp, "/event_timestamp"},
		{"the zero time", record(`{"event_type":"a","data":1,"event_timestamp":"0001-01-01T00:00:00Z"}`), InvalidTimestamp, "/event_timestamp"},
		{"the year 10000 in UTC", record(`{"event_type":"a","data":1,"event_timestamp":"9999-12-31T23:59:59-01:00"}`), InvalidTimestamp, "/event_timestamp"},

		{"another form of CloudEvents", record(`x`, "content-type", "application/cloudevents+avro"), UnsupportedContentType, ""},
		{"a CloudEvent that is empty", structuredRecord(``), "invalid_json", ""},
		{"a CloudEvent of another version", structuredRecord(`{"specversion":"0.3","id":"1","source":"/s","type":"a","data":1}`), InvalidCloudEvent, "/specversion"},
		{"a CloudEvent without a type", structuredRecord(`{"specversion":"1.0","id":"1","source":"/s","data":1}`), MissingType, "/type"},
		{"a CloudEvent without an id", structuredRecord(`{"specversion":"1.0","source":"/s","type":"a","data":1}`), InvalidCloudEvent, "/id"},
		{"a CloudEvent without a source", structuredRecord(`{"specversion":"1.0","id":"1","type":"a","source":null,"data":1}`), InvalidCloudEvent, "/source"},
		{"a CloudEvent without data", ce(``), MissingData, "/data"},
		{"a CloudEvent with an attribute twice", ce(`,"id":"2","data":1`), "duplicate_key", "/id"},
		{"a CloudEvent with a number as id", structuredRecord(`{"specversion":"1.0","id":1,"source":"/s","type":"a","data":1}`), InvalidCloudEvent, "/id"},
		{"a CloudEvent with an object as extension", ce(`,"ext":{},"data":1`), InvalidCloudEvent, "/ext"},
		{"a CloudEvent with a bad time", ce(`,"time":"now","data":1`), InvalidTimestamp, "/time"},
		{"a CloudEvent with both kinds of data", ce(`,"data":1,"data_base64":"MQ=="`), InvalidCloudEvent, "/data_base64"},
		{"a CloudEvent with bytes that are not JSON by type", ce(`,"datacontenttype":"image/png","data_base64":"MQ=="`), UnsupportedData, "/data_base64"},
		{"a CloudEvent with bytes that are not JSON", ce(`,"data_base64":"aGVsbG8="`), "invalid_json", "/data_base64"},
		{"a CloudEvent with broken base64", ce(`,"data_base64":"MQ="`), InvalidCloudEvent, "/data_base64"},
		{"a CloudEvent with base64 that is no string", ce(`,"data_base64":1`), "wrong_type", "/data_base64"},
		{"a CloudEvent with a bad tenant", ce(`,"tenant":"a\u0001","data":1`), InvalidTenant, "/tenant"},
		{"a CloudEvent with a bad partition key", ce(`,"partitionkey":"\t","data":1`), InvalidOrderingKey, "/partitionkey"},
		{"a binary CloudEvent without a type", record(`1`, "ce_specversion", "1.0", "ce_id", "1", "ce_source", "/s"), MissingType, ""},
		{"a binary CloudEvent without a version", record(`1`, "ce_id", "1", "ce_source", "/s", "ce_type", "a"), InvalidCloudEvent, ""},
		{"a binary CloudEvent without data", binaryRecord(``), MissingData, ""},
		{"a binary CloudEvent of text", binaryRecord(`hello`, "content-type", "text/plain"), UnsupportedData, ""},
		{"a binary CloudEvent with bad data", binaryRecord(`{`), "invalid_json", ""},
		{"a binary CloudEvent with a header twice", binaryRecord(`1`, "ce_id", "2"), "duplicate_key", ""},
		{"a binary CloudEvent with invalid UTF-8", binaryRecord(`1`, "ce_x", "\xff"), "invalid_utf8", ""},
		{"a binary CloudEvent with large headers", binaryRecord(`1`, "ce_x", strings.Repeat("x", maxAttributes)), TooLarge, ""},

		{"broken protobuf", record("\xff\xff", "content-type", "application/protobuf"), InvalidProtobuf, ""},
		{"protobuf that is too large", with(func(e *webhook.Event) { e.Data = []byte(strings.Repeat("1", MaxRecord)) }), TooLarge, ""},
		{"protobuf without a type", with(func(e *webhook.Event) { e.Type = "" }), MissingType, "/event_type"},
		{"protobuf without data", with(func(e *webhook.Event) { e.Data = nil }), MissingData, "/data"},
		{"protobuf with bad data", with(func(e *webhook.Event) { e.Data = []byte(`{"a":tru}`) }), "invalid_json", "/data/a"},
		{"protobuf with bad metadata", with(func(e *webhook.Event) { e.Metadata = []byte(` 1`) }), InvalidMetadata, "/metadata"},
		{"protobuf with empty metadata", with(func(e *webhook.Event) { e.Metadata = []byte(` `) }), "invalid_json", "/metadata"},
		{"protobuf with a bad id", with(func(e *webhook.Event) { e.ID = "a\nb" }), InvalidID, "/event_id"},
		{"protobuf with a time that is none", record("\x12\x01a\x1a\x06\x10\xff\xff\xff\xff\x7f:\x011", "content-type", "application/protobuf"), InvalidTimestamp, "/event_timestamp"},
		{"protobuf with the year 0", with(func(e *webhook.Event) {
			e.Timestamp = time.Date(1, 1, 1, 0, 0, 0, 0, time.FixedZone("", 0)).Add(-time.Hour)
		}), InvalidTimestamp, "/event_timestamp"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, err := FromRecord(test.record)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %+v, %v; want %s", d, err, test.code)
			}
			if e.Code != test.code || e.Pointer != test.pointer || e.Detail == "" {
				t.Errorf("got %v, want %s at %q", e, test.code, test.pointer)
			}
		})
	}
}

func TestWhatIsAccepted(t *testing.T) {
	// The defaults of every case; its change says what differs.
	usual := func() Decoded {
		var d Decoded
		d.Source = webhook.Position{Topic: "hookline.events", Partition: 3, Offset: 42}
		d.ID, d.Tenant, d.Type = webhook.DerivedEventID(d.Source), "default", "a.b"
		d.Timestamp, d.RecordedAt, d.Data = recordedAt, recordedAt, []byte("1")
		return d
	}
	occurred := time.Date(2020, 1, 2, 3, 4, 5, 600_000_000, time.UTC)
	fromCloud := func(d *Decoded) { d.ID, d.Metadata = "1", []byte(`{"source":"/s"}`) }
	for _, test := range []struct {
		name   string
		record *kgo.Record
		change func(*Decoded)
	}{
		{"the least", record(`{"event_type":"a.b","data":1}`), func(*Decoded) {}},
		{"everything", record(`{"event_id":"e\u00e9-1","event_type":"a.b","event_timestamp":"2020-01-02T04:04:05.6+01:00","tenant":"acme","ordering_key":"k 7","metadata":{ "x":1.0 },"data":1}`),
			func(d *Decoded) {
				d.ID, d.Tenant, d.OrderingKey, d.Timestamp, d.Metadata = "eé-1", "acme", "k 7", occurred, []byte(`{ "x":1.0 }`)
			}},
		{"nulls", record(`{"event_id":null,"event_type":"a.b","event_timestamp":null,"tenant":null,"ordering_key":null,"metadata":null,"data":null}`),
			func(d *Decoded) { d.Data = []byte("null") }},
		{"unknown fields", record(`{"event_type":"a.b","x":{"y":[]},"Data":2,"data":1}`), func(d *Decoded) { d.Unknown = 2 }},
		{"a time in lower case", record(`{"event_type":"a.b","data":1,"event_timestamp":"2020-01-02t03:04:05.6z"}`), func(d *Decoded) { d.Timestamp = occurred }},
		{"data as it stands", record(`{"event_type":"a.b","data" : {"a":1.00,"a":[12345678901234567890123, 1e400], "s":"\ud800\u0041"} }`),
			func(d *Decoded) {
				d.Data = []byte(`{"a":1.00,"a":[12345678901234567890123, 1e400], "s":"\ud800\u0041"}`)
			}},
		{"data of 64 levels", record(`{"event_type":"a.b","data":` + nested(64) + `}`), func(d *Decoded) { d.Data = []byte(nested(64)) }},
		{"another content type", record(`{"event_type":"a.b","data":1}`, "content-type", "text/plain"), func(*Decoded) {}},
		{"a trace", record(`{"event_type":"a.b","data":1}`, "traceparent", parent, "tracestate", "a=b"),
			func(d *Decoded) { d.Trace = webhook.TraceContext{Parent: parent, State: "a=b"} }},
		{"a CloudEvents trace on native JSON", record(`{"event_type":"a.b","data":1}`, "ce_traceparent", parent),
			func(d *Decoded) { d.Trace.Parent = parent }},
		{"a broken trace", record(`{"event_type":"a.b","data":1}`, "traceparent", "00-x", "tracestate", "a=b"), func(*Decoded) {}},
		{"a broken trace state", record(`{"event_type":"a.b","data":1}`, "traceparent", parent, "tracestate", "="), func(d *Decoded) { d.Trace.Parent = parent }},

		{"a structured CloudEvent", structuredRecord(`{"specversion":"1.0","id":"1","source":"/s","type":"a.b","data":{"x":1.0}}`),
			func(d *Decoded) { fromCloud(d); d.Data = []byte(`{"x":1.0}`) }},
		{"a structured CloudEvent with everything", structuredRecord(`{"specversion":"1.0","id":"1","source":"/s","type":"a.b","time":"2020-01-02T03:04:05.6Z","subject":"ü","dataschema":"http://x","datacontenttype":"application/vnd.x+json","partitionkey":"k","tenant":"acme","traceparent":"` + parent + `","tracestate":"a=b","num":7,"flag":true,"none":null,"Odd_Name":1,"data":1}`),
			func(d *Decoded) {
				d.ID, d.Timestamp, d.OrderingKey, d.Tenant, d.Unknown = "1", occurred, "k", "acme", 1
				d.Trace = webhook.TraceContext{Parent: parent, State: "a=b"}
				d.Metadata = []byte(`{"dataschema":"http://x","flag":true,"num":7,"source":"/s","subject":"ü"}`)
			}},
		{"a structured CloudEvent in base64", structuredRecord(`{"specversion":"1.0","id":"1","source":"/s","type":"a.b","data_base64":"eyJ4IjogMX0="}`),
			func(d *Decoded) { fromCloud(d); d.Data = []byte(`{"x": 1}`) }},
		{"a structured CloudEvent with text as data", structuredRecord(`{"specversion":"1.0","id":"1","source":"/s","type":"a.b","datacontenttype":"text/plain","data":"hi"}`),
			func(d *Decoded) {
				d.ID, d.Data, d.Metadata = "1", []byte(`"hi"`), []byte(`{"datacontenttype":"text/plain","source":"/s"}`)
			}},
		{"a record's trace before the CloudEvent's", record(`{"specversion":"1.0","id":"1","source":"/s","type":"a.b","data":1,"traceparent":"`+strings.Replace(parent, "4b", "5b", 1)+`"}`,
			"content-type", "application/cloudevents+json", "traceparent", parent), func(d *Decoded) { fromCloud(d); d.Trace.Parent = parent }},
		{"a binary CloudEvent", binaryRecord(`1`), fromCloud},
		{"a binary CloudEvent with everything", binaryRecord(` {"x":1}`, "content-type", "Application/JSON; charset=utf-8", "ce_time", "2020-01-02T03:04:05.6Z", "ce_tenant", "acme",
			"ce_partitionkey", "k", "ce_ext", `a"ü<`, "ce_traceparent", parent),
			func(d *Decoded) {
				d.ID, d.Timestamp, d.Tenant, d.OrderingKey, d.Data, d.Trace.Parent = "1", occurred, "acme", "k", []byte(` {"x":1}`), parent
				d.Metadata = []byte(`{"ext":"a\"ü<","source":"/s"}`)
			}},
		{"protobuf", protobufRecord(webhook.Event{ID: "i", Type: "a.b", Tenant: "acme", OrderingKey: "k", Timestamp: occurred, Metadata: []byte(`{}`), Data: []byte(` 1.0 `)}),
			func(d *Decoded) {
				d.ID, d.Tenant, d.OrderingKey, d.Timestamp, d.Metadata, d.Data = "i", "acme", "k", occurred, []byte(`{}`), []byte(` 1.0 `)
			}},
		{"the least protobuf", protobufRecord(webhook.Event{Type: "a.b", Data: []byte("1")}), func(*Decoded) {}},
		{"protobuf with an unknown field", record("\x12\x03a.b:\x011\x78\x01", "content-type", "application/protobuf"), func(d *Decoded) { d.Unknown = 1 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := FromRecord(test.record)
			if err != nil {
				t.Fatal(err)
			}
			want := usual()
			test.change(&want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAnEventOfExactlyOneMebibyteIsAccepted(t *testing.T) {
	frame := `{"event_type":"a.b","data":""}`
	value := strings.Replace(frame, `""`, `"`+strings.Repeat("x", MaxSize-len(frame))+`"`, 1)
	d, err := FromRecord(record(value))
	if err != nil || len(value) != MaxSize {
		t.Fatalf("%d bytes: %v", len(value), err)
	}
	// It goes on as protobuf, with more around it.
	d.Tenant, d.OrderingKey = strings.Repeat("t", maxText), strings.Repeat("k", maxText)
	if _, err := FromRecord(protobufRecord(d.Event)); err != nil {
		t.Errorf("as protobuf: %v", err)
	}
}

func TestATraceParentIsCheckedAsTheStandardSays(t *testing.T) {
	for in, want := range map[string]bool{
		parent:                                   true,
		strings.Replace(parent, "00-", "01-", 1): true,
		strings.Replace(parent, "00-", "cc-", 1) + "-more": true,
		"":                                       false,
		parent + "-more":                         false,
		parent + "x":                             false,
		strings.Replace(parent, "00-", "ff-", 1): false,
		strings.ToUpper(parent):                  false,
		parent[:54]:                              false,
		strings.Replace(parent, "-01", "-0g", 1): false,
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01": false,
		"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01": false,
		strings.Replace(parent, "00-", "cc-", 1) + "more":         false,
	} {
		if got := validParent(in); got != want {
			t.Errorf("%q: got %v", in, got)
		}
	}
}

func TestABatchIsRefusedWholeWithPointers(t *testing.T) {
	for _, test := range []struct {
		name, contentType, body string
		want                    []string // code and pointer
	}{
		{"native", "application/json", `[{"event_type":"a","data":1},{"data":1},{"event_type":"a","data":1,"event_timestamp":"x"},7]`,
			[]string{"missing_event_type /1/event_type", "invalid_timestamp /2/event_timestamp", "wrong_type /3"}},
		{"CloudEvents", ContentTypeBatch, `[{"specversion":"1.0","id":"1","source":"/s","type":"a","data":1},{"specversion":"1.0","id":"1","type":"a","data":1}]`,
			[]string{"invalid_cloudevent /1/source"}},
		{"CloudEvents under the content type of one", ContentTypeCloudEvent, `[{"specversion":"1.0","id":"1","source":"/s","type":"a"}]`,
			[]string{"missing_data /0/data"}},
		{"a batch that is none", ContentTypeBatch, `{}`, []string{"wrong_type "}},
		{"broken JSON", "", ` [{"event_type":"a","data":1},{"data":tru}]`, []string{"invalid_json /1/data"}},
		{"a duplicate key", "", `[{"event_type":"a","event_type":"b","data":1}]`, []string{"duplicate_key /0/event_type"}},
		{"one that is too large", "", `[{"event_type":"a","data":"` + strings.Repeat("x", MaxSize) + `"}]`, []string{"too_large /0"}},
		{"too many", "", `[` + strings.Repeat(`{"event_type":"a","data":1},`, MaxBatch) + `{}]`, []string{"too_many_events "}},
		{"too large together", "", `[` + strings.Repeat(" ", MaxBatchSize) + `]`, []string{"too_large "}},
		{"one alone", "", `{"event_type":"a"}`, []string{"missing_data /data"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := FromRequest(http.Header{"Content-Type": {test.contentType}}, []byte(test.body))
			var all Errors
			if !errors.As(err, &all) {
				t.Fatalf("got %v", err)
			}
			var got []string
			for _, e := range all {
				got = append(got, string(e.Code)+" "+e.Pointer)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestABatchNamesAtMostAHundredProblems(t *testing.T) {
	_, _, err := FromRequest(nil, []byte(`[{}`+strings.Repeat(`,{}`, 999)+`]`))
	var all Errors
	if !errors.As(err, &all) || len(all) != maxErrors {
		t.Errorf("%d problems, %v", len(all), err)
	}
}

func TestARequestStatesOnlyWhatItsProducerSaid(t *testing.T) {
	h := http.Header{"Traceparent": {parent}}
	events, batch, err := FromRequest(h, []byte(` [{"event_type":"a","data":1},{"event_id":"2","event_type":"b","data":2,"x":1}]`))
	if err != nil || !batch {
		t.Fatalf("batch %v, %v", batch, err)
	}
	trace := webhook.TraceContext{Parent: parent}
	want := []Decoded{
		{Event: webhook.Event{Type: "a", Data: []byte("1"), Trace: trace}},
		{Event: webhook.Event{ID: "2", Type: "b", Data: []byte("2"), Trace: trace}, Unknown: 1},
	}
	if diff := cmp.Diff(want, events); diff != "" {
		t.Error(diff)
	}
	events, batch, err = FromRequest(h, []byte(`[]`))
	if err != nil || !batch || len(events) != 0 {
		t.Errorf("an empty batch: %v, %v, %v", events, batch, err)
	}
}

func TestHeadersOfARequestAreUnescaped(t *testing.T) {
	h := http.Header{"Ce-Specversion": {"1.0"}, "Ce-Id": {"a%20b"}, "Ce-Source": {"/s"}, "Ce-Type": {"t"}, "Ce-Subject": {"%C3%BC%22"}, "Content-Type": {"application/json"}}
	events, _, err := FromRequest(h, []byte(`[1]`))
	if err != nil {
		t.Fatal(err)
	}
	if got := events[0]; got.ID != "a b" || string(got.Metadata) != `{"source":"/s","subject":"ü\""}` || string(got.Data) != `[1]` {
		t.Errorf("got %+v, metadata %s", got, got.Metadata)
	}
	if MayBeBatch(h) {
		t.Error("a binary CloudEvent may be a batch")
	}
	for _, raw := range []string{"100%", "%zz", "%ff"} {
		h.Set("Ce-Subject", raw)
		events, _, err := FromRequest(h, []byte(`1`))
		if err != nil || string(events[0].Metadata) != `{"source":"/s","subject":"`+raw+`"}` {
			t.Errorf("%s: %v, %+v", raw, err, events)
		}
	}
}

func TestADetailDoesNotRepeatValues(t *testing.T) {
	_, err := FromRecord(record(`{"event_type":"a","data":1,"event_timestamp":"4111-1111-1111-1111"}`))
	if err == nil || strings.Contains(err.Error(), "4111") {
		t.Errorf("got %v", err)
	}
}

const sample = `{"event_id":"a3ef2c1e-5b7d-4e0e-9a27-d5a2c5b9f101","event_type":"balance.extracted","event_timestamp":"2026-04-14T09:54:45.040Z",` +
	`"tenant":"default","ordering_key":"acct-7","metadata":{"source":"core-banking","region":"eu-west-1"},` +
	`"data":{"account":{"id":"acct-7","iban":"DE89370400440532013000","holder":"Jürgen Müller"},"balance":{"amount":"1234567.89","currency":"EUR"},` +
	`"lines":[{"n":1,"v":12.5},{"n":2,"v":-3},{"n":3,"v":1e3}],"final":true,"note":null,"big":12345678901234567890}}`

func BenchmarkNativeRecordOf500Bytes(b *testing.B) {
	r := record(sample, "traceparent", parent)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := FromRecord(r); err != nil {
			b.Fatal(err)
		}
	}
}
