package main

import (
	"log/slog"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"

	"telemetryhub/hub"
)

// Rules of living in little memory.
const (
	// heapShare of 4 is what the runtime may use of the memory that there is: the rest is for the program itself and for the
	// pages of its files. Close to it the runtime collects more often instead of growing.
	heapShare = 3
)

// keepWithin makes the runtime stay within the memory that there is, unless GOMEMLIMIT says how much it may have.
func keepWithin(limit int64, log *slog.Logger) {
	if limit == 0 || debug.SetMemoryLimit(-1) != math.MaxInt64 {
		return
	}
	heap := limit / 4 * heapShare
	debug.SetMemoryLimit(heap)
	log.Debug("memory", "limit_bytes", limit, "heap_bytes", heap)
}

// fitMemory makes the hub's own buffers small where there is little memory; zero is unknown. With all of them full, which takes
// a flood, readings take up about a third: three times HeadBytes before they are in history files, and the rest on their way.
// A viewer that does not read holds about 100 KiB.
func fitMemory(o *hub.Options, limit int64) {
	if limit == 0 {
		return
	}
	part := func(share, least, most int64) int64 { return min(max(limit/share, least), most) }
	o.HeadBytes = part(32, 2<<20, 32<<20)
	o.TailBytes = int(part(32, 2<<20, 8<<20))
	o.QueueBytes = int(part(64, 1<<20, 4<<20))
	o.MaxViewers = int(part(1<<20, 64, 12_000))
}

// memoryLimit returns how much memory the process can have: that of the machine, or less where a control group says so, as a
// container or systemd sets them up. Zero means that it is not known.
func memoryLimit() int64 {
	limit := int64(math.MaxInt64)
	if total := numberAfter(read("/proc/meminfo"), "MemTotal:"); total > 0 {
		limit = total << 10 // it is in KiB
	}
	for line := range strings.Lines(read("/proc/self/cgroup")) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		root, file := "/sys/fs/cgroup", "memory.max"
		if parts[0] != "0" { // version 1 of control groups
			root, file = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
		}
		if parts[1] != "" && parts[1] != "memory" {
			continue
		}
		for dir := path.Clean("/" + parts[2]); ; dir = path.Dir(dir) { // each group is within those above it
			if n, err := strconv.ParseInt(strings.TrimSpace(read(path.Join(root, dir, file))), 10, 64); err == nil && n > 0 {
				limit = min(limit, n)
			}
			if dir == "/" {
				break
			}
		}
	}
	if limit == math.MaxInt64 {
		return 0
	}
	return limit
}

// read returns what is in a file of the kernel, nothing if there is none.
func read(name string) string {
	b, _ := os.ReadFile(name) // other systems have none
	return string(b)
}

// numberAfter returns the number after a word at the beginning of a line.
func numberAfter(text, word string) int64 {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, word); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest + " 0")[0], 10, 64) // zero is unknown
			return n
		}
	}
	return 0
}
