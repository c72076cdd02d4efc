package hub

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"telemetryhub/device"
)

// TestViewerSeesTheNewestOfAllVersions gives the versions of a few metrics readings at random times.
func TestViewerSeesTheNewestOfAllVersions(t *testing.T) {
	h, e := still(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	schema := &device.Schema{}
	for i := range 40 {
		schema.Metrics = append(schema.Metrics, device.Metric{Num: uint32(i + 1), Name: fmt.Sprintf("m%d", i%7)})
	}
	for _, i := range rnd.Perm(40) {
		for range 1 + rnd.IntN(3) {
			row := device.Row{Ref: device.SingleRef(i), TimeMS: device.EarliestMS + rnd.Int64N(50), Values: []device.Value{device.NumberValue(float64(i))}}
			h.live.state(e, schema, []device.Row{row}, device.EarliestMS)
		}
	}
	want := map[string]int{} // place of the newest version with the newest reading
	for i := range schema.Metrics {
		name := schema.Metrics[i].Name
		if old, ok := want[name]; !ok || e.live.cells[i].timeMS >= e.live.cells[old].timeMS {
			want[name] = i
		}
	}
	v, err := h.Subscribe(t.Context(), Subscription{Tick: -1}, newDeaf())
	if err != nil {
		t.Fatal(err)
	}
	defer v.End()
	f, _, _ := v.Next(nil)
	for name, i := range want {
		if text := fmt.Sprintf(`"%s":{"t":%d,"v":%d}`, name, e.live.cells[i].timeMS, i); !strings.Contains(string(f), text) || strings.Count(string(f), `"`+name+`"`) != 1 {
			t.Errorf("no %s, or not alone, in %s", text, f)
		}
	}
}

// TestSnapshotCostsByTheNumberOfMetrics compares a device with a few versions of metrics to one with as many as it may have.
func TestSnapshotCostsByTheNumberOfMetrics(t *testing.T) {
	cost := func(n int) time.Duration {
		h, e := still(t)
		for i := range n {
			m := &device.Metric{Num: uint32(i + 1), Name: fmt.Sprintf("metric/%05d", i)}
			h.live.restore(e, cell{metric: m, timeMS: 1})
		}
		least := time.Hour
		for range 5 {
			v, err := h.Subscribe(t.Context(), Subscription{Tick: -1}, newDeaf())
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			v.Next(nil)
			least = min(least, time.Since(began))
			v.End()
		}
		return least
	}
	if few, many := cost(maxVersions/16), cost(maxVersions); many > 80*few {
		t.Errorf("16 times as many metrics take %v instead of %v", many, few)
	}
}
