package sio

import (
	"fmt"
	"testing"

	"telemetryhub/device"
)

func TestTheRosterIsBounded(t *testing.T) {
	r := newRoster()
	apply := func(format string, args ...any) {
		t.Helper()
		if err := r.apply(fmt.Appendf(nil, `{"devices":[`+format+`]}`, args...)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 1000 {
		apply(`{"id":"one","n":%d}`, i)
	}
	for i := range 2 * maxGone {
		apply(`{"id":"d%d","gone":true}`, i)
	}
	for i := range 10 * maxGone {
		apply(`{"id":"one","n":%d}`, i)
	}
	if len(r.byID) > maxGone+1 || len(r.log) > 2*maxGone+100 {
		t.Errorf("%d devices and %d changes are remembered", len(r.byID), len(r.log))
	}
	var seen uint64
	n, last := 0, ""
	for {
		packet, ok := r.next(nil, &seen, func(device.ID) bool { return true })
		if !ok {
			break
		}
		n, last = n+1, string(packet)
	}
	if n != len(r.byID) || last != fmt.Sprintf(`2["device",{"id":"one","n":%d}]`, 10*maxGone-1) {
		t.Errorf("%d changes were told, of them last %s", n, last)
	}
	if err := r.apply([]byte("no frame")); err == nil {
		t.Error("what is no frame was taken")
	}
}
