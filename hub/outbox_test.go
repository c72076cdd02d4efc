package hub_test

import (
	"fmt"
	"strings"
	"testing"

	"telemetryhub/hub"
	"telemetryhub/storage/bolt"
)

// TestCursorGivesUpFilesOfTheLogWhenItIsFull is TestCursorNeverMakesIngestPause with files.
func TestCursorGivesUpFilesOfTheLogWhenItIsFull(t *testing.T) {
	r := newRig(t, hub.Options{TailBytes: 1})
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	const segment = 256 << 10
	log, err := bolt.OpenLog(t.TempDir(), bolt.LogOptions{SegmentBytes: segment, MaxBytes: 4 * (segment + 2<<20)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { // before the log is closed
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		r.stop = nil
	})
	r.stores.Log = log
	r.start()
	r.add("a")
	c := r.cursor("mqtt")
	text := strings.Repeat("x", 4000)
	const n = 300
	for i := 1; i <= n; i++ { // 18 MB
		var body strings.Builder
		for j := range 15 {
			fmt.Fprintf(&body, `,{"n":"t%d","vs":%q}`, j, text)
		}
		r.ingest("a", "["+body.String()[1:]+"]")
		if i%20 == 0 {
			if err := r.hub.FlushHistory(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	st := r.cursorStatus("mqtt")
	if s := st.Skipped; s.Ranges == 0 || s.Last.Cause != hub.SkipFull || s.Last.To != log.First() || s.Groups+st.LagGroups != n {
		t.Fatalf("got %+v", st)
	}
	got, pos := rest(t, r, c)
	if len(got) != 15*int(st.LagGroups) || len(got) < 15*20 {
		t.Errorf("got %d readings of %d groups", len(got), st.LagGroups)
	}
	if err := c.Commit(t.Context(), pos); err != nil {
		t.Fatal(err)
	}
	if err := r.hub.FlushHistory(t.Context()); err != nil {
		t.Fatal(err)
	}
	if size := log.Size(); size > 3*(segment+2<<20) {
		t.Errorf("the log still takes %d bytes", size)
	}
}
