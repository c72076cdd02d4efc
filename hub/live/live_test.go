package live_test

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub/access"
	"telemetryhub/hub/live"
)

var transports = []live.Transport{live.WebSocket, live.Events, live.LongPoll}

func each(t *testing.T, test func(t *testing.T, over live.Transport)) {
	for _, over := range transports {
		t.Run(string(over), func(t *testing.T) { test(t, over) })
	}
}

func TestFramesAreDecoded(t *testing.T) {
	each(t, func(t *testing.T, over live.Transport) {
		r := newRig(t)
		dev := r.device("pump")
		r.send("pump", dev, `{"t":1766000000123,"v":{"level":21.5,"on":true,"note":"<ok> é"}}`)
		if _, err := r.hub.Device(t.Context(), "pump"); err != nil { // waits until it is shown
			t.Fatal(err)
		}
		token, _ := r.viewer()
		o := r.options(token, over)
		o.Devices, o.Metrics = []string{"pu*"}, []string{"level", "on", "note"}
		c := follow(t, o)
		if w := until[*live.Welcome](c); w.Text != "web Socket Works" || w.StartedMS == 0 {
			t.Errorf("the welcome is %+v", w)
		}
		s := until[*live.Snapshot](c)
		want := map[string]device.Value{"level": device.NumberValue(21.5), "on": device.BoolValue(true), "note": device.TextValue("<ok> é")}
		if len(s.Devices) != 1 || s.Devices[0].ID != "pump" || len(s.Devices[0].Metrics) != len(want) || s.Token == "" {
			t.Fatalf("the snapshot is %+v", s)
		}
		for name, v := range want {
			if got := s.Devices[0].Metrics[name]; got.Value != v || got.TimeMS != 1766000000123 {
				t.Errorf("%s is %+v, want %+v", name, got, v)
			}
		}
		r.send("pump", dev, `{"level":22}`)
		for {
			f := until[*live.Changes](c)
			if v, ok := f.Devices[0].Metrics["level"]; ok && v.Value == device.NumberValue(22) {
				break
			}
		}
		if st := <-c.status; !st.Connected || st.Transport != over || st.Err != nil {
			t.Errorf("the status is %+v", st)
		}
		if n := r.sockets.FramesDeflated.Load(); over == live.WebSocket && n == 0 {
			t.Error("no frame was compressed")
		}
	})
}

// steady takes the numbers up to last, and fails if any is missing or comes twice.
func steady(t *testing.T, c *client, last int) {
	t.Helper()
	n := numbers{c: c}
	for want := 1; want <= last; want++ {
		got, err := n.next()
		if err != nil || got != want {
			t.Fatalf("reading %d after %d: %v", got, want-1, err)
		}
	}
}

func TestNothingIsMissedOrDoubled(t *testing.T) {
	const last, restarts = 300, 2
	run := func(t *testing.T, over []live.Transport, disturb func(*rig)) {
		r := newRig(t)
		dev := r.device("pump")
		token, _ := r.viewer()
		o := r.options(token, over...)
		o.Mode, o.Metrics = live.All, []string{"n"}
		c := follow(t, o)
		until[*live.Snapshot](c)
		sent, done := 0, make(chan struct{})
		go func() {
			defer close(done)
			for sent < last {
				for range 10 {
					sent++
					r.send("pump", dev, fmt.Sprintf(`{"n":%d}`, sent))
				}
				switch {
				case sent%(last/(restarts+1)) == 0 && sent < last:
					r.restart()
				case rand.IntN(2) == 0:
					disturb(r)
				}
			}
		}()
		steady(t, c, last)
		<-done
		// The client of net/http makes up for a broken connection by itself where it can, so the status need not tell of one.
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.opened < 2 {
			t.Error("there was only one connection: nothing was tested")
		}
	}
	each(t, func(t *testing.T, over live.Transport) {
		run(t, []live.Transport{over}, func(r *rig) { r.cut() })
	})
	t.Run("changing", func(t *testing.T) {
		run(t, transports, func(r *rig) {
			// Only one transport passes from now on.
			passes := []string{"/live", "/live/sse", "/live/poll"}[rand.IntN(3)]
			r.between(func(w http.ResponseWriter, req *http.Request, pass http.HandlerFunc) {
				if !strings.HasSuffix(req.URL.Path, passes) {
					http.Error(w, "not through here", http.StatusBadGateway)
					return
				}
				pass(w, req)
			})
			r.cut()
		})
	})
}

func TestLatestEndsWithTheLastState(t *testing.T) {
	each(t, func(t *testing.T, over live.Transport) {
		r := newRig(t)
		dev := r.device("pump")
		token, _ := r.viewer()
		o := r.options(token, over)
		o.Tick = time.Millisecond
		c := follow(t, o)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for n := 1; n <= 200; n++ {
				r.send("pump", dev, fmt.Sprintf(`{"a":%d,"b":%d}`, n, -n))
				switch {
				case n == 100:
					r.restart()
				case n%20 == 0:
					r.cut()
				}
			}
		}()
		state := map[string]float64{}
		for state["a"] != 200 || state["b"] != -200 {
			var devices []live.Device
			switch f := c.next().(type) {
			case *live.Snapshot:
				devices = f.Devices
			case *live.Changes:
				devices = f.Devices
			}
			for _, d := range devices {
				for name, v := range d.Metrics {
					if f := v.Value.Float(); f*f < state[name]*state[name] {
						t.Fatalf("%s went back from %v to %v", name, state[name], f)
					}
					state[name] = v.Value.Float()
				}
			}
		}
		<-done
	})
}

func TestAnUnknownPlaceBeginsAnew(t *testing.T) {
	each(t, func(t *testing.T, over live.Transport) {
		r := newRig(t)
		token, _ := r.viewer()
		o := r.options(token, over)
		o.After = "of-another-hub"
		c := follow(t, o)
		until[*live.Reset](c)
		until[*live.Snapshot](c)
	})
}

func TestAWayThatIsBlockedIsLeftForTheNext(t *testing.T) {
	for name, block := range map[string]func(http.ResponseWriter, *http.Request, http.HandlerFunc){
		"refused": func(w http.ResponseWriter, r *http.Request, pass http.HandlerFunc) {
			if !strings.HasSuffix(r.URL.Path, "/poll") {
				http.Error(w, "forbidden by policy", http.StatusForbidden)
				return
			}
			pass(w, r)
		},
		"swallowed": func(w http.ResponseWriter, r *http.Request, pass http.HandlerFunc) {
			if !strings.HasSuffix(r.URL.Path, "/poll") {
				<-r.Context().Done() // answers are gathered until they end
				return
			}
			pass(w, r)
		},
		"cut": func(w http.ResponseWriter, r *http.Request, pass http.HandlerFunc) {
			if !strings.HasSuffix(r.URL.Path, "/poll") {
				panic(http.ErrAbortHandler)
			}
			pass(w, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.between(block)
			token, _ := r.viewer()
			o := r.options(token)
			o.Answer = 200 * time.Millisecond
			c := follow(t, o)
			until[*live.Snapshot](c)
			for st := range c.status {
				if st.Connected {
					if st.Transport != live.LongPoll {
						t.Errorf("it came over %s", st.Transport)
					}
					break
				}
			}
		})
	}
}

func TestTheBetterWayIsTriedAgain(t *testing.T) {
	r := newRig(t)
	r.between(func(w http.ResponseWriter, req *http.Request, pass http.HandlerFunc) {
		if !strings.HasSuffix(req.URL.Path, "/sse") {
			http.Error(w, "not through here", http.StatusBadGateway)
			return
		}
		pass(w, req)
	})
	token, _ := r.viewer()
	o := r.options(token)
	o.Better = 50 * time.Millisecond
	c := follow(t, o)
	until[*live.Snapshot](c)
	r.front.Store(nil)
	for {
		select {
		case <-c.frames:
		case st := <-c.status:
			if st.Connected && st.Transport == live.WebSocket {
				return
			}
		}
	}
}

func TestRefusalsEndIt(t *testing.T) {
	each(t, func(t *testing.T, over live.Transport) {
		r := newRig(t)
		dev := r.device("pump")
		token, id := r.viewer()
		o := r.options("wrong", over)
		for what, change := range map[string]func(*live.Options){
			"token":  func(*live.Options) {},
			"device": func(o *live.Options) { o.Token = dev },
			"pattern": func(o *live.Options) {
				o.Token, o.Devices = token, []string{"*mp"}
			},
		} {
			refused := o
			change(&refused)
			c := follow(t, refused)
			for range c.frames {
			}
			var stop *live.StopError
			if err := <-c.ended; !errors.As(err, &stop) || len(err.Error()) < 60 {
				t.Errorf("%s: it ended with %v", what, err)
			}
		}
		o.Token = token
		c := follow(t, o)
		until[*live.Snapshot](c)
		if err := r.access.RevokeToken(t.Context(), access.Local(), id); err != nil {
			t.Fatal(err)
		}
		for range c.frames {
		}
		var stop *live.StopError
		if err := <-c.ended; !errors.As(err, &stop) || stop.Code != wire.CloseRevoked && stop.Code != wire.CloseWho {
			t.Errorf("after the token was revoked it ended with %v", err)
		}
	})
}

func TestItEndsWithItsContextAndItsFunction(t *testing.T) {
	each(t, func(t *testing.T, over live.Transport) {
		r := newRig(t)
		token, _ := r.viewer()
		boom := errors.New("boom")
		if err := live.Follow(t.Context(), r.options(token, over), func(live.Frame) error { return boom }); err != boom {
			t.Errorf("got %v, want the error of the function", err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		err := live.Follow(ctx, r.options(token, over), func(f live.Frame) error {
			if _, ok := f.(*live.Snapshot); ok {
				time.AfterFunc(time.Millisecond, func() { cancel(boom) })
			}
			return nil
		})
		if err != boom {
			t.Errorf("got %v, want the cause of the context", err)
		}
	})
}

func TestSilenceIsALoss(t *testing.T) {
	each(t, func(t *testing.T, over live.Transport) {
		if over == live.LongPoll {
			t.Skip("a poll that waits is silent")
		}
		r := newRig(t)
		token, _ := r.viewer()
		o := r.options(token, over)
		o.Silence = 50 * time.Millisecond
		c := follow(t, o)
		until[*live.Snapshot](c)
		until[*live.Welcome](c) // the next connection
		// It may also have been silent for too long before it was connected.
		for st := range c.status {
			if st.Connected {
				break
			}
		}
		if st := <-c.status; st.Err == nil || st.Connected {
			t.Errorf("the silence is told as %+v", st)
		}
	})
}

func TestWhatIsNoHubIsToldAndTriedAgain(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	c := follow(t, live.Options{URL: s.URL, MinRetry: time.Millisecond, MaxRetry: time.Millisecond})
	for range 7 {
		if st := <-c.status; st.Err == nil || !strings.Contains(st.Err.Error(), "address of a hub") {
			t.Fatalf("the status is %+v", st)
		}
	}
}

// TestAHostileServerEndsNothingElse sends what gws cannot read without a panic.
func TestAHostileServerEndsNothingElse(t *testing.T) {
	r := newRig(t)
	r.between(func(w http.ResponseWriter, req *http.Request, pass http.HandlerFunc) {
		if !strings.HasSuffix(req.URL.Path, "/live") {
			pass(w, req)
			return
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: " +
			wire.SubprotocolJSON + "\r\nSec-WebSocket-Accept: " + accept(req.Header.Get("Sec-WebSocket-Key")) + "\r\n\r\n" +
			"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff")
		_ = rw.Flush()
		_, _ = io.Copy(io.Discard, conn)
	})
	token, _ := r.viewer()
	c := follow(t, r.options(token, live.WebSocket))
	for range c.frames {
	}
	var stop *live.StopError
	if err := <-c.ended; !errors.As(err, &stop) || stop.Code != wire.CloseProtocol {
		t.Errorf("it ended with %v", err)
	}
}

// accept is the answer to the key of an upgrade (RFC 6455 section 4.2.2).
func accept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func TestOptionsAreChecked(t *testing.T) {
	for name, o := range map[string]live.Options{
		"no scheme":  {URL: "hub:8080"},
		"no host":    {URL: "http://"},
		"a query":    {URL: "http://localhost/?token=x"},
		"plain text": {URL: "http://192.0.2.1", Token: "x"},
		"mode":       {URL: "http://localhost", Mode: "some"},
		"transport":  {URL: "http://localhost", Transports: []live.Transport{"pigeon"}},
		"retry":      {URL: "http://localhost", MinRetry: time.Second, MaxRetry: 1},
		"negative":   {URL: "http://localhost", Answer: -1},
	} {
		o.Dial = func(context.Context, string, string) (net.Conn, error) {
			t.Errorf("%s: it connects", name)
			return nil, errTaken
		}
		if err := live.Follow(t.Context(), o, func(live.Frame) error { return nil }); err == nil || len(err.Error()) < 25 {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
