package agent

import (
	"hash/crc32"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// SystemClock returns what this machine knows of the time: whether the kernel's clock is synchronised (adjtimex(2)), and the
// time since the boot (CLOCK_BOOTTIME).
func SystemClock() *Clock {
	o := ClockOptions{Synced: kernelSynced, Uptime: uptime}
	// The file has one random line a boot.
	if id, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		o.Boot = uint16(crc32.ChecksumIEEE(id))
	} else {
		o.Boot = uint16(rand.Uint32())
	}
	return NewClock(o)
}

func kernelSynced() bool {
	var t unix.Timex
	_, err := unix.Adjtimex(&t)
	return err == nil && t.Status&unix.STA_UNSYNC == 0
}

func uptime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
