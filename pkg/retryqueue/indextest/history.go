package indextest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/hookline/hookline/pkg/retryqueue"
)

// random compares histories with the model. Due times are far in the past or the future and leases long, so that the
// server's clock, which goes on by itself, decides nothing.
func random(t *testing.T, f Fixture) {
	rapid.Check(t, func(r *rapid.T) {
		ctx := context.Background()
		if err := f.Redis.FlushAll(ctx).Err(); err != nil {
			r.Fatal(err)
		}
		h := &history{fixture: f, model: NewModel()}
		r.Repeat(map[string]func(*rapid.T){
			"apply": h.apply, "claim": h.claim, "ack": h.ack, "move": h.move, "": h.same,
		})
	})
}

type history struct {
	fixture Fixture
	model   *Model
	claims  []retryqueue.Claim
}

func (h *history) apply(r *rapid.T) {
	expected := h.model.Offset + rapid.SampledFrom([]int64{0, 0, 0, 0, 1, -1}).Draw(r, "error of expected")
	expected = max(expected, retryqueue.None)
	last := h.model.Offset + rapid.Int64Range(1, 5).Draw(r, "gap")
	ops := rapid.SliceOfN(rapid.Custom(func(r *rapid.T) retryqueue.Op {
		op := retryqueue.Op{Trip: Trip(rapid.IntRange(0, 9).Draw(r, "trip")), Remove: rapid.Bool().Draw(r, "remove")}
		if !op.Remove {
			op.Offset = last * 50
			op.Lane = uint16(rapid.IntRange(0, 3).Draw(r, "lane"))
			op.Due = time.UnixMilli(rapid.SampledFrom([]int64{1000, 2000, 3000, 1 << 45}).Draw(r, "due"))
		}
		return op
	}), 0, 6).Draw(r, "ops")
	err := h.fixture.Index.Apply(context.Background(), partition, expected, last, ops)
	applied := h.model.Apply(expected, last, ops)
	var moved *retryqueue.MovedError
	if applied != (err == nil) || (err != nil && (!errors.As(err, &moved) || moved.Offset != h.model.Offset)) {
		r.Fatalf("applied %v in the model at %d, %v in Redis", applied, h.model.Offset, err)
	}
}

func (h *history) claim(r *rapid.T) {
	n := rapid.IntRange(0, 4).Draw(r, "n")
	applied := max(retryqueue.None, h.model.Offset+rapid.Int64Range(-1, 1).Draw(r, "error of applied"))
	claim, err := h.fixture.Index.Claim(context.Background(), partition, n, long, applied)
	var moved *retryqueue.MovedError
	if err != nil && !errors.As(err, &moved) {
		r.Fatal(err)
	}
	now := claim.Token - long.Milliseconds()
	want, ok := h.model.Claim(now, n, long, applied)
	if ok != (err == nil) {
		r.Fatalf("claimed %v in the model, %v in Redis", ok, err)
	}
	if diff := cmp.Diff(want, claim.Entries); ok && diff != "" && len(want)+len(claim.Entries) > 0 {
		r.Fatalf("-model +redis\n%s", diff)
	}
	if ok && n > 0 {
		h.claims = append(h.claims, claim)
	}
}

func (h *history) ack(r *rapid.T) {
	if len(h.claims) == 0 {
		r.Skip("nothing claimed")
	}
	claim := rapid.SampledFrom(h.claims).Draw(r, "claim")
	acked := append(trips(claim.Entries), Trip(rapid.IntRange(0, 9).Draw(r, "another")))
	removed, err := h.fixture.Index.Ack(context.Background(), partition, claim.Token, acked)
	if want := h.model.Ack(claim.Token, acked); err != nil || removed != want {
		r.Fatalf("removed %d, %v; want %d", removed, err, want)
	}
}

func (h *history) move(r *rapid.T) {
	if len(h.claims) == 0 {
		r.Skip("nothing claimed")
	}
	claim := rapid.SampledFrom(h.claims).Draw(r, "claim")
	from := time.UnixMilli(claim.Token)
	moves := []retryqueue.Move{{Trip: Trip(rapid.IntRange(0, 9).Draw(r, "another")), From: from, To: time.UnixMilli(4000)}}
	for _, e := range claim.Entries {
		moves = append(moves, retryqueue.Move{Trip: e.Trip, From: from, To: time.UnixMilli(rapid.SampledFrom([]int64{500, 2500, 1 << 45}).Draw(r, "to"))})
	}
	moved, err := h.fixture.Index.Move(context.Background(), partition, moves...)
	if want := h.model.Move(moves...); err != nil || moved != want {
		r.Fatalf("moved %d, %v; want %d", moved, err, want)
	}
}

func (h *history) same(r *rapid.T) {
	stats, err := h.fixture.Index.Stats(context.Background(), partition)
	if err != nil || stats.Offset != h.model.Offset || stats.Waiting != int64(len(h.model.Waiting)) {
		r.Fatalf("%+v, %v; want offset %d and %d waiting", stats, err, h.model.Offset, len(h.model.Waiting))
	}
}
