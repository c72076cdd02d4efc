package cmd_test

import (
	"errors"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"telemetryhub/storage/storagetest/lossyfs"
)

// exitStorage is the documented exit code after the disk has failed while writing.
const exitStorage = 12

// ended reports whether the hub has ended.
func (s *server) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// exited waits for the hub to end by itself and returns its exit code.
func (s *server) exited() int {
	s.t.Helper()
	select {
	case <-s.done:
	case <-time.After(patience):
		s.t.Fatalf("the hub did not end in %v\n%s", patience, tail(s.out.String(), 4000))
	}
	var exit *exec.ExitError
	if errors.As(s.err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

// TestFailedSyncIsNeverAcked lets one sync of the log fail, before the data of a commit is durable and before its meta page
// is, with and without the data on the disk afterwards. The hub ends; the next one finds out what is there.
func TestFailedSyncIsNeverAcked(t *testing.T) {
	cases := map[string]lossyfs.Fault{
		"data pages, lost": {Op: lossyfs.SyncData, Lost: true},
		"data pages, kept": {Op: lossyfs.SyncData},
		"meta page, lost":  {Op: lossyfs.SyncMeta, Lost: true},
		"meta page, kept":  {Op: lossyfs.SyncMeta},
	}
	for name, fault := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := dice(t)
			disk := newLossyDisk(t)
			s := newServerAt(t, filepath.Join(disk.dir, "data"))
			s.start()
			f := startFleet(t, s, 2)
			f.addHoarders(t, s, 2) // their groups have pages that no later commit writes again
			for range rounds(3, 50) {
				waitForAcks(t, f, f.acked()+50)
				fault.File, fault.Times, fault.Skip = "data/log/*.bolt", 1, r.IntN(50)
				disk.fail(fault)
				if code := s.exited(); code != exitStorage {
					t.Fatalf("exit code %d, want %d", code, exitStorage)
				}
				if disk.do(lossyfs.Order{Do: "heal"}).Hits != 1 {
					t.Fatal("the fault did not happen")
				}
				s.launch()
				s.ready(patience)
				waitForAcks(t, f, f.acked()+50)
				s.kill()
				disk.do(lossyfs.Order{Do: "forget"}) // what is only in the cache is gone
				s.launch()
				s.ready(patience)
			}
			waitForAcks(t, f, f.acked()+50)
			f.stop()
			f.check(t, s)
			s.stop()
			f.checkLog(t, s.dir)
		})
	}
}

// TestDiskThatFailsForGoodIsReadOnly lets every write or sync of some files fail from a moment on. The hub ends with its own
// exit code; started again it stays up, shows everything that was acked and takes nothing; when the disk is well again,
// the next start goes on.
func TestDiskThatFailsForGoodIsReadOnly(t *testing.T) {
	newDevice := func(s *server, admin string) { s.ask(http.MethodPost, "/api/v1/devices", admin, `{"id":"straw"}`) }
	flush := func(s *server, admin string) { s.ask(http.MethodPost, "/api/v1/flush", admin, "") }
	cases := map[string]struct {
		faults  []lossyfs.Fault
		trigger func(s *server, admin string)
	}{
		"syncs of the log":           {[]lossyfs.Fault{{Op: lossyfs.Sync, File: "data/log/*", Lost: true}}, nil},
		"writes of the log":          {[]lossyfs.Fault{{Op: lossyfs.Write, File: "data/log/*"}}, nil},
		"syncs of the catalog":       {[]lossyfs.Fault{{Op: lossyfs.Sync, File: "data/catalog.bolt", Lost: true}}, newDevice},
		"syncs of history files":     {[]lossyfs.Fault{{Op: lossyfs.Sync, File: "data/history/*", Lost: true}}, flush},
		"syncs of new history files": {[]lossyfs.Fault{{Op: lossyfs.Sync, File: "data/history/*", Lost: true}}, flush},
		"every write":                {[]lossyfs.Fault{{Op: lossyfs.Write}, {Op: lossyfs.Sync, Lost: true}}, nil},
		"writes of a read-only fs":   {[]lossyfs.Fault{{Op: lossyfs.Write, Errno: syscall.EROFS}, {Op: lossyfs.Sync, Errno: syscall.EROFS}}, nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := newLossyDisk(t)
			s := newServerAt(t, filepath.Join(disk.dir, "data"))
			s.start()
			f := startFleet(t, s, 3)
			admin, viewer := s.token("admin"), s.token("viewer")
			waitForAcks(t, f, 100)
			if name == "syncs of history files" { // there is one already
				flush(s, admin)
			}
			for _, fault := range tc.faults {
				disk.fail(fault)
			}
			if tc.trigger != nil {
				tc.trigger(s, admin)
			}
			stays := false
			if strings.Contains(name, "read-only") { // unless a commit wrote before and syncs after: nobody knows what became of it
				until(t, "the hub says that it is read-only, or ends", func() bool {
					stays = s.ask(http.MethodGet, "/readyz", "", "").code == http.StatusServiceUnavailable
					return stays || s.ended()
				})
			}
			if stays && !s.ended() {
				s.kill()
			} else if code := s.exited(); code != exitStorage {
				t.Fatalf("exit code %d, want %d", code, exitStorage)
			}
			s.launch()
			until(t, "the hub answers", func() bool {
				if s.ended() {
					t.Fatalf("the hub ended with exit code %d: the service manager would start it for ever", s.exited())
				}
				return s.ask(http.MethodGet, "/healthz", "", "").code == http.StatusOK
			})
			if a := s.ask(http.MethodGet, "/readyz", "", ""); a.code != http.StatusServiceUnavailable || !strings.Contains(a.text, "read-only") {
				t.Errorf("readyz: %+v", a)
			}
			if a := s.ask(http.MethodPost, "/api/v1/devices/sensor-0/readings", admin, `{"level":1}`); a.code != http.StatusServiceUnavailable || a.retry == "" {
				t.Errorf("readings by HTTP: %+v", a)
			}
			if a := s.ask(http.MethodGet, "/api/v1/latest", viewer, ""); a.code != http.StatusOK || !strings.Contains(a.text, "sensor-0") {
				t.Errorf("latest: %d %.300s", a.code, a.text)
			}
			if st := s.status(admin); !st.Disk.ReadOnly || st.Ready {
				t.Errorf("status: %+v", st)
			}
			acked := f.acked()
			f.checkHeld(t, s, viewer, false)
			if now := f.acked(); now != acked {
				t.Errorf("%d batches were acked", now-acked)
			}
			if s.ended() {
				t.Error("the hub ended")
			}
			disk.do(lossyfs.Order{Do: "heal"})
			s.stop()
			s.launch()
			s.ready(patience)
			waitForAcks(t, f, acked+100)
			f.stop()
			f.check(t, s)
			s.stop()
			f.checkLog(t, s.dir)
		})
	}
}
