//go:build !(linux || darwin || freebsd || netbsd || openbsd)

package embedded

import "os"

// lock keeps nobody out where the system has no flock.
func lock(path string) (*os.File, error) { return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) }
