package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net/url"
	"strconv"
	"strings"
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
// nothing: what it costs is what any deliverer from Kafka must pay. Arguments: brokers, topic, URL.
func runFloor(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return errors.New("floor: want three arguments: brokers, topic, URL")
	}
	endpoint, err := url.Parse(args[2])
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
	host := newHost(endpoint.Host)
	group, ctx := errgroup.WithContext(ctx)
	work := make(chan *kgo.Record, 4*connections)
	for range connections {
		group.Go(func() error {
			s := newSender(host, endpoint.String(), secret)
			for r := range work {
				if err := s.send(r.Value); err != nil {
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

func newHost(address string) *fasthttp.HostClient {
	return &fasthttp.HostClient{Addr: address, MaxConns: connections}
}

// sender makes one request at a time, in the same memory.
type sender struct {
	host      *fasthttp.HostClient
	mac       hash.Hash
	signature []byte
	request   *fasthttp.Request
	response  *fasthttp.Response
}

func newSender(host *fasthttp.HostClient, url string, secret []byte) *sender {
	s := &sender{host: host, mac: hmac.New(sha256.New, secret), request: fasthttp.AcquireRequest(), response: fasthttp.AcquireResponse()}
	s.request.Header.SetMethod(fasthttp.MethodPost)
	s.request.Header.SetContentType("application/json")
	s.request.SetRequestURI(url)
	return s
}

func (s *sender) send(body []byte) error {
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
	s.request.SetBodyRaw(body)
	if err := s.host.Do(s.request, s.response); err != nil {
		return err
	}
	if code := s.response.StatusCode(); code != fasthttp.StatusOK {
		return fmt.Errorf("the receiver answered %d", code)
	}
	return nil
}
