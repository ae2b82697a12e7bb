// Package kafkatest reads in tests what a topic holds.
package kafkatest

import (
	"context"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/kafka"
)

// Records are all that a topic holds now, of which nothing has been deleted.
func Records(t testing.TB, cluster *kafka.Cluster, topic string) (all []*kgo.Record) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context()) // a clean-up may look too
	cl, err := cluster.Client(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	var total int64
	ends.Each(func(o kadm.ListedOffset) { total += o.Offset })
	for int64(len(all)) < total {
		all = append(all, cl.PollFetches(ctx).Records()...)
	}
	return all
}
