package retryqueue

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Options are how an index is opened.
type Options struct {
	// Prefix is the topic prefix; installations that share a Redis differ in it.
	Prefix string
	// Embedded says that the server is the one inside this process, which has no memory policy to check.
	Embedded bool
	// Dialer replaces how connections are made; nil dials as usual.
	Dialer func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Open makes an index of the Redis at a URL. It connects when it is used, so a Redis that is down is no error here, and
// it reconnects for ever.
//
// The URL says what stands behind it:
//
//	redis://user:password@host:6379/0                                     one server; rediss:// with TLS, unix:// a socket
//	redis+cluster://user:password@host:6379?addr=host2:6379               a Redis Cluster, from any of its nodes
//	redis+sentinel://host:26379/0?master_name=main&addr=host2:26379       the master that these sentinels name
//
// With TLS the latter are rediss+cluster:// and rediss+sentinel://. Plain redis:// with an addr or master_name parameter
// means the same. In a sentinel URL user and password are the sentinels' own, and the parameters username and password the server's.
// The other parameters are those of go-redis, such as dial_timeout=3s or pool_size=20.
func Open(rawURL string, opts Options) (*Index, error) {
	silence()
	client, err := open(rawURL, opts)
	if err != nil {
		// The URL may hold a password, and url.Error quotes it.
		if quoted := (*url.Error)(nil); errors.As(err, &quoted) {
			err = quoted.Err
		}
		return nil, fmt.Errorf("open redis: %w", err)
	}
	return &Index{client: client, prefix: opts.Prefix, embedded: opts.Embedded}, nil
}

func open(rawURL string, opts Options) (redis.UniversalClient, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, err
	}
	scheme, kind, _ := strings.Cut(u.Scheme, "+")
	query := u.Query()
	switch {
	case kind != "" && kind != "cluster" && kind != "sentinel":
		return nil, fmt.Errorf("scheme %q is none of redis, rediss, unix, redis+cluster, redis+sentinel", u.Scheme)
	case kind == "" && query.Has("master_name"):
		kind = "sentinel"
	case kind == "" && query.Has("addr"):
		kind = "cluster"
	case kind == "sentinel" && !query.Has("master_name"):
		return nil, errors.New("a sentinel URL needs the parameter master_name")
	}
	u.Scheme = scheme
	switch kind {
	case "cluster":
		return openCluster(u.String(), opts)
	case "sentinel":
		return openSentinel(u.String(), opts)
	default:
		return openServer(u.String(), opts)
	}
}

// silence turns off the client library's own log, which is one for the whole process and writes a line for every
// connection that fails. Whoever asks the index gets the error.
var silence = sync.OnceFunc(func() { redis.SetLogger(silent{}) })

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// Nothing is repeated below the caller: a claim whose reply was lost would lease a second lot. Notices of a managed
// Redis about its maintenance are not needed, since every outage is waited for.
const noRetries = -1

func quiet() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}

func openServer(rawURL string, opts Options) (redis.UniversalClient, error) {
	o, err := redis.ParseURL(rawURL)
	if err != nil {
		return nil, err
	}
	o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled, o.MaintNotificationsConfig = noRetries, 1, true, quiet()
	if opts.Dialer != nil {
		o.Dialer = opts.Dialer
	}
	return redis.NewClient(o), nil
}

func openCluster(rawURL string, opts Options) (redis.UniversalClient, error) {
	o, err := redis.ParseClusterURL(rawURL)
	if err != nil {
		return nil, err
	}
	o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled, o.MaintNotificationsConfig = noRetries, 1, true, quiet()
	o.ReadOnly, o.RouteByLatency, o.RouteRandomly = false, false, false
	if opts.Dialer != nil {
		o.Dialer = opts.Dialer
	}
	return redis.NewClusterClient(o), nil
}

func openSentinel(rawURL string, opts Options) (redis.UniversalClient, error) {
	o, err := redis.ParseFailoverURL(rawURL)
	if err != nil {
		return nil, err
	}
	o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled = noRetries, 1, true
	o.ReplicaOnly, o.RouteByLatency, o.RouteRandomly = false, false, false
	if opts.Dialer != nil {
		o.Dialer = opts.Dialer
	}
	return redis.NewFailoverClient(o), nil
}
