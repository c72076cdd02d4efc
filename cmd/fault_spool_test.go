package cmd_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/agent"
	"telemetryhub/device/spool"
	"telemetryhub/device/wire"
)

// card is the storage of a device with its real agent and spool. Its readings are numbered by the test: reading n of the
// device is at oracleTime(n, 0) and has the value oracleValue(id, n, 0), whichever card it was on.
type card struct {
	t     *testing.T
	d     *sensor
	dir   string
	spool *spool.Spool
	agent *agent.Agent
	stop  context.CancelFunc
	ended chan error
}

// insert puts a card into the device, which begins to work.
func insert(t *testing.T, d *sensor, dir string) *card {
	t.Helper()
	c := &card{t: t, d: d, dir: dir, ended: make(chan error, 1)}
	var err error
	if c.spool, err = spool.Open(dir, spool.Options{SyncEvery: -1, MinFree: -1}); err != nil {
		t.Fatal(err)
	}
	dial, err := agent.WebSocket(agent.Endpoint{URL: d.url, Token: d.token})
	if err != nil {
		t.Fatal(err)
	}
	c.agent, err = agent.New(c.spool, dial, agent.Options{
		MaxRows: 5, MaxAge: 5 * time.Millisecond, MinRetry: 5 * time.Millisecond, MaxRetry: 100 * time.Millisecond,
	})
	if err == nil {
		err = c.agent.Declare(d.index.Schema())
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.stop = cancel
	go func() { c.ended <- c.agent.Run(ctx) }()
	t.Cleanup(c.remove)
	return c
}

// measure takes the readings [from, to).
func (c *card) measure(from, to uint64) {
	c.t.Helper()
	for n := from; n < to; n++ {
		row := device.Row{Ref: device.SingleRef(0), TimeMS: oracleTime(n, 0), Values: []device.Value{device.NumberValue(oracleValue(c.d.id, n, 0))}}
		if err := c.agent.Append(c.t.Context(), row); err != nil {
			c.t.Fatal(err)
		}
	}
	if err := c.agent.Flush(c.t.Context()); err != nil { // an agent that was thrown out puts no rows into the spool by itself
		c.t.Fatal(err)
	}
}

// delivered waits until everything is acked.
func (c *card) delivered() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	if err := c.agent.Wait(ctx); err != nil {
		c.t.Fatal(err)
	}
}

// remove stops the device in order.
func (c *card) remove() {
	if c.stop == nil {
		return
	}
	c.stop()
	c.stop = nil
	err := <-c.ended
	var stopped *agent.StopError
	if errors.As(err, &stopped) && stopped.Code == wire.CloseReplaced {
		err = nil // a second device with the same token pushed it out
	}
	if err = errors.Join(err, c.spool.Close()); err != nil {
		c.t.Error(err)
	}
}

// copyOf copies a card as it is at this moment, in use or not.
func (c *card) copyOf() string {
	c.t.Helper()
	to := filepath.Join(c.t.TempDir(), "card")
	if err := os.CopyFS(to, os.DirFS(c.dir)); err != nil {
		c.t.Fatal(err)
	}
	return to
}

// expect compares what the hub has with the readings of some ranges, and says that nothing is missing.
func (d *sensor) expect(t *testing.T, s *server, ranges ...[2]uint64) {
	t.Helper()
	got := s.points(s.token("viewer"), d.id, "level")
	i := 0
	for _, r := range ranges {
		for n := r[0]; n < r[1]; n++ {
			if i >= len(got.Points) {
				t.Fatalf("reading %d and all after it are missing", n)
			}
			at, _ := got.Points[i][0].Int64()
			v, _ := got.Points[i][1].Float64()
			if at != oracleTime(n, 0) || v != oracleValue(d.id, n, 0) {
				t.Fatalf("point %d is %v, want reading %d: [%d %v]", i, got.Points[i], n, oracleTime(n, 0), oracleValue(d.id, n, 0))
			}
			i++
		}
	}
	if i != len(got.Points) {
		t.Errorf("%d readings more than were taken", len(got.Points)-i)
	}
	if len(got.Gaps) != 0 {
		t.Errorf("gaps: %s", got.Gaps)
	}
}

func TestNothingIsTakenForOldWhenASpoolIsReplaced(t *testing.T) {
	const some = 200
	cases := map[string]func(t *testing.T, d *sensor) [][2]uint64{
		"the card was wiped": func(t *testing.T, d *sensor) [][2]uint64 {
			c := insert(t, d, t.TempDir())
			c.measure(0, some)
			c.delivered()
			c.remove()
			c = insert(t, d, t.TempDir())
			c.measure(some, 2*some)
			c.delivered()
			return [][2]uint64{{0, 2 * some}}
		},
		"the power failed and the card lost its newest data": func(t *testing.T, d *sensor) [][2]uint64 {
			c := insert(t, d, t.TempDir())
			c.measure(0, some)
			c.delivered()
			lost := c.copyOf() // the card will come back as it is now
			c.measure(some, 2*some)
			c.delivered()
			c.remove()
			c = insert(t, d, lost)
			c.measure(2*some, 3*some)
			c.delivered()
			return [][2]uint64{{0, 3 * some}}
		},
		"the power failed with readings that were not delivered": func(t *testing.T, d *sensor) [][2]uint64 {
			c := insert(t, d, t.TempDir())
			c.measure(0, some)
			cut := c.copyOf() // some of them are acked, some are under way
			c.remove()
			c = insert(t, d, cut)
			c.measure(some, 2*some)
			c.delivered()
			return [][2]uint64{{0, 2 * some}}
		},
		"two cards from one image, one after the other": func(t *testing.T, d *sensor) [][2]uint64 {
			c := insert(t, d, t.TempDir())
			c.measure(0, some)
			c.delivered()
			c.remove()
			twin := c.copyOf()
			for i, dir := range []string{c.dir, twin, c.dir, twin} {
				c := insert(t, d, dir)
				c.measure(uint64(i+1)*some, uint64(i+2)*some)
				c.delivered()
				c.remove()
			}
			return [][2]uint64{{0, 5 * some}}
		},
	}
	s := newServer(t)
	i := 0
	for name, tc := range cases {
		i++
		d := newSensor(t, s, "card-"+string(rune('a'+i)))
		t.Run(name, func(t *testing.T) {
			d.expect(t, s, tc(t, d)...)
		})
	}
	s.stop()
}

// TestTwoCardsFromOneImageAtTheSameTime runs two devices with one token and copies of one spool, that throw each other out.
// Nobody can tell them apart, so what one of them had sent when the other took its place, under the same numbers, may be taken
// for the other's. All else must be there, nothing twice, and everything as it was taken.
func TestTwoCardsFromOneImageAtTheSameTime(t *testing.T) {
	const some = 200
	s := newServer(t)
	d := newSensor(t, s, "image")
	c := insert(t, d, t.TempDir())
	c.measure(0, some)
	c.delivered()
	c.remove()
	dirs := []string{c.dir, c.copyOf()}
	n := uint64(some)
	for range rounds(4, 100) {
		both := []*card{insert(t, d, dirs[0]), insert(t, d, dirs[1])}
		for _, c := range both { // whoever is thrown out stays out until it is started again
			c.measure(n, n+some)
			n += some
		}
		both[0].remove()
		both[1].remove()
	}
	for _, dir := range dirs {
		c := insert(t, d, dir)
		c.measure(n, n+some)
		n += some
		c.delivered()
		c.remove()
	}
	got := s.points(s.token("viewer"), d.id, "level")
	seen := map[uint64]bool{}
	for _, p := range got.Points {
		at, _ := p[0].Int64()
		v, _ := p[1].Float64()
		k := uint64(at-oracleTime(0, 0)) / 10
		if at != oracleTime(k, 0) || k >= n || seen[k] || v != oracleValue(d.id, k, 0) {
			t.Fatalf("point %v was never taken, or is there twice", p)
		}
		seen[k] = true
	}
	for k := range n {
		if alone := k < some || k >= n-2*some; alone && !seen[k] {
			t.Errorf("reading %d is missing, although only one device was there", k)
		}
	}
	t.Logf("%d of %d readings were taken for those of the other", int(n)-len(seen), n)
	s.stop()
}

// TestKilledHubAndRealAgents kills the hub while devices with real agents and spools deliver.
func TestKilledHubAndRealAgents(t *testing.T) {
	r := dice(t)
	s := newServer(t)
	var cards []*card
	for _, id := range []string{"agent-a", "agent-b", "agent-c"} {
		cards = append(cards, insert(t, newSensor(t, s, id), t.TempDir()))
	}
	n := uint64(0)
	for range rounds(4, 100) {
		more := n + 50 + uint64(r.IntN(400))
		for _, c := range cards {
			c.measure(n, more)
		}
		n = more
		s.kill()
		s.start()
	}
	for _, c := range cards {
		c.delivered()
		c.d.expect(t, s, [2]uint64{0, n})
	}
	s.stop()
}
