// Package webhook is Hookline's vocabulary: event, subscription, secret, delivery, attempt, outcome, and the pure rules
// that belong to the words themselves. Every other package speaks it; it imports nothing of Hookline's and does no I/O.
package webhook
