package egress

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// URLError is why an endpoint URL is refused: a stable code, and a sentence that says what to do.
type URLError struct {
	Code   string
	Detail string
}

func (e *URLError) Error() string { return e.Detail }

const maxURLLength = 2048

// CheckURL refuses an endpoint URL that could never be delivered to: malformed, ambiguous, or leading to an address
// that the guard blocks. A name that does not resolve now is accepted: it may tomorrow, and the dial is checked again.
// Its errors are *[URLError].
func (g *Guard) CheckURL(ctx context.Context, raw string) error {
	u, port, err := g.parseURL(raw)
	if err != nil {
		return err
	}
	addrs, err := g.addresses(ctx, u.Hostname())
	if err != nil {
		return err
	}
	for _, addr := range addrs {
		if err := g.check(netip.AddrPortFrom(addr, port)); err != nil {
			return refuse("endpoint_blocked", "the endpoint's address or port is not permitted: public addresses on ports 443 and 8443 are; others need HOOKLINE_EGRESS_ALLOW")
		}
	}
	return nil
}

func (g *Guard) parseURL(raw string) (*url.URL, uint16, error) {
	if len(raw) > maxURLLength {
		return nil, 0, refuse("endpoint_too_long", "the URL is longer than %d bytes", maxURLLength)
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, 0, refuse("endpoint_malformed", "not a URL")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, 0, refuse("endpoint_scheme", "the URL must begin with https://")
	case u.Scheme == "http" && !g.cfg.AllowHTTP:
		return nil, 0, refuse("endpoint_scheme", "http:// is not permitted: use https://, or set HOOKLINE_EGRESS_ALLOW_HTTP=true")
	case u.User != nil:
		return nil, 0, refuse("endpoint_userinfo", "the URL must not carry a user name or password")
	case u.Fragment != "" || strings.HasSuffix(raw, "#"):
		return nil, 0, refuse("endpoint_fragment", "the URL must not have a fragment")
	}
	if err := checkHost(u.Hostname()); err != nil {
		return nil, 0, err
	}
	port, err := portOf(u)
	return u, port, err
}

// checkHost accepts canonical IP addresses and names in ASCII. Everything that some resolver might read as an address
// in another spelling (0x7f000001, 127.1, 2130706433, full-width dots) is refused.
func checkHost(host string) error {
	if host == "" {
		return refuse("endpoint_host", "the URL has no host")
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if addr.Zone() != "" || addr.String() != host {
			return refuse("endpoint_host", "write the IP address in its canonical form, without a zone")
		}
		return nil
	}
	ascii, err := idna.Lookup.ToASCII(host)
	if err != nil || !strings.EqualFold(ascii, host) {
		return refuse("endpoint_host", "the host must be a DNS name in ASCII (punycode for international names)")
	}
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	if last := labels[len(labels)-1]; looksNumeric(last) {
		return refuse("endpoint_host", "the host looks like an IP address in an unusual form: write it as 192.0.2.1")
	}
	return nil
}

func looksNumeric(label string) bool {
	if label == "" {
		return true
	}
	digits := strings.ToLower(label)
	if rest, ok := strings.CutPrefix(digits, "0x"); ok {
		return strings.Trim(rest, "0123456789abcdef") == ""
	}
	return strings.Trim(digits, "0123456789") == ""
}

func portOf(u *url.URL) (uint16, error) {
	if u.Port() == "" {
		if strings.HasSuffix(u.Host, ":") {
			return 0, refuse("endpoint_port", "the port is empty")
		}
		if u.Scheme == "http" {
			return httpPort, nil
		}
		return httpsPort, nil
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil || port == 0 || strconv.FormatUint(port, 10) != u.Port() {
		return 0, refuse("endpoint_port", "the port must be a number from 1 to 65535")
	}
	return uint16(port), nil
}

func (g *Guard) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	addrs, err := g.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, nil //nolint:nilerr // an unresolvable name is accepted: see CheckURL
	}
	return addrs, nil
}

func refuse(code, format string, args ...any) error {
	return &URLError{Code: code, Detail: fmt.Sprintf(format, args...)}
}
