package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hookline/hookline/pkg/config"
	"github.com/hookline/hookline/pkg/run"
)

const healthPatience = 3 * time.Second

// newHealth is the probe of containers: the image has nothing else that could ask.
func newHealth(t terminal) *cobra.Command {
	base := ""
	cmd := &cobra.Command{
		Use: "health", Short: "Ask a service on this machine whether it is ready; exit code 1 if it is not", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if base == "" {
				var cfg run.Config
				if err := config.Load(&cfg, t.environ); err != nil {
					return err
				}
				base = reachable(cfg.AdminAddr)
			}
			return ready(cmd.Context(), base, t.out)
		},
	}
	cmd.Flags().StringVar(&base, "url", "", "the service's admin address (default http://$HOOKLINE_ADMIN_ADDR)")
	return cmd
}

// reachable is where a process on the same machine reaches an address that is listened on.
func reachable(listened string) string {
	host, port, err := net.SplitHostPort(listened)
	if err != nil {
		return "http://" + listened
	}
	if addr, err := netip.ParseAddr(host); host == "" || err == nil && addr.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

func ready(ctx context.Context, base string, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, healthPatience)
	defer cancel()
	address, err := url.JoinPath(base, "readyz")
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	// Directly: a proxy of the environment is for the way out.
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, 16<<10))
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready (%s): %s", response.Status, strings.TrimSpace(string(text)))
	}
	_, err = fmt.Fprintln(out, "ready")
	return err
}
