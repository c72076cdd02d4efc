package hub_test

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
)

func TestRefusedChangeOfADeviceChangesNothing(t *testing.T) {
	r := newRig(t, hub.Options{})
	labels := map[string]string{"room": "1"}
	if _, err := r.hub.AddDevice(t.Context(), "a", hub.DeviceAttrs{Labels: labels}); err != nil {
		t.Fatal(err)
	}
	var bad *hub.BadInput
	_, err := r.hub.UpdateDevice(t.Context(), "a", hub.DevicePatch{Labels: map[string]string{"note": strings.Repeat("x", 1000)}})
	if !errors.As(err, &bad) {
		t.Fatalf("got %v, want *BadInput", err)
	}
	info, err := r.hub.Device(t.Context(), "a")
	if err != nil || !maps.Equal(info.Labels, map[string]string{"room": "1"}) {
		t.Errorf("labels %.100v, %v", info.Labels, err)
	}
}

func TestReadingsByHandOfWhichNoneStandsLeaveAGap(t *testing.T) {
	r := newRig(t, hub.Options{})
	r.add("a")
	res, err := r.hub.Ingest(t.Context(), "a", wire.JSON, []byte(`{"t":1766000000000,"v":{"out side":1,"cmd/x":2}}`))
	if err != nil || res.Stored != 0 || len(res.Bad) != 2 {
		t.Fatalf("%+v, %v", res, err)
	}
	gaps, err := r.hub.Gaps(t.Context(), "a", 0, 1<<53)
	if err != nil || len(gaps) != 1 || gaps[0].Cause != device.CauseRefused || gaps[0].Count != 2 {
		t.Errorf("gaps %+v, %v, want one of two refused readings", gaps, err)
	}
}
