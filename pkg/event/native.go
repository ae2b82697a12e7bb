package event

import (
	"github.com/hookline/hookline/pkg/strictjson"
)

// native reads Hookline's own JSON. Fields that nobody knows are ignored and counted.
func native(body []byte) (Decoded, error) {
	var d Decoded
	cloudEvent := false
	err := strictjson.Members(body, func(key, value []byte) (err error) {
		switch string(key) {
		case "event_id":
			d.ID, err = text(value, InvalidID, "/event_id")
		case "event_type":
			d.Type, err = text(value, InvalidType, "/event_type")
		case "event_timestamp":
			err = d.nativeTimestamp(value)
		case "tenant":
			d.Tenant, err = text(value, InvalidTenant, "/tenant")
		case "ordering_key":
			d.OrderingKey, err = text(value, InvalidOrderingKey, "/ordering_key")
		case "metadata":
			d.Metadata, err = metadata(value, "/metadata")
		case "data":
			d.Data = value
		default:
			d.Unknown++
			cloudEvent = cloudEvent || string(key) == "specversion"
		}
		return err
	})
	if err != nil {
		return Decoded{}, refuse(err, "")
	}
	if err := complete(&d.Event, "/event_type", "/data"); err != nil {
		e := refuse(err, "")
		if cloudEvent && e.Code == MissingType {
			e.Detail = "is required; a CloudEvent needs the content type application/cloudevents+json"
		}
		return Decoded{}, e
	}
	return d, nil
}

func (d *Decoded) nativeTimestamp(value []byte) error {
	const pointer = "/event_timestamp"
	if string(value) == "null" {
		return nil
	}
	s, err := strictjson.String(value)
	if err != nil {
		return &Error{Code: InvalidTimestamp, Pointer: pointer, Detail: "is not an RFC 3339 time"}
	}
	d.Timestamp, err = timestamp(s, pointer)
	return err
}
