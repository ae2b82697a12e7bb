package replay

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/run"
)

const (
	// mostAhead is how many deliveries of a replay the workers may have before them when more follow: live ones wait behind these.
	mostAhead = 500
	// Workers commit ten times a second. Those that have not come to it for longer than patience are slow, or away.
	lookEvery = 50 * time.Millisecond
	patience  = time.Second
	// A delivery that is not seen to finish for so long is not waited for: its topic may have been made anew.
	forgotten = 15 * time.Minute
)

// ahead is what a replay has handed to the workers and they have not finished.
type ahead struct{ list []handed }

type handed struct {
	partition int32
	offset    int64
	at        time.Time
}

func (a *ahead) add(results kgo.ProduceResults, now time.Time) {
	for _, r := range results {
		a.list = append(a.list, handed{r.Record.Partition, r.Record.Offset, now})
	}
}

// room reports whether more may follow. It waits a while for that. Workers that have never committed cannot be watched, and are not waited for.
func (a *ahead) room(ctx context.Context, journal Journal) (bool, error) {
	for since := time.Now(); len(a.list) > mostAhead; {
		standings, err := journal.Standings(ctx)
		if err != nil {
			return false, err
		}
		a.list = slices.DeleteFunc(a.list, func(h handed) bool {
			return len(standings) == 0 || standings[h.partition].Finished(h.offset) || time.Since(h.at) > forgotten
		})
		if len(a.list) > mostAhead && (time.Since(since) >= patience || !run.Pause(ctx, lookEvery)) {
			return false, ctx.Err()
		}
	}
	return true, nil
}
