package retryqueue

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// PolicyError means that Redis may not be used as it is set up. Waiting does not help; an operator must act.
type PolicyError struct{ Detail string }

func (e *PolicyError) Error() string { return e.Detail }

// CheckPolicy returns a [PolicyError] unless every master keeps what it has been given: with any policy but noeviction a
// full Redis drops waiting retries without a word. Any other error means that Redis could not be asked. The embedded
// server is not asked.
func (x *Index) CheckPolicy(ctx context.Context) error {
	if x.embedded {
		return nil
	}
	if cluster, ok := x.client.(*redis.ClusterClient); ok {
		var mu sync.Mutex
		var found error
		err := cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
			if err := checkPolicy(ctx, node); err != nil {
				mu.Lock()
				defer mu.Unlock()
				found = err
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("check redis: %w", err)
		}
		return found
	}
	return checkPolicy(ctx, x.client)
}

func checkPolicy(ctx context.Context, client redis.Cmdable) error {
	policy, err := memoryPolicy(ctx, client)
	if err != nil {
		return err
	}
	if policy != "noeviction" {
		return &PolicyError{Detail: fmt.Sprintf("redis has maxmemory-policy %s and would drop waiting retries when it is full: "+
			"set maxmemory-policy to noeviction (CONFIG SET maxmemory-policy noeviction, and in redis.conf)", policy)}
	}
	return nil
}

// memoryPolicy asks INFO first, which managed servers permit, and CONFIG where INFO does not say.
func memoryPolicy(ctx context.Context, client redis.Cmdable) (string, error) {
	info, err := client.Info(ctx, "memory").Result()
	for line := range strings.Lines(info) {
		if policy, ok := strings.CutPrefix(line, "maxmemory_policy:"); ok {
			return strings.TrimSpace(policy), nil
		}
	}
	if err != nil && !refused(err) {
		return "", fmt.Errorf("check redis: %w", err)
	}
	values, err := client.ConfigGet(ctx, "maxmemory-policy").Result()
	switch {
	case err != nil && !refused(err):
		return "", fmt.Errorf("check redis: %w", err)
	case err != nil || values["maxmemory-policy"] == "":
		return "", &PolicyError{Detail: "redis tells its maxmemory-policy neither by INFO nor by CONFIG GET: permit one of them to this user (+info)"}
	default:
		return values["maxmemory-policy"], nil
	}
}

// refused tells an answer that a command is not there or not allowed from no answer, or one that will change.
func refused(err error) bool {
	text := err.Error()
	return strings.HasPrefix(text, "NOPERM") || strings.HasPrefix(text, "ERR unknown command")
}
