package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/apikey"
	"github.com/hookline/hookline/pkg/run"
	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

const (
	defaultProfile = "fynapse"
	// bootstrapKeyID is the same for every value of HOOKLINE_BOOTSTRAP_API_KEY, so that a new value replaces the old.
	bootstrapKeyID = "bootstrap"
	checkInterval  = 2 * time.Second
	firstPause     = 250 * time.Millisecond
	longestPause   = 5 * time.Second
)

// prepare makes the default tenant and the bootstrap key exist. It tries until it succeeds or ctx ends.
func (s *Service) prepare(ctx context.Context) {
	var quiet run.Throttle
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := errors.Join(s.ensureTenant(ctx), s.ensureBootstrapKey(ctx))
		s.prepared.Set(err)
		if err == nil {
			s.relay.changed()
			return
		}
		if ctx.Err() == nil && quiet.Allow() {
			s.log.WarnContext(ctx, "the default tenant and the bootstrap key cannot be made yet", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// ensureTenant leaves an existing tenant as it is: its default profile may have been changed.
func (s *Service) ensureTenant(ctx context.Context) error {
	_, err := s.deps.Store.Tenant(ctx, webhook.DefaultTenant)
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	err = s.deps.Store.PutTenant(ctx, webhook.Tenant{
		ID: webhook.DefaultTenant, Name: webhook.DefaultTenant, DefaultProfile: defaultProfile, CreatedAt: now(),
	})
	if err != nil {
		return fmt.Errorf("make the default tenant: %w", err)
	}
	return nil
}

func (s *Service) ensureBootstrapKey(ctx context.Context) error {
	if s.cfg.BootstrapKey == "" {
		return nil
	}
	hash := apikey.Hash(s.cfg.BootstrapKey)
	have, err := s.deps.Store.APIKeyByHash(ctx, hash)
	if err == nil && have.Tenant == webhook.DefaultTenant && allowsEverything(&have) {
		return nil
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	id := bootstrapKeyID
	if err == nil && have.Tenant == webhook.DefaultTenant {
		id = have.ID // a key made through the API was chosen: it gets every permission
	}
	err = s.deps.Store.PutAPIKey(ctx, webhook.APIKey{
		ID: id, Tenant: webhook.DefaultTenant, Name: bootstrapKeyID, Hash: hash,
		Permissions: webhook.Permissions(), CreatedAt: now(),
	})
	if err != nil {
		return fmt.Errorf("make the bootstrap key: %w", err)
	}
	return nil
}

func allowsEverything(key *webhook.APIKey) bool {
	for _, p := range webhook.Permissions() {
		if !key.Allows(p, time.Now()) {
			return false
		}
	}
	return true
}

// watchDatabase keeps the condition of the database up to date until ctx ends.
func (s *Service) watchDatabase(ctx context.Context) {
	for ctx.Err() == nil {
		asked, cancel := context.WithTimeout(ctx, checkInterval)
		err := s.deps.Store.Ping(asked)
		cancel()
		if ctx.Err() == nil {
			s.database.Set(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(checkInterval):
		}
	}
}

// watchKafka keeps the condition of Kafka up to date until ctx ends: its topics first, then that it answers.
func (s *Service) watchKafka(ctx context.Context, client *kgo.Client) {
	topics := s.deps.Kafka.Topics
	if s.deps.Kafka.WaitTopics(ctx, s.log, s.kafka.Set, topics.Config, topics.Retries, topics.Deliveries) != nil {
		return
	}
	s.kafka.Set(nil)
	s.deps.Kafka.Watch(ctx, client, s.kafka.Set)
}

// now is the time as it is stored: in UTC and to the millisecond, so that a value read back is the same.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }
