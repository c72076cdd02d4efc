package main

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// child is a process that the demonstration has started. Where the system can do that, it ends with the demonstration, whatever
// ends that.
type child struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when err is set
	err   error
}

// start starts a program with additions to the environment.
func (d *demo) start(program string, env []string, args ...string) (*child, error) {
	c := &child{cmd: exec.Command(program, args...), ended: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = d.out, d.err
	c.cmd.Env = append(os.Environ(), env...)
	c.cmd.SysProcAttr = ofOurs()
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // to the system, the thread that starts a process is its parent
		err := c.cmd.Start()
		if started <- err; err == nil {
			c.err = c.cmd.Wait()
			close(c.ended)
		}
	}()
	return c, <-started
}

// stop tells the process to end and waits for it.
func (c *child) stop() error {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	<-c.ended
	return c.err
}
