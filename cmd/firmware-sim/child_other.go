//go:build !linux

package main

import "syscall"

// ofOurs gives a process a group of its own: Ctrl+C reaches us, and we end it in order.
func ofOurs() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
