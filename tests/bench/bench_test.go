package main

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/tests/testenv"
)

// TestMain also is the receiver and the floor, which the bench starts from its own binary.
func TestMain(m *testing.M) {
	if part := partOf(os.Args[1:]); part != nil {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := part(ctx, os.Args[2:]); err != nil {
			panic(err)
		}
		return
	}
	testenv.Main(m)
}

// How fast it was is not asserted: it depends on who else uses the machine.
func TestAShortRunMeasuresEverythingAndLosesNothing(t *testing.T) {
	settings := quick()
	settings.Hookline = testenv.Binary(t)
	b := &bench{Settings: settings, dir: t.TempDir(), say: func(text string) { t.Log(text) },
		Servers: newServers(testenv.Kafka(t), testenv.Redis(t), testenv.Postgres(t))}
	report, err := b.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Rounds) != settings.Rounds {
		t.Fatalf("%d rounds, want %d", len(report.Rounds), settings.Rounds)
	}
	r := report.Rounds[0]
	if r.Floor.PerSecond <= 0 || r.Pipeline.PerSecond <= 0 || r.Pipeline.AuditedPerSecond <= 0 || r.ratio() <= 0 {
		t.Errorf("speeds are missing: %+v", r)
	}
	paced := int(settings.Paced.Seconds() * float64(settings.Pace))
	if len(report.Paced) != paced || len(report.Saturated) == 0 || report.SaturatedPerSecond <= 0 {
		t.Errorf("%d latencies at the pace, want %d; %d at full speed", len(report.Paced), paced, len(report.Saturated))
	}
	if least := settings.PipelineEvents + paced + len(report.Saturated); r.Pipeline.Audited < least {
		t.Errorf("the audit has %d deliveries, at least %d were made", r.Pipeline.Audited, least)
	}
	for _, name := range append(services, router, partReceiver, partFloor) {
		if report.Peak[name] == 0 {
			t.Errorf("no memory was measured of %s", name)
		}
	}
	if text := report.markdown(); !strings.Contains(text, "pipeline : floor") || strings.Contains(text, "NaN") || strings.Contains(text, "%!") {
		t.Errorf("the report is broken:\n%s", text)
	}
}

func TestAnEventHasItsSizeAndItsNumber(t *testing.T) {
	p, err := newProducer([]string{"127.0.0.1:1"}, "events", "bench-abcdefghij")
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	for _, sequence := range []int{0, 7, 123_456_789} {
		event := p.event(sequence)
		number, ok := sequenceOf(event)
		if len(event) != eventSize || !ok || number != int64(sequence) {
			t.Errorf("event %d: %d bytes, number %d: %s", sequence, len(event), number, event)
		}
	}
}

func TestTheReceiverTellsWhatArrivedOnceTwiceAndWrongly(t *testing.T) {
	p, err := newProducer([]string{"127.0.0.1:1"}, "events", "bench-abcdefghij")
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	address := testenv.Addr(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- runReceiver(ctx, []string{address}) }()
	client := receiverClient{address}
	if err := testenv.Until(10*time.Second, func() bool { return client.expect(ctx, 5, 2) == nil }); err != nil {
		t.Fatal(err)
	}
	sender := newSender(newFastClient(), client.hook(), []byte("secret"))
	for _, sequence := range []int{5, 6, 6, 9} {
		if err := sender.send(&kgo.Record{Value: p.event(sequence)}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := client.counts(ctx)
	if want := (counts{Arrived: 2, Repeated: 1, Strange: 1}); err != nil || got != want {
		t.Errorf("got %+v, want %+v (%v)", got, want, err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestQuantilesAndMedians(t *testing.T) {
	times := []time.Duration{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	if p50, p99, none := quantile(times, 0.5), quantile(times, 0.99), quantile(nil, 0.5); p50 != 6 || p99 != 10 || none != 0 {
		t.Errorf("p50 %d, p99 %d, of nothing %d", p50, p99, none)
	}
	if m := median([]float64{3, 1, 2}); m != 2 {
		t.Errorf("median %v", m)
	}
}

func TestProcessorTimeOfThisProcessIsMeasured(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		testenv.Lacks(t, "/proc", err)
	}
	before := measure(map[string]int{"me": os.Getpid()})
	deadline := time.Now().Add(10 * time.Second)
	for {
		spent := measure(map[string]int{"me": os.Getpid()}).since(before)
		if spent.cpu["me"] > 0 && spent.cpu[""] >= spent.cpu["me"] {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("measured %v", spent.cpu)
		}
	}
	if ownPeak(os.Getpid()) == 0 {
		t.Error("no memory was measured")
	}
}
