package event

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/hookline/hookline/pkg/strictjson"
	"github.com/hookline/hookline/pkg/webhook"
)

// Bounds of one request.
const (
	MaxBatchSize = 8 << 20 // bytes of a batch's body
	MaxBatch     = 10_000  // events of a batch
)

// maxErrors bounds how many wrong events of a batch are named.
const maxErrors = 100

// Errors are what is wrong with the events of a request, in their order. Pointers of a batch start with the index.
type Errors []*Error

func (e Errors) Error() string {
	if len(e) == 1 {
		return e[0].Error()
	}
	return e[0].Error() + " (and " + strconv.Itoa(len(e)-1) + " more)"
}

// FromRequest reads the body of a request: one event as [FromRecord] reads it, with the headers of CloudEvents' HTTP
// binding (ce-*), or a batch, which is a JSON array of native events or of CloudEvents, by content type. It returns what
// the producer stated: no default is filled in. A batch with anything wrong is refused whole. The error is [Errors].
func FromRequest(h http.Header, body []byte) (events []Decoded, batch bool, err error) {
	said := requestHeaders(h)
	decode := said.decode
	media := mediaType(said.contentType)
	switch {
	case media == ContentTypeBatch, media == ContentTypeCloudEvent && isArray(body):
		decode, batch = structured, true
	case !said.binary && media != ContentTypeProtobuf && isArray(body):
		decode, batch = native, true
	}
	if batch {
		events, err = elements(body, decode)
	} else {
		events, err = single(body, decode)
	}
	if err != nil {
		return nil, batch, err
	}
	for i := range events {
		events[i].Trace = trace(said.trace, events[i].Trace)
	}
	return events, batch, nil
}

// MayBeBatch says, before a body is read, how large it may be: its headers can rule out that it is a batch.
func MayBeBatch(h http.Header) bool {
	said := requestHeaders(h)
	switch mediaType(said.contentType) {
	case ContentTypeBatch, ContentTypeCloudEvent:
		return true
	case ContentTypeProtobuf:
		return false
	default:
		return !said.binary
	}
}

func requestHeaders(h http.Header) headers {
	said := headers{
		contentType: h.Get("Content-Type"),
		trace:       webhook.TraceContext{Parent: h.Get("Traceparent"), State: strings.Join(h.Values("Tracestate"), ",")},
	}
	for key, values := range h {
		attr, ok := strings.CutPrefix(strings.ToLower(key), "ce-")
		if !ok {
			continue
		}
		for _, value := range values {
			said.attribute(attr, unescape(value))
		}
	}
	return said
}

// unescape decodes the percent escapes that the binding asks for. Some writers do without, the CloudEvents project's Go
// library among them, so that what cannot be decoded stands for itself.
func unescape(value string) string {
	plain, err := url.PathUnescape(value)
	if err != nil || !utf8.ValidString(plain) {
		return value
	}
	return plain
}

func isArray(body []byte) bool {
	return strings.HasPrefix(strings.TrimLeft(string(body[:min(len(body), 64)]), " \t\r\n"), "[")
}

func single(body []byte, decode func([]byte) (Decoded, error)) ([]Decoded, error) {
	d, err := decode(body)
	if err != nil {
		return nil, Errors{refuse(err, "")}
	}
	return []Decoded{d}, nil
}

// elements reads a batch. What is wrong with its JSON as a whole ends it at once; what is wrong with events is gathered.
func elements(body []byte, decode func([]byte) (Decoded, error)) (events []Decoded, err error) {
	if err := tooLarge(len(body), MaxBatchSize); err != nil {
		return nil, Errors{refuse(err, "")}
	}
	var wrong Errors
	err = strictjson.Elements(body, func(i int, value []byte) error {
		if i == MaxBatch {
			return &Error{Code: TooManyEvents, Detail: "more than " + strconv.Itoa(MaxBatch) + " events in one batch"}
		}
		d, err := element(value, decode)
		if err == nil {
			events = append(events, d)
		} else if len(wrong) < maxErrors {
			e := *refuse(err, "")
			e.Pointer = "/" + strconv.Itoa(i) + e.Pointer
			wrong = append(wrong, &e)
		}
		return nil
	})
	if err != nil {
		return nil, Errors{refuse(err, "")}
	}
	if len(wrong) > 0 {
		return nil, wrong
	}
	return events, nil
}

func element(value []byte, decode func([]byte) (Decoded, error)) (Decoded, error) {
	if err := tooLarge(len(value), MaxSize); err != nil {
		return Decoded{}, err
	}
	return decode(value)
}
