// Package simbus carries I2C transactions between a process that reads sensors and a simulated board in another process, over
// a Unix socket. So an unmodified device program reads chips that are not there.
//
// The board is the server. Integers are big endian. A request is
//
//	op (1)  bus (1)  address (2)  length of w (2)  length of r (2)  w
//
// and its answer
//
//	status (1)  length (2)  payload
//
// where status 0 is success and anything else makes the payload the text of an error. Op 0 lists the buses: the payload is
// their names with a line feed behind each, and a bus is then known by its place in the list. Op 1 is a transaction: the
// payload is what was read. There is one request at a time on a connection.
package simbus

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"
)

const (
	opList = 0
	opTx   = 1

	headSize   = 8
	answerSize = 3

	// maxTransfer bounds w and r. No chip that we know has more registers.
	maxTransfer = 4096
	// callTimeout bounds one request. A bus that hangs does so for longer than its operations may take, and no more.
	callTimeout = 30 * time.Second
)

// Board is what Serve serves.
type Board interface {
	// Buses returns the names of the buses, as "I2C1".
	Buses() []string
	// Tx does one transaction on the bus at that place in the list. It is called from several goroutines.
	Tx(bus int, addr uint16, w, r []byte) error
}

// Serve answers on l until ctx ends, which closes l. It returns nil then.
func Serve(ctx context.Context, l net.Listener, b Board) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // Accept tells
	defer stop()
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("simulated board: %w", err)
		}
		conns.Go(func() {
			stop := context.AfterFunc(ctx, func() { _ = c.Close() }) // the reader below sees it
			defer stop()
			defer c.Close()
			r := bufio.NewReader(c)
			for answer(c, r, b) == nil {
			}
		})
	}
}

// answer answers one request. An error ends the connection.
func answer(c net.Conn, r *bufio.Reader, b Board) error {
	var head [headSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	bus, addr := int(head[1]), binary.BigEndian.Uint16(head[2:])
	wlen, rlen := binary.BigEndian.Uint16(head[4:]), binary.BigEndian.Uint16(head[6:])
	if wlen > maxTransfer || rlen > maxTransfer {
		return errors.New("transfer too large")
	}
	w, in := make([]byte, wlen), make([]byte, rlen)
	if _, err := io.ReadFull(r, w); err != nil {
		return err
	}
	var failed error
	switch buses := b.Buses(); {
	case head[0] == opList:
		in = []byte(strings.Join(buses, "\n") + "\n")
	case head[0] != opTx:
		failed = fmt.Errorf("operation %d is not known", head[0])
	case bus >= len(buses):
		failed = fmt.Errorf("there is no bus %d", bus)
	default:
		failed = b.Tx(bus, addr, w, in)
	}
	out := []byte{0, 0, 0}
	if failed != nil {
		out[0], in = 1, []byte(failed.Error())
	}
	in = in[:min(len(in), maxTransfer)]
	binary.BigEndian.PutUint16(out[1:], uint16(len(in)))
	_, err := c.Write(append(out, in...))
	return err
}

// Client opens the buses of a simulated board. It is safe for concurrent use; each bus has a connection of its own.
type Client struct {
	path string
}

// Dial returns a Client for the board at the path of a Unix socket. It connects when a bus is opened, so the board may be
// started later, and again after it was restarted.
func Dial(path string) *Client { return &Client{path} }

// I2C opens a bus by its name, the first one if the name is empty.
func (c *Client) I2C(name string) (i2c.BusCloser, error) {
	b := &bus{path: c.path, name: name}
	if err := b.connect(); err != nil {
		return nil, err
	}
	return b, nil
}

type bus struct {
	path, name string

	mu    sync.Mutex // guards the fields below; held for a request, of which there is one at a time
	conn  net.Conn   // nil: connect before the next request
	r     *bufio.Reader
	place byte
}

var _ i2c.BusCloser = (*bus)(nil)

func (b *bus) String() string { return b.name }

// SetSpeed does nothing: a simulated bus takes no time.
func (b *bus) SetSpeed(physic.Frequency) error { return nil }

// connect connects and finds the bus.
func (b *bus) connect() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.connectLocked()
}

func (b *bus) connectLocked() error {
	c, err := net.DialTimeout("unix", b.path, callTimeout)
	if err != nil {
		return fmt.Errorf("simulated board: %w: is firmware-sim board running?", err)
	}
	b.conn, b.r = c, bufio.NewReader(c)
	list, err := b.callLocked([]byte{opList, 0, 0, 0, 0, 0, 0, 0})
	if err != nil {
		return err
	}
	names := strings.Fields(string(list))
	for i, name := range names {
		if b.name == "" || b.name == name {
			b.name, b.place = name, byte(i)
			return nil
		}
	}
	b.hangUpLocked()
	return fmt.Errorf("the simulated board has no bus %q: it has %s", b.name, strings.Join(names, ", "))
}

// Tx does one transaction on the board.
func (b *bus) Tx(addr uint16, w, r []byte) error {
	if len(w) > maxTransfer || len(r) > maxTransfer {
		return fmt.Errorf("simulated board: more than %d bytes in one transaction", maxTransfer)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn == nil {
		if err := b.connectLocked(); err != nil {
			return err
		}
	}
	req := make([]byte, headSize, headSize+len(w))
	req[0], req[1] = opTx, b.place
	binary.BigEndian.PutUint16(req[2:], addr)
	binary.BigEndian.PutUint16(req[4:], uint16(len(w)))
	binary.BigEndian.PutUint16(req[6:], uint16(len(r)))
	in, err := b.callLocked(append(req, w...))
	if err != nil {
		return err
	}
	if len(in) != len(r) {
		b.hangUpLocked()
		return fmt.Errorf("simulated board: %d bytes for a read of %d", len(in), len(r))
	}
	copy(r, in)
	return nil
}

// callLocked sends a request and returns the payload of its answer. After a failure of the connection the next one is on a
// new connection.
func (b *bus) callLocked(req []byte) ([]byte, error) {
	status, payload, err := exchange(b.conn, b.r, req)
	if err != nil {
		b.hangUpLocked()
		return nil, fmt.Errorf("simulated board: %w", err)
	}
	if status != 0 {
		return nil, errors.New(string(payload))
	}
	return payload, nil
}

func exchange(c net.Conn, r *bufio.Reader, req []byte) (status byte, payload []byte, err error) {
	if err := c.SetDeadline(time.Now().Add(callTimeout)); err != nil {
		return 0, nil, err
	}
	if _, err := c.Write(req); err != nil {
		return 0, nil, err
	}
	var head [answerSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	payload = make([]byte, binary.BigEndian.Uint16(head[1:]))
	_, err = io.ReadFull(r, payload)
	return head[0], payload, err
}

func (b *bus) hangUpLocked() {
	_ = b.conn.Close() // it failed, or is of no use
	b.conn = nil
}

// Close hangs up.
func (b *bus) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn != nil {
		b.hangUpLocked()
	}
	return nil
}
