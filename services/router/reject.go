package router

import (
	"github.com/hookline/hookline/pkg/event"
	"github.com/hookline/hookline/pkg/kafka"
)

// reject sends a record that is no event to the rejected topic. Its passage is settled with the others'.
func (ss *session) reject(p *passage) {
	ss.sendRejected(p, false)
	ss.sent = append(ss.sent, p)
}

func (ss *session) sendRejected(p *passage, cut bool) {
	rejected := ss.deps.Kafka.Rejected(p.record, string(p.refused.Code), detail(p.refused))
	if cut {
		rejected = kafka.CutRejected(rejected)
	}
	ss.produce(p, rejected)
}

func detail(why *event.Error) string {
	if why.Pointer == "" {
		return why.Detail
	}
	return why.Pointer + ": " + why.Detail
}
