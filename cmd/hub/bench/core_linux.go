package bench

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// onCore runs start, and with it the process that it starts, on one of the cores that this process may use.
func onCore(n int, start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return fmt.Errorf("ask for the cores: %w", err)
	}
	seen := 0
	for cpu := range 8 * len(all) * 8 {
		if all.IsSet(cpu) {
			if seen == n%all.Count() {
				one.Set(cpu)
				break
			}
			seen++
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("choose a core: %w", err)
	}
	err := start()
	return errors.Join(err, unix.SchedSetaffinity(0, &all))
}
