package event

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/hookline/hookline/pkg/strictjson"
)

// cloudEvent collects the attributes of a CloudEvent, version 1.0, from either mode.
//
// type, id and time are the event's; partitionkey is the ordering key; the extensions tenant, traceparent and tracestate
// are the event's too. Everything else that its producer said about it (source, subject, dataschema, other extensions)
// becomes a member of metadata.
type cloudEvent struct {
	Decoded
	// place makes the pointer of an attribute; nil for headers, which have none.
	place       func(attribute string) string
	specVersion string
	source      bool
	contentType string
	said        []attribute // what becomes metadata
	inline      []byte      // data
	encoded     []byte      // data_base64, still in base64
	hasEncoded  bool
}

type attribute struct {
	name  string
	value json.RawMessage // a string, a number or a boolean
}

func (c *cloudEvent) pointer(attribute string) string {
	if c.place == nil {
		return ""
	}
	return c.place(attribute)
}

func (c *cloudEvent) invalid(attribute, detail string) error {
	return &Error{Code: InvalidCloudEvent, Pointer: c.pointer(attribute), Detail: attribute + " " + detail}
}

// structured reads the JSON format.
func structured(body []byte) (Decoded, error) {
	c := cloudEvent{place: func(attribute string) string { return "/" + strictjson.Escape(attribute) }}
	err := strictjson.Members(body, func(key, value []byte) error {
		switch string(key) {
		case "data":
			c.inline = value
			return nil
		case "data_base64":
			c.encoded, c.hasEncoded = value, string(value) != "null"
			return nil
		default:
			return c.member(string(key), value)
		}
	})
	if err != nil {
		return Decoded{}, refuse(err, "")
	}
	if err := c.structuredData(); err != nil {
		return Decoded{}, err
	}
	return c.finish("/type", "/data")
}

// member takes an attribute of the JSON format; null is absent.
func (c *cloudEvent) member(name string, value []byte) error {
	if string(value) == "null" {
		return nil
	}
	if value[0] == '{' || value[0] == '[' {
		return c.invalid(name, "is neither a string nor a number nor a boolean")
	}
	if err := strictjson.Check(value); err != nil {
		return refuse(err, c.pointer(name))
	}
	if value[0] != '"' {
		return c.set(name, "", value)
	}
	s, err := strictjson.String(value)
	if err != nil {
		return refuse(err, c.pointer(name))
	}
	return c.set(name, s, value)
}

// set takes one attribute: its text, and the JSON that stands for it in metadata. Only extensions may be other than text.
func (c *cloudEvent) set(attr, text string, value json.RawMessage) (err error) {
	isText := value[0] == '"'
	if !isText && fixedAttribute(attr) {
		return c.invalid(attr, "is not a string")
	}
	switch attr {
	case "specversion":
		c.specVersion = text
	case "type":
		c.Type = text
		err = name(text, InvalidType, c.pointer(attr))
	case "id":
		c.ID = text
		err = name(text, InvalidID, c.pointer(attr))
	case "time":
		c.Timestamp, err = timestamp(text, c.pointer(attr))
	case "datacontenttype":
		c.contentType = text
		if !isJSON(text) {
			c.said = append(c.said, attribute{attr, value})
		}
	case "partitionkey":
		c.OrderingKey = text
		err = name(text, InvalidOrderingKey, c.pointer(attr))
	case "tenant":
		c.Tenant = text
		err = name(text, InvalidTenant, c.pointer(attr))
	case "traceparent":
		c.Trace.Parent = text
	case "tracestate":
		c.Trace.State = text
	default:
		if attr == "source" {
			c.source = text != ""
		}
		c.extension(attr, value)
	}
	return err
}

func fixedAttribute(attr string) bool {
	switch attr {
	case "specversion", "type", "id", "time", "source", "subject", "dataschema", "datacontenttype",
		"partitionkey", "tenant", "traceparent", "tracestate":
		return true
	default:
		return false
	}
}

// extension keeps what has a name that CloudEvents allow: lower-case letters and digits.
func (c *cloudEvent) extension(attr string, value json.RawMessage) {
	legal := attr != "" && len(attr) <= maxText
	for i := range len(attr) {
		legal = legal && ('a' <= attr[i] && attr[i] <= 'z' || '0' <= attr[i] && attr[i] <= '9')
	}
	if !legal {
		c.Unknown++
		return
	}
	c.said = append(c.said, attribute{attr, value})
}

// structuredData takes data as it stands: in the JSON format it is JSON whatever its content type says. Base64 holds
// bytes, which are taken where they are JSON.
func (c *cloudEvent) structuredData() error {
	if !c.hasEncoded {
		c.Data = c.inline
		return nil
	}
	if c.inline != nil {
		return c.invalid("data_base64", "is given beside data")
	}
	if !isJSON(c.contentType) {
		return &Error{Code: UnsupportedData, Pointer: c.pointer("data_base64"), Detail: "data is not JSON"}
	}
	s, err := strictjson.String(c.encoded)
	if err != nil {
		return refuse(err, c.pointer("data_base64"))
	}
	decoded, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return c.invalid("data_base64", "is not base64")
	}
	return c.bytes(decoded, "data_base64")
}

// bytes takes data that came as bytes: they must be JSON.
func (c *cloudEvent) bytes(data []byte, attr string) error {
	if len(data) == 0 {
		return nil
	}
	if err := strictjson.WellFormed(data); err != nil {
		e := refuse(err, "")
		e.Pointer = c.pointer(attr)
		return e
	}
	c.Data = data
	return nil
}

// binary reads the binary mode: the attributes from headers, without their prefix, and the data alone in the body.
func binary(attributes []header, contentType string, body []byte) (Decoded, error) {
	c := cloudEvent{}
	size := 0
	for i, h := range attributes {
		if size += len(h.name) + len(h.value); size > maxAttributes {
			return Decoded{}, &Error{Code: TooLarge, Detail: "the CloudEvents headers are too large"}
		}
		if slices.ContainsFunc(attributes[:i], func(before header) bool { return before.name == h.name }) {
			return Decoded{}, &Error{Code: Code(strictjson.DuplicateKey), Detail: "the header for " + clip(h.name) + " is given twice"}
		}
		value, err := quote(h.value)
		if err != nil {
			return Decoded{}, &Error{Code: Code(strictjson.InvalidUTF8), Detail: "the header for " + clip(h.name) + " is not UTF-8"}
		}
		if err := c.set(h.name, h.value, value); err != nil {
			return Decoded{}, inHeader(err, h.name)
		}
	}
	// The content type is the attribute datacontenttype; a header of that name besides means nothing more.
	if contentType != "" {
		c.contentType = contentType
	}
	if !isJSON(c.contentType) {
		return Decoded{}, &Error{Code: UnsupportedData, Detail: "data is not JSON"}
	}
	if err := c.bytes(body, "data"); err != nil {
		return Decoded{}, err
	}
	return c.finish("", "")
}

// inHeader names the header in the detail: headers have no pointer.
func inHeader(err error, attr string) error {
	e := refuse(err, "")
	if !strings.HasPrefix(e.Detail, attr) {
		e.Detail = attr + " " + e.Detail
	}
	return e
}

func (c *cloudEvent) finish(typePointer, dataPointer string) (Decoded, error) {
	switch {
	case c.specVersion != "1.0":
		return Decoded{}, c.invalid("specversion", `is not "1.0"`)
	case c.Type == "":
		return Decoded{}, &Error{Code: MissingType, Pointer: typePointer, Detail: "type is required"}
	case c.ID == "":
		return Decoded{}, c.invalid("id", "is required")
	case !c.source:
		return Decoded{}, c.invalid("source", "is required")
	}
	if err := complete(&c.Event, typePointer, dataPointer); err != nil {
		return Decoded{}, err
	}
	c.Metadata = object(c.said)
	return c.Decoded, nil
}

// object writes attributes as a JSON object, in the order of their names, so that it does not depend on the order of
// headers.
func object(said []attribute) json.RawMessage {
	slices.SortFunc(said, func(a, b attribute) int { return strings.Compare(a.name, b.name) })
	out := []byte{'{'}
	for i, a := range said {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, '"')
		out = append(out, a.name...)
		out = append(out, '"', ':')
		out = append(out, a.value...)
	}
	return append(out, '}')
}

// isJSON reports whether a media type is JSON; none is.
func isJSON(contentType string) bool {
	media := mediaType(contentType)
	return media == "" || media == "application/json" || media == "text/json" || strings.HasSuffix(media, "+json")
}

// mediaType is the content type without its parameters, in lower case.
func mediaType(contentType string) string {
	media, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(media))
}

// quote writes a text as JSON without touching what needs no escape.
func quote(s string) (json.RawMessage, error) {
	if !utf8.ValidString(s) {
		return nil, errors.New("not UTF-8")
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(s); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}
