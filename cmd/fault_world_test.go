package cmd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/hub/access"
	"telemetryhub/storage"
	"telemetryhub/storage/bolt"
	"telemetryhub/storage/history"
)

// world is a data folder with a past, and everything that a hub on it must know.
type world struct {
	devices         []*citizen
	gone            device.ID // was deleted
	revoked         access.Secret
	crashed, closed map[string][]byte // the files as a crash and as an orderly end leave them
}

// citizen is a device of the world.
type citizen struct {
	id    device.ID
	token access.Secret
	index *wire.Index
	want  map[fact]device.Value
	when  map[fact][2]int64 // arrival, between these
	last  uint64            // batch that was acked
}

// fact is one reading.
type fact struct {
	ms     int64
	metric string
}

func worldSchema() *device.Schema {
	level, word, t, h := device.NewMetric("level"), device.NewMetric("word"), device.NewMetric("t"), device.NewMetric("h")
	level.Alias, level.Exp, word.Alias, word.Kind, t.Alias, t.Exp, h.Alias = 1, -3, 2, device.Text, 3, -3, 4
	return &device.Schema{ID: "world-1", Metrics: []device.Metric{level, word, t, h}, Sets: []device.Set{{Index: 1, Metrics: []int{2, 3}}}}
}

// batch returns batch seq of a device: it has numbers, texts of many lengths and sets, over a few days in all.
func (c *citizen) batch(seq uint64) device.Batch {
	at := int64(oracleStart) + int64(seq)*3_600_000
	b := device.Batch{Seq: seq, BaseMS: at}
	value := func(i int) device.Value { return device.NumberValue(oracleValue(string(c.id), seq, i)) }
	text := ballast(string(c.id), seq, 0)
	for i := range 2 {
		ms := at + int64(i)
		b.Rows = append(b.Rows,
			device.Row{Ref: device.SetRef(0), TimeMS: ms, Values: []device.Value{value(2 * i), value(2*i + 1)}},
			device.Row{Ref: device.SingleRef(0), TimeMS: ms, Values: []device.Value{value(4 + i)}},
			device.Row{Ref: device.SingleRef(1), TimeMS: ms, Values: []device.Value{device.TextValue(text[:1<<(seq%13)])}})
	}
	return b
}

// note remembers that a batch was acked.
func (c *citizen) note(seq uint64, from, to int64) {
	b := c.batch(seq)
	s := c.index.Schema()
	for _, row := range b.Rows {
		for i, v := range row.Values {
			f := fact{row.TimeMS, s.Column(row.Ref, i).Name}
			c.want[f], c.when[f] = v, [2]int64{from, to}
		}
	}
	c.last = max(c.last, seq)
}

// copy returns a citizen that can get older on its own.
func (c *citizen) copy() *citizen {
	d := *c
	d.want, d.when = make(map[fact]device.Value, len(c.want)), make(map[fact][2]int64, len(c.want))
	for f, v := range c.want {
		d.want[f], d.when[f] = v, c.when[f]
	}
	return &d
}

// town is a hub in this process.
type town struct {
	closers []io.Closer
	damage  []func() []bolt.Damage
	people  *access.Registry
	hub     *hub.Hub
	stop    context.CancelFunc
	ended   chan error
}

// openTown opens a data folder as hub serve does, with smaller files.
func openTown(ctx context.Context, dir string) (_ *town, err error) {
	w := &town{}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	var st hub.Stores
	catalog, err := bolt.OpenCatalog(filepath.Join(dir, "catalog.bolt"), bolt.CatalogOptions{})
	if err != nil {
		return nil, fmt.Errorf("open the catalog: %w", err)
	}
	st.Catalog, w.closers, w.damage = catalog, append(w.closers, catalog), append(w.damage, catalog.Damage)
	chunks, err := bolt.OpenChunks(filepath.Join(dir, "history"), bolt.ChunksOptions{})
	if err != nil {
		return nil, fmt.Errorf("open the history: %w", err)
	}
	st.Chunks, w.closers, w.damage = chunks, append(w.closers, chunks), append(w.damage, chunks.Damage)
	log, err := bolt.OpenLog(filepath.Join(dir, "log"), bolt.LogOptions{SegmentBytes: 160 << 10, FreeBytes: -1})
	if err != nil {
		return nil, err
	}
	st.Log, w.closers, w.damage = log, append(w.closers, log), append(w.damage, log.Damage)
	if w.people, err = access.Open(ctx, st.Catalog, access.Options{}); err != nil {
		return nil, fmt.Errorf("open the list of tokens and people: %w", err)
	}
	if w.hub, err = hub.Open(ctx, st, hub.Options{CommitInterval: time.Nanosecond}); err != nil {
		return nil, fmt.Errorf("open the hub: %w", err)
	}
	running, stop := context.WithCancel(ctx)
	w.stop, w.ended = stop, make(chan error, 1)
	go func() { w.ended <- w.hub.Run(running) }()
	return w, nil
}

// close ends the hub in order.
func (w *town) close() (err error) {
	if w.stop != nil {
		w.stop()
		err = <-w.ended
	}
	for i := len(w.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, w.closers[i].Close())
	}
	return err
}

// reported lists what the stores have found damaged.
func (w *town) reported() (lines []string) {
	for _, damage := range w.damage {
		for _, d := range damage() {
			lines = append(lines, d.String())
		}
	}
	return lines
}

// wire is one connection of a citizen.
type inMemory struct {
	wake chan struct{}
	gone chan wire.CloseCode
}

func (p *inMemory) Wake() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *inMemory) Close(code wire.CloseCode, _ string) {
	select {
	case p.gone <- code:
	default:
	}
}

// deliver sends the batches after the last one up to seq and returns when they are acked.
func (c *citizen) deliver(ctx context.Context, w *town, to uint64) error {
	p := &inMemory{make(chan struct{}, 1), make(chan wire.CloseCode, 1)}
	s, err := w.hub.Connect(ctx, c.id, p, hub.ConnectOptions{Format: wire.CBOR})
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer s.End()
	receive := func(frame []byte) {
		if err == nil {
			err = s.Receive(ctx, wire.CBOR, frame)
		}
	}
	from := time.Now().UnixMilli()
	receive(wire.AppendHello(nil, wire.CBOR, &wire.Hello{Stream: "life", Schema: "world-1", Clock: device.ClockNTP, Have: c.last + 1, Next: to + 1}))
	if err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	frame, _, ok := s.Next(nil)
	if !ok {
		return errors.New("no welcome")
	}
	hello, err := wire.DecodeWelcome(wire.CBOR, frame)
	if err != nil {
		return err
	}
	if hello.Ack > c.last {
		return fmt.Errorf("the hub acknowledges %d, but only %d were ever sent: new batches would be taken for old", hello.Ack, c.last)
	}
	if hello.Schema == wire.SchemaNeed {
		receive(wire.AppendBirth(nil, wire.CBOR, c.index.Schema()))
	}
	for seq := c.last + 1; seq <= to && err == nil; seq++ {
		b := c.batch(seq)
		var data []byte
		if data, err = wire.AppendData(nil, wire.CBOR, c.index, &b, 0); err == nil {
			receive(data)
		}
	}
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if err := p.acked(s, to); err != nil {
		return err
	}
	for seq := c.last + 1; seq <= to; seq++ {
		c.note(seq, from, time.Now().UnixMilli())
	}
	return nil
}

func (p *inMemory) acked(s *hub.Session, seq uint64) error {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		frame, _, ok := s.Next(nil)
		if ok {
			if a, err := wire.DecodeAck(wire.CBOR, frame); err == nil && a.Seq >= seq {
				return nil
			}
			continue
		}
		select {
		case <-p.wake:
		case code := <-p.gone:
			return fmt.Errorf("closed: %v", code)
		case <-timeout.C:
			return fmt.Errorf("batch %d was not acked in %v", seq, patience)
		}
	}
}

// buildWorld gives a folder a past: devices with batches in history files, in the log, and in both, one that was deleted, many
// that never sent anything, tokens, one of them revoked.
func buildWorld(t *testing.T, dir string) *world {
	t.Helper()
	ctx := t.Context()
	w, err := openTown(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	out := &world{gone: "gone-1"}
	for i := range 60 {
		_, err := w.hub.AddDevice(ctx, device.ID(fmt.Sprintf("silent-%03d", i)), hub.DeviceAttrs{})
		must(err)
	}
	for i := range 6 {
		c := &citizen{id: device.ID(fmt.Sprint("citizen-", i)), want: map[fact]device.Value{}, when: map[fact][2]int64{}}
		if i == 5 {
			c.id = out.gone
		}
		_, err := w.hub.AddDevice(ctx, c.id, hub.DeviceAttrs{})
		must(err)
		token, err := w.people.CreateDeviceToken(ctx, access.Local(), c.id, access.TokenSpec{})
		must(err)
		c.token = token.Secret
		c.index, err = wire.NewIndex(worldSchema())
		must(err)
		out.devices = append(out.devices, c)
	}
	token, err := w.people.CreateToken(ctx, access.Local(), access.TokenSpec{Role: access.Admin})
	must(err)
	out.revoked = token.Secret
	must(w.people.RevokeToken(ctx, access.Local(), token.ID))
	for round := range uint64(6) {
		for _, c := range out.devices {
			for range 5 {
				must(c.deliver(ctx, w, c.last+2))
			}
		}
		if round == 1 || round == 3 {
			must(w.hub.FlushHistory(ctx))
		}
		if round == 2 {
			must(w.hub.DeleteDevice(ctx, out.gone))
			out.devices = out.devices[:5]
		}
	}
	out.crashed = readTree(t, dir)
	must(w.close())
	out.closed = readTree(t, dir)
	return out
}

// readTree reads the database files under a folder. What was set aside and never written is left out.
func readTree(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	image := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".bolt") {
			return err
		}
		b, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path) // path begins with dir
		image[filepath.ToSlash(name)] = b
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// verdict says what became of a data folder with a turned bit.
type verdict struct {
	outcome  string
	problems []string
}

// examine opens the folder, reads everything, lets the devices go on, and does it again after a restart.
func (x *world) examine(t *testing.T, dir string) (v verdict) {
	defer func() {
		if r := recover(); r != nil {
			v.problems = append(v.problems, fmt.Sprintf("panic: %v", r))
		}
	}()
	v.outcome = "harmless"
	devices := make([]*citizen, len(x.devices))
	for i, c := range x.devices {
		devices[i] = c.copy()
	}
	var reported []string
	for round := range 2 {
		w, err := openTown(context.WithoutCancel(t.Context()), dir)
		if err != nil {
			v.outcome = "refused"
			v.problems = append(v.problems, fmt.Sprintf("round %d: the hub does not start: %v", round, err))
			return v
		}
		e := &examiner{t: t, town: w, round: round, earlier: reported}
		for _, c := range devices {
			e.look(c)
		}
		e.identities(x, devices)
		for _, c := range devices {
			if err := c.deliver(context.WithoutCancel(t.Context()), w, c.last+2); err != nil && !errors.Is(err, hub.ErrUnknownDevice) {
				e.problem("%s cannot go on: %v", c.id, err)
			}
		}
		for _, c := range devices {
			e.look(c)
		}
		reported = append(reported, w.reported()...)
		if err := w.close(); err != nil {
			e.problem("close: %v", err)
		}
		v.problems = append(v.problems, e.problems...)
		switch {
		case e.lost > 0:
			v.outcome = "lost and told"
		case len(reported) > 0 && v.outcome == "harmless":
			v.outcome = "reported, nothing lost"
		}
	}
	return v
}

// examiner looks at one hub.
type examiner struct {
	t        *testing.T
	town     *town
	round    int
	earlier  []string // what was reported before the last start
	lost     int
	problems []string
}

func (e *examiner) problem(format string, args ...any) {
	e.problems = append(e.problems, fmt.Sprintf("round %d: ", e.round)+fmt.Sprintf(format, args...)+
		fmt.Sprintf(" [reported: %s]", strings.Join(e.town.reported(), "; ")))
}

// look compares everything that a device has sent with what comes back. Answers are asked for twice: the first may make the
// store find and mend damage.
func (e *examiner) look(c *citizen) {
	ctx := context.WithoutCancel(e.t.Context())
	missing := make(map[fact]bool, len(c.want))
	for f := range c.want {
		missing[f] = true
	}
	nameless := false
	var info hub.HistoryInfo
	rerr := e.town.hub.Readings(ctx, hub.HistoryQuery{Device: c.id, FromMS: math.MinInt64, ToMS: math.MaxInt64}, &info, func(r hub.Reading) bool {
		f := fact{r.TimeMS, r.Metric.Name}
		if r.Metric.Name == "unknown" {
			nameless = true
			return true
		}
		if want, ok := c.want[f]; !ok || !want.Equal(r.Value) {
			e.problem("%s: %s at %d is %v, want %v (%v)", c.id, f.metric, f.ms, r.Value, want, ok)
			return false
		}
		if !missing[f] {
			e.problem("%s: %s at %d comes twice", c.id, f.metric, f.ms)
			return false
		}
		delete(missing, f)
		return true
	})
	told := append(e.town.reported(), e.earlier...)
	gaps, gerr := e.town.hub.Gaps(ctx, c.id, math.MinInt64, math.MaxInt64)
	var damage *history.DamageError
	for _, err := range []error{rerr, gerr} {
		if errors.As(err, &damage) {
			gaps = append(gaps, damage.Gaps...)
		} else if err != nil && !errors.Is(err, storage.ErrCorrupt) && (!errors.Is(err, hub.ErrUnknownDevice) || len(told) == 0) {
			e.problem("%s: %v", c.id, err)
		}
	}
	whole := errors.Is(rerr, hub.ErrUnknownDevice) || errors.Is(rerr, storage.ErrCorrupt) && damage == nil || nameless && len(told) > 0
	for f := range missing {
		e.lost++
		if !whole && !covered(gaps, f.ms, f.ms) && !covered(gaps, c.when[f][0], c.when[f][1]) {
			e.problem("%s: %s at %d (and %d more) is missing, and no gap says so: gaps %+v, %v", c.id, f.metric, f.ms, len(missing)-1, gaps, rerr)
			return
		}
	}
}

func covered(gaps []history.Gap, from, to int64) bool {
	for _, g := range gaps {
		if g.FromMS <= to && from <= g.ToMS {
			return true
		}
	}
	return false
}

// identities checks who is let in.
func (e *examiner) identities(x *world, devices []*citizen) {
	told := append(e.town.reported(), e.earlier...)
	for _, c := range devices {
		id, err := e.town.people.Authenticate(c.token.Reveal())
		if err == nil && string(id.Device) != string(c.id) {
			e.problem("the token of %s is good for %s", c.id, id.Device)
		} else if err != nil && len(told) == 0 {
			e.problem("the token of %s is gone without a word: %v", c.id, err)
		}
	}
	if _, err := e.town.people.Authenticate(x.revoked.Reveal()); err == nil {
		e.problem("a revoked token is good again")
	}
	ctx := context.WithoutCancel(e.t.Context())
	if _, err := e.town.hub.Device(ctx, x.gone); err == nil {
		e.problem("the deleted device is back")
	}
	if n := len(e.town.hub.Devices(ctx)); n != 65 && len(told) == 0 {
		e.problem("there are %d devices, want 65", n)
	}
}
