package wire

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hookline/hookline/pkg/webhook"
)

// RetryOfDelivery makes the value of a retries record from that of a deliveries record, which goes on with a trip after a
// delay. It copies what the delivery has field by field, without making a [webhook.Delivery] of it: many come at once when
// an endpoint has no room for them.
func RetryOfDelivery(value []byte, trip uint32, delay time.Duration, reason webhook.Reason) ([]byte, error) {
	const tripField, delayField, reasonField = 3, 18, 19
	w := writer(make([]byte, 0, len(value)+32))
	for len(value) > 0 {
		number, _, size := protowire.ConsumeField(value)
		if size < 0 {
			return nil, fmt.Errorf("read delivery: %w", protowire.ParseError(size))
		}
		if number != tripField && number != delayField && number != reasonField {
			w = append(w, value[:size]...)
		}
		value = value[size:]
	}
	w.number(tripField, int64(trip))
	w.number(delayField, delay.Milliseconds())
	w.text(reasonField, string(reason))
	return w, nil
}
