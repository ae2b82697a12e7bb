package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/valyala/fasthttp"

	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/seal"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

const partSources = "sources"

// What is to be reached on two cores, the broker and the sender of the requests included.
const (
	targetInbound    = 5000
	inboundPace      = 500
	targetInboundP99 = 50 * time.Millisecond
)

// inboundSecret signs the requests.
const inboundSecret = "the-secret-of-the-aggregator-of-the-bench"

// runSources measures the inbound path: a signed webhook to its 202, which is Kafka's acknowledgement of the event. It needs Kafka only;
// what the control plane would publish it writes itself.
func runSources(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet(partSources, flag.ExitOnError)
	hookline := flags.String("hookline", "bin/hookline", "Hookline's binary")
	out := flags.String("out", "tests/bench/results-sources.md", "where the results go; empty prints them only")
	profile := flags.String("profile", "", "file for a CPU profile of ingest at full speed; costs some of it")
	span := flags.Duration("span", 20*time.Second, "how long each part takes")
	if err := flags.Parse(args); err != nil {
		return err
	}
	brokers := os.Getenv("TEST_KAFKA_BROKERS")
	if brokers == "" {
		return errors.New("TEST_KAFKA_BROKERS must name a broker: scripts/servers with go run ./tests/bench sources")
	}
	b := &inbound{brokers: brokers, prefix: "sources-" + strings.ToLower(rand.Text())[:10] + ".", machine: describeMachine(ctx), span: *span, profile: *profile}
	return published(*out, func(dir string) (string, error) {
		if err := b.run(ctx, dir, *hookline); err != nil {
			return "", err
		}
		return b.markdown(), nil
	})
}

// inbound is one run.
type inbound struct {
	brokers, prefix string
	machine         Machine
	span            time.Duration
	profile         string

	url    string
	host   *fasthttp.HostClient
	full   inboundStage
	paced  inboundStage
	events int64 // on the topic at the end
	sent   int   // answered 202, warming up included
}

// inboundStage is what was measured at one load.
type inboundStage struct {
	answered  int
	took      time.Duration
	latencies []time.Duration // ascending
	cpu       time.Duration   // of ingest
	others    float64         // share of the machine that somebody else used
}

func (b *inbound) run(ctx context.Context, dir, hookline string) error {
	cluster := kafka.New(kafka.Config{Brokers: strings.Split(b.brokers, ","), SessionTimeout: 6 * time.Second, TopicPrefix: b.prefix}, slog.New(slog.DiscardHandler))
	client, err := cluster.Client(cluster.Producer()...)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := kafka.Ensure(ctx, client, cluster.Topics.Specs(6), 1); err != nil {
		return err
	}
	defer func() {
		_, _ = kadm.NewClient(client).DeleteTopics(context.WithoutCancel(ctx), cluster.Topics.All()...)
	}()
	keys := seal.NewKey("bench")
	if err := publishSource(ctx, client, cluster.Topics.Config, keys); err != nil {
		return err
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	admin, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	p, err := start(ctx, dir, "ingest", map[string]string{
		"HOOKLINE_KAFKA_BROKERS": b.brokers, "HOOKLINE_TOPIC_PREFIX": b.prefix, "HOOKLINE_INGEST_ADDR": address, "HOOKLINE_ADMIN_ADDR": admin,
		"HOOKLINE_ENCRYPTION_KEYS": keys, "HOOKLINE_KAFKA_SESSION_TIMEOUT": "6s",
		"HOOKLINE_PPROF": fmt.Sprint(b.profile != ""),
	}, hookline, "ingest")
	if err != nil {
		return err
	}
	defer p.stop()
	if err := p.ready(ctx); err != nil {
		return err
	}
	b.url, b.host = "http://"+address+"/v1/sources/bench", &fasthttp.HostClient{Addr: address, MaxConns: connections}
	if _, err := b.load(ctx, p, 3*time.Second, 0); err != nil {
		return err
	}
	profiled := b.profiling(ctx, admin)
	if b.full, err = b.load(ctx, p, b.span, 0); err != nil {
		return err
	}
	if err := <-profiled; err != nil {
		return err
	}
	if b.paced, err = b.load(ctx, p, b.span, inboundPace); err != nil {
		return err
	}
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, cluster.Topics.Events)
	if err != nil {
		return err
	}
	ends.Each(func(o kadm.ListedOffset) { b.events += o.Offset })
	if b.events < int64(b.sent) {
		return fmt.Errorf("%d requests were answered, and the topic has %d events", b.sent, b.events)
	}
	return nil
}

// profiling writes a CPU profile of what is measured next, where one is asked for.
func (b *inbound) profiling(ctx context.Context, admin string) <-chan error {
	done := make(chan error, 1)
	go func() {
		defer close(done)
		if b.profile == "" {
			return
		}
		text, err := fetch(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", admin, int(b.span.Seconds())))
		if err == nil {
			err = os.WriteFile(b.profile, text, 0o600)
		}
		done <- err
	}()
	return done
}

func publishSource(ctx context.Context, client *kgo.Client, topic, keys string) error {
	ring, err := seal.ParseRing(keys)
	if err != nil {
		return err
	}
	s := &webhook.Source{ID: "bench", Tenant: webhook.DefaultTenant, Name: "bench", Spec: json.RawMessage(`{
		"verify": {"scheme": "hmac", "header": "X-Signature", "separator": ",", "prefix": "v1=", "content": "{timestamp}.{body}", "timestamp": {"prefix": "t="}},
		"id": {"header": "X-Request-Id"},
		"connection": {"aggregator": "mx", "remoteId": {"pointer": "/member_guid"}},
		"event": {"type": {"const": "financial_connection.sync_data"}, "orderingKey": {"connection": "id"}, "data": [
			{"name": "financial_connection_id", "connection": "id"}, {"name": "environment", "connection": "environment"},
			{"name": "source", "connection": "aggregator"}, {"name": "remote_data", "raw": true}]}}`)}
	s.Versions = []webhook.SecretVersion{{Number: 1, Sealed: ring.Seal([]byte(inboundSecret), s.Secret(), 1)}}
	records := []*kgo.Record{{Topic: topic, Key: []byte(wire.ConfigKey(wire.KindSource, s.ID)), Value: wire.EncodeSource(s)}}
	for n := range inboundConnections {
		c := &webhook.Connection{Tenant: s.Tenant, Aggregator: "mx", RemoteID: fmt.Sprintf("MBR-%04d", n), ConnectionID: fmt.Sprintf("conn-%04d", n), Client: s.Tenant, Environment: "sandbox"}
		c.ID = webhook.ConnectionID(c.Tenant, c.Aggregator, c.RemoteID)
		records = append(records, &kgo.Record{Topic: topic, Key: []byte(wire.ConfigKey(wire.KindConnection, c.ID)), Value: wire.EncodeConnection(c)})
	}
	return client.ProduceSync(ctx, records...).FirstErr()
}

const inboundConnections = 1000

// load posts signed webhooks for a while: as fast as answers come, or at a rate, whose latencies count from when each was due.
func (b *inbound) load(ctx context.Context, p *process, span time.Duration, perSecond int) (inboundStage, error) {
	ctx, cancel := context.WithTimeout(ctx, span)
	defer cancel()
	var stage inboundStage
	var mu sync.Mutex
	var problem error
	var all sync.WaitGroup
	due := b.due(ctx, perSecond)
	pids := map[string]int{"ingest": p.pid(), "sender": os.Getpid(), "broker": b.broker()}
	before, began := measure(pids), time.Now()
	for range connections {
		all.Go(func() {
			one := newInboundSender(b)
			var times []time.Duration
			for at := range due {
				if perSecond == 0 {
					at = time.Now()
				}
				if err := one.post(); err != nil {
					mu.Lock()
					problem = err
					mu.Unlock()
					cancel()
					break
				}
				times = append(times, time.Since(at))
			}
			mu.Lock()
			defer mu.Unlock()
			stage.latencies = append(stage.latencies, times...)
		})
	}
	all.Wait()
	stage.took = time.Since(began)
	spent := measure(pids).since(before)
	stage.cpu = spent.cpu["ingest"]
	ours := spent.cpu["ingest"] + spent.cpu["sender"] + spent.cpu["broker"]
	stage.others = max(0, (spent.cpu[""]-ours).Seconds()/(stage.took.Seconds()*float64(runtime.NumCPU())))
	stage.answered = len(stage.latencies)
	slices.Sort(stage.latencies)
	b.sent += stage.answered
	return stage, problem
}

// broker is the process of the first broker, where it runs on this machine.
func (b *inbound) broker() int {
	_, port, _ := net.SplitHostPort(strings.Split(b.brokers, ",")[0])
	n, err := strconv.Atoi(port)
	if err != nil {
		return 0
	}
	return listener(n)
}

// due hands out the moments at which requests are to be made, until ctx ends.
func (b *inbound) due(ctx context.Context, perSecond int) <-chan time.Time {
	moments := make(chan time.Time, connections)
	go func() {
		defer close(moments)
		next, timer := time.Now(), time.NewTimer(0)
		defer timer.Stop()
		for {
			if perSecond > 0 {
				next = next.Add(time.Second / time.Duration(perSecond))
				timer.Reset(time.Until(next))
				select {
				case <-timer.C:
				case <-ctx.Done():
					return
				}
			}
			select {
			case moments <- next:
			case <-ctx.Done():
				return
			}
		}
	}()
	return moments
}

// inboundSender makes one request at a time.
type inboundSender struct {
	b        *inbound
	request  *fasthttp.Request
	response *fasthttp.Response
}

func newInboundSender(b *inbound) *inboundSender {
	s := &inboundSender{b: b, request: fasthttp.AcquireRequest(), response: fasthttp.AcquireResponse()}
	s.request.Header.SetMethod(http.MethodPost)
	s.request.Header.SetContentType("application/json")
	s.request.SetRequestURI(b.url)
	return s
}

func (s *inboundSender) post() error {
	id := rand.Text()
	body := fmt.Appendf(nil, `{"type":"AGGREGATION","action":"member_data_updated","user_guid":"USR-67bcb452-225e-11ee-be56-0242ac120002",`+
		`"member_guid":"MBR-%04d","job_guid":"JOB-%s","transactions_created_count":2,"transactions_updated_count":0,"is_background":true,`+
		`"completed_at":1688527757,"completed_on":"2023-07-05"}`, int(id[0])*int(id[1])%inboundConnections, id)
	stamp := fmt.Sprint(time.Now().Unix())
	mac := hmac.New(sha256.New, []byte(inboundSecret))
	mac.Write([]byte(stamp + "."))
	mac.Write(body)
	s.request.Header.Set("X-Request-Id", id)
	s.request.Header.Set("X-Signature", "t="+stamp+",v1="+hex.EncodeToString(mac.Sum(nil)))
	s.request.SetBodyRaw(body)
	if err := s.b.host.Do(s.request, s.response); err != nil {
		return err
	}
	if s.response.StatusCode() != http.StatusAccepted {
		return fmt.Errorf("ingest answered %d %s", s.response.StatusCode(), s.response.Body())
	}
	return nil
}

func (b *inbound) markdown() string {
	var out strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }
	perSecond := float64(b.full.answered) / b.full.took.Seconds()
	p99 := quantile(b.paced.latencies, .99)
	verdict := func(ok bool) string {
		if ok {
			return "reached"
		}
		return "missed"
	}
	line("# How many webhooks a second ingest takes from third parties\n")
	line("Written by `scripts/servers with go run ./tests/bench sources`.\n")
	line("| | measured | target | |\n|---|---|---|---|")
	line("| requests/s, verified, mapped and acknowledged | %.0f | %d | %s |", perSecond, targetInbound, verdict(perSecond >= targetInbound))
	line("| p99 at %d/s | %s | %s | %s |", inboundPace, p99.Round(10*time.Microsecond), targetInboundP99, verdict(p99 < targetInboundP99))
	line("| p50 at %d/s | %s | | |", inboundPace, quantile(b.paced.latencies, .5).Round(10*time.Microsecond))
	line("| p99 at full speed | %s | | |", quantile(b.full.latencies, .99).Round(10*time.Microsecond))
	line("| processor time of ingest for a request | %s | | |", (b.full.cpu / time.Duration(max(b.full.answered, 1))).Round(time.Microsecond))
	line("| share of the machine that others used, at full speed and at %d/s | %.0f %%, %.0f %% | | |\n", inboundPace, 100*b.full.others, 100*b.paced.others)
	line("%d requests were answered 202; the topic held %d events at the end.\n", b.sent, b.events)
	line("Commit %s, %s, %s, %s, load %s before.\n", b.machine.Commit, b.machine.CPU, b.machine.Kernel, b.machine.Go, b.machine.Load)
	line("One ingest process and one broker, `acks=all`. %d connections post bodies of some 300 bytes, each signed with HMAC-SHA256 over timestamp and body, for", connections)
	line("1,000 connections; the same machine runs the broker, ingest and the sender. A latency at a rate counts from when the request was due.")
	return out.String()
}
