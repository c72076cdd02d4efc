package broker

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// errEnded is what reading and writing return once the end of a connection has begun.
var errEnded = errors.New("the connection is at its end")

// conn is a connection that has authenticated, as mochi sees it. Reading gives whole packets that were checked. Writing
// never waits for the client: what is written waits in a queue for writeLoop, because mochi holds a lock during a write
// that everybody who publishes to the client needs. Deadlines are the conn's own; those that mochi sets are ignored.
type conn struct {
	b         *Broker
	raw       net.Conn
	r         *bufio.Reader
	ctx       context.Context // ends when the end of the connection has begun
	cancel    context.CancelFunc
	grant     grant
	id        string // as mochi has it
	v5        bool
	keepalive time.Duration
	connack   connack
	will      *will // read and written by the goroutine that serves the connection
	session   *session

	// Of the goroutine that reads.
	rest     []byte // of the packet that mochi is reading
	packet   []byte
	left     bool // the client said DISCONNECT and wants no will
	verdicts []byte
	replays  []replay
	spreads  bool // holds Broker.spread for reading
	takesUp  bool // holds Broker.spread for writing

	revoked atomic.Bool
	order   atomic.Int64 // of messages that wait to be acknowledged

	mu      sync.Mutex // guards the fields below, and setting deadlines
	queue   []byte
	flow    flow
	writing int // bytes taken from the queue and not yet written
	closing bool
	why     cut
	flushBy time.Time
	wake    chan struct{}
	room    chan struct{}
	done    chan struct{} // closed when writeLoop has returned
	handed  int           // messages in mochi's queue for the client, or about to be
	fewer   *sync.Cond    // told when there are fewer
}

// connack is what the answer to CONNECT says besides what mochi says.
type connack struct {
	assigned  string // client id
	keepalive bool   // it is the server's
	expiry    bool   // it is the server's
}

var _ net.Conn = (*conn)(nil)

// Read gives mochi the next bytes of a packet. They are there only when the whole packet is.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// next reads a packet and checks it. A client has 1.5 times its keep-alive for each (MQTT-3.1.2-22).
func (c *conn) next() error {
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		return errEnded
	}
	_ = c.raw.SetReadDeadline(time.Now().Add(c.keepalive * 3 / 2)) // a connection that cannot do it fails to read
	c.mu.Unlock()
	if cap(c.packet) > 4*step {
		c.packet = nil
	}
	packet, head, err := readPacket(c.r, c.packet, c.b.MaxPacket)
	if err == nil {
		c.packet = packet
		c.b.Metrics.BytesIn.Add(uint64(len(packet)))
		if bad := check(packet, head, c.v5); bad != nil {
			err = bad
		}
	}
	var bad *violation
	switch {
	case errors.As(err, &bad):
		c.violated(bad)
		return err
	case err != nil:
		return err
	}
	switch packet[0] >> 4 {
	case typePublish:
		c.b.Metrics.MessagesIn.Add(1)
		if packet[0]&1 != 0 && !c.grant.local {
			bad = &violation{codeRetain, "a retained message, which only the hub may publish"}
			c.violated(bad)
			return bad
		}
	case typePuback, typePubrec, typePubcomp:
		c.mu.Lock()
		c.queue = c.flow.acked(c.queue, packet, head)
		c.mu.Unlock()
		signal(c.wake)
	case typeDisconnect:
		// mochi does not see a reason code that no properties follow. With 4 the client wants its will.
		c.left = !c.v5 || len(packet) == head || packet[head] != 4
	}
	c.rest = packet
	return nil
}

// violated ends the connection of a client that did what it must not.
func (c *conn) violated(bad *violation) {
	c.b.limited.info("connection ended", "reason", bad.text, "client", c.id, "who", c.grant.name(), "remote", c.remote())
	c.end(cutPacket, bad.code)
}

// end begins the end of the connection: nothing more is read, what waits is written, then a DISCONNECT with the reason
// code if the client speaks MQTT 5 and the code is not 0, and the connection is closed after CloseTimeout at the latest.
// Only the first call counts. It returns at once.
func (c *conn) end(why cut, code byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return
	}
	now := time.Now()
	c.closing, c.why, c.flushBy = true, why, now.Add(c.b.CloseTimeout)
	if why == cutSlow {
		c.flushBy = now
	}
	if c.v5 && code != 0 {
		c.queue = append(c.queue, typeDisconnect<<4, 2, code, 0)
	}
	c.cancel()
	// Who waits in Read or Write returns at once, or in time. If this fails the connection is broken anyway.
	_ = c.raw.SetReadDeadline(now)
	_ = c.raw.SetWriteDeadline(c.flushBy)
	signal(c.wake)
	signal(c.room)
	c.fewer.Broadcast()
}

// hand counts a message that mochi is about to queue for the client. While most of that queue is in use it waits for the
// goroutine that moves messages from there to c.queue. That needs nothing but its turn, and in a burst it may not have had
// one: mochi would drop a message for a client that reads.
func (c *conn) hand() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.handed >= max(1, c.b.MaxPending*3/4) && !c.closing {
		c.fewer.Wait()
	}
	c.handed++
}

// moved counts messages that are not in mochi's queue any more.
func (c *conn) moved(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.handed -= n
	c.fewer.Broadcast()
}

// ended reports whether the end has begun.
func (c *conn) ended() bool { return c.ctx.Err() != nil }

// Write queues a packet.
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		return 0, errEnded
	}
	if !c.v5 && len(p) == 2 && p[0] == typeDisconnect<<4 {
		c.mu.Unlock() // which a server of MQTT 3.1.1 does not send, but mochi does
		return len(p), nil
	}
	if len(c.queue)+c.writing+c.flow.bytes+len(p) > c.b.MaxPendingBytes {
		c.mu.Unlock()
		c.slow()
		return 0, errEnded
	}
	c.queue = c.flow.pass(c.queue, p)
	c.mu.Unlock()
	signal(c.wake)
	return len(p), nil
}

// slow ends the connection of a client for which a message was dropped.
func (c *conn) slow() {
	c.b.Metrics.Dropped.Add(1)
	if !c.ended() {
		c.b.limited.info("connection ended", "reason", "the client does not read or acknowledge what it subscribed to fast enough",
			"client", c.id, "who", c.grant.name(), "remote", c.remote())
	}
	c.end(cutSlow, 0)
}

// waitRoom waits until half of the queue is free, and reports whether it is. Only the goroutine that reads may wait.
func (c *conn) waitRoom() bool {
	for {
		c.mu.Lock()
		full, closing := len(c.queue)+c.writing > c.b.MaxPendingBytes/2, c.closing
		c.mu.Unlock()
		if closing || !full {
			return !closing
		}
		<-c.room
	}
}

// chunk is how much is written under one deadline: a client on a slow line reads it in time.
const chunk = 32 << 10

// writeLoop writes what was queued, and closes the connection at its end.
func (c *conn) writeLoop() {
	defer close(c.done)
	defer c.raw.Close()
	var spare []byte
	for {
		c.mu.Lock()
		batch, closing := c.queue, c.closing
		c.queue, c.writing = spare[:0], len(batch)
		c.mu.Unlock()
		if len(batch) == 0 {
			spare = batch
			if closing {
				return
			}
			<-c.wake
			continue
		}
		if err := c.flush(batch); err != nil {
			why := cutLost
			if errors.Is(err, os.ErrDeadlineExceeded) {
				why = cutSlow
			}
			c.end(why, 0)
			return
		}
		if spare = batch; cap(spare) > 2*chunk {
			spare = nil
		}
	}
}

func (c *conn) flush(batch []byte) error {
	for len(batch) > 0 {
		n := min(len(batch), chunk)
		c.mu.Lock()
		by := c.flushBy
		if !c.closing {
			by = time.Now().Add(c.b.WriteTimeout)
		}
		err := c.raw.SetWriteDeadline(by)
		c.mu.Unlock()
		if err != nil {
			return err
		}
		if _, err := c.raw.Write(batch[:n]); err != nil {
			return err
		}
		c.b.Metrics.BytesOut.Add(uint64(n))
		batch = batch[n:]
		c.mu.Lock()
		c.writing -= n
		c.mu.Unlock()
		signal(c.room)
	}
	return nil
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Close begins the end of the connection. What was written before is still sent.
func (c *conn) Close() error {
	c.end(cutLost, 0)
	return nil
}

func (c *conn) remote() string       { return c.raw.RemoteAddr().String() }
func (c *conn) LocalAddr() net.Addr  { return c.raw.LocalAddr() }
func (c *conn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

// SetDeadline does nothing: mochi overflows when it computes one, and sets none for a keep-alive of 0.
func (c *conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (c *conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }
