package run

import (
	"runtime"
	"syscall"
)

// PreferHugePages asks the kernel to back the heap with huge pages as it grows, up to about so many bytes. A process that goes from
// connection to connection touches each page for a moment only, and looks up addresses instead of working; where the kernel's
// setting is madvise, it gives huge pages to nobody who does not ask. Nothing is reported where it gives none: the process then
// runs as it would have. It takes address space and no memory, and is for before the heap has grown.
func PreferHugePages(bytes int) {
	// The kernel keeps the wish with the addresses, and the heap uses the lowest that are free.
	room := make([]byte, bytes)
	_ = syscall.Madvise(room, syscall.MADV_HUGEPAGE)
	runtime.GC()
}
