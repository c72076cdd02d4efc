package firmwaresim_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"telemetryhub/firmware-sim"
)

func TestRoomsAreARecordingAndTheSameSeedGivesTheSameBytes(t *testing.T) {
	rooms := firmwaresim.Rooms{Devices: []string{"kitchen", "office"}, StepMS: 1000, Steps: 300, Seed: 7}
	var first, second bytes.Buffer
	if err := rooms.Write(&first); err != nil {
		t.Fatal(err)
	}
	if err := rooms.Write(&second); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the same seed gave other bytes")
	}
	path := filepath.Join(t.TempDir(), "rooms.csv")
	if err := os.WriteFile(path, first.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	rec, err := firmwaresim.Inspect(path)
	if err != nil || len(rec.Devices) != 2 || rec.Rows != 600 || len(rec.Metrics) != 5 {
		t.Fatalf("inspected %+v, %v", rec, err)
	}
}
