package store

import (
	"context"
	"errors"
	"time"
)

// Claim is the right to run a request that came with an idempotency key. One run at a time has it, until ExpiresAt; what it
// answered is kept and given to every repetition.
type Claim struct {
	Tenant, Key string
	// Request is the SHA-256 of everything that makes it this request.
	Request [32]byte
	// Run tells this run from another one of the same request.
	Run string
	// ExpiresAt ends the claim of a run that died: the next repetition may run then.
	ExpiresAt time.Time
}

var (
	// ErrClaimed: another run of the same request is under way.
	ErrClaimed = errors.New("the request is under way")
	// ErrOtherRequest: the key belongs to another request.
	ErrOtherRequest = errors.New("the idempotency key belongs to another request")
)

type answerKey struct{}

type answering struct {
	claim  Claim
	answer func() []byte
	until  time.Time
}

// Answering makes the next change under the context keep the answer of the claim, until a moment, in its own transaction: either
// both are there or none. The function is called inside the transaction and must be quick; where it returns nil nothing is kept.
func Answering(ctx context.Context, c Claim, until time.Time, answer func() []byte) context.Context {
	return context.WithValue(ctx, answerKey{}, answering{claim: c, answer: answer, until: until})
}

// AnswerOf is what [Answering] has put into the context; a nil answer where there is nothing to keep.
func AnswerOf(ctx context.Context) (c Claim, answer []byte, until time.Time) {
	a, ok := ctx.Value(answerKey{}).(answering)
	if !ok {
		return Claim{}, nil, time.Time{}
	}
	return a.claim, a.answer(), a.until
}
