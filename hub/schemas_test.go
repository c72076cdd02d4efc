package hub

import (
	"errors"
	"fmt"
	"testing"

	"telemetryhub/device"
)

// TestBirthsOfADeviceAreBoundedTogether declares large schemas that differ in nothing but where a metric comes from.
func TestBirthsOfADeviceAreBoundedTogether(t *testing.T) {
	h, e := still(t)
	e.mu.Lock()
	defer e.mu.Unlock()
	b, err := e.bookLocked(t.Context(), h.registry)
	if err != nil {
		t.Fatal(err)
	}
	s := device.Schema{ID: "s"}
	for i := range device.MaxMetrics {
		m := device.NewMetric(fmt.Sprintf("m%d", i))
		m.Alias = uint16(i + 1)
		s.Metrics = append(s.Metrics, m)
	}
	for i := range 4 {
		if i == 2 {
			if want := 2 * len(s.Metrics); b.described != want {
				t.Fatalf("%d descriptions of metrics counted, want %d", b.described, want)
			}
			b.described = maxDescribed - len(s.Metrics) - 1 // as after hundreds more
		}
		s.Metrics[0].Source = fmt.Sprint(i)
		_, err := e.registerLocked(t.Context(), h.registry, &s)
		var bad *BadInput
		if refused := errors.As(err, &bad) && bad.Code == "schemas"; refused != (i == 3) {
			t.Errorf("birth %d: %v", i, err)
		}
	}
}
