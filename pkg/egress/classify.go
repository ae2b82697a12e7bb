package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/textproto"
	"strings"
	"syscall"

	"github.com/hookline/hookline/pkg/webhook"
)

// Classify says which class of failure an error of the transport, or of reading a response's body, is. The classes are
// what the audit and the metrics show: they never carry an address or a name.
func Classify(err error) webhook.ErrorClass {
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case err == nil:
		return webhook.ErrorNone
	case errors.Is(err, ErrBlocked):
		return webhook.ErrorBlocked
	case errors.As(err, &dns):
		return webhook.ErrorDNS
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return webhook.ErrorTimeout
	case errors.Is(err, context.Canceled):
		return webhook.ErrorCut
	case isTLS(err):
		return webhook.ErrorTLS
	case isAny(err, syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH):
		return webhook.ErrorRefused
	case isAny(err, syscall.ECONNRESET, syscall.EPIPE, io.EOF, io.ErrUnexpectedEOF), closedIdle(err):
		return webhook.ErrorReset
	case isProtocol(err):
		return webhook.ErrorProtocol
	default:
		return webhook.ErrorConnection
	}
}

// closedIdle is a kept-alive connection that the receiver closed just when it was used again.
func closedIdle(err error) bool {
	return strings.Contains(err.Error(), "server closed idle connection")
}

func isAny(err error, targets ...error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

func isTLS(err error) bool {
	var verification *tls.CertificateVerificationError
	var header tls.RecordHeaderError
	var alert tls.AlertError
	var authority x509.UnknownAuthorityError
	return errors.As(err, &verification) || errors.As(err, &header) || errors.As(err, &alert) || errors.As(err, &authority) ||
		strings.Contains(err.Error(), "tls: ")
}

// isProtocol also looks at texts: net/http has no types for most of what can be wrong with a response.
func isProtocol(err error) bool {
	var response textproto.ProtocolError
	if errors.As(err, &response) {
		return true
	}
	for _, part := range []string{"malformed", "transport connection broken", "http2: ", "server response headers exceeded", "too many 1xx", "bad Content-Length", "invalid byte in chunk"} {
		if strings.Contains(err.Error(), part) {
			return true
		}
	}
	return false
}
