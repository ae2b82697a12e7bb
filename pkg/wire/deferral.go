package wire

import (
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hookline/hookline/pkg/webhook"
)

// RetryOfDelivery makes the value of a retries record from that of a deliveries record, which goes on with a trip after a
// delay. It copies what the delivery has field by field, without making a [webhook.Delivery] of it: many come at once when
// an endpoint has no room for them.
func RetryOfDelivery(value []byte, trip uint32, delay time.Duration, reason webhook.Reason) ([]byte, error) {
	copied, err := copyFields(make([]byte, 0, len(value)+32), value, func(number protowire.Number, _ []byte) bool {
		return number != tripField && number != delayField && number != reasonField
	})
	if err != nil {
		return nil, err
	}
	w := writer(copied)
	w.number(tripField, int64(trip))
	w.number(delayField, delay.Milliseconds())
	w.text(reasonField, string(reason))
	return w, nil
}
