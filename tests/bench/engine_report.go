package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

// engineRow is one figure of the report.
type engineRow struct {
	what, measured, target string
	reached                bool
}

func (r engineRow) String() string { return r.what + ": " + r.measured }

func (b *engineBench) add(what, measured, target string, reached bool) {
	b.rows = append(b.rows, engineRow{what, measured, target, reached})
}

func (b *engineBench) markdown() string {
	var text strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&text, format+"\n", args...) }
	line("# The delivery engine by itself\n")
	line("Written by `scripts/servers with go run ./tests/bench engine`. How it is measured stands below the figures.\n")
	line("| commit | machine | system | Go | date | load before |")
	line("|---|---|---|---|---|---|")
	m := b.machine
	line("| %s | %s | %s | %s | %s | %s |\n", m.Commit, m.CPU, m.Kernel, m.Go, time.Now().UTC().Format("2006-01-02 15:04 UTC"), m.Load)
	line("| | measured | target | |")
	line("|---|---|---|---|")
	for _, r := range b.rows {
		said := ""
		if r.target != "" {
			said = verdict(r.reached)
		}
		line("| %s | %s | %s | %s |", r.what, r.measured, r.target, said)
	}
	line("\n## How it is measured\n")
	line("Kafka (one broker), Redis, the workers (default settings), a scheduler where retries come due, the receiver (fasthttp) and the bench are processes of one machine, " +
		"on loopback addresses; endpoints that are told apart have addresses of their own. The bench writes deliveries of 300 bytes of data in " + fmt.Sprint(partitions) +
		" partitions as the router would, under the contract `standard`; nothing reads the attempts.\n")
	line("- *Latency* is from when the bench writes a delivery to when the receiver has read the request.")
	line("- *Deliveries/s* is of the middle half of the requests, so that neither the start nor the tail counts.")
	line("- *Bare loop*: one process reads the same records and POSTs them, signed, over %d connections; it stores nothing.", connections)
	line("- *Retries that come due*: written to the retries topic beforehand with delays that end together.")
	return text.String()
}

const partStandardFloor = "standard-floor"

// runStandardFloor is the floor with the HTTP client of the standard library. Arguments: brokers, topic, URL.
func runStandardFloor(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return errors.New("standard-floor: want three arguments: brokers, topic, URL")
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(args[0], ",")...), kgo.ConsumeTopics(args[1]),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer client.Close()
	transport := &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections, DisableCompression: true}
	defer transport.CloseIdleConnections()
	group, ctx := errgroup.WithContext(ctx)
	work := make(chan *kgo.Record, 4*connections)
	for range connections {
		group.Go(func() error {
			for r := range work {
				if err := postStandard(ctx, transport, args[2], r.Value); err != nil && ctx.Err() == nil {
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

func postStandard(ctx context.Context, transport *http.Transport, url string, body []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	mac := hmac.New(sha256.New, []byte("secret"))
	mac.Write(body)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set(signatureHeader, "t="+fmt.Sprint(time.Now().Unix())+",v1="+hex.EncodeToString(mac.Sum(nil)))
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return err
}
