package store

import (
	"time"

	"github.com/hookline/hookline/pkg/webhook"
)

// RetryFilter selects deliveries that wait for their next attempt. Zero fields select everything.
type RetryFilter struct {
	SubscriptionID string
	EventType      string
	Reason         webhook.Reason
	From, To       time.Time // of NextAttemptAt: From inclusive, To exclusive
}

// RetryCounts says what waits.
type RetryCounts struct {
	Waiting int64
	// Oldest is the earliest NextAttemptAt, in the past where attempts are overdue; zero where nothing waits.
	Oldest        time.Time
	Subscriptions map[string]int64 // of those with most, at most [MaxCounted]
	Reasons       map[webhook.Reason]int64
	// Due counts what is due up to each of the asked times, those of the times before it not counted again, and last what
	// is due after all of them.
	Due []int64
}

// MaxCounted bounds the subscriptions in [RetryCounts].
const MaxCounted = 1000
