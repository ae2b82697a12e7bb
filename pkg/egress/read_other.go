//go:build !unix

package egress

import "syscall"

// readNow finds nothing where asking a socket is not known.
func readNow(uintptr, []byte) (int, error) { return 0, syscall.EAGAIN }
