package spool_test

import (
	"fmt"
	"testing"

	"telemetryhub/device/spool"
)

// More contexts than the spool keeps in memory are declared while records are read.
func TestRecordsKeepTheirContextWhileOthersAreDeclared(t *testing.T) {
	s := open(t, newDisk(), small)
	mustAdd(t, s, 1, 300)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan error)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if err := s.SetContext(fmt.Appendf(nil, "another %d", i)); err != nil {
				stopped <- err
				return
			}
		}
	}()
	var err error
	for range 100 {
		out := s.Outgoing()
		var r *spool.Reader
		if r, err = s.Resume(out.Stream, 0); err != nil {
			break
		}
		h := newHub()
		for err == nil {
			rec, ok, e := r.Next()
			if err = e; !ok || err != nil {
				break
			}
			err = h.take(out.Stream, rec)
		}
		r.Close()
		if err != nil {
			break
		}
		if n := len(h.bodies()); n != 300 {
			t.Errorf("%d records came, want 300: %+v", n, h.gaps)
			break
		}
	}
	close(stop)
	if e := <-stopped; e != nil || err != nil {
		t.Error(err, e)
	}
}
