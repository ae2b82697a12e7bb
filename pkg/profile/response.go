package profile

import (
	"strconv"
	"strings"

	"github.com/hookline/hookline/pkg/webhook"
)

// Response is what came of one request.
type Response struct {
	// StatusCode is 0 where no response came.
	StatusCode int
	// Err says why there is no usable response; it counts before the status.
	Err webhook.ErrorClass
	// RetryAfter is the header's raw value, or empty.
	RetryAfter string
}

// action is what a response means.
type action uint8

const (
	actionRetry      action = iota // also what no rule matches
	actionRetryLater               // without micro-retry
	actionDelivered
	actionDeadLetter
	actionDisable // dead letter, and disable the subscription
)

var actionNames = map[string]action{
	"retry": actionRetry, "retry_later": actionRetryLater, "delivered": actionDelivered,
	"dead_letter": actionDeadLetter, "dead_letter_and_disable": actionDisable,
}

// responses are a profile's rules, spread out: one action for each code from 100 to 599, and for what is no code.
type responses struct {
	codes                   [600]action
	timeout, network, other action
}

// of is the action for a response that a rule of the profile may decide.
func (r *responses) of(res Response) action {
	switch {
	case res.Err == webhook.ErrorTimeout:
		return r.timeout
	case res.Err != webhook.ErrorNone || res.StatusCode == 0:
		return r.network
	case res.StatusCode >= 100 && res.StatusCode < len(r.codes):
		return r.codes[res.StatusCode]
	default:
		return r.other
	}
}

// responses compiles the rules: the first that matches a code decides it, so that later ones fill only what is left.
func (c *compiler) responses(rules []responseSpec) responses {
	w := ruleWriter{set: map[string]bool{}}
	delivers := false
	for i, rule := range rules {
		delivers = delivers || rule.Then == "delivered"
		for j, m := range rule.Match {
			if !w.match(string(m), actionNames[rule.Then]) {
				c.fail("/responses/"+strconv.Itoa(i)+"/match/"+strconv.Itoa(j), "%q matches nothing that an earlier rule has left", string(m))
			}
		}
	}
	if !delivers {
		c.fail("/responses", "no response means delivered")
	}
	return w.out
}

type ruleWriter struct {
	out responses
	set map[string]bool
}

// match gives an action to everything that a word covers and no earlier rule has taken; false where there was nothing.
func (w *ruleWriter) match(word string, a action) bool {
	switch word {
	case "timeout":
		return w.one(word, &w.out.timeout, a)
	case "network":
		return w.one(word, &w.out.network, a)
	case "redirect":
		return w.codes(300, 399, a)
	case "any":
		codes := w.codes(100, 599, a)
		timeout := w.one("timeout", &w.out.timeout, a)
		network := w.one("network", &w.out.network, a)
		other := w.one("other", &w.out.other, a)
		return codes || timeout || network || other
	}
	if class, ok := strings.CutSuffix(word, "xx"); ok {
		n, _ := strconv.Atoi(class)
		return w.codes(n*100, n*100+99, a)
	}
	from, to, ranged := strings.Cut(word, "-")
	if !ranged {
		to = from
	}
	first, _ := strconv.Atoi(from)
	last, _ := strconv.Atoi(to)
	return w.codes(first, last, a)
}

func (w *ruleWriter) one(key string, to *action, a action) bool {
	if w.set[key] {
		return false
	}
	w.set[key] = true
	*to = a
	return true
}

func (w *ruleWriter) codes(first, last int, a action) bool {
	some := false
	for code := first; code <= last; code++ {
		some = w.one(strconv.Itoa(code), &w.out.codes[code], a) || some
	}
	return some
}
