package run

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

func TestTheHeapGrowsWhereHugePagesWereAskedFor(t *testing.T) {
	_, err := os.Stat("/sys/kernel/mm/transparent_hugepage")
	kernelHasThem := err == nil
	PreferHugePages(64 << 20)
	grown := make([]byte, 32<<20)
	if got := slices.Contains(flagsOfMapping(t, unsafe.SliceData(grown)), "hg"); got != kernelHasThem {
		t.Errorf("huge pages are asked for where the heap grows: %t; the kernel has them: %t", got, kernelHasThem)
	}
}

// flagsOfMapping are the VmFlags of the mapping that an address is in: proc_pid_smaps(5).
func flagsOfMapping(t *testing.T, of *byte) []string {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	at, inside := uintptr(unsafe.Pointer(of)), false
	for line := range strings.Lines(string(maps)) {
		var from, to uintptr
		if n, _ := fmt.Sscanf(line, "%x-%x ", &from, &to); n == 2 {
			inside = from <= at && at < to
		}
		if flags, found := strings.CutPrefix(line, "VmFlags:"); found && inside {
			return strings.Fields(flags)
		}
	}
	t.Fatalf("no mapping has %x", at)
	return nil
}
