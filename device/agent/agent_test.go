package agent_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/agent"
	"telemetryhub/device/spool"
	"telemetryhub/device/wire"
)

// room is the schema of the tests: a set of two metrics, and one more.
func room() *device.Schema {
	metric := func(alias uint16, name string, exp int8) device.Metric {
		m := device.NewMetric(name)
		m.Alias, m.Exp = alias, exp
		return m
	}
	note := metric(3, "note", 0)
	note.Kind = device.Text
	return &device.Schema{
		Metrics: []device.Metric{metric(1, "id", 0), metric(2, "temperature", -2), note},
		Sets:    []device.Set{{Index: 1, Metrics: []int{0, 1}}},
	}
}

const startMS = 1_700_000_000_000

// row is the row with this id.
func row(id int) device.Row {
	return device.Row{Ref: device.SetRef(0), TimeMS: startMS + int64(id), Values: []device.Value{
		device.NumberValue(float64(id)), device.NumberValue(float64(id%977) / 100),
	}}
}

// rig is an agent that runs.
type rig struct {
	*agent.Agent
	spool *spool.Spool
	stop  func() error // ends Run and returns what it returned
}

// quick makes each row a batch of its own, as soon as it comes.
var quick = agent.Options{MaxRows: 1, MaxAge: 10 * time.Millisecond}

func start(t *testing.T, sp *spool.Spool, dial agent.Dialer, o agent.Options) *rig {
	t.Helper()
	a, err := agent.New(sp, dial, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Declare(room()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	var result error
	stopped := false
	r := &rig{Agent: a, spool: sp, stop: func() error {
		if !stopped {
			cancel()
			result = <-done
			stopped = true
		}
		return result
	}}
	t.Cleanup(func() { _ = r.stop() })
	return r
}

func memory(t *testing.T) *spool.Spool {
	t.Helper()
	sp, err := spool.NewMemory(spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return sp
}

func (r *rig) add(t *testing.T, from, to int) {
	t.Helper()
	for id := from; id <= to; id++ {
		if err := r.Append(t.Context(), row(id)); err != nil {
			t.Fatalf("append %d: %v", id, err)
		}
	}
}

func (r *rig) wait(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	if err := r.Wait(ctx); err != nil {
		t.Fatalf("wait: %v (%+v)", err, r.Stats())
	}
}

// wantIDs checks that the hub stored from..to, each once and in order, and that the agent broke no rule.
func wantIDs(t *testing.T, h *fakeHub, from, to int) {
	t.Helper()
	if err := h.rules(); err != nil {
		t.Error(err)
	}
	ids := h.ids()
	for i, id := range ids {
		if id != float64(from+i) {
			t.Fatalf("row %d is %v, want %d", i, id, from+i)
		}
	}
	if len(ids) != to-from+1 {
		t.Fatalf("%d rows are stored, want %d", len(ids), to-from+1)
	}
}

func TestRowsArriveOnceInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		r := start(t, memory(t), h.dial, agent.Options{})
		r.add(t, 1, 5000)
		r.wait(t)
		wantIDs(t, h, 1, 5000)
		s := r.Stats()
		if s.Appended != 10000 || s.Acked != 10000 || s.Sent != 10000 || !s.Connected || s.Connects != 1 {
			t.Errorf("stats %+v", s)
		}
		if err := r.stop(); err != nil {
			t.Errorf("run: %v", err)
		}
	})
}

func TestValuesArriveExactly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		r := start(t, memory(t), h.dial, agent.Options{})
		sent := []device.Row{
			{Ref: device.SetRef(0), TimeMS: startMS, Values: []device.Value{device.NumberValue(0.1 + 0.2), {}}},
			{Ref: device.SetRef(0), TimeMS: startMS - 5000, Values: []device.Value{device.NumberValue(-1e300), device.NumberValue(21.37)}},
			{Ref: device.SingleRef(2), TimeMS: startMS, Values: []device.Value{device.TextValue("Gruß")}, Quality: device.Suspect},
		}
		if err := r.Append(t.Context(), sent...); err != nil {
			t.Fatal(err)
		}
		r.wait(t)
		if err := h.rules(); err != nil {
			t.Fatal(err)
		}
		got := h.order[0].stored[0].rows
		if len(got) != len(sent) {
			t.Fatalf("%d rows, want %d", len(got), len(sent))
		}
		for i := range sent {
			if got[i].TimeMS != sent[i].TimeMS || got[i].Quality != sent[i].Quality || got[i].Ref != sent[i].Ref {
				t.Errorf("row %d: %+v, want %+v", i, got[i], sent[i])
			}
			for j := range sent[i].Values {
				if !got[i].Values[j].Equal(sent[i].Values[j]) {
					t.Errorf("row %d value %d: %+v, want %+v", i, j, got[i].Values[j], sent[i].Values[j])
				}
			}
		}
	})
}

func TestRowsThatCannotBeSentAreRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, err := agent.New(memory(t), newFakeHub().dial, agent.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Append(t.Context(), row(1)); !errors.Is(err, agent.ErrNoSchema) {
			t.Errorf("before Declare: %v", err)
		}
		if err := a.Declare(room()); err != nil {
			t.Fatal(err)
		}
		one := func(ref device.Ref, at int64, v ...device.Value) device.Row {
			return device.Row{Ref: ref, TimeMS: at, Values: v}
		}
		num, text := device.NumberValue(1), device.TextValue("x")
		for name, r := range map[string]device.Row{
			"no such set":     one(device.SetRef(1), startMS, num, num),
			"no such metric":  one(device.SingleRef(3), startMS, num),
			"too few values":  one(device.SetRef(0), startMS, num),
			"no time":         one(device.SetRef(0), 0, num, num),
			"far time":        one(device.SetRef(0), wire.MaxTimeMS+1, num, num),
			"NaN":             one(device.SetRef(0), startMS, num, device.NumberValue(nan())),
			"text in a gauge": one(device.SetRef(0), startMS, num, text),
			"bool in a gauge": one(device.SetRef(0), startMS, num, device.BoolValue(true)),
			"number in text":  one(device.SingleRef(2), startMS, num),
			"long text":       one(device.SingleRef(2), startMS, device.TextValue(string(make([]byte, device.MaxTextLen+1)))),
			"not UTF-8":       one(device.SingleRef(2), startMS, device.TextValue("\xff")),
		} {
			if err := a.Append(t.Context(), row(1), r); !errors.Is(err, agent.ErrRow) {
				t.Errorf("%s: %v, want ErrRow", name, err)
			}
		}
		if s := a.Stats(); s.Appended != 0 {
			t.Errorf("%d readings were taken", s.Appended)
		}
	})
}

func nan() float64 { z := 0.0; return z / z }

func TestOldBatchIsClosedByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		r := start(t, memory(t), h.dial, agent.Options{MaxAge: 3 * time.Second})
		r.add(t, 1, 3)
		time.Sleep(2 * time.Second)
		if n := len(h.ids()); n != 0 {
			t.Errorf("%d rows were sent too early", n)
		}
		time.Sleep(3 * time.Second)
		wantIDs(t, h, 1, 3)
	})
}

func TestRowsOfOneTimeKeepTheirOrder(t *testing.T) {
	// In a CBOR frame rows of sets come first, and of equal time the later row wins.
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		r := start(t, memory(t), h.dial, agent.Options{})
		rows := []device.Row{
			row(1), {Ref: device.SingleRef(0), TimeMS: row(1).TimeMS, Values: []device.Value{device.NumberValue(2)}},
			{Ref: device.SetRef(0), TimeMS: row(1).TimeMS, Values: []device.Value{device.NumberValue(3), {}}},
			{Ref: device.SingleRef(0), TimeMS: row(1).TimeMS + 1, Values: []device.Value{device.NumberValue(4)}},
		}
		if err := r.Append(t.Context(), rows...); err != nil {
			t.Fatal(err)
		}
		r.wait(t)
		wantIDs(t, h, 1, 4)
	})
}

func TestBatchNeverSpansMoreThanTheProtocolAllows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		r := start(t, memory(t), h.dial, agent.Options{})
		for id := 1; id <= 6; id++ {
			x := row(id)
			x.TimeMS += int64(id) * device.MaxSpanMS / 2
			if err := r.Append(t.Context(), x); err != nil {
				t.Fatal(err)
			}
		}
		r.wait(t)
		wantIDs(t, h, 1, 6)
	})
}

func TestSchemaChangeKeepsEachRowWithItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		down := true
		h.refuse = func(int) error {
			if down {
				return errors.New("no route")
			}
			return nil
		}
		r := start(t, memory(t), h.dial, agent.Options{})
		for id := 1; id <= 60; id++ {
			if id%20 == 1 {
				s := room()
				s.Metrics[1].Name = fmt.Sprintf("metric-%d", id/20%2) // the first one comes back
				if err := r.Declare(s); err != nil {
					t.Fatal(err)
				}
			}
			r.add(t, id, id)
		}
		time.Sleep(time.Minute)
		h.mu.Lock()
		down = false
		h.mu.Unlock()
		r.wait(t)
		wantIDs(t, h, 1, 60)
		if len(h.schemas) != 2 {
			t.Errorf("%d schemas were declared, want 2", len(h.schemas))
		}
	})
}

func TestSchemaTheHubKnowsIsNotSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		births := 0
		r := start(t, memory(t), func(ctx context.Context) (agent.Conn, error) {
			c, err := h.dial(ctx)
			return watched{c, func(ty wire.Type) {
				if ty == wire.TypeBirth {
					births++
				}
			}}, err
		}, quick)
		r.add(t, 1, 50)
		r.wait(t)
		wantIDs(t, h, 1, 50)
		if births != 1 {
			t.Errorf("%d births, want 1", births)
		}
	})
}

// watched tells of every frame that the agent writes.
type watched struct {
	agent.Conn
	wrote func(wire.Type)
}

func (w watched) Write(f wire.Format, data []byte) error {
	if ty, err := wire.Peek(f, data); err == nil {
		w.wrote(ty)
	}
	return w.Conn.Write(f, data)
}

func TestFullSpoolMakesAppendWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sp, err := spool.NewMemory(spool.Options{MaxBytes: 16384, SegmentBytes: 4096, Full: spool.Refuse})
		if err != nil {
			t.Fatal(err)
		}
		h := newFakeHub()
		h.refuse = func(n int) error {
			if n < 5 {
				return errors.New("no route")
			}
			return nil
		}
		r := start(t, sp, h.dial, agent.Options{MaxRows: 20})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var id int
		for err == nil {
			id++
			err = r.Append(ctx, row(id))
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("append into a full spool: %v, want the deadline", err)
		}
		r.add(t, id, 5000) // waits for the hub
		r.wait(t)
		wantIDs(t, h, 1, 5000)
	})
}

func TestWaitEndsWithRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		h.refuse = func(int) error { return &agent.StopError{Code: wire.CloseWho, Reason: "401"} }
		r := start(t, memory(t), h.dial, quick)
		r.add(t, 1, 1)
		err := r.Wait(t.Context())
		var stop *agent.StopError
		if !errors.Is(err, agent.ErrEnded) || !errors.As(err, &stop) || stop.Code != wire.CloseWho {
			t.Errorf("wait: %v, want ErrEnded and the StopError", err)
		}
	})
}

func TestStopKeepsWhatWasAppended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sp := memory(t)
		h := newFakeHub()
		h.refuse = func(int) error { return errors.New("no route") }
		r := start(t, sp, h.dial, agent.Options{MaxAge: time.Hour})
		r.add(t, 1, 10)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		if n := sp.Status().Waiting; n != 1 {
			t.Errorf("%d batches wait in the spool, want the open one", n)
		}
	})
}

func TestRowsThatAFullSpoolDoesNotTakeAtTheEndAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sp, err := spool.NewMemory(spool.Options{MaxBytes: 16 << 10, SegmentBytes: 4 << 10, Full: spool.Refuse})
		if err != nil {
			t.Fatal(err)
		}
		r := start(t, sp, func(context.Context) (agent.Conn, error) { return nil, errors.New("no route") }, agent.Options{MaxRows: 100})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for id := 1; err == nil; id++ {
			err = r.Append(ctx, row(id))
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if err := r.stop(); !errors.Is(err, spool.ErrFull) {
			t.Errorf("run: %v, want it to say that rows are lost", err)
		}
	})
}
