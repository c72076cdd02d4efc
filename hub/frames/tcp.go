package frames

import (
	"io"
	"net"
	"syscall"
)

// tcpReader reads from a TCP connection as its method Read does, but with less on the stack. What is on the stack of a reader
// stays there while its peer is silent, and for one that is silent all day it decides about two or four kilobytes: the runtime
// begins a stack with 2 KiB if those that wait have less than 1,120 bytes on it, and never shrinks one of 4 KiB.
type tcpReader struct {
	raw syscall.RawConn
	try func(fd uintptr) bool // attempt
	p   []byte
	n   int
	err syscall.Errno // of the last attempt, zero if it was good
}

// newTCPReader returns nil for what is no TCP connection.
func newTCPReader(c net.Conn) *tcpReader {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil // it is closed, as Read will say
	}
	r := &tcpReader{raw: raw}
	r.try = r.attempt
	return r
}

// attempt reads what is there. It reports false if there is nothing yet.
func (r *tcpReader) attempt(fd uintptr) bool {
	for {
		n, err := syscall.Read(int(fd), r.p)
		r.n = max(n, 0)
		if r.err, _ = err.(syscall.Errno); r.err != syscall.EINTR { // errors.Is needs a larger stack
			return r.err != syscall.EAGAIN
		}
	}
}

// into says where to put what comes. Then r.raw.Read(r.try) waits for it, and done returns it.
func (r *tcpReader) into(p []byte) { r.p, r.n, r.err = p, 0, 0 }

func (r *tcpReader) done(err error) ([]byte, error) {
	p := r.p[:r.n]
	r.p = nil
	switch {
	case err != nil:
		return nil, err
	case r.err != 0:
		return nil, r.err
	case len(p) == 0:
		return nil, io.EOF
	}
	return p, nil
}
