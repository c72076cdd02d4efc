package hub_test

import (
	"bytes"
	"fmt"
	"testing"

	"telemetryhub/device"
	"telemetryhub/hub"
)

// squeeze packs frames of at least so many bytes: between the token and its length it turns them around.
type squeeze struct{ least int }

func (s squeeze) Pack(dst, frame []byte, resume string) ([]byte, bool) {
	dst = append(append(dst, resume...), ' ')
	for i := len(frame) - 1; i >= 0; i-- {
		dst = append(dst, frame[i])
	}
	return fmt.Append(dst, " ", len(frame)), len(frame) >= s.least
}

// unsqueeze is the other way round.
func (x *witness) unsqueeze(packed []byte, token string) []byte {
	x.w.t.Helper()
	rest, ok := bytes.CutPrefix(packed, []byte(token+" "))
	end := bytes.LastIndexByte(rest, ' ')
	if !ok || end < 0 || string(rest[end:]) != fmt.Sprint(" ", end) || x.sub.Packing == nil {
		x.fail("packed after %q: %.200q", token, packed)
	}
	frame := make([]byte, end)
	for i := range frame {
		frame[i] = rest[end-1-i]
	}
	return frame
}

// tally packs all frames to what they are, and counts how often it is asked.
type tally struct{ calls *int }

func (c tally) Pack(dst, frame []byte, _ string) ([]byte, bool) {
	*c.calls++
	return append(dst, frame...), true
}

func TestFrameIsPackedOnceForAllWhoSeeTheSame(t *testing.T) {
	for mode, kind := range map[hub.Mode]string{hub.All: "readings", hub.Latest: "changes"} {
		r := newRig(t, hub.Options{})
		r.add("d")
		calls := 0
		var viewers []*hub.Viewer
		var peers []*peer
		for i := range 6 {
			s := hub.Subscription{Mode: mode, Tick: -1, Packing: tally{&calls}}
			if i == 5 {
				s.Scope = func(device.ID) bool { return true }
			}
			p := newPeer()
			v, err := r.hub.Subscribe(t.Context(), s, p)
			if err != nil {
				t.Fatal(err)
			}
			for ok := true; ok; {
				_, _, _, ok = v.NextPacked(nil)
			}
			viewers, peers = append(viewers, v), append(peers, p)
		}
		before := calls
		r.ingest("d", `{"temperature":21}`)
		for i, v := range viewers {
			var got []byte
			for got == nil {
				<-peers[i].wake
				if frame, _, packed, ok := v.NextPacked(nil); ok {
					if got = frame; !packed || !bytes.HasPrefix(got, []byte(`{"type":"`+kind+`"`)) {
						t.Errorf("mode %d: viewer %d got %s, packed %t", mode, i, got, packed)
					}
				}
			}
			v.End()
		}
		if n := calls - before; n != 2 {
			t.Errorf("mode %d: a frame for five viewers and one with a scope was packed %d times, want twice", mode, n)
		}
	}
}
