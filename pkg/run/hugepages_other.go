//go:build !linux

package run

// PreferHugePages does nothing: only Linux can be asked.
func PreferHugePages(int) {}
