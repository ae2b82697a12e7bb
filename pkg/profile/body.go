package profile

import (
	"errors"

	"github.com/hookline/hookline/pkg/ecmajson"
	"github.com/hookline/hookline/pkg/webhook"
)

// body is the program that writes a request's body: literals and values in the order of the profile's members, so that
// the producer's bytes are copied and never encoded again.
type body []op

type op struct {
	kind opKind
	// literal is JSON text as it is.
	literal string
	// part is one field: as text inside a JSON string, or as a number.
	part part
	// fill are the members of metadata that are added where absent.
	fill []fillMember
	// reserved are the names that spread data must not have.
	reserved []string
}

type opKind uint8

const (
	opLiteral opKind = iota
	opText
	opNumber
	opData
	opMetadata
	opSpread
)

// fillMember is a member that is added to an object that lacks it. head is its name with quotes and colon.
type fillMember struct {
	name, head string
	value      body
}

// append writes the body. Errors are *[ContractError].
func (b body) append(dst []byte, in input) ([]byte, error) {
	var err error
	for i := range b {
		if dst, err = b[i].append(dst, in); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

func (o *op) append(dst []byte, in input) ([]byte, error) {
	switch o.kind {
	case opLiteral:
		return append(dst, o.literal...), nil
	case opText:
		return o.part.appendText(dst, in), nil
	case opNumber:
		return o.part.appendPlain(dst, in), nil
	case opData:
		return append(dst, orNull(in.d.Event.Data)...), nil
	case opMetadata:
		return o.metadata(dst, in)
	default:
		return o.spread(dst, in)
	}
}

// appendText appends the field as the inside of a JSON string. Literals are escaped already.
func (p part) appendText(dst []byte, in input) []byte {
	switch p.field {
	case fieldEventID, fieldSubscriptionID, fieldTenant, fieldOrderingKey:
		return ecmajson.AppendText(dst, p.text(in))
	case fieldEventType:
		if p.format == formatPlain {
			return ecmajson.AppendText(dst, in.d.Event.Type)
		}
		return ecmajson.AppendText(dst, string(appendType(nil, in.d.Event.Type, p.format)))
	default:
		return p.appendPlain(dst, in)
	}
}

// metadata copies the event's metadata and adds what is absent at its end.
func (o *op) metadata(dst []byte, in input) ([]byte, error) {
	raw := in.d.Event.Metadata
	if len(raw) == 0 || string(raw) == "null" {
		raw = []byte("{}")
	}
	if len(o.fill) == 0 {
		return append(dst, raw...), nil
	}
	var present uint64
	inner, err := ecmajson.Members(raw, func(key []byte) error {
		for i, m := range o.fill {
			if ecmajson.SameKey(key, m.name) {
				present |= 1 << i
			}
		}
		return nil
	})
	if err != nil {
		return dst, refuse(CodeNotObject, "metadata is %v", err)
	}
	if present == 1<<len(o.fill)-1 {
		return append(dst, raw...), nil
	}
	dst = append(append(dst, '{'), inner...)
	for i, m := range o.fill {
		if present&(1<<i) != 0 {
			continue
		}
		if len(inner) > 0 || dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(dst, m.head...)
		if dst, err = m.value.append(dst, in); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

// spread writes the members of data, with a comma before them where there are any.
func (o *op) spread(dst []byte, in input) ([]byte, error) {
	inner, err := ecmajson.Members(orNull(in.d.Event.Data), func(key []byte) error {
		for _, name := range o.reserved {
			if ecmajson.SameKey(key, name) {
				return refuse(CodeReserved, "data has a member %q of its own, which the envelope writes", name)
			}
		}
		return nil
	})
	switch {
	case errors.Is(err, ecmajson.ErrNotObject) || errors.Is(err, ecmajson.ErrNotJSON):
		return dst, refuse(CodeNotObject, "data is %v, and its members must stand at the top level of the body", err)
	case err != nil || len(inner) == 0:
		return dst, err
	}
	return append(append(dst, ','), inner...), nil
}

func orNull(data []byte) []byte {
	if len(data) == 0 {
		return []byte("null")
	}
	return data
}

// size is about how long the body of a delivery will be.
func (b body) size(d *webhook.Delivery) int {
	return 320 + len(d.Event.Data) + len(d.Event.Metadata) + len(d.Event.ID) + 2*len(d.Event.Type)
}
