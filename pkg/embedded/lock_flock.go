//go:build linux || darwin || freebsd || netbsd || openbsd

package embedded

import (
	"os"
	"syscall"
)

// lock takes the lock for as long as the returned file is open; the system releases it when the process dies.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
