// Package retryqueue is the timer index of the retries topic: in Redis, for each partition, which trip is due when, at
// which offset its record is, and up to which offset the topic has been applied. It holds no payload and no truth: the
// topic is the truth, and everything here can be built from it again. When to apply, fire and rebuild is the
// scheduler's matter.
//
// Keys of partition 7, under the topic prefix; the hash tag keeps them on one node of a Redis Cluster, and every script
// is given all the keys it touches:
//
//	hookline.retries:{7}:due        sorted set: compact trip → due time in ms and a fraction, or the end of its lease
//	hookline.retries:{7}:off        the offset that has been applied
//	hookline.retries:{7}:at:<b>     4,096 hashes: compact trip → offset of its record and lane, as one number
//
// The hashes are small so that Redis keeps them as listpacks: one large hash would cost as much again as the sorted set.
// Measured with Redis 7.0.15 and 83,333 waiting in a partition, which is a million in 12: 174 bytes each, all of Redis's used
// memory counted; 168 without the lane. With one hash a partition it was 235.
package retryqueue

import (
	"context"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/hookline/hookline/pkg/webhook"
)

// None is the offset of an index to which nothing has been applied.
const None int64 = -1

// MaxOps and MaxClaim bound one round trip: Redis serves nobody else while a script runs.
const (
	MaxOps   = 2000
	MaxClaim = 1000
)

// buckets is how many hashes hold the pointers of one partition. It is part of the layout: changing it needs new keys.
const buckets = 4096

// ErrDamaged means that a trip waits without a pointer to its record. The partition must be reset and built again.
var ErrDamaged = errors.New("the timer index is damaged: a waiting trip has no record")

// MovedError means that an index does not stand where the caller thought: it was lost, went back in time, or somebody
// else applied more. Nothing was changed.
type MovedError struct {
	Partition int32
	// Offset is where the index stands, or [None].
	Offset int64
}

func (e *MovedError) Error() string {
	return fmt.Sprintf("the timer index of partition %d stands at offset %d", e.Partition, e.Offset)
}

// LaneOf is the lane of a subscription: a hash, by which whoever claims can tell apart whose retries are due without
// reading them. Two subscriptions may share a lane.
func LaneOf(subscription string) uint16 {
	h := fnv.New32a()
	h.Write([]byte(subscription))
	sum := h.Sum32()
	return uint16(sum ^ sum>>16)
}

// A pointer is one number, which Redis keeps in nine bytes: the offset of the record above, its lane in the low bits.
const laneBits = 16

func pointerOf(offset int64, lane uint16) int64 { return offset<<laneBits | int64(lane) }

func parsePointer(text string) (offset int64, lane uint16, err error) {
	pointer, err := strconv.ParseInt(text, 10, 64)
	return pointer >> laneBits, uint16(pointer & (1<<laneBits - 1)), err
}

// scoreOf is the due time in ms. Its fraction has trips that are due in the same millisecond go about in the order of their records, so
// that those which are fired together are read together: one step for 64 records, around again after 262,144. A float has these twelve
// bits until 2039, and one less after that.
func scoreOf(due time.Time, offset int64) float64 {
	return float64(due.UnixMilli()) + float64(offset>>6&4095)/4096
}

// Op is what one record of the changelog does to the index.
type Op struct {
	Trip webhook.Trip
	// Remove is set for a tombstone; what follows is then unused.
	Remove bool
	Due    time.Time
	Offset int64
	Lane   uint16
}

// Claim is a number of due trips leased to the caller.
type Claim struct {
	// Token names the lease.
	Token   int64
	Entries []Entry
	// Now is Redis's clock at the claim, the only clock that says what is due.
	Now time.Time
	// Waiting counts all trips of the partition, leased ones too; Due those that are due and were not claimed.
	Waiting, Due int64
	// Next is when the next trip is due or a lease ends; it is before Now while more is due. Zero where nothing waits.
	Next time.Time
}

// Entry is one leased trip, the offset of its record, and its lane.
type Entry struct {
	Trip   webhook.Trip
	Offset int64
	Lane   uint16
}

// Move is a waiting trip, when it is due or its lease ends, and when it is due instead.
type Move struct {
	Trip     webhook.Trip
	From, To time.Time
}

// Index is the timer index of every partition. All methods may be called concurrently; they block for a round trip or
// two. An error that is neither a [MovedError] nor [ErrDamaged] means that Redis could not be asked, and what was to be
// done may or may not have been done: every method can be called again.
type Index struct {
	client   redis.UniversalClient
	prefix   string
	embedded bool
}

//go:embed lua/*.lua
var sources embed.FS

var (
	applyScript    = script("apply")
	claimScript    = script("claim")
	pointersScript = script("pointers")
	ackScript      = script("ack")
	moveScript     = script("move")
	findScript     = script("find")
	resetScript    = script("reset")
	statsScript    = script("stats")
)

func script(name string) *redis.Script {
	source, err := sources.ReadFile("lua/" + name + ".lua")
	if err != nil {
		panic(err) // the file is embedded above
	}
	return redis.NewScript(string(source))
}

// Close ends the connections. The index stays as it is.
func (x *Index) Close() error { return x.client.Close() }

// Ping reports whether Redis answers.
func (x *Index) Ping(ctx context.Context) error {
	if err := x.client.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("ping redis: %w", err)
	}
	return nil
}

// Offset is the offset up to which the partition has been applied, or [None].
func (x *Index) Offset(ctx context.Context, partition int32) (int64, error) {
	text, err := x.client.Get(ctx, x.offKey(partition)).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return None, fmt.Errorf("read offset of timer index %d: %w", partition, err)
	}
	return parseOffset(text)
}

// Apply changes the index by at most [MaxOps] records, in their order, and sets its offset to last. Where its offset is
// not expected it changes nothing and returns a [MovedError]; so a call that is repeated because its reply was lost
// finds the index moved to last.
func (x *Index) Apply(ctx context.Context, partition int32, expected, last int64, ops []Op) error {
	if len(ops) > MaxOps {
		return fmt.Errorf("apply to timer index %d: %d operations are more than %d", partition, len(ops), MaxOps)
	}
	keys := make([]string, 0, 2+len(ops))
	keys = append(keys, x.dueKey(partition), x.offKey(partition))
	args := make([]any, 0, 2+3*len(ops))
	args = append(args, offsetText(expected), offsetText(last))
	prefix := x.bucketPrefix(partition)
	for _, op := range ops {
		member := op.Trip.Compact()
		keys = append(keys, prefix+bucketOf(member))
		if op.Remove {
			args = append(args, member, "", "")
		} else {
			args = append(args, member, scoreOf(op.Due, op.Offset), pointerOf(op.Offset, op.Lane))
		}
	}
	return x.compareAndDo(ctx, "apply to", applyScript, partition, keys, args)
}

// Reset empties the index of a partition, if its offset is the expected one; otherwise it returns a [MovedError].
func (x *Index) Reset(ctx context.Context, partition int32, expected int64) error {
	keys := make([]string, 0, 2+buckets)
	keys = append(keys, x.dueKey(partition), x.offKey(partition))
	prefix := x.bucketPrefix(partition)
	for b := range int64(buckets) {
		keys = append(keys, prefix+strconv.FormatInt(b, 16))
	}
	return x.compareAndDo(ctx, "reset", resetScript, partition, keys, []any{offsetText(expected)})
}

func (x *Index) compareAndDo(ctx context.Context, what string, s *redis.Script, partition int32, keys []string, args []any) error {
	reply, err := s.Run(ctx, x.client, keys, args...).Slice()
	if err != nil {
		return fmt.Errorf("%s timer index %d: %w", what, partition, err)
	}
	r := replyOf(reply)
	if done, have := r.int(0), r.text(1); done == 0 && r.err == nil {
		offset, err := parseOffset(have)
		if err != nil {
			return err
		}
		return &MovedError{Partition: partition, Offset: offset}
	}
	return r.failed(what, partition)
}

// Claim leases up to n due trips to the caller, at most [MaxClaim], in the order of their due times. A trip that is not
// acknowledged before the lease ends is due again. applied is the offset that the caller has applied: an index that is
// behind it has been lost or has gone back in time, and is answered with a [MovedError]. With n = 0 it only looks.
func (x *Index) Claim(ctx context.Context, partition int32, n int, lease time.Duration, applied int64) (Claim, error) {
	keys := []string{x.dueKey(partition), x.offKey(partition)}
	reply, err := claimScript.Run(ctx, x.client, keys, min(n, MaxClaim), lease.Milliseconds(), applied).Slice()
	if err != nil {
		return Claim{}, fmt.Errorf("claim from timer index %d: %w", partition, err)
	}
	r := replyOf(reply)
	if r.int(0) == 0 && r.err == nil {
		offset, err := parseOffset(r.text(1))
		if err != nil {
			return Claim{}, err
		}
		return Claim{}, &MovedError{Partition: partition, Offset: offset}
	}
	claim := Claim{Now: time.UnixMilli(r.int(1)), Token: r.int(2), Waiting: r.int(3), Due: r.int(4), Next: r.time(5)}
	if err := r.failed("claim from", partition); err != nil || len(reply) == 6 {
		return claim, err
	}
	members := make([]string, 0, len(reply)-6)
	for i := 6; i < len(reply); i++ {
		members = append(members, r.text(i))
	}
	if r.err != nil {
		return Claim{}, r.failed("claim from", partition)
	}
	claim.Entries, err = x.entries(ctx, partition, claim.Token, members)
	return claim, err
}

// entries looks up where the records of claimed members are. A member that has gone since is left out.
func (x *Index) entries(ctx context.Context, partition int32, token int64, members []string) ([]Entry, error) {
	keys, args := x.memberArgs(partition, token, members)
	reply, err := pointersScript.Run(ctx, x.client, keys, args...).Slice()
	if err != nil {
		return nil, fmt.Errorf("look up records in timer index %d: %w", partition, err)
	}
	r := replyOf(reply)
	entries := make([]Entry, 0, len(members))
	for i, member := range members {
		switch pointer := r.text(i); pointer {
		case "":
		case "?":
			return nil, ErrDamaged
		default:
			trip, err := webhook.ParseCompact([]byte(member))
			if err != nil {
				return nil, errors.Join(ErrDamaged, err)
			}
			offset, lane, err := parsePointer(pointer)
			if err != nil {
				return nil, errors.Join(ErrDamaged, err)
			}
			entries = append(entries, Entry{Trip: trip, Offset: offset, Lane: lane})
		}
	}
	return entries, r.failed("look up records in", partition)
}

// Ack removes trips of a claim for good, where they are still under its lease, and says how many were.
func (x *Index) Ack(ctx context.Context, partition int32, token int64, trips []webhook.Trip) (int, error) {
	if len(trips) == 0 {
		return 0, nil
	}
	members := make([]string, len(trips))
	for i, trip := range trips {
		members[i] = string(trip.Compact())
	}
	keys, args := x.memberArgs(partition, token, members)
	removed, err := ackScript.Run(ctx, x.client, keys, args...).Int()
	if err != nil {
		return 0, fmt.Errorf("acknowledge in timer index %d: %w", partition, err)
	}
	return removed, nil
}

// Move changes when trips are due, and says of how many. One that is not due when the caller thinks, because it has been claimed or moved, or
// has gone, is left alone.
func (x *Index) Move(ctx context.Context, partition int32, moves ...Move) (int, error) {
	if len(moves) == 0 {
		return 0, nil
	}
	args := make([]any, 0, 3*len(moves))
	for _, m := range moves {
		args = append(args, m.Trip.Compact(), m.From.UnixMilli(), m.To.UnixMilli())
	}
	moved, err := moveScript.Run(ctx, x.client, []string{x.dueKey(partition)}, args...).Int()
	if err != nil {
		return 0, fmt.Errorf("move in timer index %d: %w", partition, err)
	}
	return moved, nil
}

// Find returns the trips of a delivery's generation that wait, leased ones too, and Redis's clock.
func (x *Index) Find(ctx context.Context, partition int32, delivery uuid.UUID, generation uint32) (found []Waiting, now time.Time, err error) {
	prefix := binary.AppendUvarint(append(make([]byte, 0, 24), delivery[:]...), uint64(generation))
	values, err := findScript.Run(ctx, x.client, []string{x.dueKey(partition), x.bucketPrefix(partition) + bucketOf(prefix)}, prefix).Slice()
	if err != nil {
		return nil, now, fmt.Errorf("find in timer index %d: %w", partition, err)
	}
	r := replyOf(values)
	now = time.UnixMilli(r.int(0))
	for i := 1; i+2 < len(values) && r.err == nil; i += 3 {
		trip, err := webhook.ParseCompact([]byte(r.text(i)))
		if err != nil {
			return nil, now, errors.Join(ErrDamaged, err)
		}
		offset, _, err := parsePointer(r.text(i + 2))
		if err != nil {
			return nil, now, errors.Join(ErrDamaged, err)
		}
		found = append(found, Waiting{Trip: trip, Due: r.time(i + 1), Offset: offset})
	}
	return found, now, r.failed("find in", partition)
}

func (x *Index) memberArgs(partition int32, token int64, members []string) ([]string, []any) {
	keys := make([]string, 0, 1+len(members))
	keys = append(keys, x.dueKey(partition))
	args := make([]any, 0, 1+len(members))
	args = append(args, token)
	prefix := x.bucketPrefix(partition)
	for _, member := range members {
		keys = append(keys, prefix+bucketOf([]byte(member)))
		args = append(args, member)
	}
	return keys, args
}

func (x *Index) dueKey(partition int32) string { return x.key(partition, "due") }
func (x *Index) offKey(partition int32) string { return x.key(partition, "off") }

// bucketOf spreads members by the first bytes of the delivery id, which is a hash.
func bucketOf(member []byte) string {
	return strconv.FormatInt(int64(binary.BigEndian.Uint16(member)%buckets), 16)
}

func (x *Index) bucketPrefix(partition int32) string { return x.key(partition, "at:") }

func (x *Index) key(partition int32, name string) string {
	return x.prefix + "retries:{" + strconv.Itoa(int(partition)) + "}:" + name
}

func offsetText(offset int64) string {
	if offset == None {
		return ""
	}
	return strconv.FormatInt(offset, 10)
}

func parseOffset(text string) (int64, error) {
	if text == "" {
		return None, nil
	}
	offset, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return None, errors.Join(ErrDamaged, fmt.Errorf("read offset of a timer index: %w", err))
	}
	return offset, nil
}

// reply reads a script's answer and keeps the first thing that is not as the script writes it.
type reply struct {
	values []any
	err    error
}

func replyOf(values []any) *reply { return &reply{values: values} }

func (r *reply) int(i int) int64 {
	if i < len(r.values) {
		if v, ok := r.values[i].(int64); ok {
			return v
		}
	}
	r.unexpected(i)
	return 0
}

func (r *reply) text(i int) string {
	if i < len(r.values) {
		if v, ok := r.values[i].(string); ok {
			return v
		}
	}
	r.unexpected(i)
	return ""
}

// time reads a score, which Redis writes as text; the zero time for none.
func (r *reply) time(i int) time.Time {
	text := r.text(i)
	if text == "" {
		return time.Time{}
	}
	score, err := strconv.ParseFloat(text, 64)
	if err != nil || math.Abs(score) > math.MaxInt64/2 {
		r.unexpected(i)
		return time.Time{}
	}
	return time.UnixMilli(int64(score))
}

func (r *reply) unexpected(i int) {
	if r.err == nil {
		r.err = fmt.Errorf("unexpected value %d in a reply of %d", i, len(r.values))
	}
}

func (r *reply) failed(what string, partition int32) error {
	if r.err == nil {
		return nil
	}
	return fmt.Errorf("%s timer index %d: %w", what, partition, r.err)
}
