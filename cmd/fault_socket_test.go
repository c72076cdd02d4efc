package cmd_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
)

// TestSameBatchOnTwoSocketsIsStoredOnce lets two connections of one device send the same batches at the same time. Each
// throws the other out, and both send everything again whatever the welcome says.
func TestSameBatchOnTwoSocketsIsStoredOnce(t *testing.T) {
	r := dice(t)
	s := newServer(t)
	token := s.token("viewer")
	d := newSensor(t, s, "twins")
	const batches = 8
	hello := wire.Hello{Stream: "oracle", Schema: "oracle-1", Clock: device.ClockNTP, Have: 1}
	replaced := 0
	for round := range uint64(rounds(100, 2000)) {
		first, last := round*batches+1, (round+1)*batches
		hello.Next = last + 1
		delays := []time.Duration{0, time.Duration(r.IntN(3000)) * time.Microsecond}
		codes := make([]wire.CloseCode, 2)
		var both sync.WaitGroup
		for twin := range 2 {
			both.Go(func() {
				for try := 0; ; try++ {
					<-time.After(delays[twin] * time.Duration(1+try)) // so that one of them comes through at last
					p, _, err := dial(s.addr, d.token, hello)
					if err == nil {
						err = p.send(d, first, last)
					}
					if err == nil {
						err = p.acked(last)
					}
					if p != nil {
						p.close()
					}
					if err == nil {
						return
					}
					codes[twin] = max(codes[twin], closeCode(err))
				}
			})
		}
		both.Wait()
		for _, c := range codes {
			if c == wire.CloseReplaced {
				replaced++
			} else if c != 0 {
				t.Fatalf("round %d: closed with %v", round, c)
			}
		}
		d.sent, d.acked = last, last
	}
	f := &fleet{sensors: []*sensor{d}}
	f.check(t, s)
	st := s.status(token)
	if st.Counts.Duplicates == 0 || st.Counts.Replaced == 0 {
		t.Errorf("%d duplicates, %d connections replaced: the test tested nothing", st.Counts.Duplicates, st.Counts.Replaced)
	}
	if want := d.sent * oracleSamples; st.Counts.Readings != want || st.Counts.Gaps != 0 {
		t.Errorf("the hub counts %d readings and %d gaps, want %d and none", st.Counts.Readings, st.Counts.Gaps, want)
	}
	s.stop()
	f.checkLog(t, s.dir)
	t.Logf("%d duplicates, %d connections replaced, %d were told so", st.Counts.Duplicates, st.Counts.Replaced, replaced)
}

// TestTwoDevicesUnderOneNameNeverMix lets two devices with the same token and stream send different readings under the same
// numbers at the same time, as clones of one card do. Of each number one batch is stored, whole.
func TestTwoDevicesUnderOneNameNeverMix(t *testing.T) {
	r := dice(t)
	s := newServer(t)
	d := newSensor(t, s, "clones")
	twins := []*sensor{{id: "clone-0", index: d.index}, {id: "clone-1", index: d.index}}
	hello := wire.Hello{Stream: "oracle", Schema: "oracle-1", Clock: device.ClockNTP, Have: 1}
	last := uint64(0)
	for range rounds(40, 1000) {
		first := last + 1
		last += oracleWindow
		hello.Next = last + 1
		delay := time.Duration(r.IntN(3000)) * time.Microsecond
		var both sync.WaitGroup
		for i, twin := range twins {
			both.Go(func() {
				<-time.After(delay * time.Duration(i))
				p, _, err := dial(s.addr, d.token, hello)
				if err == nil {
					err = p.send(twin, first, last)
				}
				if err == nil {
					_ = p.acked(last) // or it was thrown out
				}
				if p != nil {
					p.close()
				}
			})
		}
		both.Wait()
		d.sent = last
	}
	from := map[string]int{}
	got := s.points(s.token("viewer"), d.id, "level")
	for i, p := range got.Points {
		at, _ := p[0].Int64()
		v, _ := p[1].Float64()
		seq, sample := uint64(at-oracleStart)/10, int(at-oracleStart)%10
		if sample != i%oracleSamples {
			t.Fatalf("point %d is %v: a batch was stored in part", i, p)
		}
		switch v {
		case oracleValue("clone-0", seq, sample):
			from[fmt.Sprint(seq, " clone-0")]++
		case oracleValue("clone-1", seq, sample):
			from[fmt.Sprint(seq, " clone-1")]++
		default:
			t.Fatalf("point %d is %v, which nobody sent", i, p)
		}
	}
	for batch, n := range from {
		if n != oracleSamples {
			t.Errorf("batch %s: %d readings, want all %d", batch, n, oracleSamples)
		}
	}
	s.stop()
	(&fleet{sensors: []*sensor{d}}).checkLog(t, s.dir)
}

// TestUnknownStreamBeginsWhereTheSpoolDoes lets a device come with a stream that the hub never saw, as after a restore of
// the hub: what the spool still has is taken, and what it has no more is no gap.
func TestUnknownStreamBeginsWhereTheSpoolDoes(t *testing.T) {
	s := newServer(t)
	token := s.token("viewer")
	d := newSensor(t, s, "elder")
	hello := wire.Hello{Stream: "oracle", Schema: "oracle-1", Clock: device.ClockNTP, Have: 400, Next: 450}
	p, w, err := dial(s.addr, d.token, hello)
	if err != nil {
		t.Fatal(err)
	}
	if w.Ack != 399 {
		t.Errorf("the welcome acknowledges %d, want 399", w.Ack)
	}
	for _, step := range [][2]uint64{{400, 409}, {3, 5}, {405, 420}} { // batches that the hub has, or must take for such, are dropped
		if err := errors.Join(p.send(d, step[0], step[1]), p.acked(step[1])); err != nil {
			t.Fatal(err)
		}
	}
	got := s.points(token, d.id, "level")
	if len(got.Points) != 21*oracleSamples || len(got.Gaps) != 0 {
		t.Errorf("%d readings and %d gaps, want %d and none", len(got.Points), len(got.Gaps), 21*oracleSamples)
	}
	if err := errors.Join(p.send(d, 431, 431), p.acked(431)); err != nil {
		t.Fatal(err)
	}
	if got := s.points(token, d.id, "level"); len(got.Gaps) != 1 {
		t.Errorf("after a jump from 420 to 431 there are %d gaps, want 1", len(got.Gaps))
	}
	p.close()
	s.kill()
	s.start()
	if _, w, err = dial(s.addr, d.token, hello); err != nil || w.Ack != 431 {
		t.Errorf("after kill -9 the welcome acknowledges %d (%v), want 431", w.Ack, err)
	}
	if got := s.points(token, d.id, "level"); len(got.Points) != 22*oracleSamples || len(got.Gaps) != 1 {
		t.Errorf("after kill -9: %d readings and %d gaps, want %d and 1", len(got.Points), len(got.Gaps), 22*oracleSamples)
	}
}

// lossyProxy stands between devices and the hub. Each connection goes well until the hub has sent some bytes; what it sends
// from then on is lost, and a little later the connection is cut. So batches are stored whose acknowledgement nobody hears.
type lossyProxy struct {
	ln     net.Listener
	target string
	cuts   atomic.Int64
	sound  atomic.Bool // nothing is lost any more
	done   sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	dice  *rand.Rand
	conns map[net.Conn]struct{}
}

func newLossyProxy(t *testing.T, target string, r *rand.Rand) *lossyProxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &lossyProxy{ln: ln, target: target, dice: r, conns: map[net.Conn]struct{}{}}
	p.done.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *lossyProxy) accept() {
	for {
		device, err := p.ln.Accept()
		if err != nil {
			return
		}
		hub, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = device.Close() // as if the hub were away
			continue
		}
		p.mu.Lock()
		p.conns[device], p.conns[hub] = struct{}{}, struct{}{}
		budget := int64(150 + p.dice.IntN(400))
		p.mu.Unlock()
		p.done.Go(func() {
			_, _ = io.Copy(hub, device) // ends with either connection
			p.end(device, hub)
		})
		p.done.Go(func() {
			p.downstream(device, hub, budget)
			p.end(device, hub)
		})
	}
}

// downstream passes on what the hub says as long as the budget lasts.
func (p *lossyProxy) downstream(device, hub net.Conn, budget int64) {
	if p.sound.Load() {
		_, _ = io.Copy(device, hub) // ends with either connection
		return
	}
	if n, err := io.CopyN(device, hub, budget); err != nil || n < budget {
		return
	}
	if n, err := hub.Read(make([]byte, 4096)); err == nil && n > 0 {
		p.cuts.Add(1) // an ack was lost
	}
}

func (p *lossyProxy) end(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.conns, c)
		_ = c.Close() // the other copy closes it too
	}
}

func (p *lossyProxy) close() {
	_ = p.ln.Close() // nothing was written
	p.mu.Lock()
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.done.Wait()
}

// obstinate sends every batch again until it hears its own ack: the welcome tells it nothing. It returns when the device
// is told to stop.
func (d *sensor) obstinate(addr string) {
	for !d.stopped() {
		d.mu.Lock()
		first, last := d.acked+1, d.acked+oracleWindow
		d.sent = max(d.sent, last)
		d.mu.Unlock()
		p, _, err := dial(addr, d.token, wire.Hello{Stream: "oracle", Schema: "oracle-1", Clock: device.ClockNTP, Have: 1, Next: last + 1})
		for err == nil && !d.stopped() {
			if err = p.send(d, first, last); err == nil {
				err = p.acked(last)
			}
			if err == nil {
				d.ack(last)
				d.mu.Lock()
				first, last = last+1, last+oracleWindow
				d.sent = last
				d.mu.Unlock()
			}
		}
		if p != nil {
			p.close()
		}
	}
}

func TestLostAcksDoubleNothing(t *testing.T) {
	s := newServer(t)
	p := newLossyProxy(t, s.addr, dice(t))
	f := &fleet{}
	for _, id := range []string{"deaf-1", "deaf-2", "deaf-3", "deaf-4"} {
		d := newSensor(t, s, id)
		f.sensors = append(f.sensors, d)
		f.done.Go(func() { d.obstinate(p.ln.Addr().String()) })
	}
	t.Cleanup(f.stop)
	want := int64(rounds(150, 5000))
	until(t, "enough lost acks", func() bool { return p.cuts.Load() >= want })
	p.sound.Store(true)
	waitForAcks(t, f, f.acked()+100)
	f.stop()
	st := s.status(s.token("viewer"))
	if st.Counts.Duplicates == 0 {
		t.Error("no batch came twice: the test tested nothing")
	}
	if st.Counts.Gaps != 0 {
		t.Errorf("%d gaps, but no batch was lost", st.Counts.Gaps)
	}
	f.check(t, s)
	s.stop()
	f.checkLog(t, s.dir)
	t.Logf("%d acks lost, %d batches came twice, %d acked", p.cuts.Load(), st.Counts.Duplicates, f.acked())
}
