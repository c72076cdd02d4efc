package firmwaresim_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"telemetryhub/device"
	"telemetryhub/firmware-sim"
)

const piHead = "Datetime,Timestamp,Time (s),Measurement,t1 (°C),RH1% (%),p1 (hPa),t2 (°C),RH2% (%),p2 (hPa),RHref (%RH),Tref (°C)\n"

func TestPiRecordingIsOneDevice(t *testing.T) {
	text := piHead + "2025-01-29 13:27:16,1738150036,0.0,1,51.84,4.67,998.87,51.11,4.1,998.43,5.022917,51.983322\n"
	for name, data := range map[string][]byte{"pi-bme280.csv": []byte(text), "pi-bme280.csv.gz": zipped(t, text)} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		rec, err := firmwaresim.Inspect(path)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(rec.Devices) != 1 || rec.Devices[0] != "pi-bme280" || rec.Readings != 8 {
			t.Errorf("%s: devices %v, %d readings", name, rec.Devices, rec.Readings)
		}
		if m := rec.Metrics[6]; m.Name != "reference/humidity" || m.Unit != "%RH" || m.Exp != -6 {
			t.Errorf("%s: metric %+v", name, m)
		}
		err = rec.Play(0, func(dev int, at int64, values []device.Value) error {
			if dev != 0 || at != 1738150036000 || values[0].Float() != 51.84 || values[7].Float() != 51.983322 {
				t.Errorf("%s: row %d %d %v", name, dev, at, values)
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func zipped(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestColumnsOfTextAndMissingValues(t *testing.T) {
	rec := inspect(t, "\ufefftime_ms,device,mode,level\n1,a,eco,1.5\n2,a,,NaN\n3,a,\"a,b\",\n")
	if texts := rec.Texts(); len(texts) != 1 || texts[0] != "mode" || rec.Early != 3 {
		t.Errorf("texts %v, %d early rows", texts, rec.Early)
	}
	if rec.Metrics[0].Kind != device.Text || rec.Metrics[1].Kind != device.Gauge || rec.Readings != 4 {
		t.Errorf("metrics %+v, %d readings", rec.Metrics, rec.Readings)
	}
	var got []device.Value
	if err := rec.Play(0, func(_ int, _ int64, v []device.Value) error { got = append(got, v...); return nil }); err != nil {
		t.Fatal(err)
	}
	want := []device.Value{device.TextValue("eco"), device.NumberValue(1.5), {}, {}, device.TextValue("a,b"), {}}
	for i := range want {
		if !got[i].Equal(want[i]) {
			t.Errorf("value %d: %v, want %v", i, got[i], want[i])
		}
	}
}

func TestFilesThatAreNoRecordingAreRefusedWithTheLine(t *testing.T) {
	head := "time_ms,device,level\n"
	for name, c := range map[string]struct{ text, says string }{
		"empty": {"", "it is empty"}, "column twice": {"time_ms,device,level,level\n1,a,1,2\n", "column 4"},
		"huge": {head + "1,a,1\n2,a,1e999\n", ":3:"}, "header only": {head, "no rows"}, "foreign": {"a,b,c\n1,2,3\n", "the header begins with"},
		"bad device": {head + "1,a,1\n2,No Good,1\n", ":3:"}, "bad time": {head + "x,a,1\n", ":2:"}, "time 0": {head + "0,a,1\n", ":2:"},
		"far time": {head + "99999999999999999,a,1\n", ":2:"}, "short row": {head + "1,a\n", "line 2"}, "infinite": {head + "1,a,inf\n", ":2:"},
		"bad metric": {"time_ms,device,cmd/x\n1,a,1\n", "column 3"}, "quote": {head + "1,a,\"1\n", "line 2"},
		"long text": {head + "1,a," + strings.Repeat("x", 5000) + "\n", ":2:"}, "broken gzip": {"\x1f\x8bxx", ""},
	} {
		path := filepath.Join(t.TempDir(), "x.csv")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := firmwaresim.Inspect(path)
		if !errors.Is(err, firmwaresim.ErrRecording) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want ErrRecording with %q", name, err, c.says)
		}
	}
	if _, err := firmwaresim.Inspect(filepath.Join(t.TempDir(), "none.csv")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func FuzzInspect(f *testing.F) {
	f.Add([]byte("time_ms,device,level\n1,a,1.5\n2,b,-0\n"))
	f.Add([]byte(piHead + "d,1738150036,0.0,1,51.84,4.67,998.87,51.11,4.1,998.43,5.022917,51.983322\n"))
	f.Add([]byte("\x1f\x8b\x08\x00"))
	f.Add([]byte("time_ms,device,a,b\n1,a,x,1e400\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "pi.csv")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		rec, err := firmwaresim.Inspect(path)
		if err != nil {
			return
		}
		rows := 0
		err = rec.Play(0, func(dev int, _ int64, values []device.Value) error {
			if dev >= len(rec.Devices) || len(values) != len(rec.Metrics) {
				t.Fatalf("device %d of %d, %d values of %d metrics", dev, len(rec.Devices), len(values), len(rec.Metrics))
			}
			rows++
			return nil
		})
		if err != nil || rows != rec.Rows {
			t.Fatalf("inspected %d rows, played %d: %v", rec.Rows, rows, err)
		}
	})
}
