package journal

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRecordsAreReadByTheirPlaces(t *testing.T) {
	const name = "t"
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, name))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	cluster := kafka.New(kafka.Config{Brokers: broker.ListenAddrs(), SessionTimeout: 10 * time.Second}, slog.New(slog.DiscardHandler))
	j := New(cluster)
	if _, err := j.Ends(t.Context(), name); !errors.Is(err, ErrClosed) {
		t.Errorf("without a client: %v", err)
	}
	client, err := cluster.Client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	j.Use(client)
	for _, value := range []string{"a", "b", "c"} {
		if _, err := j.Write(t.Context(), &kgo.Record{Topic: name, Partition: 1, Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
	}
	if ends, err := j.Ends(t.Context(), name); err != nil || len(ends) != 2 || ends[0] != 0 || ends[1] != 3 {
		t.Errorf("ends %v, %v", ends, err)
	}
	for at, want := range map[webhook.Position]string{
		{Topic: name, Partition: 1, Offset: 1}: "b", {Topic: name, Partition: 1, Offset: 3}: "", {Topic: name, Partition: 0, Offset: 0}: "",
		{Topic: name, Partition: 7, Offset: 0}: "", {Topic: name, Partition: 1, Offset: -1}: "",
	} {
		r, err := j.Record(t.Context(), at)
		if err != nil || (r == nil) != (want == "") || r != nil && string(r.Value) != want {
			t.Errorf("%v: %v, %v; want %q", at, r, err, want)
		}
	}
	var read string
	if err := j.Range(t.Context(), name, 1, 1, 3, func(r *kgo.Record) { read += string(r.Value) }); err != nil || read != "bc" {
		t.Errorf("range: %q, %v", read, err)
	}
	if _, err := j.Record(t.Context(), webhook.Position{Topic: "nothing"}); err == nil {
		t.Error("a topic that is not there has no error")
	}
}
