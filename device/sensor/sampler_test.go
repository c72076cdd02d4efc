package sensor_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"periph.io/x/conn/v3/i2c"

	"telemetryhub/device"
	"telemetryhub/device/sensor"
	"telemetryhub/firmware-sim/chip"
)

// board is a machine with two buses. On the first are two chips, on the second one.
type board struct {
	buses map[string]*chip.Bus
	chips []*chip.BME280
}

func newBoard(t *testing.T) *board {
	b := &board{buses: map[string]*chip.Bus{"I2C1": chip.NewBus("I2C1"), "I2C2": chip.NewBus("I2C2")}}
	for i, at := range []struct {
		bus  string
		addr uint16
	}{{"I2C1", 0x76}, {"I2C1", 0x77}, {"I2C2", 0x76}} {
		air := chip.Air{Celsius: 20 + float64(i), Pascal: 100_000, RH: 50}
		c := chip.NewBME280(func() chip.Air { return air }, nil)
		if err := b.buses[at.bus].Add(at.addr, c); err != nil {
			t.Fatal(err)
		}
		b.chips = append(b.chips, c)
	}
	return b
}

func (b *board) I2C(name string) (i2c.BusCloser, error) {
	if bus := b.buses[name]; bus != nil {
		return wire{bus}, nil
	}
	return nil, fmt.Errorf("no bus %q", name)
}

var specs = []sensor.Spec{
	{Model: "bme280", Bus: "I2C1", Addr: 0x76, Every: 10 * time.Second},
	{Model: "bme280", Bus: "I2C1", Addr: 0x77, Every: 5 * time.Second, Prefix: "b/"},
	{Model: "bme280", Bus: "I2C2", Addr: 0x76, Every: 10 * time.Second, Prefix: "c/"},
}

// book notes what a Sampler reads.
type book struct {
	mu     sync.Mutex // guards the fields below
	times  map[device.Ref][]time.Time
	values map[device.Ref][]float64
	faults []string
	fail   error
}

func (b *book) Sample(_ context.Context, at time.Time, r device.Row) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.times == nil {
		b.times, b.values = map[device.Ref][]time.Time{}, map[device.Ref][]float64{}
	}
	b.times[r.Ref] = append(b.times[r.Ref], at)
	b.values[r.Ref] = append(b.values[r.Ref], r.Values[0].Float())
	return b.fail
}

func (b *book) Fault(alias uint16, source string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = append(b.faults, fmt.Sprintf("%d %v", alias, err))
}

// counts returns how many rows of each chip there are, and forgets them.
func (b *book) counts() (n [3]int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range n {
		n[i] = len(b.times[device.SetRef(i)])
	}
	b.times, b.values = nil, nil
	return n
}

func (b *book) said() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.faults
	b.faults = nil
	return f
}

// sample runs a Sampler over the board until the test's function returns.
func sample(t *testing.T, test func(t *testing.T, b *board, notes *book)) {
	synctest.Test(t, func(t *testing.T) {
		b, notes := newBoard(t), &book{}
		s, err := sensor.NewSampler(specs, b, notes, sensor.Options{Quality: device.Simulated})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		test(t, b, notes)
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, sensor.ErrHung) {
			t.Error(err)
		}
	})
}

func TestChipsAreReadAlignedWithTheClock(t *testing.T) {
	sample(t, func(t *testing.T, b *board, notes *book) {
		time.Sleep(time.Minute)
		synctest.Wait()
		for i, every := range []time.Duration{10 * time.Second, 5 * time.Second, 10 * time.Second} {
			times := notes.times[device.SetRef(i)]
			if want := int(time.Minute / every); len(times) < want-1 || len(times) > want {
				t.Errorf("chip %d was read %d times, want %d", i, len(times), want)
			}
			for _, at := range times {
				if off := at.Sub(at.Truncate(every)); off > 200*time.Millisecond { // two conversions
					t.Errorf("chip %d was read %v after its turn", i, off)
				}
			}
		}
		for i, want := range []float64{20, 21, 22} {
			for _, v := range notes.values[device.SetRef(i)] {
				if v < want-0.01 || v > want+0.01 {
					t.Errorf("chip %d gave %v", i, v)
				}
			}
		}
		if f := notes.said(); len(f) > 0 {
			t.Errorf("faults: %q", f)
		}
	})
}

func TestChipThatDoesNotAnswerIsToldOnceAndComesBack(t *testing.T) {
	sample(t, func(t *testing.T, b *board, notes *book) {
		time.Sleep(30 * time.Second)
		notes.counts()
		b.buses["I2C1"].SetFault(0x76, chip.Fault{NACK: true})
		time.Sleep(time.Minute)
		if n := notes.counts(); n[0] != 0 || n[1] < 11 || n[2] < 5 {
			t.Errorf("read %v times in a minute, want none of the first, and the others as always", n)
		}
		if f := notes.said(); len(f) != 1 || !strings.Contains(f[0], "1 bme280@I2C1/0x76") || !strings.Contains(f[0], "check the wiring") {
			t.Errorf("told %q", f)
		}
		b.buses["I2C1"].SetFault(0x76, chip.Fault{})
		time.Sleep(time.Minute)
		if n := notes.counts(); n[0] < 4 {
			t.Errorf("read %v times after it was mended", n)
		}
		if f := notes.said(); len(f) != 1 || f[0] != "1 <nil>" {
			t.Errorf("told %q", f)
		}
	})
}

func TestStuckChipCostsItsBudgetAndNothingElse(t *testing.T) {
	sample(t, func(t *testing.T, b *board, notes *book) {
		time.Sleep(12 * time.Second)
		notes.counts()
		b.chips[0].Stick(true)
		time.Sleep(time.Minute)
		if n := notes.counts(); n[0] != 0 || n[1] < 10 || n[2] < 5 {
			t.Errorf("read %v times in a minute, want none of the first, and the others as always", n)
		}
		if f := notes.said(); len(f) != 1 || !strings.Contains(f[0], sensor.ErrBudget.Error()) {
			t.Errorf("told %q", f)
		}
		b.chips[0].Stick(false)
		time.Sleep(time.Minute)
		if n := notes.counts(); n[0] < 4 {
			t.Errorf("read %v times after it was mended", n)
		}
	})
}

func TestHungBusIsToldWhileItHangsAndOtherBusesGoOn(t *testing.T) {
	sample(t, func(t *testing.T, b *board, notes *book) {
		time.Sleep(12 * time.Second)
		notes.counts()
		b.buses["I2C1"].SetFault(0x76, chip.Fault{Hang: 10 * time.Minute})
		time.Sleep(time.Minute)
		if n := notes.counts(); n[0] != 0 || n[2] < 5 {
			t.Errorf("read %v times in a minute, want none of the first, and the last as always", n)
		}
		f := notes.said()
		if len(f) != 2 || !strings.Contains(f[0], "the bus hangs") || !strings.Contains(f[1], "the bus hangs") {
			t.Errorf("told %q, want that both chips of the bus are concerned", f)
		}
		b.buses["I2C1"].SetFault(0x76, chip.Fault{})
		time.Sleep(11 * time.Minute)
		if n := notes.counts(); n[0] == 0 || n[1] == 0 {
			t.Errorf("read %v times after the bus came back", n)
		}
		if f := notes.said(); len(f) != 2 || !strings.Contains(f[0], "<nil>") || !strings.Contains(f[1], "<nil>") {
			t.Errorf("told %q, want that both chips work again", f)
		}
	})
}

func TestSamplerEndsAlthoughABusHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard(t)
		b.buses["I2C1"].SetFault(0x76, chip.Fault{Hang: time.Hour})
		s, err := sensor.NewSampler(specs, b, &book{}, sensor.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Run(ctx); !errors.Is(err, sensor.ErrHung) {
			t.Errorf("got %v, want ErrHung", err)
		}
		time.Sleep(2 * time.Hour) // let the bus come back, so that no goroutine is left
	})
}

func TestSamplerEndsWithItsSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("no room")
		s, err := sensor.NewSampler(specs, newBoard(t), &book{fail: broken}, sensor.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Run(t.Context()); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	})
}

func TestPlansThatCannotBeAreRefused(t *testing.T) {
	for text, specs := range map[string][]sensor.Spec{
		"give one of them a prefix": {{Model: "bme280", Bus: "a"}, {Model: "bme280", Bus: "b"}},
		"two sensors at 0x76":       {{Model: "bme280"}, {Model: "bme280", Prefix: "b/"}},
		"may not stand":             {{Model: "bme280", Prefix: "a b/"}},
		"is not known":              {{Model: "dht11"}},
	} {
		if _, err := sensor.NewSampler(specs, nil, nil, sensor.Options{}); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %q", err, text)
		}
	}
}

func TestSchemaSaysWhatIsMeasuredWhereAndHowOften(t *testing.T) {
	s, err := sensor.NewSampler(specs, nil, nil, sensor.Options{})
	if err != nil {
		t.Fatal(err)
	}
	schema := s.Schema()
	if len(schema.Metrics) != 9 || len(schema.Sets) != 3 {
		t.Fatalf("%d metrics in %d sets", len(schema.Metrics), len(schema.Sets))
	}
	m := schema.Metrics[3]
	if m.Name != "b/temperature" || m.Unit != "Cel" || m.IntervalMS != 5000 || m.Source != "bme280@I2C1/0x77" || m.Alias != 4 || m.Lo != -40 {
		t.Errorf("got %+v", m)
	}
}
