package router

import (
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/telemetry"
)

// The broker is in the same process, so this measures the router and the broker together.
func BenchmarkEventsOf500BytesToTwoSubscriptions(b *testing.B) {
	benchmarkRouting(b, max(b.N, 2000), newTable("s1", "s2"))
}

func BenchmarkOneEventToTwentyThousandSubscriptions(b *testing.B) {
	benchmarkRouting(b, b.N, newTable(many(20_000)...))
}

func benchmarkRouting(b *testing.B, events int, c *table) {
	fake, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		b.Fatal(err)
	}
	defer fake.Close()
	w := &world{fake: fake}
	w.cluster = kafka.New(kafka.Config{Brokers: fake.ListenAddrs(), SessionTimeout: 10 * time.Second, TopicPrefix: "hookline."}, slog.New(slog.DiscardHandler))
	w.topics = w.cluster.Topics
	if w.client, err = w.cluster.Client(w.cluster.Producer()...); err != nil {
		b.Fatal(err)
	}
	defer w.client.Close()
	if err := kafka.Ensure(b.Context(), w.client, w.topics.Specs(4), 1); err != nil {
		b.Fatal(err)
	}
	if w.metrics, err = telemetry.NewMetrics(noop.NewMeterProvider()); err != nil {
		b.Fatal(err)
	}
	records := make([]*kgo.Record, events)
	for i := range records {
		records[i] = &kgo.Record{Topic: w.topics.Events, Key: []byte(strconv.Itoa(i)),
			Value: fmt.Appendf(nil, `{"event_id":"%d","event_type":"a.b","tenant":"default","metadata":{"region":"eu"},"data":{"text":%q}}`, i, strings.Repeat("x", 360))}
	}
	if err := w.client.ProduceSync(b.Context(), records...).FirstErr(); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	began := time.Now()
	stop := w.startIn(b, c, nil)
	want := int64(events * len(c.subs))
	for adm := kadm.NewClient(w.client); ; {
		ends, err := adm.ListEndOffsets(b.Context(), w.topics.Deliveries)
		if err != nil {
			b.Fatal(err)
		}
		var total int64
		ends.Each(func(o kadm.ListedOffset) { total += o.Offset })
		if total >= want {
			break
		}
	}
	b.ReportMetric(float64(want)/time.Since(began).Seconds(), "deliveries/s")
	b.StopTimer()
	stop()
}
