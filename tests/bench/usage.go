package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tick is Linux's unit of processor time in /proc, whatever the kernel's own is.
const tick = time.Second / 100

// usage is what processes have used so far, by name, and the whole machine under "". What the system does not tell is
// absent.
type usage struct {
	at  time.Time
	cpu map[string]time.Duration
}

// measure reads the processor time of processes with their descendants. What a descendant that has ended used is counted
// with the one that waited for it, so that nothing gets lost between two readings.
func measure(pids map[string]int) usage {
	all := processTable()
	u := usage{at: time.Now(), cpu: map[string]time.Duration{}}
	for name, pid := range pids {
		if _, alive := all[pid]; alive {
			u.cpu[name] = all.used(pid, slices.Collect(maps.Values(pids)))
		}
	}
	if busy, ok := machineBusy(); ok {
		u.cpu[""] = busy
	}
	return u
}

// since is what was used between two readings; a process that was not there at the earlier one had used nothing.
func (u usage) since(before usage) usage {
	spent := usage{at: u.at, cpu: map[string]time.Duration{}}
	for name, used := range u.cpu {
		spent.cpu[name] = used - before.cpu[name]
	}
	return spent
}

type processStat struct {
	parent int
	used   time.Duration
}

type table map[int]processStat

// used sums a process and its descendants, except those that are measured for themselves.
func (t table) used(pid int, apart []int) time.Duration {
	sum := t[pid].used
	for child, stat := range t {
		if stat.parent == pid && child != pid && !slices.Contains(apart, child) {
			sum += t.used(child, apart)
		}
	}
	return sum
}

func processTable() table {
	all := table{}
	paths, _ := filepath.Glob("/proc/[0-9]*/stat") // only a bad pattern is an error
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		// The name stands in parentheses and may contain anything.
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) < 15 {
			continue
		}
		stat := processStat{}
		stat.parent, _ = strconv.Atoi(fields[1])
		for _, field := range fields[11:15] { // user, system, and both of the children it waited for
			n, _ := strconv.Atoi(field)
			stat.used += time.Duration(n) * tick
		}
		all[pid] = stat
	}
	return all
}

// machineBusy is the time that all processors together were not idle.
func machineBusy() (time.Duration, bool) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, false
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 {
		return 0, false
	}
	var busy time.Duration
	for i, field := range fields[1:9] { // user nice system idle iowait irq softirq steal
		if n, err := strconv.Atoi(field); err == nil && i != 3 && i != 4 {
			busy += time.Duration(n) * tick
		}
	}
	return busy, true
}

// peakMemory is the most that a process has held in memory, in bytes; of a process with descendants, that of the largest.
func peakMemory(pid int) int64 {
	peak := ownPeak(pid)
	for child, stat := range processTable() {
		if stat.parent == pid {
			peak = max(peak, ownPeak(child))
		}
	}
	return peak
}

func ownPeak(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kilobytes, _ := strconv.ParseInt(fields[0], 10, 64)
	return kilobytes << 10
}

// listener is the process of this machine that listens on a port of the loopback address or of all; 0 where none does.
func listener(port int) int {
	var inodes []string
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, _ := os.ReadFile(name) // absent without IPv6
		for line := range strings.Lines(string(text)) {
			const listening = "0A"
			fields := strings.Fields(line)
			if len(fields) > 9 && fields[3] == listening && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) {
				inodes = append(inodes, "socket:["+fields[9]+"]")
			}
		}
	}
	lowest := 0
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*") // only a bad pattern is an error
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || !slices.Contains(inodes, target) {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
		if lowest == 0 || pid < lowest {
			lowest = pid
		}
	}
	return lowest
}

// load is the machine's load of the last minute, "" where it is not told.
func load() string {
	text, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(text), " ")
	return first
}
