package scheduler

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/hookline/hookline/pkg/health"
)

// outage keeps book of a server that is away: it is away as long as anybody who last asked it got no answer. It logs at
// once and then every minute, and sets the condition of /readyz. Its methods may be called concurrently.
type outage struct {
	server    string
	log       *slog.Logger
	condition *health.Condition

	mu       sync.Mutex
	failing  map[string]error
	since    time.Time
	lastLine time.Time
	told     bool
}

const repeatLine = time.Minute

func newOutage(server string, log *slog.Logger, condition *health.Condition) *outage {
	return &outage{server: server, log: log, condition: condition, failing: map[string]error{}}
}

// report says how the last question of an asker went; an asker that is gone reports nil.
func (o *outage) report(ctx context.Context, asker string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		o.failed(ctx, asker, err)
		return
	}
	if _, failed := o.failing[asker]; !failed && !o.since.IsZero() {
		return
	}
	delete(o.failing, asker)
	if len(o.failing) > 0 {
		return
	}
	o.condition.Set(nil)
	if o.told {
		o.log.InfoContext(ctx, o.server+" answers again", "after", time.Since(o.since))
	}
	o.since, o.told = time.Time{}, false
}

func (o *outage) failed(ctx context.Context, asker string, err error) {
	if ctx.Err() != nil {
		return // the question was given up, not refused
	}
	if len(o.failing) == 0 {
		o.since = time.Now()
	}
	o.failing[asker] = err
	o.condition.Set(err)
	if time.Since(o.lastLine) < repeatLine {
		return
	}
	o.lastLine, o.told = time.Now(), true
	o.log.WarnContext(ctx, o.server+" is away", "error", err, "for", time.Since(o.since))
}
