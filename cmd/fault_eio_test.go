package cmd_test

import (
	"errors"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"telemetryhub/storage/storagetest/lossyfs"
)

// exitStorage is the documented exit code after the disk has failed while writing.
const exitStorage = 12

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
			f := startFleet(t, s, 4)
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
