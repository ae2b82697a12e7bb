package delivery

import (
	"context"
	"time"

	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/offset"
	"github.com/hookline/hookline/pkg/run"
)

const (
	// commitInterval is how much of what was finished a killed worker's successor repeats, a commit's own time aside. A
	// commit that would say nothing new is not made.
	commitInterval = 100 * time.Millisecond
	commitTimeout  = 10 * time.Second
	// revokeTimeout bounds how long a rebalance waits for attempts under way. It is below the rebalance timeout of the
	// group (60 s) and above the longest timeout of the built-in profiles (15 s).
	revokeTimeout = 20 * time.Second
)

// assign starts a tracker for a partition that has come, where the last commit left off.
func (ss *session) assign(number int32, at kafka.Point) {
	tracker := offset.New(0, "")
	if at.Offset >= 0 {
		tracker = offset.New(at.Offset, at.Metadata)
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.partitions[number] = newPartition(number, tracker, ss.cfg)
	ss.ownedChanged()
	// The client may still hold the partition as paused, from an earlier time that it was here.
	ss.hasRoom()
}

// ownedChanged has the lanes take their part of every rate. The lock is held.
func (ss *session) ownedChanged() {
	if owned := len(ss.partitions); owned > 0 {
		ss.lanes.own(float64(owned) / float64(max(ss.total, owned)))
	}
}

// release hands partitions over: nothing more of them begins, what has begun may finish within the timeout, and what is
// finished is committed.
func (ss *session) release(numbers []int32, timeout time.Duration) {
	gone := map[int32]*partition{}
	var idle []<-chan struct{}
	for _, number := range numbers {
		if p := ss.partition(number); p != nil {
			gone[number] = p
			idle = append(idle, p.revoke())
		}
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for _, ch := range idle {
		select {
		case <-ch:
			continue
		case <-timer.C:
		case <-ss.work.Done():
		}
		break
	}
	if err := ss.commit(gone); err != nil {
		ss.deps.Log.WarnContext(ss.work, "commit deliveries on release", "error", err)
	}
	ss.forget(numbers)
}

// forget drops partitions without a commit: they have another owner.
func (ss *session) forget(numbers []int32) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for _, number := range numbers {
		if p := ss.partitions[number]; p != nil {
			p.revoke()
			delete(ss.partitions, number)
		}
	}
	ss.ownedChanged()
}

// commit writes the lowest unfinished offset of each partition, with what is finished above it as metadata.
func (ss *session) commit(parts map[int32]*partition) error {
	ss.committing.Lock()
	defer ss.committing.Unlock()
	points := map[int32]kafka.Point{}
	for number, p := range parts {
		if at, metadata, changed := p.tracker.Commit(); changed {
			points[number] = kafka.Point{Offset: at, Metadata: metadata}
		}
	}
	// A commit is worth its time even when the service is about to end.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ss.work), commitTimeout)
	defer cancel()
	return kafka.Commit(ctx, ss.consumer, ss.topics.Deliveries, points, func(number int32, at kafka.Point) {
		parts[number].tracker.Committed(at.Offset, at.Metadata)
	})
}

// commits commits what has been finished, until ctx ends. Where nothing finishes nothing is done.
func (ss *session) commits(ctx context.Context) {
	var quiet run.Throttle
	for {
		select {
		case <-ctx.Done():
			return
		case <-ss.finished:
		}
		run.Pause(ctx, commitInterval)
		if err := ss.commit(ss.owned()); err != nil {
			if quiet.Allow() {
				ss.deps.Log.WarnContext(ctx, "commit deliveries", "error", err)
			}
			ss.hasFinished()
		}
	}
}

// hasFinished has what was finished committed soon.
func (ss *session) hasFinished() {
	select {
	case ss.finished <- struct{}{}:
	default:
	}
}

// drain lets what has begun finish within the drain timeout, and commits.
func (ss *session) drain() {
	ss.lanes.close()
	var numbers []int32
	for number := range ss.owned() {
		numbers = append(numbers, number)
	}
	ss.release(numbers, ss.cfg.DrainTimeout)
}
