package main

import "syscall"

// ofOurs has a process end when the thread that starts it does. It has a group of its own: Ctrl+C reaches us, and we end it in
// order.
func ofOurs() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
