package scheduler

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// checkTopic refuses a retries topic that would delete a retry before it is due, and warns of settings that the
// protocol can live without for a while.
func (s *Service) checkTopic(ctx context.Context) error {
	name := s.deps.Kafka.Topics.Retries
	ctx, cancel := context.WithTimeout(ctx, kafkaTimeout)
	defer cancel()
	described, err := s.admin.DescribeTopicConfigs(ctx, name)
	if err == nil && len(described) == 1 {
		err = described[0].Err
	}
	if err != nil || len(described) != 1 {
		s.log.WarnContext(ctx, "the settings of the retries topic could not be checked", "topic", name, "error", err)
		return nil
	}
	settings := map[string]string{}
	for _, c := range described[0].Configs {
		settings[c.Key] = c.MaybeValue()
	}
	if !strings.Contains(settings["cleanup.policy"], "compact") || settings["message.timestamp.type"] != "LogAppendTime" {
		s.log.WarnContext(ctx, "the retries topic should be compacted and have the broker's timestamps: run hookline migrate",
			"topic", name, "cleanup.policy", settings["cleanup.policy"], "message.timestamp.type", settings["message.timestamp.type"])
	}
	return checkRetention(name, settings, s.longest)
}

func checkRetention(name string, settings map[string]string, longest time.Duration) error {
	kept, err := strconv.ParseInt(settings["retention.ms"], 10, 64)
	if err != nil || kept < 0 || settings["cleanup.policy"] == "compact" {
		return nil
	}
	needed := longest + longest/5
	if retention := time.Duration(kept) * time.Millisecond; retention < needed {
		return fmt.Errorf("topic %s keeps records for %v, and a retry may wait %v: set its retention.ms to at least %d",
			name, retention, needed, needed.Milliseconds())
	}
	return nil
}
