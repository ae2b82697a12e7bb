package scheduler

import (
	"bytes"
	"sync"

	"github.com/hookline/hookline/pkg/webhook"
)

// cache keeps the records of what is due soon, up to a number of bytes. What does not fit is not kept: it is read from
// Kafka when it is due. Its methods may be called concurrently.
type cache struct {
	mu   sync.Mutex
	free int64
	kept map[webhook.Trip]cached
}

type cached struct {
	partition int32
	offset    int64
	value     []byte
}

// overhead is what an entry costs besides its value, about.
const overhead = 160

func newCache(limit int64) *cache { return &cache{free: limit, kept: map[webhook.Trip]cached{}} }

// put keeps a copy of the record's value; the record itself would keep its whole fetch alive.
func (c *cache) put(partition int32, trip webhook.Trip, offset int64, value []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(trip)
	if cost := int64(len(value)) + overhead; cost <= c.free {
		c.free -= cost
		c.kept[trip] = cached{partition: partition, offset: offset, value: bytes.Clone(value)}
	}
}

// take returns the value of the record at an offset and forgets it.
func (c *cache) take(trip webhook.Trip, offset int64) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	entry, ok := c.kept[trip]
	c.remove(trip)
	return entry.value, ok && entry.offset == offset
}

func (c *cache) forget(trip webhook.Trip) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(trip)
}

func (c *cache) forgetPartition(partition int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for trip, entry := range c.kept {
		if entry.partition == partition {
			c.remove(trip)
		}
	}
}

func (c *cache) remove(trip webhook.Trip) {
	if entry, ok := c.kept[trip]; ok {
		c.free += int64(len(entry.value)) + overhead
		delete(c.kept, trip)
	}
}
