package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	partReceiver = "receiver"

	hookPath        = "/hook"
	signatureHeader = "Webhook-Signature"
	sequenceMark    = `"sequence":"`
	sequenceDigits  = 10
)

// receiver notes when each event arrived for the first time, and answers 200. It is cheap on purpose: it knows an event by
// the number in its body, and looks whether there is a signature, not whether it is right.
type receiver struct {
	first    int64
	arrivals []atomic.Int64 // Unix time in nanoseconds by sequence number less first; 0 = not yet
	arrived  atomic.Int64
	repeated atomic.Int64
	unsigned atomic.Int64
	strange  atomic.Int64 // without a number, or with one that is not expected
}

// runReceiver serves on the address that is its only argument until ctx ends.
func runReceiver(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("receiver: want one argument, the address to listen on")
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp4", args[0])
	if err != nil {
		return err
	}
	server := &fasthttp.Server{Handler: (&receiver{}).handler(), NoDefaultServerHeader: true, NoDefaultDate: true}
	unhook := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer unhook()
	err = server.Serve(listener)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// handler answers a webhook, and three requests of the bench: expect?first=&count= starts over, counts says how far it is,
// arrivals gives the times as 64-bit little-endian numbers.
func (r *receiver) handler() fasthttp.RequestHandler {
	var now atomic.Pointer[receiver]
	now.Store(r)
	return func(c *fasthttp.RequestCtx) {
		switch string(c.Path()) {
		case hookPath:
			now.Load().note(c.Request.Body(), len(c.Request.Header.Peek(signatureHeader)) > 0)
		case "/expect":
			q := c.QueryArgs()
			now.Store(&receiver{first: int64(q.GetUintOrZero("first")), arrivals: make([]atomic.Int64, q.GetUintOrZero("count"))})
		case "/counts":
			r := now.Load()
			fmt.Fprintf(c, "%d %d %d %d", r.arrived.Load(), r.repeated.Load(), r.unsigned.Load(), r.strange.Load())
		case "/arrivals":
			c.SetBody(now.Load().times())
		default:
			c.SetStatusCode(http.StatusNotFound)
		}
	}
}

func (r *receiver) note(body []byte, signed bool) {
	number, ok := sequenceOf(body)
	i := number - r.first
	switch {
	case !ok || i < 0 || i >= int64(len(r.arrivals)):
		r.strange.Add(1)
	case !signed:
		r.unsigned.Add(1)
	case r.arrivals[i].CompareAndSwap(0, time.Now().UnixNano()):
		r.arrived.Add(1)
	default:
		r.repeated.Add(1)
	}
}

func (r *receiver) times() []byte {
	out := make([]byte, 0, 8*len(r.arrivals))
	for i := range r.arrivals {
		out = binary.LittleEndian.AppendUint64(out, uint64(r.arrivals[i].Load()))
	}
	return out
}

func sequenceOf(body []byte) (int64, bool) {
	_, rest, found := bytes.Cut(body, []byte(sequenceMark))
	if !found || len(rest) < sequenceDigits {
		return 0, false
	}
	number, err := strconv.ParseInt(string(rest[:sequenceDigits]), 10, 64)
	return number, err == nil
}

// receiverClient asks a receiver process.
type receiverClient struct{ address string }

func (c receiverClient) hook() string { return "http://" + c.address + hookPath }

// expect forgets everything and waits for count events from a sequence number on.
func (c receiverClient) expect(ctx context.Context, first, count int) error {
	_, err := c.get(ctx, fmt.Sprintf("/expect?first=%d&count=%d", first, count))
	return err
}

// counts are what has arrived so far.
type counts struct{ Arrived, Repeated, Unsigned, Strange int }

func (c receiverClient) counts(ctx context.Context) (n counts, err error) {
	text, err := c.get(ctx, "/counts")
	if err != nil {
		return n, err
	}
	_, err = fmt.Sscan(string(text), &n.Arrived, &n.Repeated, &n.Unsigned, &n.Strange)
	return n, err
}

// arrivals are the times by sequence number less the first, 0 where nothing has arrived.
func (c receiverClient) arrivals(ctx context.Context) ([]int64, error) {
	text, err := c.get(ctx, "/arrivals")
	if err != nil {
		return nil, err
	}
	times := make([]int64, len(text)/8)
	for i := range times {
		times[i] = int64(binary.LittleEndian.Uint64(text[8*i:]))
	}
	return times, nil
}

func (c receiverClient) get(ctx context.Context, path string) ([]byte, error) {
	return fetch(ctx, "http://"+c.address+path)
}

// fetch returns the body of an answer 200.
func fetch(ctx context.Context, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return exchange(request, http.StatusOK)
}

func exchange(request *http.Request, want int) ([]byte, error) {
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != want {
		return nil, fmt.Errorf("%s %s: %s: %s", request.Method, request.URL, response.Status, strings.TrimSpace(string(body)))
	}
	return body, nil
}
