package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"time"
)

// dialName connects to the first address of a host that answers. The guard sees each of them.
func (g *Guard) dialName(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	took := phasesOf(ctx)
	addrs, err := g.addressesOf(ctx, host, took)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: asNameError(err, host)}
	}
	began := time.Now()
	defer func() { took.note(phaseConnect, time.Since(began)) }()
	return g.dialFirst(ctx, network, addrs, port)
}

func (g *Guard) addressesOf(ctx context.Context, host string, took *phases) ([]netip.Addr, error) {
	if literal, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{literal}, nil
	}
	began := time.Now()
	defer func() { took.note(phaseDNS, time.Since(began)) }()
	return g.names.resolve(ctx, host)
}

// asNameError keeps a resolver that does not answer in time apart from a receiver that does not.
func asNameError(err error, host string) error {
	var already *net.DNSError
	if errors.As(err, &already) || errors.Is(err, context.Canceled) {
		return err
	}
	return &net.DNSError{Err: err.Error(), Name: host, IsTimeout: errors.Is(err, context.DeadlineExceeded)}
}

// dialFirst tries the addresses in the resolver's order; each has its part of the time that is left.
func (g *Guard) dialFirst(ctx context.Context, network string, addrs []netip.Addr, port string) (net.Conn, error) {
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no address", IsNotFound: true}
	}
	var first error
	for i, addr := range addrs {
		one, cancel := ctx, context.CancelFunc(func() {})
		if deadline, ok := ctx.Deadline(); ok && i < len(addrs)-1 {
			one, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(len(addrs)-i))
		}
		conn, err := g.dialer.DialContext(one, network, net.JoinHostPort(addr.Unmap().String(), port))
		cancel()
		if err == nil {
			return conn, nil
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, first
}

// dialTLS connects and shakes hands, so that both are timed where a connection is made, and not on every request.
func (g *Guard) dialTLS(ctx context.Context, network, address string, cfg *tls.Config) (*tls.Conn, error) {
	plain, err := g.dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		_ = plain.Close() // the address is what is wrong
		return nil, err
	}
	cfg = cfg.Clone()
	cfg.ServerName = host
	conn := tls.Client(newWire(plain), cfg)
	shaking, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	began := time.Now()
	err = conn.HandshakeContext(shaking)
	phasesOf(ctx).note(phaseTLS, time.Since(began))
	if err != nil {
		_ = plain.Close() // the handshake is what is wrong
		return nil, err
	}
	return conn, nil
}
