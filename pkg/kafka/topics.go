package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/topic"
)

func missingTopics(ctx context.Context, cl *kgo.Client, topics []string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	found, err := kadm.NewClient(cl).ListTopics(ctx, topics...)
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	var missing []string
	for _, name := range topics {
		if !found.Has(name) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("topics missing (run hookline migrate): %s", strings.Join(missing, ", "))
	}
	return nil
}

// Ensure creates the topics that are missing and sets the settings of those that exist. It never removes a topic or a
// partition; more partitions than wanted are left as they are, fewer are added only to empty installations by hand,
// because adding them moves keys. A replication of 0 is the broker's default. It is safe to call again.
func Ensure(ctx context.Context, cl *kgo.Client, specs []topic.Spec, replication int16) error {
	adm := kadm.NewClient(cl)
	if replication == 0 {
		replication = -1
	}
	var problems []error
	for _, spec := range specs {
		settings := make(map[string]*string, len(spec.Settings))
		for key, value := range spec.Settings {
			settings[key] = &value
		}
		_, err := adm.CreateTopic(ctx, spec.Partitions, replication, settings, spec.Name)
		switch {
		case err == nil:
		case errors.Is(err, kerr.TopicAlreadyExists):
			if err := alter(ctx, adm, spec); err != nil {
				problems = append(problems, err)
			}
		default:
			problems = append(problems, fmt.Errorf("create topic %s: %w", spec.Name, err))
		}
	}
	return errors.Join(problems...)
}

func alter(ctx context.Context, adm *kadm.Client, spec topic.Spec) error {
	var changes []kadm.AlterConfig
	for key, value := range spec.Settings {
		changes = append(changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: key, Value: &value})
	}
	slices.SortFunc(changes, func(a, b kadm.AlterConfig) int { return strings.Compare(a.Name, b.Name) })
	responses, err := adm.AlterTopicConfigs(ctx, changes, spec.Name)
	if err != nil {
		return fmt.Errorf("set topic %s: %w", spec.Name, err)
	}
	for _, r := range responses {
		if r.Err != nil {
			return fmt.Errorf("set topic %s: %w", spec.Name, r.Err)
		}
	}
	return nil
}

// Partitions is how many partitions a topic has.
func Partitions(ctx context.Context, cl *kgo.Client, name string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	found, err := kadm.NewClient(cl).ListTopics(ctx, name)
	if err == nil {
		err = found.Error()
	}
	if err != nil {
		return 0, fmt.Errorf("count partitions of %s: %w", name, err)
	}
	return len(found[name].Partitions), nil
}
