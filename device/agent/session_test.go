package agent_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/agent"
	"telemetryhub/device/wire"
)

// copyFolder returns a copy of the files in dir.
func copyFolder(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(filepath.Join(to, "copy"), os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(to, "copy")
}

func TestCloseCodesDecideWhetherToComeBack(t *testing.T) {
	for code, back := range map[wire.CloseCode]bool{
		wire.CloseSlow: true, wire.CloseDraining: true, wire.CloseTooFast: true, 4499: true, 1000: true, 1001: true, 1011: true,
		wire.CloseProtocol: false, wire.CloseWho: false, wire.CloseRevoked: false, wire.CloseReplaced: false,
		wire.CloseTooBig: false, 4999: false,
	} {
		t.Run(code.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newFakeHub()
				r := start(t, memory(t), h.dial, quick)
				r.add(t, 1, 5)
				r.wait(t)
				h.mu.Lock()
				h.current.pipe.finish(&agent.CloseError{Code: code, Reason: "test"})
				h.mu.Unlock()
				time.Sleep(time.Minute)
				if n := h.dialed(); (n == 2) != back {
					t.Errorf("%d connections, come back: want %v", n, back)
				}
				var stop *agent.StopError
				if err := r.stop(); errors.As(err, &stop) == back {
					t.Errorf("run: %v", err)
				} else if !back && stop.Code != code {
					t.Errorf("run: %v, want code %d", err, code)
				}
			})
		})
	}
}

func TestRetriesSpreadOverAGrowingTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		var at []time.Time
		h.refuse = func(int) error {
			at = append(at, time.Now())
			return errors.New("no route")
		}
		r := start(t, memory(t), h.dial, agent.Options{Rand: func() float64 { return 0.5 }})
		time.Sleep(time.Hour)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		want := 500 * time.Millisecond
		for i := 1; i < len(at); i++ {
			if got := at[i].Sub(at[i-1]); got != want {
				t.Errorf("try %d came after %v, want %v", i, got, want)
			}
			want = min(2*want, 150*time.Second)
		}
		if len(at) < 20 {
			t.Errorf("only %d tries in an hour", len(at))
		}
	})
}

func TestHubSaysWhenToComeBack(t *testing.T) {
	for name, refuse := range map[string]bool{"bye": false, "Retry-After": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newFakeHub()
				var at []time.Time
				h.refuse = func(n int) error {
					at = append(at, time.Now())
					if refuse && n == 1 {
						return &agent.RetryError{After: 40 * time.Second, Err: errors.New("503")}
					}
					return nil
				}
				r := start(t, memory(t), h.dial, quick)
				r.add(t, 1, 5)
				if !refuse {
					r.wait(t)
					at = []time.Time{time.Now()}
					h.push(wire.AppendBye(nil, wire.CBOR, &wire.Bye{Code: wire.CloseDraining, RetryMS: 40000}))
					h.mu.Lock()
					h.current.pipe.finish(&agent.CloseError{Code: wire.CloseDraining})
					h.mu.Unlock()
				}
				r.add(t, 6, 9)
				r.wait(t)
				wantIDs(t, h, 1, 9)
				if d := at[1].Sub(at[0]); d < 40*time.Second || d > 42*time.Second {
					t.Errorf("came back after %v, want 40 s and a little", d)
				}
			})
		})
	}
}

func TestByeWithAFinalCodeIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		r := start(t, memory(t), h.dial, quick)
		r.add(t, 1, 1)
		r.wait(t)
		h.push(wire.AppendBye(nil, wire.CBOR, &wire.Bye{Code: wire.CloseRevoked}))
		h.mu.Lock()
		h.current.pipe.finish(errCut) // the close frame itself was lost
		h.mu.Unlock()
		time.Sleep(time.Minute)
		var stop *agent.StopError
		if err := r.stop(); !errors.As(err, &stop) || stop.Code != wire.CloseRevoked {
			t.Errorf("run: %v, want revoked", err)
		}
	})
}

func TestSilentHubIsLeftAfterTwoAndAHalfPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		r := start(t, memory(t), h.dial, quick)
		r.add(t, 1, 1)
		r.wait(t)
		for range 10 { // pings keep it alive
			time.Sleep(25 * time.Second)
			h.push(nil)
		}
		if n := h.dialed(); n != 1 {
			t.Fatalf("%d connections although the hub pinged", n)
		}
		begin := time.Now()
		<-h.current.pipe.cut
		if d := time.Since(begin); d != 62500*time.Millisecond {
			t.Errorf("left after %v, want 62.5 s", d)
		}
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestHubThatDoesNotAnswerTheHelloIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pipes []*pipe
		dial := func(context.Context) (agent.Conn, error) {
			p := newPipe()
			pipes = append(pipes, p)
			return p, nil
		}
		r := start(t, memory(t), dial, quick)
		time.Sleep(time.Minute)
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if len(pipes) < 2 {
			t.Error("it waited for ever")
		}
	})
}

func TestSlowStopsDataForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		r := start(t, memory(t), h.dial, quick)
		r.add(t, 1, 5)
		r.wait(t)
		h.push(wire.AppendSlow(nil, wire.CBOR, &wire.Slow{Win: 0, ForMS: 30000, Why: wire.SlowFull}))
		synctest.Wait()
		begin := time.Now()
		r.add(t, 6, 10)
		r.wait(t)
		if d := time.Since(begin); d < 29*time.Second || d > 31*time.Second {
			t.Errorf("data came after %v, want 30 s", d)
		}
		h.push(wire.AppendSlow(nil, wire.CBOR, &wire.Slow{Win: 0, ForMS: 3_000_000}))
		synctest.Wait()
		begin = time.Now()
		r.add(t, 11, 12)
		time.Sleep(time.Second)
		h.push(wire.AppendSlow(nil, wire.CBOR, &wire.Slow{ForMS: 0})) // it ends now
		r.wait(t)
		if d := time.Since(begin); d > 2*time.Second {
			t.Errorf("data came after %v, want at once when the slow had ended", d)
		}
		wantIDs(t, h, 1, 12)
	})
}

func TestWishOfASlowEndsWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		r := start(t, memory(t), h.dial, agent.Options{MaxAge: time.Second})
		r.add(t, 1, 1)
		r.wait(t)
		took := func(id int) time.Duration {
			begin := time.Now()
			r.add(t, id, id)
			for len(h.ids()) < id {
				time.Sleep(100 * time.Millisecond)
			}
			h.push(nil) // a ping
			return time.Since(begin)
		}
		h.push(wire.AppendSlow(nil, wire.CBOR, &wire.Slow{Win: 8, BatchMS: 30000, ForMS: 60000}))
		synctest.Wait()
		if d := took(2); d < 30*time.Second {
			t.Errorf("a batch came after %v, want 30 s as the hub asked for", d)
		}
		time.Sleep(31 * time.Second)
		if d := took(3); d > 3*time.Second {
			t.Errorf("a batch came after %v, want about 1 s as before the slow", d)
		}
	})
}

func TestPingOfManyYearsIsBorne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		r := start(t, memory(t), func(ctx context.Context) (agent.Conn, error) {
			c, err := h.dial(ctx)
			return &rarePings{Conn: c}, err
		}, quick)
		r.add(t, 1, 5)
		r.wait(t)
		time.Sleep(time.Minute)
		if n := h.dialed(); n != 1 {
			t.Errorf("%d connections, want 1", n)
		}
	})
}

// rarePings changes the welcome.
type rarePings struct{ agent.Conn }

func (c *rarePings) Serve(handle func(wire.Format, []byte) error) error {
	return c.Conn.Serve(func(f wire.Format, frame []byte) error {
		if w, err := wire.DecodeWelcome(f, frame); err == nil {
			w.PingS = 3_000_000_000
			frame = wire.AppendWelcome(nil, f, &w)
		}
		return handle(f, frame)
	})
}

func TestCreditIsUsedAndNeverExceeded(t *testing.T) {
	for name, c := range map[string]struct {
		limits   wire.Limits
		inFlight int // so many batches must be in flight at once; a batch takes 25 to 45 bytes
	}{
		"one batch": {wire.Limits{Win: 1, Bytes: 65536, Max: wire.MaxFrame}, 1},
		"five":      {wire.Limits{Win: 5, Bytes: 65536, Max: wire.MaxFrame}, 5},
		"few bytes": {wire.Limits{Win: 1000, Bytes: 300, Max: wire.MaxFrame}, 6},
		"one byte":  {wire.Limits{Win: 4, Bytes: 1, Max: wire.MaxFrame}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newFakeHub()
				h.limits = c.limits
				most := 0
				h.onAck = func(s *hubSession) bool { most = max(most, s.inFlight); return false }
				r := start(t, memory(t), h.dial, agent.Options{MaxRows: 2, MaxAge: 10 * time.Millisecond})
				r.add(t, 1, 200)
				for range 300 { // acknowledges only when nothing more comes
					time.Sleep(time.Second)
					h.mu.Lock()
					s := h.current
					s.inFlight, s.bytes = 0, 0
					ack := wire.AppendAck(nil, wire.CBOR, &wire.Ack{Seq: s.stream.last})
					h.mu.Unlock()
					s.pipe.send(ack)
				}
				r.wait(t)
				wantIDs(t, h, 1, 200)
				if most < c.inFlight || most > max(5, 300/25) {
					t.Errorf("%d batches were in flight at most, want %d or a little more", most, c.inFlight)
				}
			})
		})
	}
}

func TestRetriesBeginAnewAfterAGoodConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		h.refuse = func(n int) error {
			if n < 8 {
				return errors.New("no route")
			}
			return nil
		}
		o := quick
		o.Rand = func() float64 { return 1 }
		r := start(t, memory(t), h.dial, o)
		r.add(t, 1, 5)
		r.wait(t)
		begin := time.Now()
		h.mu.Lock()
		h.current.pipe.finish(errCut)
		h.mu.Unlock()
		r.add(t, 6, 9)
		r.wait(t)
		if d := time.Since(begin); d > 2*time.Second {
			t.Errorf("came back after %v, want the shortest time again", d)
		}
	})
}

func TestNewestValuesAreShownAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		r := start(t, memory(t), h.dial, quick)
		r.add(t, 1, 1)
		r.wait(t)
		if h.states != 0 {
			t.Errorf("%d states without an outage", h.states)
		}
		h.mu.Lock()
		h.refuse = func(n int) error {
			if n < 6 {
				return errors.New("no route")
			}
			return nil
		}
		h.current.pipe.finish(errCut)
		h.mu.Unlock()
		r.add(t, 2, 100)
		r.wait(t)
		wantIDs(t, h, 1, 100)
		if h.states != 1 {
			t.Errorf("%d states, want 1", h.states)
		}
	})
}

func TestUnknownMessagesAreAnsweredAndIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		errs := 0
		r := start(t, memory(t), func(ctx context.Context) (agent.Conn, error) {
			c, err := h.dial(ctx)
			return swallow{c, &errs}, err
		}, quick)
		r.add(t, 1, 1)
		r.wait(t)
		for range 100 {
			h.push([]byte{0x82, 0x18, 0x63, 0xa0}) // message 99
			h.push(wire.AppendCmd(nil, wire.CBOR, &wire.Cmd{ID: "1", Name: "relay"}))
		}
		r.add(t, 2, 9)
		r.wait(t)
		wantIDs(t, h, 1, 9)
		if errs == 0 || r.Stats().Connects != 1 {
			t.Errorf("%d answers, %+v", errs, r.Stats())
		}
	})
}

// swallow keeps the answers to unknown messages from the fake hub.
type swallow struct {
	agent.Conn
	n *int
}

func (s swallow) Write(f wire.Format, data []byte) error {
	if ty, err := wire.Peek(f, data); err == nil && ty == wire.TypeErr {
		*s.n++
		return nil
	}
	return s.Conn.Write(f, data)
}

func TestRefusedReadingsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		r := start(t, memory(t), h.dial, quick)
		r.add(t, 1, 2)
		r.wait(t)
		h.push(wire.AppendAck(nil, wire.CBOR, &wire.Ack{Seq: 2, Bad: []wire.Bad{{Seq: 1, Count: 3, Code: wire.BadType}}}))
		synctest.Wait()
		if s := r.Stats(); s.Refused != 3 {
			t.Errorf("stats %+v, want 3 refused", s)
		}
	})
}

func TestBadOptionsAreRefused(t *testing.T) {
	for name, o := range map[string]agent.Options{
		"device": {Device: "No Good"}, "rows": {MaxRows: device.MaxRows + 1}, "bytes": {MaxBytes: wire.MaxFrame},
		"retry": {MinRetry: time.Hour}, "age": {MaxAge: -1}, "model": {Model: string(make([]byte, 65))},
	} {
		if _, err := agent.New(memory(t), newFakeHub().dial, o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
