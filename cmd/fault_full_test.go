package cmd_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"telemetryhub/device"
	"telemetryhub/device/wire"
)

// newTmpfs mounts a file system of so many bytes until the test ends.
func newTmpfs(t *testing.T, bytes int64) string {
	t.Helper()
	needRoot(t, "mount a small file system")
	dir := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fillUp leaves so many bytes free on the file system of the file, which it makes or lengthens.
func fillUp(t *testing.T, path string, leave int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 64<<10); ; {
		var s unix.Statfs_t
		if err := unix.Fstatfs(int(f.Fd()), &s); err != nil {
			t.Fatal(err)
		}
		n := min(int64(s.Bavail)*s.Bsize-leave, int64(len(chunk)))
		if n <= 0 {
			return
		}
		if _, err := f.Write(chunk[:n]); errors.Is(err, syscall.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// hoarder is a device whose batches are large: a few texts beside the level.
type hoarder struct{ *sensor }

const ballastTexts = 7

func hoarderSchema(t *testing.T) *wire.Index {
	t.Helper()
	level, ballast := device.NewMetric("level"), device.NewMetric("ballast")
	level.Alias, level.Exp, ballast.Alias, ballast.Kind = 1, -3, 2, device.Text
	x, err := wire.NewIndex(&device.Schema{ID: "hoarder-1", Metrics: []device.Metric{level, ballast}})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// ballast is a text that does not compress well, known to the test alone.
func ballast(id string, seq uint64, i int) string {
	r := rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%-20s%10d%2d", id, seq, i))))
	b := make([]byte, device.MaxTextLen/4*3)
	_, _ = r.Read(b) // never fails
	return base64.StdEncoding.EncodeToString(b)
}

func (h *hoarder) frame(seq uint64) []byte {
	b := device.Batch{Seq: seq, BaseMS: oracleTime(seq, 0)}
	for i := range oracleSamples {
		b.Rows = append(b.Rows, device.Row{
			Ref: device.SingleRef(0), TimeMS: oracleTime(seq, i), Values: []device.Value{device.NumberValue(oracleValue(h.id, seq, i))},
		})
	}
	for i := range ballastTexts {
		b.Rows = append(b.Rows, device.Row{
			Ref: device.SingleRef(1), TimeMS: oracleTime(seq, i), Values: []device.Value{device.TextValue(ballast(h.id, seq, i))},
		})
	}
	frame, err := wire.AppendData(nil, wire.CBOR, h.index, &b, 0)
	if err != nil {
		panic(err)
	}
	return frame
}

// run sends until the device is told to stop.
func (h *hoarder) run(addr string) {
	for !h.stopped() {
		if err := h.session(addr); err != nil {
			<-time.After(20 * time.Millisecond) // the back-off of a device
		}
	}
}

func (h *hoarder) session(addr string) error {
	h.mu.Lock()
	acked, sent := h.acked, h.sent
	h.mu.Unlock()
	p, w, err := dial(addr, h.token, wire.Hello{Stream: "oracle", Schema: "hoarder-1", Clock: device.ClockNTP, Have: acked + 1, Next: sent + 1})
	if p == nil {
		return err
	}
	defer p.close()
	h.mu.Lock()
	h.conn = p.conn // end closes it
	h.mu.Unlock()
	if err == nil && w.Schema == wire.SchemaNeed {
		err = p.conn.WriteMessage(2, wire.AppendBirth(nil, wire.CBOR, h.index.Schema()))
	}
	if err == nil {
		h.welcome(w.Ack)
	}
	const window = 6 // less than the hub allows in bytes
	for next := w.Ack + 1; err == nil && !h.stopped(); {
		for ; err == nil && next <= w.Ack+window; next++ {
			h.mu.Lock()
			h.sent = max(h.sent, next)
			h.mu.Unlock()
			err = p.conn.WriteMessage(2, h.frame(next))
		}
		var frame []byte
		if err == nil {
			frame, err = p.nextFor(wire.TypeAck, time.Hour)
		}
		if err == nil {
			var a wire.Ack
			if a, err = wire.DecodeAck(wire.CBOR, frame); err == nil {
				w.Ack = max(w.Ack, a.Seq)
				h.ack(w.Ack)
			}
		}
	}
	return err
}

// addHoarders adds devices with large batches to a fleet.
func (f *fleet) addHoarders(t *testing.T, s *server, n int) {
	t.Helper()
	for i := range n {
		d := newSensor(t, s, fmt.Sprint("hoarder-", i))
		d.index = hoarderSchema(t)
		f.sensors = append(f.sensors, d)
		f.done.Go(func() { (&hoarder{d}).run(s.addr) })
	}
}

// checkBallast compares the texts that the hub gives back.
func (h *hoarder) checkBallast(t *testing.T, s *server) {
	t.Helper()
	body := s.get(s.token("viewer"), fmt.Sprintf("/api/v1/devices/%s/readings?format=ndjson&metric=ballast", h.id))
	defer body.Close()
	n := 0
	for dec := json.NewDecoder(body); ; n++ {
		var row struct {
			T int64
			V map[string]string
		}
		if err := dec.Decode(&row); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seq, i := uint64(n/ballastTexts)+1, n%ballastTexts
		if row.T != oracleTime(seq, i) || row.V["ballast"] != ballast(h.id, seq, i) {
			t.Fatalf("%s: text %d of batch %d is not what was sent: at %d, %.40q", h.id, i, seq, row.T, row.V["ballast"])
		}
	}
	if b := uint64(n / ballastTexts); n%ballastTexts != 0 || b < h.acked || b > h.sent {
		t.Errorf("%s: %d texts, want %d for each of %d to %d batches", h.id, n, ballastTexts, h.acked, h.sent)
	}
}

// TestFullDiskIsAPause fills the disk under a hub while devices send. Nothing is acked then, everything else goes on, also
// after kill -9, and when there is room again so does the rest.
func TestFullDiskIsAPause(t *testing.T) {
	t.Run("at once", func(t *testing.T) { fullDisk(t, 0) })
	if rounds(0, 1) > 0 {
		// More goes into the log in a moment than the history may keep in memory: it is not shown until there is room.
		t.Run("when the log has room that the history lacks", func(t *testing.T) { fullDisk(t, 120<<20) })
	}
}

// fullDisk fills the disk when the log has set aside so many bytes.
func fullDisk(t *testing.T, logBytes int64) {
	dir := newTmpfs(t, 330<<20)
	s := newServerAt(t, filepath.Join(dir, "data"))
	s.start()
	admin, viewer := s.token("admin"), s.token("viewer")
	f := startFleet(t, s, 4)
	f.addHoarders(t, s, 3)
	waitForAcks(t, f, 100)
	until(t, "the log is large enough", func() bool { return s.status(admin).Disk.LogBytes > logBytes })
	filler := filepath.Join(dir, "filler")
	fillUp(t, filler, 1<<20)

	until(t, "the hub notices that there is no room", func() bool { return s.status(admin).Disk.Full })
	fillUp(t, filler, 0)
	f.checkPause(t, s, admin)

	s.kill()
	before := f.welcomes()
	s.launch()
	until(t, "the hub answers", func() bool { return s.ask(http.MethodGet, "/healthz", "", "").code == http.StatusOK })
	until(t, "the hub notices again that there is no room", func() bool { return s.status(admin).Disk.Full })
	until(t, "every device has heard what is stored", func() bool {
		for i, n := range f.welcomes() {
			if n == before[i] {
				return false
			}
		}
		return true
	})
	f.checkPause(t, s, admin)
	f.checkHeld(t, s, viewer, logBytes > 0)

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	waitForAcks(t, f, f.acked()+200)
	until(t, "the hub is ready again", func() bool { return s.ask(http.MethodGet, "/readyz", "", "").code == http.StatusOK })
	s.add("newcomer")
	f.stop()
	f.check(t, s)
	for _, d := range f.sensors[4:] {
		(&hoarder{d}).checkBallast(t, s)
	}
	if a := s.ask(http.MethodPost, "/api/v1/flush", admin, ""); a.code != http.StatusNoContent {
		t.Errorf("flush: %+v", a)
	}
	f.check(t, s)
	s.stop()
	f.checkLog(t, s.dir)
	t.Logf("%d batches acked", f.acked())
}

// checkPause asks a hub on a full disk for everything that must go on.
func (f *fleet) checkPause(t *testing.T, s *server, admin string) {
	t.Helper()
	acked, still := f.acked(), 0
	until(t, "acks that were under way arrive", func() bool {
		now := f.acked()
		if still++; now != acked {
			acked, still = now, 0
		}
		return still > 200 // a second: the machine may be busy
	})
	ready := s.ask(http.MethodGet, "/readyz", "", "")
	if ready.code != http.StatusServiceUnavailable || !strings.Contains(ready.text, "free some space") {
		t.Errorf("readyz: %+v", ready)
	}
	if live := s.ask(http.MethodGet, "/healthz", "", ""); live.code != http.StatusOK {
		t.Errorf("healthz: %+v", live)
	}
	for _, path := range []string{"/api/v1/devices", "/api/v1/latest", "/api/v1/devices/sensor-0", "/api/v1/live/poll?wait=0", "/metrics"} {
		if a := s.ask(http.MethodGet, path, admin, ""); a.code != http.StatusOK && (a.code != http.StatusNotFound || !strings.Contains(path, "poll")) {
			t.Errorf("%s: %d %.200s", path, a.code, a.text)
		}
	}
	in := s.ask(http.MethodPost, "/api/v1/devices/sensor-0/readings", admin, `{"level":1}`)
	if in.code != http.StatusServiceUnavailable || in.retry == "" || !strings.Contains(in.text, "send them again later") {
		t.Errorf("readings by HTTP: %+v", in)
	}
	if flush := s.ask(http.MethodPost, "/api/v1/flush", admin, ""); flush.code != http.StatusServiceUnavailable && flush.code != http.StatusNoContent {
		t.Errorf("flush: %+v", flush)
	}
	if now := f.acked(); now != acked {
		t.Errorf("%d batches were acked on a full disk", now-acked)
	}
}

// checkHeld looks for everything that was acked, while devices may be sending. A hub that is behind must say so.
func (f *fleet) checkHeld(t *testing.T, s *server, viewer string, behind bool) {
	t.Helper()
	for _, d := range f.sensors {
		if behind {
			a := s.ask(http.MethodGet, "/api/v1/devices/"+d.id+"/readings?metric=level", viewer, "")
			if a.code != http.StatusServiceUnavailable || !strings.Contains(a.text, "behind") {
				t.Errorf("%s: %d %.300s", d.id, a.code, a.text)
			}
			continue
		}
		d.mu.Lock()
		acked, sent := d.acked, d.sent
		d.mu.Unlock()
		got := s.points(viewer, d.id, "level")
		if n := uint64(len(got.Points) / oracleSamples); n < acked || n > sent || len(got.Gaps) > 0 {
			t.Errorf("%s: %d batches stored, %d acked, %d sent, gaps %s", d.id, n, acked, sent, got.Gaps)
		}
	}
}
