package profile

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hookline/hookline/pkg/webhook"
)

// field is what a placeholder in a template stands for.
type field uint8

const (
	fieldNone field = iota
	fieldEventID
	fieldEventType
	fieldDeliveryID
	fieldSubscriptionID
	fieldTenant
	fieldOrderingKey
	fieldAttempt
	fieldEventTime
	fieldAttemptTime
	fieldBody
	fieldSignature
	fieldSignatures
	fieldLabel
)

var fieldNames = map[string]field{
	"event_id":          fieldEventID,
	"event_type":        fieldEventType,
	"delivery_id":       fieldDeliveryID,
	"subscription_id":   fieldSubscriptionID,
	"tenant":            fieldTenant,
	"ordering_key":      fieldOrderingKey,
	"attempt":           fieldAttempt,
	"event_timestamp":   fieldEventTime,
	"attempt_timestamp": fieldAttemptTime,
	"body":              fieldBody,
	"signature":         fieldSignature,
	"signatures":        fieldSignatures,
	"label":             fieldLabel,
}

// format is how a field is written.
type format uint8

const (
	formatPlain format = iota
	formatUnix
	formatUnixMilli
	formatRFC3339
	formatRFC3339Milli
	formatRFC3339Micro
	formatSlashes // an event type with / for .
	formatHead    // an event type up to the first .
	formatSorted  // a body as JavaScript prints it with sorted keys
)

var formatNames = map[field]map[string]format{
	fieldEventTime:   timeFormats,
	fieldAttemptTime: timeFormats,
	fieldEventType:   {"slashes": formatSlashes, "head": formatHead},
	fieldBody:        {"sorted": formatSorted},
}

var timeFormats = map[string]format{
	"unix": formatUnix, "unixms": formatUnixMilli,
	"rfc3339": formatRFC3339, "rfc3339ms": formatRFC3339Milli, "rfc3339us": formatRFC3339Micro,
}

var layouts = map[format]string{
	formatRFC3339:      "2006-01-02T15:04:05Z",
	formatRFC3339Milli: "2006-01-02T15:04:05.000Z",
	formatRFC3339Micro: "2006-01-02T15:04:05.000000Z",
}

// part is a literal text, or a field where field is set.
type part struct {
	literal string
	field   field
	format  format
}

func (p part) numeric() bool {
	return p.field == fieldAttempt || p.format == formatUnix || p.format == formatUnixMilli
}

type template []part

// The fields that may stand where.
var (
	eventFields = []field{
		fieldEventID, fieldEventType, fieldDeliveryID, fieldSubscriptionID, fieldTenant, fieldOrderingKey,
		fieldAttempt, fieldEventTime, fieldAttemptTime,
	}
	contentFields = append([]field{fieldBody}, eventFields...)
	valueFields   = append([]field{fieldSignatures}, eventFields...)
	eachFields    = []field{fieldSignature, fieldLabel}
)

// parseTemplate reads text with {field} and {field:format}. A time needs a format.
func parseTemplate(text string, allowed []field) (template, error) {
	var t template
	for text != "" {
		open := strings.IndexAny(text, "{}")
		if open < 0 {
			return append(t, part{literal: text}), nil
		}
		if open > 0 {
			t = append(t, part{literal: text[:open]})
		}
		end := strings.IndexByte(text[open:], '}')
		if text[open] == '}' || end < 0 {
			return nil, fmt.Errorf("braces do not match in %q", text)
		}
		p, err := parseField(text[open+1:open+end], allowed)
		if err != nil {
			return nil, err
		}
		t = append(t, p)
		text = text[open+end+1:]
	}
	return t, nil
}

func parseField(text string, allowed []field) (part, error) {
	name, formatName, formatted := strings.Cut(text, ":")
	p := part{field: fieldNames[name]}
	permitted := false
	for _, f := range allowed {
		permitted = permitted || p.field == f
	}
	if p.field == fieldNone || !permitted {
		return p, fmt.Errorf("{%s} is not known here", name)
	}
	if formatted {
		if p.format = formatNames[p.field][formatName]; p.format == formatPlain {
			return p, fmt.Errorf("{%s} has no format %q", name, formatName)
		}
	} else if p.field == fieldEventTime || p.field == fieldAttemptTime {
		return p, fmt.Errorf("{%s} needs a format: unix, unixms, rfc3339, rfc3339ms or rfc3339us", name)
	}
	return p, nil
}

func (t template) has(f field) bool {
	for _, p := range t {
		if p.field == f {
			return true
		}
	}
	return false
}

// input is what a request is made from.
type input struct {
	d  *webhook.Delivery
	at time.Time
}

// appendPlain appends a field of the event, the delivery or the attempt as it is.
func (p part) appendPlain(dst []byte, in input) []byte {
	switch p.field {
	case fieldDeliveryID:
		return appendUUID(dst, in.d.ID)
	case fieldAttempt:
		return strconv.AppendUint(dst, uint64(in.d.Attempts)+1, 10)
	case fieldEventTime:
		return appendTime(dst, in.d.Event.Timestamp, p.format)
	case fieldAttemptTime:
		return appendTime(dst, in.at, p.format)
	case fieldEventType:
		return appendType(dst, in.d.Event.Type, p.format)
	default:
		return append(dst, p.text(in)...)
	}
}

// text is a literal, or a field that is text already.
func (p part) text(in input) string {
	switch p.field {
	case fieldEventID:
		return in.d.Event.ID
	case fieldSubscriptionID:
		return in.d.SubscriptionID
	case fieldTenant:
		return in.d.Event.Tenant
	case fieldOrderingKey:
		return in.d.Event.OrderingKey
	default:
		return p.literal
	}
}

func (t template) appendPlain(dst []byte, in input) []byte {
	for _, p := range t {
		dst = p.appendPlain(dst, in)
	}
	return dst
}

func appendTime(dst []byte, t time.Time, f format) []byte {
	switch f {
	case formatUnix:
		return strconv.AppendInt(dst, t.Unix(), 10)
	case formatUnixMilli:
		return strconv.AppendInt(dst, t.UnixMilli(), 10)
	default:
		return t.UTC().AppendFormat(dst, layouts[f])
	}
}

func appendType(dst []byte, eventType string, f format) []byte {
	switch f {
	case formatHead:
		head, _, _ := strings.Cut(eventType, ".")
		return append(dst, head...)
	case formatSlashes:
		for i := range len(eventType) {
			c := eventType[i]
			if c == '.' {
				c = '/'
			}
			dst = append(dst, c)
		}
		return dst
	default:
		return append(dst, eventType...)
	}
}

func appendUUID(dst []byte, id [16]byte) []byte {
	dst = hex.AppendEncode(dst, id[:4])
	for _, group := range [][]byte{id[4:6], id[6:8], id[8:10], id[10:]} {
		dst = hex.AppendEncode(append(dst, '-'), group)
	}
	return dst
}
