package socket_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"telemetryhub/hub/sio/siotest"
	"telemetryhub/hub/sio/socket"
)

// remembering is a server whose one namespace recovers. The owner of a socket is its payload's member "owner".
type remembering struct {
	*siotest.Site
	space   *socket.Namespace
	metrics *socket.Metrics
	left    chan *socket.Socket
}

func remember(t *testing.T, o socket.Options) *remembering {
	t.Helper()
	r := &remembering{metrics: new(socket.Metrics), left: make(chan *socket.Socket, 1000)}
	o.Metrics = r.metrics
	server, err := socket.New(map[string]socket.Handler{"/": {
		Recover: true,
		Connect: func(s *socket.Socket, auth json.RawMessage) error {
			var p struct{ Owner string }
			if err := json.Unmarshal(auth, &p); err != nil {
				return err
			}
			before, ok := s.Recovered(p.Owner)
			if s.State = before; !ok {
				s.State = "new"
			}
			return nil
		},
		Connected: func(s *socket.Socket) {
			s.Join("blue")
			told := values(t, s.State, 0)
			s.State = "was here" // before the client knows, as it may come back at once
			s.Emit("state", told)
		},
		Mark: func(_ *socket.Socket, dst []byte) []byte { return append(dst, "mark"...) },
		Event: func(s *socket.Socket, e *socket.Event) {
			if e.Name == "end" {
				s.End(4503, "told to")
			}
		},
		Disconnected: func(s *socket.Socket) { r.left <- s },
	}}, o)
	if err != nil {
		t.Fatal(err)
	}
	r.space = server.Of("/")
	r.Site = siotest.Serve(t, server)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = server.Shutdown(ctx)
		if n := r.metrics.Remembered.Load(); n != 0 {
			t.Errorf("%d sockets are remembered after the end", n)
		}
	})
	return r
}

// connect connects with a payload and returns what the client is told.
func (r *remembering) connect(t *testing.T, auth string, state string) (c *siotest.Socket, id, pid string) {
	t.Helper()
	c, _ = r.Open()
	c.Say("40" + auth)
	first := c.Text()
	got := hello.FindStringSubmatch(first)
	if got == nil || got[4] == "" {
		t.Fatalf("connected with %s", first)
	}
	if state != "" {
		c.Want(`42["state","` + state + `",0]`)
	}
	return c, got[2], got[4]
}

func (r *remembering) drop(c *siotest.Socket) {
	_ = c.Close()
	<-r.left
}

func TestAClientThatComesBackGetsWhatItMissed(t *testing.T) {
	r := remember(t, socket.Options{})
	c, id, pid := r.connect(t, `{"owner":"ann"}`, "new")
	r.space.Emit("blue", "news", values(t, 1), nil)
	c.Want(`42["news",1,"mark~1"]`)
	r.drop(c)
	if n := r.space.Emit("blue", "news", values(t, 2), nil); n != 0 {
		t.Errorf("sent to %d", n)
	}
	m := values(t, []byte("three"))
	r.space.Emit("blue", "news", m, nil)
	c, again, samePID := r.connect(t, `{"owner":"ann","pid":"`+pid+`","offset":"mark~1"}`, "")
	if again != id || samePID != pid {
		t.Errorf("came back as %s %s, was %s %s", again, samePID, id, pid)
	}
	c.Want(`42["news",2,"mark~2"]`, `451-["news",{"_placeholder":true,"num":0},"mark~3"]`)
	c.WantBinary("three")
	c.Want(`42["state","was here",0]`)
	r.space.Emit("blue", "news", values(t, 4), nil)
	c.Want(`42["news",4,"mark~4"]`)
	if n := r.metrics.Recovered.Load(); n != 1 {
		t.Errorf("counted %d that came back", n)
	}
}

// The network of a client changes, and its old connection is not known to be broken yet.
func TestAClientThatComesBackBeforeItWasMissed(t *testing.T) {
	r := remember(t, socket.Options{})
	old, id, pid := r.connect(t, `{"owner":"ann"}`, "new")
	r.space.Emit("blue", "news", values(t, 1), nil)
	r.space.Emit("blue", "news", values(t, 2), nil)
	c, again, _ := r.connect(t, `{"owner":"ann","pid":"`+pid+`","offset":"mark~1"}`, "")
	if again != id {
		t.Errorf("came back as %s, was %s", again, id)
	}
	c.Want(`42["news",2,"mark~2"]`, `42["state","was here",0]`)
	old.WantClose(4509)
	<-r.left
	if n := r.space.Emit("blue", "news", values(t, 3), nil); n != 1 {
		t.Errorf("sent to %d", n)
	}
	c.Want(`42["news",3,"mark~3"]`)
}

func TestAClientThatCannotGoOnStartsAnew(t *testing.T) {
	r := remember(t, socket.Options{RememberBytes: 1000})
	begin := func() (string, string) {
		c, id, pid := r.connect(t, `{"owner":"ann"}`, "new")
		r.space.Emit("blue", "news", values(t, 1), nil)
		c.Want(`42["news",1,"mark~1"]`)
		r.drop(c)
		return id, pid
	}
	for name, auth := range map[string]string{
		"of another owner":        `{"owner":"bob","pid":"PID","offset":"mark~1"}`,
		"with another pid":        `{"owner":"ann","pid":"x","offset":"mark~1"}`,
		"without an offset":       `{"owner":"ann","pid":"PID"}`,
		"with half an offset":     `{"owner":"ann","pid":"PID","offset":"mark"}`,
		"from the future":         `{"owner":"ann","pid":"PID","offset":"mark~9"}`,
		"with an offset too long": `{"owner":"ann","pid":"PID","offset":"mark~99999999999999999999"}`,
		"of another kind":         `{"owner":"ann","pid":7,"offset":{}}`,
	} {
		t.Run(name, func(t *testing.T) {
			id, pid := begin()
			_, again, other := r.connect(t, strings.ReplaceAll(auth, "PID", pid), "new")
			if again == id || other == pid {
				t.Error("it came back as the same")
			}
		})
	}
	t.Run("that missed too much", func(t *testing.T) {
		_, pid := begin()
		r.space.Emit("blue", "news", values(t, strings.Repeat("x", 600)), nil)
		r.space.Emit("blue", "news", values(t, strings.Repeat("y", 600)), nil)
		r.connect(t, `{"owner":"ann","pid":"`+pid+`","offset":"mark~1"}`, "new")
	})
	t.Run("that was told to go", func(t *testing.T) {
		c, _, pid := r.connect(t, `{"owner":"ann"}`, "new")
		r.space.Emit("blue", "news", values(t, 1), nil)
		c.Text()
		c.Say(`42["end"]`)
		<-r.left
		r.connect(t, `{"owner":"ann","pid":"`+pid+`","offset":"mark~1"}`, "new")
	})
	t.Run("that left", func(t *testing.T) {
		c, _, pid := r.connect(t, `{"owner":"ann"}`, "new")
		r.space.Emit("blue", "news", values(t, 1), nil)
		c.Text()
		c.Say(`41`)
		<-r.left
		r.connect(t, `{"owner":"ann","pid":"`+pid+`","offset":"mark~1"}`, "new")
	})
}

func TestOnlySoManyAreRememberedForSoLong(t *testing.T) {
	r := remember(t, socket.Options{RememberSockets: 2, RememberFor: time.Second})
	var pids []string
	for range 3 {
		c, _, pid := r.connect(t, `{"owner":"ann"}`, "new")
		pids = append(pids, pid)
		r.drop(c)
	}
	if n := r.metrics.Remembered.Load(); n != 2 {
		t.Errorf("%d are remembered", n)
	}
	r.connect(t, `{"owner":"ann","pid":"`+pids[0]+`","offset":"mark~0"}`, "new")
	siotest.Until(t, "the others to be forgotten", func() bool { return r.metrics.Remembered.Load() == 0 })
	r.connect(t, `{"owner":"ann","pid":"`+pids[2]+`","offset":"mark~0"}`, "new")
}
