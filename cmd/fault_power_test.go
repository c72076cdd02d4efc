package cmd_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"telemetryhub/storage/storagetest/lossyfs"
)

// newServerAt is newServer on a folder of the test's choice.
func newServerAt(t *testing.T, dir string, args ...string) *server {
	t.Helper()
	s := &server{t: t, dir: dir, addr: freeAddress(t), args: args}
	t.Cleanup(func() {
		if s.cmd != nil {
			s.kill()
		}
		if t.Failed() {
			t.Logf("the hub said:\n%s", tail(s.out.String(), 6000))
		}
	})
	return s
}

// TestPowerCutsLoseAndDoubleNothing cuts the power of the hub's disk after a random number of writes and syncs, again and
// again, in every way a disk may lose what was not synced.
func TestPowerCutsLoseAndDoubleNothing(t *testing.T) {
	r := dice(t)
	disk := newLossyDisk(t)
	s := newServerAt(t, filepath.Join(disk.dir, "data"))
	s.start()
	f := startFleet(t, s, 8)
	admin := s.token("admin")
	var flushes sync.WaitGroup
	lost := 0
	for i := range rounds(20, 200) {
		mode := lossyfs.Modes[i%len(lossyfs.Modes)]
		changes, seed := int64(1+r.IntN(600)), r.Uint64()
		if i%4 == 3 {
			changes = int64(1 + r.IntN(30)) // the power fails again while the hub starts
		}
		disk.do(lossyfs.Order{Do: "fail after", Changes: changes})
		switch i % 4 {
		case 1, 2: // while history is written
			flushes.Go(func() { s.ask(http.MethodPost, "/api/v1/flush", admin, "") })
		case 3:
			s.kill()
			s.launch()
		}
		until(t, "the power cut", func() bool { return disk.do(lossyfs.Order{Do: "state"}).Dead })
		s.kill()
		flushes.Wait()
		lost += disk.do(lossyfs.Order{Do: "restore", Mode: mode, Seed: seed}).Pending
		s.launch()
		s.ready(patience)
		waitForAcks(t, f, f.acked()+50)
		if t.Failed() {
			t.Fatalf("in round %d: mode %s, %d changes, seed %d", i, mode, changes, seed)
		}
	}
	f.stop()
	f.check(t, s)
	s.stop()
	f.checkLog(t, s.dir)
	t.Logf("%d batches acked over %d power cuts, which found %d changes that were not durable", f.acked(), rounds(20, 200), lost)
}

// TestPowerCutDuringTheFirstStart cuts the power at every moment of the first start on an empty disk. The next start works,
// and what it answers for survives the next power cut, names of files and folders included.
func TestPowerCutDuringTheFirstStart(t *testing.T) {
	r := dice(t)
	disk := newLossyDisk(t)
	cuts := 0
	for changes := int64(r.IntN(rounds(4, 1))); ; changes += int64(rounds(4, 1)) {
		mode, seed := lossyfs.Modes[cuts%len(lossyfs.Modes)], r.Uint64()
		s := newServerAt(t, filepath.Join(disk.dir, fmt.Sprint(changes)))
		disk.do(lossyfs.Order{Do: "fail after", Changes: changes})
		s.launch()
		dead := false
		until(t, "the power cut or the start", func() bool {
			dead = disk.do(lossyfs.Order{Do: "state"}).Dead
			return dead || s.ask(http.MethodGet, "/readyz", "", "").code == http.StatusOK
		})
		s.kill()
		disk.do(lossyfs.Order{Do: "restore", Mode: mode, Seed: seed})
		s.launch()
		s.ready(patience)
		admin := s.token("admin")
		s.add("first")
		if a := s.ask(http.MethodPost, "/api/v1/devices/first/readings", admin, `{"level":1}`); a.code != http.StatusNoContent {
			t.Fatalf("after %d changes, mode %s, seed %d: %+v", changes, mode, seed, a)
		}
		s.kill()
		disk.do(lossyfs.Order{Do: "restore", Mode: lossyfs.None})
		s.launch()
		s.ready(patience)
		if a := s.ask(http.MethodGet, "/api/v1/devices/first/readings?format=ndjson", admin, ""); !strings.Contains(a.text, `{"level":1}`) {
			t.Fatalf("after %d changes, mode %s, seed %d: the reading is gone: %+v", changes, mode, seed, a)
		}
		s.kill()
		if !dead {
			t.Logf("%d power cuts, a first start makes less than %d changes", cuts, changes)
			return
		}
		cuts++
	}
}
