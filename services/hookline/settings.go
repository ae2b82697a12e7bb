package main

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/retryqueue"
	"github.com/hookline/hookline/pkg/seal"
	"github.com/hookline/hookline/pkg/topic"
)

// keysConfig is the ring that opens and seals secrets.
type keysConfig struct {
	Keys string `env:"HOOKLINE_ENCRYPTION_KEYS"`
}

func (c keysConfig) Validate() error {
	if c.Keys == "" {
		return errors.New("HOOKLINE_ENCRYPTION_KEYS: must be set, to name:key where key is made with: openssl rand -base64 32")
	}
	if _, err := seal.ParseRing(c.Keys); err != nil {
		return fmt.Errorf("HOOKLINE_ENCRYPTION_KEYS: %w", err)
	}
	return nil
}

// ring panics on a configuration that was not validated.
func (c keysConfig) ring() *seal.Ring {
	ring, err := seal.ParseRing(c.Keys)
	if err != nil {
		panic(err)
	}
	return ring
}

// profilesConfig is where the operator's own profiles are, besides the built-in ones.
type profilesConfig struct {
	Dir string `env:"HOOKLINE_PROFILES_DIR"`
}

func (c profilesConfig) Validate() error {
	catalog, err := profile.Load(c.Dir)
	if err != nil {
		return eachOf("HOOKLINE_PROFILES_DIR", err)
	}
	if longest, kept := catalog.LongestDelay(), retriesKept(); longest >= kept {
		return fmt.Errorf("HOOKLINE_PROFILES_DIR: a profile waits up to %v between attempts, and retries are kept for %v", longest, kept)
	}
	return nil
}

// eachOf names the variable in front of every problem of a joined error.
func eachOf(name string, err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return fmt.Errorf("%s: %w", name, err)
	}
	var problems []error
	for _, one := range joined.Unwrap() {
		problems = append(problems, eachOf(name, one))
	}
	return errors.Join(problems...)
}

// catalog panics on a configuration that was not validated.
func (c profilesConfig) catalog() *profile.Catalog {
	catalog, err := profile.Load(c.Dir)
	if err != nil {
		panic(err)
	}
	return catalog
}

// retriesKept is how long the retries topic keeps what waits in it.
func retriesKept() time.Duration {
	names := topic.WithPrefix("")
	specs := names.Specs(1)
	retries := specs[slices.IndexFunc(specs, func(s topic.Spec) bool { return s.Name == names.Retries })]
	ms, err := strconv.ParseInt(retries.Settings["retention.ms"], 10, 64)
	if err != nil {
		panic(err)
	}
	return time.Duration(ms) * time.Millisecond
}

// databaseConfig says where the control plane and the audit are.
type databaseConfig struct {
	URL string `env:"HOOKLINE_DATABASE_URL" envDefault:"postgres://127.0.0.1:5432/hookline"`
}

func (c databaseConfig) Validate() error {
	switch scheme, _, _ := strings.Cut(c.URL, "://"); scheme {
	case "postgres", "postgresql", "sqlite":
		return nil
	default:
		return errors.New("HOOKLINE_DATABASE_URL: must begin with postgres:// or sqlite:///")
	}
}

// redisConfig says where the timer index is.
type redisConfig struct {
	URL string `env:"HOOKLINE_REDIS_URL" envDefault:"redis://127.0.0.1:6379/0"`
}

func (c redisConfig) Validate() error {
	// Opening makes no connection; it reads the URL.
	index, err := retryqueue.Open(c.URL, retryqueue.Options{})
	if err != nil {
		return fmt.Errorf("HOOKLINE_REDIS_URL: %w", err)
	}
	return index.Close()
}

// redacted is a URL without its password.
func redacted(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "set"
	}
	return u.Redacted()
}
