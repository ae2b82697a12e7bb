package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"time"

	"github.com/hookline/hookline/services/hookline/cli"
)

// fuseClient is a client of Fuse with the handler of their documents, in the language that it is written in.
//
//go:embed fuse.js
var fuseClient []byte

// What an aggregator says in the demo: new transactions, and that the user must log in again.
var fuseNews = []string{
	`{"type":"AGGREGATION","action":"member_data_updated","user_guid":"USR-1","member_guid":"MBR-1","transactions_created_count":2,"transactions_updated_count":0,"is_background":true}`,
	`{"type":"CONNECTION_STATUS","action":"CHALLENGED","user_guid":"USR-1","member_guid":"MBR-1"}`,
}

// fuseExpected are the webhooks that the client must accept: two syncs, and what follows from each.
const fuseExpected = 4

// fuseDemo plays Fuse's documents: an aggregator posts, the client verifies and calls back, and what follows arrives.
type fuseDemo struct {
	out    io.Writer
	about  guide
	client cli.Client
	live   func(subscription string) bool
	began  time.Time
	source struct{ ID, Path, SecretValue string }
}

func runFuseDemo(ctx context.Context, out io.Writer, about guide, live func(subscription string) bool) error {
	node, err := exec.LookPath("node")
	if err != nil {
		return errors.New("the client of Fuse's documents is written in JavaScript: this demo needs node")
	}
	d := &fuseDemo{out: out, about: about, client: cli.Client{URL: about.URL, Key: about.Key}, live: live}
	ctx, stop := context.WithTimeout(ctx, demoPatience)
	defer stop()
	receiver := exec.CommandContext(ctx, node, "-")
	receiver.Stdin = bytes.NewReader(fuseClient)
	pipe, err := receiver.StdoutPipe()
	if err != nil {
		return err
	}
	if err := receiver.Start(); err != nil {
		return err
	}
	defer func() {
		stop()
		_ = receiver.Wait() // it has been killed
	}()
	lines := bufio.NewScanner(pipe)
	lines.Buffer(nil, 1<<20)
	if !lines.Scan() {
		return errors.New("the client did not start")
	}
	address, ok := strings.CutPrefix(lines.Text(), "listening on ")
	if !ok {
		return fmt.Errorf("the client said %q", lines.Text())
	}
	if err := d.prepare(ctx, address); err != nil {
		return err
	}
	return d.play(ctx, lines)
}

// prepare makes a source, a connection and a subscription of their own each time.
func (d *fuseDemo) prepare(ctx context.Context, receiver string) error {
	name := demoPrefix + "fuse" + time.Now().UTC().Format("-20060102-150405.000")
	value := func(kind string, v any) map[string]any { return map[string]any{kind: v} }
	member := func(name, kind string, v any) map[string]any { return map[string]any{"name": name, kind: v} }
	spec := map[string]any{
		"verify":     map[string]any{"scheme": "hmac", "header": "X-Signature", "prefix": "sha256="},
		"connection": map[string]any{"aggregator": name, "remoteId": value("pointer", "/member_guid")},
		"event": map[string]any{
			"type": value("const", "financial_connection.sync_data"), "orderingKey": value("connection", "id"),
			"data": []any{
				member("financial_connection_id", "connection", "id"), member("environment", "connection", "environment"),
				member("source", "const", "mx"), member("remote_data", "raw", true),
			},
		},
	}
	if err := d.client.Call(ctx, http.MethodPost, cli.Path+"/sources", map[string]any{"name": name, "spec": spec}, &d.source); err != nil {
		return err
	}
	connection := map[string]any{"aggregator": name, "remoteId": "MBR-1", "connectionId": name, "environment": "sandbox"}
	if err := d.client.Call(ctx, http.MethodPost, cli.Path+"/connections", map[string]any{"items": []any{connection}}, nil); err != nil {
		return err
	}
	var made struct{ ID, SecretValue string }
	if err := d.client.Call(ctx, http.MethodPost, cli.Path+"/subscriptions", map[string]any{
		"name": name, "endpointUrl": "http://" + receiver + "/webhook", "profile": "fuse",
		"eventTypes": []string{"financial_connection.sync_data", "financial_connection.disconnected", "financial_connection.finished", "transactions.updates"},
	}, &made); err != nil {
		return err
	}
	if !poll(ctx, func() bool { return d.live(made.ID) }) {
		return ctx.Err()
	}
	ingest, err := url.Parse(d.about.URL)
	if err != nil {
		return err
	}
	settings, err := json.Marshal(map[string]any{"key": made.SecretValue, "sync": []string{ingest.Host}, "fail": 0})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+receiver+"/settings", bytes.NewReader(settings))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// play posts what the aggregator says, and prints what the client does until it has accepted everything.
func (d *fuseDemo) play(ctx context.Context, lines *bufio.Scanner) error {
	d.began = time.Now()
	fmt.Fprintf(d.out, "Demo: an aggregator posts twice to %s; the client verifies, calls the sync endpoint, and gets what follows.\n\n", d.source.Path)
	for _, news := range fuseNews {
		if err := d.post(ctx, news); err != nil {
			return err
		}
	}
	for accepted := 0; accepted < fuseExpected && lines.Scan(); {
		var seen struct {
			Type     string `json:"type"`
			Verified bool   `json:"verified"`
			Synced   bool   `json:"synced"`
			Status   int    `json:"status"`
		}
		if err := json.Unmarshal(lines.Bytes(), &seen); err != nil {
			return fmt.Errorf("the client printed %q", lines.Text())
		}
		said := map[bool]string{true: "valid", false: "NOT valid"}[seen.Verified]
		if seen.Synced {
			said += ", called back"
		}
		fmt.Fprintf(d.out, "  %6.3fs  %-33s  signature %s, answered %d\n", time.Since(d.began).Seconds(), seen.Type, said, seen.Status)
		if seen.Status == http.StatusOK {
			accepted++
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("not everything arrived within %v", demoPatience)
	}
	_, err := fmt.Fprintf(d.out, "\nDemo done: 2 webhooks in, 2 verified callbacks, and what followed from each, in %.1fs. See %s sources requests %s\n",
		time.Since(d.began).Seconds(), d.about.Program, d.source.ID)
	return err
}

func (d *fuseDemo) post(ctx context.Context, body string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, d.about.URL+d.source.Path, strings.NewReader(body))
	if err != nil {
		return err
	}
	mac := hmac.New(sha256.New, []byte(d.source.SecretValue))
	mac.Write([]byte(body))
	request.Header.Set("X-Signature", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusAccepted {
		return fmt.Errorf("the source answered %s", response.Status)
	}
	fmt.Fprintf(d.out, "  %6.3fs  the aggregator posted %d bytes\n", time.Since(d.began).Seconds(), len(body))
	return nil
}
