package retryqueue

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2/server"
)

// policyServer answers INFO and CONFIG as a Redis with some rights and policy would.
func policyServer(t *testing.T, info, config string) *Index {
	t.Helper()
	s, err := server.NewServer("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	answer := func(text string) server.Cmd {
		return func(c *server.Peer, _ string, _ []string) {
			if strings.HasPrefix(text, "NOPERM") || strings.HasPrefix(text, "LOADING") {
				c.WriteError(text)
			} else {
				c.WriteBulk(text)
			}
		}
	}
	for name, cmd := range map[string]server.Cmd{"INFO": answer(info), "CONFIG": func(c *server.Peer, _ string, _ []string) {
		if strings.HasPrefix(config, "NOPERM") {
			c.WriteError(config)
			return
		}
		c.WriteStrings([]string{"maxmemory-policy", config})
	}} {
		if err := s.Register(name, cmd); err != nil {
			t.Fatal(err)
		}
	}
	index, err := Open("redis://"+s.Addr().String()+"?protocol=2", Options{Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := index.Close(); err != nil {
			t.Error(err)
		}
	})
	return index
}

func TestARedisThatEvictsIsRefused(t *testing.T) {
	const noPermission = "NOPERM this user has no permissions to run it"
	for name, test := range map[string]struct{ info, config, problem string }{
		"info says noeviction":       {"# Memory\r\nmaxmemory_policy:noeviction\r\n", noPermission, ""},
		"info says lru":              {"# Memory\r\nmaxmemory_policy:allkeys-lru\r\n", noPermission, "set maxmemory-policy to noeviction"},
		"info forbidden, config lru": {noPermission, "volatile-lru", "set maxmemory-policy to noeviction"},
		"info forbidden, config ok":  {noPermission, "noeviction", ""},
		"info silent, config ok":     {"# Memory\r\n", "noeviction", ""},
		"both forbidden":             {noPermission, noPermission, "+info"},
	} {
		t.Run(name, func(t *testing.T) {
			err := policyServer(t, test.info, test.config).CheckPolicy(t.Context())
			var policy *PolicyError
			switch {
			case test.problem == "" && err != nil:
				t.Fatal(err)
			case test.problem != "" && (!errors.As(err, &policy) || !strings.Contains(err.Error(), test.problem)):
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestARedisThatIsLoadingIsNotRefusedButAskedAgain(t *testing.T) {
	err := policyServer(t, "LOADING Redis is loading the dataset in memory", "noeviction").CheckPolicy(t.Context())
	var policy *PolicyError
	if err == nil || errors.As(err, &policy) {
		t.Fatalf("got %v", err)
	}
}
