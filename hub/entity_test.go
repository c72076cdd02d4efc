package hub_test

import (
	"errors"
	"maps"
	"strings"
	"testing"

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
