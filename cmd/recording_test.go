package cmd_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"encoding/json"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// recording returns the path of a recording of real sensors, or skips the test if the recordings are not there.
func recording(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("TELEMETRYHUB_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "shared", "data")
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("the recordings are not here: set TELEMETRYHUB_DATA to their folder (%v)", err)
	}
	return path
}

// recorded is what a recording says: for each device and time the value of each metric. The later of two rows with one
// time wins.
type recorded struct {
	metrics []string
	devices map[string]map[int64][]float64
	rows    int
	ties    int
}

func readRecording(t *testing.T, path string) *recorded {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	r := csv.NewReader(bufio.NewReader(z))
	r.ReuseRecord = true
	head, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	rec := &recorded{metrics: append([]string(nil), head[2:]...), devices: map[string]map[int64][]float64{}}
	for {
		row, err := r.Read()
		if err == io.EOF {
			return rec
		}
		if err != nil {
			t.Fatal(err)
		}
		at, err := strconv.ParseInt(row[0], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		values := make([]float64, len(row)-2)
		for i := range values {
			if values[i], err = strconv.ParseFloat(row[2+i], 64); err != nil {
				t.Fatal(err)
			}
		}
		d := rec.devices[row[1]]
		if d == nil {
			d = map[int64][]float64{}
			rec.devices[row[1]] = d
		}
		if _, again := d[at]; again {
			rec.ties++
		}
		d[at] = values
		rec.rows++
	}
}

// compare reads everything back through the API and compares every reading. It returns how many it compared.
func (rec *recorded) compare(t *testing.T, s *server) (n int) {
	t.Helper()
	token := s.token("viewer")
	for id, want := range rec.devices {
		body := s.get(token, "/api/v1/devices/"+id+"/readings?format=ndjson")
		lines := bufio.NewScanner(body)
		lines.Buffer(nil, 1<<20)
		last, seen := int64(math.MinInt64), 0
		for lines.Scan() {
			var row struct {
				T int64
				V map[string]float64
			}
			dec := json.NewDecoder(bytes.NewReader(lines.Bytes()))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&row); err != nil {
				t.Fatalf("%s: %v in %s", id, err, lines.Text())
			}
			values := want[row.T]
			if row.T <= last || len(values) != len(row.V) {
				t.Fatalf("%s: row %s after %d: want %v", id, lines.Text(), last, values)
			}
			for i, metric := range rec.metrics {
				if got, ok := row.V[metric]; !ok || math.Float64bits(got) != math.Float64bits(values[i]) {
					t.Fatalf("%s at %d: %s is %v, want %v", id, row.T, metric, got, values[i])
				}
				n++
			}
			last = row.T
			seen++
		}
		if err := lines.Err(); err != nil {
			t.Fatal(err)
		}
		body.Close()
		if seen != len(want) {
			t.Fatalf("%s: %d rows came back, want %d", id, seen, len(want))
		}
	}
	return n
}

// replay plays a recording into the hub and returns when every reading is acked.
func replay(t *testing.T, s *server, path, token string) {
	t.Helper()
	cmd := exec.Command(program(t, "firmware-sim"), "replay", path, "--hub", "http://"+s.addr, "--token", token, "--speed", "max")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("replay: %v\n%s", err, tail(string(out), 4000))
	}
}

func TestRecordedReadingsComeBackExactly(t *testing.T) {
	for name, ties := range map[string]int{"room-climate-A.csv.gz": 0, "room-climate-B.csv.gz": 11} {
		t.Run(name, func(t *testing.T) {
			path := recording(t, name)
			rec := readRecording(t, path)
			s := newServer(t)
			began := time.Now()
			replay(t, s, path, s.token("admin"))
			took := time.Since(began)
			n := rec.compare(t, s)
			if rec.ties != ties || n != (rec.rows-ties)*len(rec.metrics) {
				t.Errorf("%d readings compared, %d rows with %d ties in the recording", n, rec.rows, rec.ties)
			}
			s.kill()
			s.start()
			if again := rec.compare(t, s); again != n {
				t.Errorf("after kill -9: %d readings, want %d", again, n)
			}
			t.Logf("%d readings compared twice; the replay took %v", n, took.Round(time.Millisecond))
		})
	}
}

func TestRecordedReadingsSurviveKillsInTheMiddle(t *testing.T) {
	path := recording(t, "room-climate-A.csv.gz")
	rec := readRecording(t, path)
	s := newServer(t)
	token := s.token("admin")
	done := make(chan struct{})
	go func() {
		defer close(done)
		replay(t, s, path, token)
	}()
	kills := 0
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-time.After(time.Duration(50+rand.IntN(300)) * time.Millisecond):
			if kills < rounds(3, 20) {
				s.kill()
				s.start()
				kills++
			}
		}
	}
	if n := rec.compare(t, s); n != rec.rows*len(rec.metrics) {
		t.Errorf("%d readings compared, want %d", n, rec.rows*len(rec.metrics))
	}
	t.Logf("%d kills", kills)
}
