package pgstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/hookline/hookline/pkg/store"
)

// classify makes a driver's error one that wraps store's errors. The rule is the recorder's: only an error about the data of
// a row may ever be blamed on the row; whatever else is wrong with the database may be right again later.
func classify(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return classifyCode(refused.Code, err)
	}
	var network net.Error
	if errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, context.DeadlineExceeded) || errors.As(err, new(*pgconn.ConnectError)) || pgconn.SafeToRetry(err) ||
		strings.Contains(err.Error(), "conn closed") {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return err
}

func classifyCode(code string, err error) error {
	switch code {
	case "23505": // unique_violation
		return fmt.Errorf("%w: %w", store.ErrExists, err)
	case "23503": // foreign_key_violation: a secret that got a user, or went, meanwhile
		return fmt.Errorf("%w: %w", store.ErrInUse, err)
	case "42P01", "42703", "3F000": // undefined table, column, schema
		return fmt.Errorf("%w: schema is not current (run hookline migrate): %w", store.ErrUnavailable, err)
	}
	switch code[:2] {
	case "22", "23", "54": // data exception, integrity constraint, program limit such as an index row's size
		return fmt.Errorf("%w: %w", store.ErrRefused, err)
	case "08", "25", "28", "3D", "40", "53", "55", "57", "58", "XX":
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return err
}

// raced reports that a transaction lost against another one and succeeds when tried again.
func raced(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && (refused.Code == "40001" || refused.Code == "40P01")
}
