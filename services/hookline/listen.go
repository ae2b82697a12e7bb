package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/hookline/hookline/pkg/run"
)

type listenFlags struct {
	contractFlags
	addr    string
	secrets []string
	respond string
	json    bool
}

func newListen(t terminal) *cobra.Command {
	var flags listenFlags
	cmd := &cobra.Command{
		Use:   "listen",
		Short: "Receive webhooks on this machine, verify their signatures and print them",
		Example: `  hookline listen --addr 127.0.0.1:9000 --secret "$SECRET"
  hookline listen --respond 503,timeout,200`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return listen(cmd.Context(), t, flags) },
	}
	cmd.Flags().StringVar(&flags.addr, "addr", "127.0.0.1:0", "address to listen on; port 0 is any free one")
	flags.add(cmd)
	cmd.Flags().StringArrayVar(&flags.secrets, "secret", nil, "value of the secret to verify with; again for the previous one")
	cmd.Flags().StringVar(&flags.respond, "respond", "200", "what to answer in turn, the last for ever: statuses, timeout, reset")
	cmd.Flags().BoolVar(&flags.json, "json", false, "print one JSON object a request")
	return cmd
}

// listen receives until ctx ends.
func listen(ctx context.Context, t terminal, flags listenFlags) error {
	p, err := flags.find()
	if err != nil {
		return err
	}
	answers, err := parseScript(flags.respond)
	if err != nil {
		return fmt.Errorf("--respond: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", flags.addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	prints := &printer{out: t.out, json: flags.json}
	prints.greet(listener.Addr().String(), flags)
	handler := &receiver{profile: p, secrets: keyValues(flags.secrets), script: answers, report: prints.print}
	return run.Serve(ctx, slog.New(slog.DiscardHandler), listener, handler, time.Second)
}

// printer writes what was received, one request at a time.
type printer struct {
	mu   sync.Mutex
	out  io.Writer
	json bool
}

func (p *printer) greet(addr string, flags listenFlags) {
	if p.json {
		fmt.Fprintf(p.out, "{\"url\":%q}\n", "http://"+addr+"/")
		return
	}
	checked := "Signatures are not checked; give --secret to check them."
	if len(flags.secrets) > 0 {
		checked = "Signatures are checked under the profile " + flags.profile + "."
	}
	fmt.Fprintf(p.out, "Listening on http://%s/ and answering %s. %s\n", addr, flags.respond, checked)
}

// The output is for somebody who looks at it: when it cannot be written there is nobody to tell.
func (p *printer) print(r received) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.json {
		_ = json.NewEncoder(p.out).Encode(map[string]any{
			"at": r.At.UTC().Format(time.RFC3339Nano), "method": r.Method, "path": r.Path, "headers": flat(r.Header),
			"body": string(r.Body), "signature": r.Signature, "answer": r.Answer.String(),
		})
		return
	}
	fmt.Fprintf(p.out, "\n%s %s %s, %d bytes, signature %s, answered %s\n",
		r.At.Format("15:04:05.000"), r.Method, r.Path, len(r.Body), r.Signature, r.Answer)
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		if !slices.Contains(uninteresting, name) {
			fmt.Fprintf(p.out, "  %s: %s\n", name, strings.Join(r.Header[name], ", "))
		}
	}
	fmt.Fprintln(p.out, indent(r.Body))
}

// uninteresting are headers that every request has.
var uninteresting = []string{"Accept-Encoding", "Content-Length", "User-Agent"}

func indent(body []byte) string {
	var pretty bytes.Buffer
	if json.Indent(&pretty, body, "  ", "  ") != nil {
		return "  " + string(body)
	}
	return "  " + pretty.String()
}

func flat(h http.Header) map[string]string {
	all := make(map[string]string, len(h))
	for name, values := range h {
		all[name] = strings.Join(values, ", ")
	}
	return all
}
