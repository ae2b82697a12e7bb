package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"time"

	"github.com/hookline/hookline/pkg/store"
)

const (
	replayColumns = `created_at, id, tenant, subscription_id, spec, rate, state, reason, total, done, matched, cursor_at, cursor_id, plan,
		created_by, updated_at, finished_at`
	replayValues = `$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17`
)

// CreateReplay inserts a replay of an existing subscription of the tenant; [store.ErrNotFound] where there is none.
func (s *Store) CreateReplay(ctx context.Context, r store.Replay) error {
	return s.change(ctx, "create replay", func(tx *sql.Tx) error {
		if _, err := subscription(ctx, tx, r.Tenant, r.SubscriptionID); err != nil {
			return err
		}
		return s.insertReplay(ctx, tx, &r)
	})
}

func (s *Store) insertReplay(ctx context.Context, tx *sql.Tx, r *store.Replay) error {
	r.CreatedAt, r.UpdatedAt = dated(r.CreatedAt), dated(r.UpdatedAt)
	_, err := tx.ExecContext(ctx, `INSERT INTO replays (`+replayColumns+`) VALUES (`+replayValues+`)`,
		s.d.Time(r.CreatedAt), r.ID, r.Tenant, r.SubscriptionID, asJSON{r.Spec}, r.Rate, string(r.State), store.Text(r.Reason), r.Total, r.Done, r.Matched,
		s.d.Time(store.Time(r.Cursor.At)), store.Text(r.Cursor.ID), plan{&r.Plan}, store.Text(r.CreatedBy), s.d.Time(r.UpdatedAt), s.d.Time(milli(r.FinishedAt)))
	if err != nil {
		return err
	}
	return s.logReplay(ctx, tx, nil, r)
}

// Replay returns a replay of the tenant, or [store.ErrNotFound].
func (s *Store) Replay(ctx context.Context, tenant, id string) (store.Replay, error) {
	r, err := replay(ctx, s.read, tenant, id)
	return r, s.wrap("read replay", err)
}

func replay(ctx context.Context, q querier, tenant, id string) (store.Replay, error) {
	return scanReplay(q.QueryRowContext(ctx, `SELECT `+replayColumns+` FROM replays WHERE tenant = $1 AND id = $2`, store.Text(tenant), store.Text(id)))
}

// Replays lists the tenant's replays, newest first; of one subscription where it is given.
func (s *Store) Replays(ctx context.Context, tenant, subscriptionID string, p store.Page) (items []store.Replay, next string, err error) {
	l := list[store.Replay]{
		query: query{text: `SELECT ` + replayColumns + ` FROM replays`},
		scan:  scanReplay,
		place: func(r store.Replay) (time.Time, string) { return r.CreatedAt, r.ID },
		id:    textID,
	}
	l.where("tenant = ", store.Text(tenant))
	if subscriptionID != "" {
		l.where("subscription_id = ", store.Text(subscriptionID))
	}
	items, next, err = l.page(ctx, s, p)
	return items, next, s.wrap("list replays", err)
}

// SteerReplay changes the State, Reason, Rate and FinishedAt of a replay, as people ask for; what change returns as an error is
// returned as it is. Progress stays.
func (s *Store) SteerReplay(ctx context.Context, tenant, id string, change func(*store.Replay) error) (store.Replay, error) {
	var steered store.Replay
	err := s.change(ctx, "steer replay", func(tx *sql.Tx) error {
		before, err := replay(ctx, tx, tenant, id)
		if err != nil {
			return err
		}
		steered = before
		if err := change(&steered); err != nil {
			return aborted{err}
		}
		steered.UpdatedAt = milli(time.Now())
		if _, err := tx.ExecContext(ctx, `UPDATE replays SET state = $1, reason = $2, rate = $3, finished_at = $4, updated_at = $5 WHERE id = $6`,
			string(steered.State), store.Text(steered.Reason), steered.Rate, s.d.Time(milli(steered.FinishedAt)), s.d.Time(steered.UpdatedAt), steered.ID); err != nil {
			return err
		}
		return s.logReplay(ctx, tx, &before, &steered)
	})
	if err != nil {
		return store.Replay{}, err
	}
	return steered, nil
}

// ClaimReplay leases the oldest running replay that nobody holds until a moment, or returns [store.ErrNotFound]. Two callers
// never get the same one, unless the lease of the first is over.
func (s *Store) ClaimReplay(ctx context.Context, owner string, now, until time.Time) (store.Replay, error) {
	const free = `state = 'running' AND (lease_until IS NULL OR lease_until <= $3)`
	r, err := scanReplay(s.write.QueryRowContext(ctx, `UPDATE replays SET lease_owner = $1, lease_until = $2
		WHERE id = (SELECT id FROM replays WHERE `+free+` ORDER BY created_at, id LIMIT 1) AND `+free+` RETURNING `+replayColumns,
		owner, s.d.Time(store.Time(until)), s.d.Time(store.Time(now))))
	return r, s.wrap("claim replay", err)
}

// AdvanceReplay writes the progress and plan of a replay that owner holds, with its state where it is still running, and prolongs
// the lease; a zero until releases it. It returns the state and rate that people have asked for since; [store.ErrNotHeld] where
// the lease has gone.
func (s *Store) AdvanceReplay(ctx context.Context, owner string, r store.Replay, until time.Time) (store.ReplayState, float64, error) {
	const own = `CASE WHEN state = 'running' THEN `
	var state store.ReplayState
	var rate float64
	err := s.write.QueryRowContext(ctx, `UPDATE replays SET done = $1, matched = $2, cursor_at = $3, cursor_id = $4, plan = $5,
			state = `+own+`$6 ELSE state END, reason = `+own+`$7 ELSE reason END, finished_at = `+own+`$8 ELSE finished_at END,
			updated_at = $9, lease_until = $10
		WHERE id = $11 AND lease_owner = $12 RETURNING state, rate`,
		r.Done, r.Matched, s.d.Time(store.Time(r.Cursor.At)), store.Text(r.Cursor.ID), plan{&r.Plan},
		string(r.State), store.Text(r.Reason), s.d.Time(milli(r.FinishedAt)),
		s.d.Time(milli(time.Now())), s.d.Time(store.Time(until)), r.ID, owner).Scan(&state, &rate)
	if errors.Is(err, sql.ErrNoRows) {
		return "", 0, store.ErrNotHeld
	}
	return state, rate, s.wrap("advance replay", err)
}

func scanReplay(row scanner) (r store.Replay, err error) {
	return r, row.Scan(at{&r.CreatedAt}, &r.ID, &r.Tenant, &r.SubscriptionID, asJSON{&r.Spec}, &r.Rate, &r.State, &r.Reason, &r.Total, &r.Done, &r.Matched,
		at{&r.Cursor.At}, &r.Cursor.ID, plan{&r.Plan}, &r.CreatedBy, at{&r.UpdatedAt}, at{&r.FinishedAt})
}

// logReplay writes who started, paused, resumed or cancelled a replay.
func (s *Store) logReplay(ctx context.Context, tx *sql.Tx, before, after *store.Replay) error {
	state := func(r *store.Replay) any {
		if r == nil {
			return nil
		}
		return replayState{SubscriptionID: r.SubscriptionID, State: r.State, Reason: r.Reason, Rate: r.Rate, Spec: r.Spec}
	}
	action := store.ActionUpdate
	switch {
	case before == nil:
		action = store.ActionCreate
	case before.State == after.State:
	case after.State == store.ReplayPaused:
		action = store.ActionPause
	case after.State == store.ReplayRunning:
		action = store.ActionResume
	case after.State == store.ReplayCancelled:
		action = store.ActionCancel
	}
	return s.log(ctx, tx, store.Change{Tenant: after.Tenant, Kind: store.ChangeReplay, ObjectID: after.ID, Action: action}, state(before), state(after))
}

type replayState struct {
	SubscriptionID string            `json:"subscriptionId"`
	State          store.ReplayState `json:"state"`
	Reason         string            `json:"reason,omitempty"`
	Rate           float64           `json:"ratePerSecond"`
	Spec           store.ReplaySpec  `json:"spec"`
}

// plan is the column of a plan: JSON, or NULL.
type plan struct{ p **store.ReplayPlan }

func (c plan) Value() (driver.Value, error) {
	if *c.p == nil {
		return nil, nil
	}
	return asJSON{*c.p}.Value()
}

func (c plan) Scan(src any) error {
	if src == nil {
		*c.p = nil
		return nil
	}
	*c.p = new(store.ReplayPlan)
	return asJSON{*c.p}.Scan(src)
}
