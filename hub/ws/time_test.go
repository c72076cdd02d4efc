package ws_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"telemetryhub/device/wire"
	"telemetryhub/hub/ws"
)

// frameAt is a frame and when it came.
type frameAt struct {
	at      time.Duration
	op      byte
	payload string
}

// listen reads frames until the end, which comes as the last element without opcode.
func (p *pipe) listen(since time.Time) <-chan frameAt {
	frames := make(chan frameAt, 1000)
	go func() {
		defer close(frames)
		for {
			op, payload, err := p.read()
			if err != nil {
				frames <- frameAt{at: time.Since(since)}
				return
			}
			frames <- frameAt{time.Since(since), op, payload}
		}
	}()
	return frames
}

func TestSocketThatNeverSpeaksIsClosedAfterTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := plugDevice(t, newFakeHub(), ws.Options{})
		f := <-p.listen(time.Now())
		if f.at != 10*time.Second || f.op != fin|opClose || f.payload[:2] != "\x0f\xa1" { // 4001
			t.Errorf("after %v came %#x %q", f.at, f.op, f.payload)
		}
		p.unplug()
	})
}

func TestPingsAreRegularAndSilenceEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		began := time.Now()
		p := plugDevice(t, h, ws.Options{})
		frames := p.listen(began)
		p.put(masked(fin|opText, "x"))
		if f := <-frames; f.payload != "x" {
			t.Fatalf("got %+v", f)
		}
		var answered time.Time
		last := time.Duration(0)
		for i := range 100 {
			f := <-frames
			if f.op != fin|opPing {
				t.Fatalf("got %+v", f)
			}
			if gap := f.at - last; i == 0 && (gap < 12500*time.Millisecond || gap > 25*time.Second) || i > 0 && gap != 25*time.Second {
				t.Errorf("ping %d came %v after the one before", i, gap)
			}
			last = f.at
			p.put(masked(fin|opPong, ""))
			answered = time.Now()
		}
		for f := range frames { // from now on it is silent
			if f.op == fin|opPing {
				continue
			}
			if silent := time.Since(answered); silent != 62500*time.Millisecond || f.op != fin|opClose {
				t.Errorf("after %v of silence came %+v", silent, f)
			}
			break
		}
		session := <-h.connected
		<-session.ended
		if n := len(session.signs); n != 100 {
			t.Errorf("the hub was told of %d signs of life, want 100", n)
		}
		p.unplug()
	})
}

func TestPeerThatSendsAndNeverAnswersPingsIsNotDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		began := time.Now()
		p := plugDevice(t, h, ws.Options{})
		frames := p.listen(began)
		for range 60 {
			p.put(masked(fin|opText, "x"))
			<-time.After(time.Minute)
		}
		session := <-h.connected
		if n := len(session.got()); n != 60 {
			t.Errorf("%d messages came, want 60", n)
		}
		p.unplug()
		for f := range frames {
			if f.op == fin|opClose {
				t.Errorf("closed after %v", f.at)
			}
		}
	})
}

// closingAt calls what it was made with when the next deadline for writing is set, before that is done.
type closingAt struct {
	net.Conn
	closeNow atomic.Pointer[func()]
}

func (c *closingAt) SetWriteDeadline(t time.Time) error {
	if f := c.closeNow.Swap(nil); f != nil {
		(*f)()
	}
	return c.Conn.SetWriteDeadline(t)
}

func TestCloseThatComesBetweenDeadlineAndWriteTakesTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		m := new(ws.Metrics)
		d, err := ws.NewDevices(h.Connect, newFakeAuth(), ws.Options{Metrics: m})
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := net.Pipe()
		between := &closingAt{Conn: ours}
		p := plugInto(t, d, m, "dev:a", between, theirs)
		session := <-h.connected
		stop := func() { session.peer.Close(wire.CloseReplaced, "replaced") }
		between.closeNow.Store(&stop)
		began := time.Now()
		p.put(masked(fin|opText, "x")) // whose echo it does not read
		<-session.ended
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("gone after %v", took)
		}
		p.unplug()
	})
}

func TestPeerThatTheHubMakesWaitIsNotDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		h.receive = func(ctx context.Context, s *fakeSession, _ wire.Format, _ []byte) error {
			select {
			case <-time.After(10 * time.Minute): // no pong gets through meanwhile
			case <-ctx.Done():
				return ctx.Err()
			}
			s.send(wire.JSON, "taken")
			return nil
		}
		began := time.Now()
		p := plugDevice(t, h, ws.Options{})
		frames := p.listen(began)
		p.put(masked(fin|opText, "x"))
		pings := 0
		for f := range frames {
			if f.op == fin|opPing {
				pings++
				continue
			}
			if f.payload != "taken" || f.at != 10*time.Minute || pings < 23 {
				t.Errorf("after %v and %d pings came %#x %q", f.at, pings, f.op, f.payload)
			}
			break
		}
		p.unplug()
	})
}

func TestPeerThatReadsNothingIsCutAfterTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		p := plugDevice(t, h, ws.Options{})
		<-time.After(7 * time.Second)  // the deadline is that of the write, not that of the upgrade
		p.put(masked(fin|opText, "x")) // whose echo it does not read
		session := <-h.connected
		began := time.Now()
		<-session.ended
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("cut after %v", took)
		}
		p.unplug()
	})
}

func TestClosingAPeerThatReadsNothingTakesTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		p := plugDevice(t, h, ws.Options{})
		p.put(masked(fin|opText, "x"))
		session := <-h.connected
		synctest.Wait()
		<-time.After(time.Second)
		began := time.Now()
		session.peer.Close(wire.CloseReplaced, "replaced")
		<-session.ended
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("gone after %v", took)
		}
		p.unplug()
	})
}

func TestFirstWakeUpOfAViewerIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeFeed()
		f.woken = synctest.Wait // until the writer has looked, and found no viewer yet
		p := plugViewer(t, f, ws.Options{})
		began := time.Now()
		p.put(masked(fin|opText, `{"subscribe":{}}`))
		if got := <-p.listen(began); got.op != fin|opText || got.at != 0 {
			t.Errorf("after %v came %#x %q", got.at, got.op, got.payload)
		}
		p.unplug()
	})
}
