package profile

import (
	"errors"
	"fmt"

	"github.com/hookline/hookline/pkg/ecmajson"
)

// Code says in which way an event does not fit a contract. The list is fixed; docs/profiles.md explains each.
type Code string

// The codes of [ContractError].
const (
	CodeNotObject Code = "not_object"           // data (or metadata) must be a JSON object here
	CodeNotJSON   Code = Code(ecmajson.NotJSON) // the body is not valid JSON, or not UTF-8
	CodeReserved  Code = "reserved_key"         // data has a member that the envelope itself writes
	CodeDuplicate Code = Code(ecmajson.Duplicate)
	CodeProto     Code = Code(ecmajson.Proto)
	CodeNumber    Code = Code(ecmajson.Number)
	CodeDepth     Code = Code(ecmajson.Depth)
	CodeHeader    Code = "header_value" // a value that must go into a header cannot stand there
)

// ContractError is an event that cannot be sent under a contract, now or later: the delivery ends as a dead letter. Its
// text names places, never what the payload holds there.
type ContractError struct {
	Code   Code
	Detail string
}

func (e *ContractError) Error() string { return string(e.Code) + ": " + e.Detail }

func refuse(code Code, format string, args ...any) error {
	return &ContractError{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// unfit makes what has no sorted form an event that does not fit its contract.
func unfit(err error) error {
	var refused *ecmajson.Error
	if errors.As(err, &refused) {
		return refuse(Code(refused.Kind), "%s", refused.Detail)
	}
	return err
}

// ErrSecret is a secret that is missing or does not have the form that the profile asks for. Unlike a [ContractError] it
// says nothing about the event: the delivery may succeed once the secret is right.
var ErrSecret = errors.New("the signing secret does not fit the profile")
