package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/run"
	"github.com/hookline/hookline/services/hookline/cli"
)

// The demo: one endpoint that works, one that fails twice before it recovers, and a few events from Kafka and over HTTP.
const (
	demoPrefix    = "demo-"
	demoEventType = "demo.order.created"
	demoProfile   = "fynapse"
	demoFromKafka = 3
	demoOverHTTP  = 2
	demoPatience  = time.Minute
)

// demo is one run of it.
type demo struct {
	out       io.Writer
	about     guide
	client    cli.Client
	live      func(subscription string) bool
	endpoints []*demoEndpoint
	began     time.Time

	mu       sync.Mutex
	requests int
	failed   int
	unsigned int
	arrived  map[string]bool // endpoint and delivery that got a 2xx
	all      chan struct{}   // closed when everything has arrived
}

type demoEndpoint struct {
	name     string
	answers  string
	listener net.Listener
	receiver *receiver
}

// runDemo prints deliveries as they happen, and returns after a summary line. It leaves its subscriptions, whose deliveries can be looked
// up; the next demo removes them.
func runDemo(ctx context.Context, out io.Writer, about guide, live func(subscription string) bool) error {
	d := &demo{
		out: out, about: about, live: live, client: cli.Client{URL: about.URL, Key: about.Key},
		arrived: map[string]bool{}, all: make(chan struct{}),
		endpoints: []*demoEndpoint{{name: "steady", answers: "200"}, {name: "flaky", answers: "503,timeout,200"}},
	}
	if err := d.prepare(ctx); err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	group, serving := errgroup.WithContext(serving)
	for _, e := range d.endpoints {
		group.Go(func() error {
			return run.Serve(serving, slog.New(slog.DiscardHandler), e.listener, e.receiver, time.Second)
		})
	}
	group.Go(func() error {
		defer stop()
		return d.show(serving)
	})
	return group.Wait()
}

// prepare replaces the subscriptions of an earlier demo by new ones to two local endpoints.
func (d *demo) prepare(ctx context.Context) error {
	var earlier struct {
		Items []struct{ ID, Name string }
	}
	if err := d.client.Call(ctx, http.MethodGet, cli.Path+"/subscriptions?limit=1000", nil, &earlier); err != nil {
		return err
	}
	for _, s := range earlier.Items {
		if strings.HasPrefix(s.Name, demoPrefix) {
			if err := d.client.Call(ctx, http.MethodDelete, cli.Path+"/subscriptions/"+s.ID, nil, nil); err != nil {
				return err
			}
		}
	}
	for _, e := range d.endpoints {
		if err := d.subscribe(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) subscribe(ctx context.Context, e *demoEndpoint) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	answers, err := parseScript(e.answers)
	if err != nil {
		return err
	}
	contract, ok := profile.Builtin().Get(demoProfile)
	if !ok {
		return fmt.Errorf("profile %s is not built in", demoProfile)
	}
	// A name of its own each time: a secret may not be deleted with its subscription, and is named after it.
	name := demoPrefix + e.name + time.Now().UTC().Format("-20060102-150405.000")
	var made struct{ ID, SecretValue string }
	err = d.client.Call(ctx, http.MethodPost, cli.Path+"/subscriptions", map[string]any{
		"name": name, "endpointUrl": "http://" + listener.Addr().String() + "/" + e.name,
		"eventTypes": []string{"demo.*"}, "profile": demoProfile,
		"overrides": map[string]any{
			"timeout":    "300ms",
			"retry":      map[string]any{"delays": []string{"300ms", "700ms", "1s", "2s", "5s"}},
			"microRetry": map[string]any{"attempts": 1, "min": "200ms", "max": "200ms"},
		},
	}, &made)
	if err != nil {
		return err
	}
	// Events that are routed before the subscription is live are not for it.
	if !poll(ctx, func() bool { return d.live(made.ID) }) {
		return ctx.Err()
	}
	e.listener = listener
	e.receiver = &receiver{
		profile: contract, secrets: [][]byte{[]byte(made.SecretValue)}, script: answers,
		report: func(r received) { d.saw(e, r) },
	}
	return nil
}

// show produces the events and waits until all have arrived.
func (d *demo) show(ctx context.Context) error {
	d.began = time.Now()
	fmt.Fprintf(d.out, "Demo: %d events to two endpoints. One works; the other answers %s.\n\n",
		demoFromKafka+demoOverHTTP, strings.ReplaceAll(d.endpoints[1].answers, ",", ", then "))
	if err := d.produce(ctx); err != nil {
		return err
	}
	patience, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	select {
	case <-d.all:
		return d.summarise()
	case <-patience.Done():
		d.mu.Lock()
		defer d.mu.Unlock()
		return fmt.Errorf("%d of %d deliveries arrived within %v", len(d.arrived), d.expected(), demoPatience)
	}
}

func (d *demo) expected() int { return (demoFromKafka + demoOverHTTP) * len(d.endpoints) }

func (d *demo) produce(ctx context.Context) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(d.about.Brokers, ",")...), kgo.DefaultProduceTopic(d.about.Topic))
	if err != nil {
		return err
	}
	defer client.Close()
	for i := range demoFromKafka {
		event := fmt.Sprintf(`{"event_type":%q,"data":{"order":%d,"via":"kafka"}}`, demoEventType, i+1)
		if err := client.ProduceSync(ctx, kgo.StringRecord(event)).FirstErr(); err != nil {
			return fmt.Errorf("produce: %w", err)
		}
	}
	for i := range demoOverHTTP {
		event := map[string]any{"event_type": demoEventType, "data": map[string]any{"order": demoFromKafka + i + 1, "via": "http"}}
		if err := d.client.Call(ctx, http.MethodPost, "/v1/events", event, nil); err != nil {
			return err
		}
	}
	return nil
}

// saw prints a request and counts it.
func (d *demo) saw(e *demoEndpoint, r received) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delivery := r.Header.Get("Idempotency-Key")
	fmt.Fprintf(d.out, "  %6.3fs  %-6s  delivery %.8s  signature %s  answered %s\n",
		r.At.Sub(d.began).Seconds(), e.name, delivery, r.Signature, r.Answer)
	d.requests++
	if r.Signature != signatureValid {
		d.unsigned++
	}
	if r.Answer.status/100 != 2 {
		d.failed++
		return
	}
	before := len(d.arrived)
	d.arrived[e.name+"/"+delivery] = true
	if len(d.arrived) == d.expected() && before < d.expected() {
		close(d.all)
	}
}

func (d *demo) summarise() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	signed := "every signature was valid"
	if d.unsigned > 0 {
		signed = fmt.Sprintf("%d signatures were not valid", d.unsigned)
	}
	_, err := fmt.Fprintf(d.out, "\nDemo done: %d events, %d deliveries, all delivered in %.1fs with %d requests, of which %d failed and were made again; %s.\n",
		demoFromKafka+demoOverHTTP, d.expected(), time.Since(d.began).Seconds(), d.requests, d.failed, signed)
	return err
}
