// Package egress is the way out to endpoints: which URLs may be registered, which addresses may be dialled, and one
// tuned transport. The check at dial is the control, since it sees the address that is really connected to; the check
// of a URL is an early and friendly refusal.
package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"code.dny.dev/ssrf"
)

// Config says what may be called besides public addresses over HTTPS.
type Config struct {
	Allow     []netip.Prefix `env:"HOOKLINE_EGRESS_ALLOW" envSeparator:","`
	AllowHTTP bool           `env:"HOOKLINE_EGRESS_ALLOW_HTTP" envDefault:"false"`
	DNS       string         `env:"HOOKLINE_EGRESS_DNS"`
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	if c.DNS == "" {
		return nil
	}
	if _, err := netip.ParseAddrPort(c.DNS); err != nil {
		return fmt.Errorf("HOOKLINE_EGRESS_DNS: want address:port, for example 127.0.0.1:5353: %w", err)
	}
	return nil
}

// ErrBlocked is the cause of a dial that the guard refused.
var ErrBlocked = errors.New("address is not permitted")

// DialFunc opens a connection.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Option changes how a Guard connects.
type Option func(*Guard)

// WithDialer replaces resolving, checking and dialling as a whole: for endpoints that are not on a network at all.
func WithDialer(dial DialFunc) Option { return func(g *Guard) { g.dial = dial } }

// Guard decides where connections may go. It may be used concurrently.
type Guard struct {
	cfg      Config
	public   *ssrf.Guardian
	resolver *net.Resolver
	names    *names
	dialer   *net.Dialer
	dial     DialFunc
}

// azureWire is the host agent of Azure's virtual machines: a public address that is reachable from within only.
var azureWire = netip.MustParsePrefix("168.63.129.16/32")

// Bounds of a connection's set-up. They lie within the deadline of an attempt, which its context carries.
const (
	dialTimeout       = 3 * time.Second
	handshakeTimeout  = 3 * time.Second
	idleTimeout       = 90 * time.Second
	maxHeaderBytes    = 16 << 10
	maxPerHost        = 256
	maxIdle           = 16384
	httpsPort         = 443
	httpsAlternative  = 8443
	httpPort          = 80
	keepAliveInterval = 30 * time.Second
)

// New makes a guard.
func New(cfg Config, opts ...Option) (*Guard, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	g := &Guard{
		cfg: cfg,
		public: ssrf.New(
			ssrf.WithPorts(permittedPorts(cfg.AllowHTTP)...),
			ssrf.WithDeniedV4Prefixes(azureWire),
		),
		resolver: net.DefaultResolver,
	}
	if cfg.DNS != "" {
		g.resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, cfg.DNS)
		}}
	}
	g.names = newNames(func(ctx context.Context, host string) ([]netip.Addr, error) {
		return g.resolver.LookupNetIP(ctx, "ip", host)
	})
	g.dialer = &net.Dialer{KeepAlive: keepAliveInterval, Control: g.control}
	g.dial = g.dialName
	for _, opt := range opts {
		opt(g)
	}
	return g, nil
}

func permittedPorts(allowHTTP bool) []uint16 {
	if allowHTTP {
		return []uint16{httpsPort, httpsAlternative, httpPort}
	}
	return []uint16{httpsPort, httpsAlternative}
}

// control sees every concrete address just before it is connected to, so neither a name that changes its address nor a
// strange spelling of one gets past it.
func (g *Guard) control(_, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%w: %q", ErrBlocked, address)
	}
	return g.check(target)
}

func (g *Guard) check(target netip.AddrPort) error {
	addr := target.Addr().Unmap()
	for _, prefix := range g.cfg.Allow {
		if prefix.Contains(addr) {
			return nil
		}
	}
	if err := g.public.SafeAddrPort(netip.AddrPortFrom(addr, target.Port())); err != nil {
		return fmt.Errorf("%w: %w", ErrBlocked, err)
	}
	return nil
}

// Transport makes a transport whose every connection the guard has checked. It takes no proxy from the environment:
// behind one, the check would see the proxy and not the endpoint. Where http:// is not permitted it connects to no such endpoint
// either, whenever that was set. The caller closes its idle connections.
func (g *Guard) Transport() *Transport { return newTransport(g) }
