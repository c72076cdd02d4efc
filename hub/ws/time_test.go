package ws_test

import (
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
		p.unplug()
	})
}

func TestPeerThatReadsNothingIsCutAfterTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		p := plugDevice(t, h, ws.Options{})
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
