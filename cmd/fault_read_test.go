package cmd_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"telemetryhub/storage"
	"telemetryhub/storage/storagetest/lossyfs"
)

// alive checks that the hub has not ended and still acks.
func (f *fleet) alive(t *testing.T, s *server) {
	t.Helper()
	select {
	case <-s.done:
		t.Fatalf("the hub ended: %v\n%s", s.err, tail(s.out.String(), 4000))
	default:
	}
	waitForAcks(t, f, f.acked()+20)
	if a := s.ask(http.MethodGet, "/healthz", "", ""); a.code != http.StatusOK {
		t.Errorf("healthz: %+v", a)
	}
}

// aliveUnlessUnsure is alive, but for a hub that ends because nobody could say what became of a write that had begun when the
// fault came.
func (f *fleet) aliveUnlessUnsure(t *testing.T, s *server) {
	t.Helper()
	until := time.Now().Add(patience)
	for want := f.acked() + 20; f.acked() < want && time.Now().Before(until); {
		if s.ended() {
			if s.exited() != exitStorage || !strings.Contains(s.out.String(), storage.ErrUnknown.Error()) {
				t.Fatalf("the hub ended: %v", s.err)
			}
			return
		}
		<-time.After(5 * time.Millisecond)
	}
	f.alive(t, s)
}

// honest asks for the history of a device while something cannot be read: what comes is right, and what does not is told.
func (d *sensor) honest(t *testing.T, s *server, viewer string) (told bool) {
	t.Helper()
	d.mu.Lock()
	acked := d.acked
	d.mu.Unlock()
	a := s.ask(http.MethodGet, "/api/v1/devices/"+d.id+"/readings?format=ndjson", viewer, "")
	if a.cut { // the last line may not be whole
		a.text = a.text[:strings.LastIndexByte(a.text, '\n')+1]
	}
	told = a.code != http.StatusOK || a.cut || strings.Contains(a.text, `"damage`) // readings that cannot be read, or a gap with cause damaged
	if rows := uint64(strings.Count(a.text, `"level"`)); a.code == http.StatusOK && rows < acked*oracleSamples && !told {
		t.Errorf("%s: %d readings of %d batches, and not a word: ...%s", d.id, rows, acked, tail(a.text, 500))
	}
	if a.code == http.StatusOK {
		n := 0
		for line := range strings.Lines(a.text) {
			if strings.Contains(line, `"level"`) && !d.owns(line) {
				t.Fatalf("%s: %s was never sent", d.id, line)
			}
			n++
		}
	}
	return told
}

// TestReadErrorsEndNothing lets reads of some files fail while the hub runs, with the kernel's cache emptied, so that also
// memory that is mapped from them cannot be read.
func TestReadErrorsEndNothing(t *testing.T) {
	for name, file := range map[string]string{
		"log": "data/log/*", "history": "data/history/*", "catalog": "data/catalog.bolt", "everything": "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := newLossyDisk(t)
			s := newServerAt(t, filepath.Join(disk.dir, "data"))
			s.start()
			f := startFleet(t, s, 3)
			admin, viewer := s.token("admin"), s.token("viewer")
			waitForAcks(t, f, 200)
			if a := s.ask(http.MethodPost, "/api/v1/flush", admin, ""); a.code != http.StatusNoContent {
				t.Fatalf("flush: %+v", a)
			}
			waitForAcks(t, f, f.acked()+200)
			disk.fail(lossyfs.Fault{Op: lossyfs.Read, File: file})
			disk.do(lossyfs.Order{Do: "forget"})
			told := 0
			for range 3 {
				for _, d := range f.sensors {
					if d.honest(t, s, viewer) {
						told++
					}
				}
				s.ask(http.MethodGet, "/api/v1/devices", viewer, "")
				s.ask(http.MethodPost, "/api/v1/devices", admin, `{"id":"in-vain"}`)
				s.ask(http.MethodPost, "/api/v1/flush", admin, "")
				disk.do(lossyfs.Order{Do: "forget"})
				<-time.After(10 * time.Millisecond) // let devices send in between
			}
			if hits := disk.do(lossyfs.Order{Do: "state"}).Hits; hits == 0 {
				t.Error("no read failed: the test tested nothing")
			}
			switch name {
			case "history":
				if told == 0 {
					t.Error("the history could not be read, and nobody was told")
				}
				fallthrough
			case "catalog":
				f.aliveUnlessUnsure(t, s) // the log is well
			default:
				if s.ended() && s.exited() != exitStorage { // nobody could say what became of a commit that had begun before
					t.Fatalf("the hub ended: %v", s.err)
				}
			}
			disk.do(lossyfs.Order{Do: "heal"})
			for _, d := range f.sensors {
				d.honest(t, s, viewer)
			}
			s.kill()
			s.launch()
			s.ready(patience)
			f.alive(t, s)
			f.stop()
			f.check(t, s)
			if st := s.status(admin); len(st.Damage) > 0 {
				t.Errorf("damage: %q", st.Damage)
			}
			s.stop()
			f.checkLog(t, s.dir)
			if kept, _ := filepath.Glob(filepath.Join(s.dir, "*", "*damaged*")); len(kept) > 0 {
				t.Errorf("files that were only hard to read were put aside: %s", kept)
			}
		})
	}
}

// TestTruncatedFilesEndNothing cuts a file that the hub has mapped: memory behind its end cannot be touched any more.
func TestTruncatedFilesEndNothing(t *testing.T) {
	for name, pattern := range map[string]string{"history": "history/*.bolt", "log": "log/*.bolt", "log at the end": "log/*.bolt"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			f := startFleet(t, s, 3)
			admin, viewer := s.token("admin"), s.token("viewer")
			waitForAcks(t, f, 500)
			if a := s.ask(http.MethodPost, "/api/v1/flush", admin, ""); a.code != http.StatusNoContent {
				t.Fatalf("flush: %+v", a)
			}
			waitForAcks(t, f, f.acked()+500)
			victims, err := filepath.Glob(filepath.Join(s.dir, pattern))
			if err != nil || len(victims) == 0 {
				t.Fatal(victims, err)
			}
			for _, victim := range victims {
				info, err := os.Stat(victim)
				if err == nil {
					err = os.Truncate(victim, min(info.Size()/2, 64<<10)/4096*4096)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			for range 3 {
				if name == "log at the end" { // before anything of it is in the history
					break
				}
				for _, d := range f.sensors {
					d.honest(t, s, viewer)
				}
				s.ask(http.MethodPost, "/api/v1/flush", admin, "")
			}
			if name == "history" {
				f.aliveUnlessUnsure(t, s)
			}
			var last hubStatus
			if a := s.ask(http.MethodGet, "/api/v1/status", admin, ""); a.code == http.StatusOK && !a.cut {
				if err := json.Unmarshal([]byte(a.text), &last); err != nil {
					t.Fatal(err)
				}
			} else if s.exited() != exitStorage { // nobody could say what became of a commit to a file that was cut
				t.Fatalf("the hub ended: %v", s.err)
			}
			found := last.Damage
			s.kill()
			s.launch()
			s.ready(patience)
			f.alive(t, s)
			if found = append(found, s.status(admin).Damage...); len(found) == 0 {
				t.Error("nothing is reported as damaged")
			}
			for _, d := range f.sensors {
				d.honest(t, s, viewer)
			}
			f.stop()
		})
	}
}
