package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/pkg/config"
	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/run"
)

type migrateConfig struct {
	Base     baseConfig
	Database databaseConfig
	Profiles profilesConfig
	Topics   topicsConfig
}

// topicsConfig is how topics are created.
type topicsConfig struct {
	Partitions  int32 `env:"HOOKLINE_TOPIC_PARTITIONS" envDefault:"12"`
	Replication int16 `env:"HOOKLINE_TOPIC_REPLICATION" envDefault:"0"`
}

func (c topicsConfig) Validate() error {
	var problems []error
	if c.Partitions < 1 {
		problems = append(problems, fmt.Errorf("HOOKLINE_TOPIC_PARTITIONS: %d is below 1", c.Partitions))
	}
	if c.Replication < 0 {
		problems = append(problems, fmt.Errorf("HOOKLINE_TOPIC_REPLICATION: %d is negative; 0 is the broker's default", c.Replication))
	}
	return errors.Join(problems...)
}

func newMigrate(t terminal) *cobra.Command {
	return &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database and the topics to the current version",
		Long:  "Creates or updates the database's tables and the topics. It waits for servers that are down, and is safe to run again.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			var cfg migrateConfig
			if err := config.Load(&cfg, t.environ); err != nil {
				return err
			}
			p, err := openProcess(ctx, "hookline-migrate", t.environ, t.err)
			if err != nil {
				return err
			}
			defer p.close()
			return p.migrate(ctx, cfg)
		},
	}
}

// migrate returns when the database and the topics are as this version wants them. It waits for servers that are down, until ctx ends.
func (p *process) migrate(ctx context.Context, cfg migrateConfig) error {
	if err := p.migrateDatabase(ctx, cfg.Database); err != nil {
		return err
	}
	p.log.InfoContext(ctx, "database is up to date")
	client, err := p.kafka.Client()
	if err != nil {
		return err
	}
	defer client.Close()
	if err := waitFor(ctx, p.log, "kafka", client.Ping); err != nil {
		return err
	}
	if err := kafka.Ensure(ctx, client, p.kafka.Topics.Specs(cfg.Topics.Partitions), cfg.Topics.Replication); err != nil {
		return fmt.Errorf("migrate topics: %w", err)
	}
	p.log.InfoContext(ctx, "topics are up to date", "topics", p.kafka.Topics.All())
	if err := p.setSessionTimeout(ctx, client, "router", "delivery", "scheduler", "recorder"); err != nil {
		p.log.WarnContext(ctx, "the brokers keep their own session timeout, so a dead process may be noticed later", "error", err)
	}
	return nil
}

func (p *process) migrateDatabase(ctx context.Context, cfg databaseConfig) error {
	db, err := p.openDatabase(ctx, cfg)
	if err != nil {
		return err
	}
	if err := waitFor(ctx, p.log, "database", db.Ping); err != nil {
		return err
	}
	if err := db.Migrate(ctx); err != nil {
		return fmt.Errorf("migrate database: %w", err)
	}
	return nil
}

// setSessionTimeout makes the brokers notice a dead member as soon as HOOKLINE_KAFKA_SESSION_TIMEOUT says: under KIP-848 this is a
// setting of the group. Brokers without such settings, or with a higher minimum, refuse it, which only makes fail-over slower.
func (p *process) setSessionTimeout(ctx context.Context, client *kgo.Client, services ...string) error {
	value := strconv.FormatInt(p.cfg.Kafka.SessionTimeout.Milliseconds(), 10)
	request := kmsg.NewPtrIncrementalAlterConfigsRequest()
	for _, s := range services {
		setting := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		setting.Name, setting.Value = "consumer.session.timeout.ms", &value
		group := kmsg.NewIncrementalAlterConfigsRequestResource()
		group.ResourceType, group.ResourceName = kmsg.ConfigResourceTypeGroupConfig, p.kafka.GroupID(s)
		group.Configs = append(group.Configs, setting)
		request.Resources = append(request.Resources, group)
	}
	answer, err := request.RequestWith(ctx, client)
	if err != nil {
		return fmt.Errorf("set session timeout of groups: %w", err)
	}
	var problems []error
	for _, r := range answer.Resources {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			detail := ""
			if r.ErrorMessage != nil {
				detail = ": " + *r.ErrorMessage
			}
			problems = append(problems, fmt.Errorf("set session timeout of group %s: %w%s", r.ResourceName, err, detail))
		}
	}
	return errors.Join(problems...)
}

// waitFor returns once check succeeds, or with the context's error. It says in the log what it waits for, at once and then every minute.
func waitFor(ctx context.Context, log *slog.Logger, what string, check func(context.Context) error) error {
	const pause, bound = time.Second, 10 * time.Second
	var quiet run.Throttle
	for {
		bounded, cancel := context.WithTimeout(ctx, bound)
		err := check(bounded)
		cancel()
		if err == nil {
			return nil
		}
		if quiet.Allow() {
			log.WarnContext(ctx, "waiting", "for", what, "error", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, err)
		case <-time.After(pause):
		}
	}
}
