//go:build unix

package egress

import "syscall"

// readNow reads from a socket that does not block.
func readNow(fd uintptr, p []byte) (int, error) { return syscall.Read(int(fd), p) }
