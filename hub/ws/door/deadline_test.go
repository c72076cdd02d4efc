package door_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"telemetryhub/hub/ws/door"
)

// told counts how often the deadlines of a connection are set.
type told struct {
	net.Conn
	reads, writes atomic.Int32
}

func (c *told) SetReadDeadline(t time.Time) error {
	c.reads.Add(1)
	return c.Conn.SetReadDeadline(t)
}

func (c *told) SetWriteDeadline(t time.Time) error {
	c.writes.Add(1)
	return c.Conn.SetWriteDeadline(t)
}

// oneConn is a listener with one connection.
type oneConn struct {
	net.Listener
	conn net.Conn
}

func (l oneConn) Accept() (net.Conn, error) { return l.conn, nil }

// behind returns a connection of a door as net/http has it, which of a stranger reads whole heads only, and its other end.
func behind(t *testing.T) (front net.Conn, below *told, client net.Conn) {
	t.Helper()
	client, raw := net.Pipe()
	below = &told{Conn: raw}
	l, err := door.New(oneConn{conn: below}, door.Options{Timeout: 1000 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if front, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		released, _ := front.(interface{ Release() (net.Conn, []byte) }).Release()
		_ = released.Close()
	})
	go func() { _, _ = io.WriteString(client, "\n\n") }()
	if _, err := io.ReadFull(front, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	state := l.Server(nil).ConnState
	state(front, http.StateHijacked) // no stranger any more
	state(front, http.StateIdle)
	return front, below, client
}

// within calls f and returns how long it took, and its error.
func within(f func([]byte) (int, error)) (n int, took time.Duration, err error) {
	began := time.Now()
	n, err = f(make([]byte, 4))
	return n, time.Since(began), err
}

func TestDeadlinesHoldAsTheyWereSet(t *testing.T) {
	for name, side := range map[string]func(net.Conn) (func([]byte) (int, error), func(time.Time) error){
		"read": func(c net.Conn) (func([]byte) (int, error), func(time.Time) error) { return c.Read, c.SetReadDeadline },
		"write": func(c net.Conn) (func([]byte) (int, error), func(time.Time) error) {
			return c.Write, c.SetWriteDeadline
		},
		"both": func(c net.Conn) (func([]byte) (int, error), func(time.Time) error) { return c.Read, c.SetDeadline },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _, _ := behind(t)
				call, set := side(c)
				in := func(d time.Duration) {
					if err := set(time.Now().Add(d)); err != nil {
						t.Error(err)
					}
				}
				fails := func(what string, want time.Duration) {
					t.Helper()
					n, took, err := within(call)
					var timeout net.Error
					if n != 0 || took != want || !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
						t.Errorf("%s: it ends after %s, want %s, with %d bytes and %v", what, took, want, n, err)
					}
				}
				in(time.Minute)
				fails("a deadline", time.Minute)
				fails("one that has passed", 0)
				in(time.Hour)
				fails("a later one", time.Hour)
				in(time.Hour)
				in(time.Minute)
				fails("an earlier one", time.Minute)
				in(-time.Minute)
				fails("one in the past", 0)
				in(time.Hour)
				time.AfterFunc(time.Minute, func() { in(2 * time.Hour) })
				fails("one that is put off", 2*time.Hour+time.Minute)
				in(time.Hour)
				time.AfterFunc(time.Minute, func() { in(time.Minute) })
				fails("one that is put forward", 2*time.Minute)
				in(time.Hour)
				time.AfterFunc(time.Minute, func() { in(-time.Minute) })
				fails("an abort", time.Minute)
				_ = set(time.Time{})
				time.AfterFunc(24*time.Hour, func() { in(time.Minute) })
				fails("one that is set late", 24*time.Hour+time.Minute)
			})
		})
	}
}

// TestDeadlinesAreThoseOfAConnectionAlone sets deadlines at random before and while reads and writes wait, and compares when
// those end with what a connection without a door does. To see one run again: -run name/seed.
func TestDeadlinesAreThoseOfAConnectionAlone(t *testing.T) {
	for seed := range uint64(200) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := pair{Rand: rand.New(rand.NewPCG(seed, 0))}
				p.conns[0], p.peers[0] = net.Pipe()
				defer func() { _, _ = p.conns[0].Close(), p.peers[0].Close() }()
				p.conns[1], _, p.peers[1] = behind(t)
				for range 100 {
					p.wait(t)
				}
			})
		})
	}
}

// pair is a connection alone, and one behind a door.
type pair struct {
	*rand.Rand
	conns, peers [2]net.Conn
}

// set sets the same deadline on both.
func (p *pair) set(t *testing.T) {
	at, kind := time.Now().Add(time.Duration(p.Int64N(int64(2*time.Minute)))-10*time.Second), p.IntN(3)
	switch p.IntN(8) {
	case 0, 1:
		at = time.Time{}
	case 2:
		at = time.Unix(1, 0) // as net/http aborts a read
	}
	for _, c := range p.conns {
		if err := []func(time.Time) error{c.SetReadDeadline, c.SetWriteDeadline, c.SetDeadline}[kind](at); err != nil {
			t.Error(err)
		}
	}
}

// wait has both read or write until a deadline or the peer ends that.
func (p *pair) wait(t *testing.T) {
	for range p.IntN(3) {
		p.set(t)
	}
	type end struct {
		n       int
		at      time.Time
		timeout bool
	}
	write, ends := p.IntN(2) == 0, [2]chan end{}
	for i, c := range p.conns {
		ends[i] = make(chan end, 1)
		call := c.Read
		if write {
			call = c.Write
		}
		go func() {
			n, err := call(make([]byte, 4))
			ends[i] <- end{n, time.Now(), errors.Is(err, os.ErrDeadlineExceeded)}
		}()
	}
	for range p.IntN(6) {
		synctest.Wait()
		time.Sleep(time.Duration(p.Int64N(int64(time.Minute)))) // it may have ended by then
		synctest.Wait()
		p.set(t)
	}
	synctest.Wait()
	for _, c := range p.peers {
		_ = c.SetDeadline(time.Now().Add(time.Second)) // of a pipe that is open
		if write {
			_, _ = c.Read(make([]byte, 4)) // nobody writes any more if a deadline was first
		} else {
			_, _ = c.Write(make([]byte, 4))
		}
	}
	want, got := <-ends[0], <-ends[1]
	if got.n != want.n || got.timeout != want.timeout || want.timeout && !got.at.Equal(want.at) {
		t.Fatalf("it ends as %+v, and that of a connection alone as %+v", got, want)
	}
}

func TestDeadlineThatIsLiftedCutsNothingShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, client := behind(t)
		for _, first := range []time.Duration{time.Minute, -time.Minute} {
			_ = c.SetDeadline(time.Now().Add(first))
			time.AfterFunc(time.Second, func() { _ = c.SetDeadline(time.Time{}) })
			if first > 0 {
				time.AfterFunc(time.Hour, func() { _, _ = client.Write([]byte("late")) })
				if n, took, err := within(c.Read); n != 4 || took != time.Hour || err != nil {
					t.Errorf("it has read %d bytes after %s: %v", n, took, err)
				}
			}
			time.Sleep(time.Minute)
		}
		text := make([]byte, 10)
		go func() { // in three parts, one long after the other
			for at := 0; at < len(text); at += 4 {
				time.Sleep(time.Hour)
				_, _ = io.ReadFull(client, text[at:min(at+4, len(text))])
			}
		}()
		_ = c.SetWriteDeadline(time.Now().Add(90 * time.Minute))
		time.AfterFunc(time.Minute, func() { _ = c.SetWriteDeadline(time.Time{}) })
		if n, err := c.Write([]byte("0123456789")); n != 10 || err != nil {
			t.Errorf("%d bytes were written: %v", n, err)
		}
		if synctest.Wait(); string(text) != "0123456789" {
			t.Errorf("what was written is %q", text)
		}
	})
}

func TestReleasedConnectionHasTheDeadlinesThatWereSetLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, _ := behind(t)
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		within(c.Read)
		within(c.Write)
		_ = c.SetReadDeadline(time.Now().Add(time.Hour))
		_ = c.SetWriteDeadline(time.Now().Add(2 * time.Hour))
		inner, _ := c.(interface{ Release() (net.Conn, []byte) }).Release()
		if _, took, err := within(inner.Read); took != time.Hour || err == nil {
			t.Errorf("a read ends after %s: %v", took, err)
		}
		if _, took, err := within(inner.Write); took != time.Hour || err == nil {
			t.Errorf("a write ends an hour later, after %s: %v", took, err)
		}
	})
}

func TestRequestsSetFewDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, below, client := behind(t)
		var asking sync.WaitGroup
		defer asking.Wait()
		asking.Go(func() {
			for range 100 {
				time.Sleep(time.Second)
				_, _ = io.WriteString(client, "ask!")
				_, _ = io.ReadFull(client, make([]byte, 4))
			}
		})
		for range 100 { // as net/http does it
			_ = c.SetReadDeadline(time.Now().Add(2 * time.Minute))
			if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
			_ = c.SetReadDeadline(time.Time{})
			_ = c.SetWriteDeadline(time.Now().Add(time.Minute))
			if _, err := c.Write([]byte("done")); err != nil {
				t.Fatal(err)
			}
			_ = c.SetWriteDeadline(time.Time{})
		}
		if r, w := below.reads.Load(), below.writes.Load(); r > 3 || w > 3 {
			t.Errorf("100 requests in as many seconds have set %d and %d deadlines", r, w)
		}
	})
}
