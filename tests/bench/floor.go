package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/valyala/fasthttp"
	"golang.org/x/sync/errgroup"
)

const (
	partFloor = "floor"

	// connections are as many as the pipeline uses to one endpoint by default.
	connections = 64
)

// runFloor reads a topic from its start, and POSTs every record signed, until ctx ends. It keeps nothing and repeats
// nothing: what it costs is what any deliverer from Kafka must pay. Arguments: brokers, topic, URL, and over how many endpoints
// from that on the records are spread; 1 if left out.
func runFloor(ctx context.Context, args []string) error {
	endpoints, err := endpointsOf(args)
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(args[0], ",")...), kgo.ConsumeTopics(args[1]),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer client.Close()
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // it ends the program where there is no randomness
	sending := newFastClient()
	group, ctx := errgroup.WithContext(ctx)
	work := make(chan *kgo.Record, 4*connections)
	for range connections {
		group.Go(func() error {
			s := newSender(sending, endpoints[0].String(), secret)
			pick := picker(len(endpoints))
			for r := range work {
				if len(endpoints) > 1 {
					s.request.SetRequestURI(endpoints[pick()].String())
				}
				if err := s.send(r); err != nil {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(work)
		return readInto(ctx, client, work)
	})
	return group.Wait()
}

func readInto(ctx context.Context, client *kgo.Client, work chan<- *kgo.Record) error {
	for {
		fetches := client.PollRecords(ctx, 1000)
		if ctx.Err() != nil {
			return nil
		}
		if err := fetches.Err(); err != nil {
			return err
		}
		for r := range fetches.RecordsAll() {
			select {
			case work <- r:
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// endpointsOf reads the arguments of a bare loop.
func endpointsOf(args []string) ([]*url.URL, error) {
	if len(args) < 3 || len(args) > 4 {
		return nil, errors.New("want three or four arguments: brokers, topic, URL, how many endpoints")
	}
	first, err := url.Parse(args[2])
	if err != nil {
		return nil, err
	}
	endpoints := []*url.URL{first}
	if len(args) == 4 {
		count, err := strconv.Atoi(args[3])
		if err != nil {
			return nil, err
		}
		for n := 1; n < count; n++ {
			another := *first
			another.Host = net.JoinHostPort(hostAddress(2*n), first.Port())
			endpoints = append(endpoints, &another)
		}
	}
	return endpoints, nil
}

// picker draws endpoints as [engineBench.endpoints] does.
func picker(count int) func() uint64 {
	if count == 1 {
		return func() uint64 { return 0 }
	}
	return mathrand.NewZipf(mathrand.New(mathrand.NewPCG(1, mathrand.Uint64())), zipfS, zipfV, uint64(count-1)).Uint64
}

func newFastClient() *fasthttp.Client { return &fasthttp.Client{MaxConnsPerHost: connections} }

// sender makes one request at a time, in the same memory.
type sender struct {
	client    *fasthttp.Client
	mac       hash.Hash
	signature []byte
	request   *fasthttp.Request
	response  *fasthttp.Response
}

func newSender(client *fasthttp.Client, url string, secret []byte) *sender {
	s := &sender{client: client, mac: hmac.New(sha256.New, secret), request: fasthttp.AcquireRequest(), response: fasthttp.AcquireResponse()}
	s.request.Header.SetMethod(fasthttp.MethodPost)
	s.request.Header.SetContentType("application/json")
	s.request.SetRequestURI(url)
	return s
}

func (s *sender) send(r *kgo.Record) error {
	body := r.Value
	var at [20]byte
	t := strconv.AppendInt(at[:0], time.Now().Unix(), 10)
	s.mac.Reset()
	s.mac.Write(t)
	s.mac.Write([]byte{'.'})
	s.mac.Write(body)
	var sum [sha256.Size]byte
	s.signature = append(append(append(s.signature[:0], "t="...), t...), ",v1="...)
	s.signature = hex.AppendEncode(s.signature, s.mac.Sum(sum[:0]))
	s.request.Header.SetBytesV(signatureHeader, s.signature)
	s.request.Header.SetBytesV("Webhook-Id", r.Key)
	s.request.SetBodyRaw(body)
	if err := s.client.Do(s.request, s.response); err != nil {
		return err
	}
	if code := s.response.StatusCode(); code != fasthttp.StatusOK {
		return fmt.Errorf("the receiver answered %d", code)
	}
	return nil
}

const partStandardFloor = "standard-floor"

// runStandardFloor is the floor with net/http's client and a group that commits what has been sent: the least that
// a correct deliverer on the same library does. Its arguments are those of [runFloor].
func runStandardFloor(ctx context.Context, args []string) error {
	endpoints, err := endpointsOf(args)
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(args[0], ",")...), kgo.ConsumeTopics(args[1]), kgo.ConsumerGroup(args[1]),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer client.CloseAllowingRebalance()
	transport := &http.Transport{DisableCompression: true, MaxIdleConns: 2 * endpointCount, MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections}
	defer transport.CloseIdleConnections()
	work := make(chan posting, 4*connections)
	group, ctx := errgroup.WithContext(ctx)
	for range connections {
		group.Go(func() error {
			pick := picker(len(endpoints))
			for p := range work {
				err := postStandard(ctx, transport, endpoints[pick()], p.record)
				p.batch.Done()
				if err != nil && ctx.Err() == nil {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(work)
		return readAndCommit(ctx, client, work)
	})
	return group.Wait()
}

type posting struct {
	record *kgo.Record
	batch  *sync.WaitGroup
}

// readAndCommit hands out one batch while the one before it is finished and committed.
func readAndCommit(ctx context.Context, client *kgo.Client, work chan<- posting) error {
	var before []*kgo.Record
	finished := new(sync.WaitGroup)
	for {
		fetches := client.PollRecords(ctx, 1000)
		if ctx.Err() != nil {
			return nil
		}
		if err := fetches.Err(); err != nil {
			return err
		}
		batch := new(sync.WaitGroup)
		records := fetches.Records()
		batch.Add(len(records))
		for _, r := range records {
			select {
			case work <- posting{r, batch}:
			case <-ctx.Done():
				return nil
			}
		}
		finished.Wait()
		if err := client.CommitRecords(ctx, before...); err != nil && ctx.Err() == nil {
			return err
		}
		client.AllowRebalance()
		before, finished = records, batch
	}
}

func postStandard(ctx context.Context, transport *http.Transport, endpoint *url.URL, r *kgo.Record) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint.String(), bytes.NewReader(r.Value))
	if err != nil {
		return err
	}
	at := strconv.FormatInt(time.Now().Unix(), 10)
	mac := hmac.New(sha256.New, []byte("secret"))
	fmt.Fprintf(mac, "%s.%s.", r.Key, at)
	mac.Write(r.Value)
	request.Header["Content-Type"] = []string{"application/json"}
	request.Header["User-Agent"] = []string{"Hookline/1.0"}
	request.Header["Webhook-Id"] = []string{string(r.Key)}
	request.Header["Webhook-Timestamp"] = []string{at}
	request.Header["Webhook-Signature"] = []string{"v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}
