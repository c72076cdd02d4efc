package api_test

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"telemetryhub/hub/access"
)

// t0 is the time of the first reading of these tests.
const t0 = 1_766_000_000_000

// answer is what GET …/readings says.
type answer struct {
	Device, Metric, Unit string
	Points               [][2]json.RawMessage
	Gaps                 []map[string]any
	Versions             []struct {
		Version    uint32
		Unit, Kind string
	}
	Next   *int64
	Damage string
}

func (r *rig) history(token, path string) answer {
	r.t.Helper()
	resp, body := r.do(call{method: "GET", path: path, token: token})
	if resp.StatusCode != http.StatusOK {
		r.t.Fatalf("GET %s: %d %s", path, resp.StatusCode, body)
	}
	var a answer
	dec := json.NewDecoder(strings.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&a); err != nil {
		r.t.Fatalf("GET %s: %v in %s", path, err, body)
	}
	return a
}

func TestEveryValueComesBackExactly(t *testing.T) {
	r := newRig(t)
	dev, viewer := r.device("pump"), r.token(access.Viewer)
	values := []string{"0", "21.37", "0.1", "0.30000000000000004", "1e-7", "5e-324", "1.7976931348623157e+308", "9007199254740991",
		"-273.15", "123456789.123456789", "1e21"}
	for i, v := range values {
		r.send("pump", dev, fmt.Sprintf(`{"t":%d,"v":{"f":%s,"on":%v,"state":"s%d"}}`, t0+i, v, i%2 == 0, i))
	}
	for _, flushed := range []bool{false, true} {
		if flushed {
			r.want(204, call{method: "POST", path: "/api/v1/flush", token: r.token(access.Admin)})
		}
		a := r.history(viewer, "/api/v1/devices/pump/readings?metric=f")
		if a.Device != "pump" || a.Metric != "f" || len(a.Points) != len(values) || a.Gaps == nil {
			t.Fatalf("flushed %v: the answer is %v", flushed, a)
		}
		for i, p := range a.Points {
			want, err := strconv.ParseFloat(values[i], 64)
			if err != nil {
				t.Fatal(err)
			}
			got, err := strconv.ParseFloat(string(p[1]), 64)
			if err != nil || math.Float64bits(got) != math.Float64bits(want) || string(p[0]) != itoa(t0+i) {
				t.Errorf("flushed %v: point %d is %s %s, want %s", flushed, i, p[0], p[1], values[i])
			}
		}
		for i, p := range r.history(viewer, "/api/v1/devices/pump/readings?metric=on").Points {
			if string(p[1]) != strconv.FormatBool(i%2 == 0) {
				t.Errorf("flushed %v: point %d of on is %s", flushed, i, p[1])
			}
		}
		for i, p := range r.history(viewer, "/api/v1/devices/pump/readings?metric=state").Points {
			if string(p[1]) != `"s`+itoa(i)+`"` {
				t.Errorf("flushed %v: point %d of state is %s", flushed, i, p[1])
			}
		}
	}
}

func TestRangesAreHalfOpenAndPaged(t *testing.T) {
	r := newRig(t)
	dev, viewer := r.device("pump"), r.token(access.Viewer)
	for i := range 10 {
		r.send("pump", dev, fmt.Sprintf(`{"t":%d,"v":{"a":%d}}`, t0+i*1000, i))
	}
	get := func(query string) string {
		t.Helper()
		var got []string
		for _, p := range r.history(viewer, "/api/v1/devices/pump/readings?metric=a&"+query).Points {
			got = append(got, string(p[1]))
		}
		return strings.Join(got, "")
	}
	for query, want := range map[string]string{
		"":                      "0123456789",
		"from=" + itoa(t0+3000): "3456789",
		"to=" + itoa(t0+3000):   "012",
		"from=" + itoa(t0+3000) + "&to=" + itoa(t0+3000): "",
		"from=" + itoa(t0+3001) + "&to=" + itoa(t0+7001): "4567",
		"from=2025-12-17T19:33:25Z":                      "56789",
		"from=2025-12-17T20:33:25%2B01:00":               "56789",
		"from=2025-12-17T20:33:25+01:00":                 "56789",
		"from=2025-12-17T20:33:25&tz=Europe/Berlin":      "56789",
		"to=2025-12-17":                 "",
		"from=2025-12-17&to=2025-12-18": "0123456789",
		"limit=3":                       "012",
		"step=4s&agg=first":             "048",
		"step=4s&agg=count":             "442",
		"step=5s":                       "27", // avg
		"step=4s&agg=sum&limit=1":       "6",
		"step=1d&agg=max&tz=Asia/Tokyo": "9",
	} {
		if got := get(query); got != want {
			t.Errorf("%s gives %s, want %s", query, got, want)
		}
	}
	// Going on from next gives every point once.
	var all []string
	from := ""
	for range 20 {
		a := r.history(viewer, "/api/v1/devices/pump/readings?metric=a&limit=3"+from)
		for _, p := range a.Points {
			all = append(all, string(p[1]))
		}
		if a.Next == nil {
			break
		}
		from = "&from=" + strconv.FormatInt(*a.Next, 10)
	}
	if got := strings.Join(all, ""); got != "0123456789" {
		t.Errorf("the pages together are %s", got)
	}
}

func TestTheWholeHistoryOfADeviceIsReadInOneCall(t *testing.T) {
	r := newRig(t)
	dev, viewer := r.device("pump"), r.token(access.Viewer)
	const n = 3000 // more than a buffer
	for i := 0; i < n; i += 100 {
		var pack []string
		for j := i; j < i+100; j++ {
			pack = append(pack, fmt.Sprintf(`{"n":"a","t":%d.%03d,"v":%d},{"n":"b","t":%d.%03d,"v":%g}`,
				(t0+j)/1000, (t0+j)%1000, j, (t0+j)/1000, (t0+j)%1000, float64(j)/10))
		}
		r.send("pump", dev, "["+strings.Join(pack, ",")+"]")
	}
	r.send("pump", dev, fmt.Sprintf(`{"t":%d,"v":{"note":"=1+1"}}`, t0+n))

	resp, body := r.do(call{method: "GET", path: "/api/v1/devices/pump/readings?format=ndjson", token: viewer})
	if got := resp.Header.Get("Content-Type"); got != "application/x-ndjson" {
		t.Errorf("it comes as %s", got)
	}
	dec := json.NewDecoder(strings.NewReader(body))
	for i := 0; ; i++ {
		var row struct {
			T int64
			V map[string]any
		}
		if err := dec.Decode(&row); err == io.EOF {
			if i != n+1 {
				t.Errorf("there are %d rows", i)
			}
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if i < n && (row.T != int64(t0+i) || row.V["a"] != float64(i) || row.V["b"] != float64(i)/10 || len(row.V) != 2) ||
			i == n && row.V["note"] != "=1+1" {
			t.Fatalf("row %d is %v", i, row)
		}
	}

	resp, body = r.do(call{method: "GET", path: "/api/v1/devices/pump/readings?format=csv&tz=Asia/Kolkata", token: viewer})
	rows, err := csv.NewReader(strings.NewReader(body)).ReadAll()
	if err != nil || len(rows) != n+2 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/csv") ||
		!strings.Contains(resp.Header.Get("Content-Disposition"), "pump.csv") {
		t.Fatalf("the table has %d rows, %v, %v", len(rows), err, resp.Header)
	}
	if strings.Join(rows[0], ",") != "time,a,b,note" || strings.Join(rows[2], ",") != "2025-12-18T01:03:20.001+05:30,1,0.1," ||
		strings.Join(rows[n+1], ",") != "2025-12-18T01:03:23.000+05:30,,,'=1+1" {
		t.Errorf("the table begins with %q %q and ends with %q", rows[0], rows[2], rows[n+1])
	}
	_, body = r.do(call{method: "GET", path: "/api/v1/devices/pump/readings?format=csv&metric=b&limit=1&step=1h&agg=max", token: viewer})
	if body != "time,b\r\n2025-12-17T19:00:00.000Z,299.9\r\n" {
		t.Errorf("the table of one metric is %q", body)
	}
	_, body = r.do(call{method: "GET", path: "/api/v1/devices/pump/readings?format=ndjson&limit=1", token: viewer})
	if want := fmt.Sprintf("{\"t\":%d,\"v\":{\"a\":0,\"b\":0}}\n{\"next\":%d}\n", t0, t0+1); body != want {
		t.Errorf("the first row is %q, want %q", body, want)
	}
}

func TestReadingsAreTakenInEveryForm(t *testing.T) {
	r := newRig(t)
	dev, viewer := r.device("pump"), r.token(access.Viewer)
	encode := func(v any) string {
		raw, err := cbor.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	for i, c := range []struct{ media, body string }{
		{"application/json", `{"m0":1}`},
		{"application/json; charset=utf-8", fmt.Sprintf(`{"t":%d,"v":{"m1":1}}`, t0)},
		{"application/senml+json", `[{"n":"m2","v":1}]`},
		{"application/cbor", encode(map[string]any{"m3": 1})},
		{"application/senml+cbor", encode([]map[int]any{{0: "m4", 2: 1}})},
		{"application/x-www-form-urlencoded", `{"m5":1}`}, // curl -d
		{"", `{"m6":1}`},
	} {
		h := http.Header{"Content-Type": {c.media}}
		if c.media == "" {
			h = http.Header{"Content-Type": nil}
		}
		resp, body := r.do(call{method: "POST", path: "/api/v1/devices/pump/readings", token: dev, body: c.body, header: h})
		if resp.StatusCode != http.StatusNoContent || body != "" {
			t.Errorf("%s is answered %d %s", c.media, resp.StatusCode, body)
			continue
		}
		if a := r.history(viewer, "/api/v1/devices/pump/readings?metric=m"+itoa(i)); len(a.Points) != 1 || string(a.Points[0][1]) != "1" {
			t.Errorf("%s gives %v", c.media, a)
		}
	}
}

func TestRefusedRowsAreTold(t *testing.T) {
	r := newRig(t)
	dev := r.device("pump")
	v := r.want(200, call{method: "POST", path: "/api/v1/devices/pump/readings", token: dev,
		body: `[{"n":"a","v":1},{"n":"status","v":2},{"n":"c","v":3}]`})
	if bad := v["bad"].([]any); v["stored"] != 2.0 || len(bad) != 1 || bad[0].(map[string]any)["code"] != "name" {
		t.Errorf("the report is %v", v)
	}
	v = r.want(422, call{method: "POST", path: "/api/v1/devices/pump/readings", token: dev, body: `[{"n":"status","v":2}]`})
	if detail, _ := v["detail"].(string); !strings.Contains(detail, "row 0") || !strings.Contains(detail, "name") {
		t.Errorf("the problem is %v", v)
	}
}

func TestVersionsOfAMetricAreNotJoined(t *testing.T) {
	r := newRig(t)
	dev, viewer := r.device("pump"), r.token(access.Viewer)
	r.send("pump", dev, fmt.Sprintf(`[{"n":"temp","u":"Cel","t":%d,"v":20}]`, t0/1000))
	r.send("pump", dev, fmt.Sprintf(`[{"n":"temp","u":"K","t":%d,"v":293}]`, t0/1000+1))
	a := r.history(viewer, "/api/v1/devices/pump/readings?metric=temp")
	if a.Unit != "K" || len(a.Points) != 1 || string(a.Points[0][1]) != "293" || len(a.Versions) != 2 {
		t.Fatalf("the newest version is %+v", a)
	}
	old := a.Versions[0]
	a = r.history(viewer, "/api/v1/devices/pump/readings?metric=temp&version="+strconv.Itoa(int(old.Version)))
	if old.Unit != "Cel" || a.Unit != "Cel" || len(a.Points) != 1 || string(a.Points[0][1]) != "20" {
		t.Errorf("version %v is %+v", old, a)
	}
	r.want(404, call{method: "GET", path: "/api/v1/devices/pump/readings?metric=temp&version=99", token: viewer})
	_, told := r.do(call{method: "GET", path: "/api/v1/devices/pump", token: viewer})
	if n := strings.Count(told, "metric_changed"); n != 1 || !strings.Contains(told, `temp was in \"Cel\", it is in \"K\" now`) {
		t.Errorf("the change is told %d times, want once: %s", n, told)
	}
	r.want(422, call{method: "GET", path: "/api/v1/devices/pump/readings?format=csv&version=1", token: viewer})
	_, body := r.do(call{method: "GET", path: "/api/v1/devices/pump/readings?format=csv", token: viewer})
	if !strings.HasPrefix(body, "time,\"temp (Cel, gauge)\",temp\r\n") {
		t.Errorf("the table is %q", body)
	}
}

func TestTheNewestValuesAreListed(t *testing.T) {
	r := newRig(t)
	dev, viewer := r.device("pump"), r.token(access.Viewer)
	r.device("silent")
	r.send("pump", dev, fmt.Sprintf(`{"t":%d,"v":{"temperature":1,"humidity":40}}`, t0))
	r.send("pump", dev, fmt.Sprintf(`{"t":%d,"v":{"temperature":0.5}}`, t0-1000)) // late
	body := r.until("/api/v1/latest", viewer, func(body string) bool { return strings.Contains(body, "humidity") })
	var v struct {
		Now    int64
		Latest []struct {
			Device, Presence, Metric, Unit string
			T                              int64
			Value                          float64
			Quality                        int
		}
	}
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatal(err)
	}
	if v.Now < t0 || len(v.Latest) != 2 || v.Latest[0].Device != "pump" || v.Latest[0].T != t0 || v.Latest[0].Value != 1 {
		t.Errorf("the newest values are %+v", v)
	}
	for query, want := range map[string]int{"?metric=temp*": 1, "?device=pump": 2, "?device=p*&metric=humidity,none": 1, "?device=silent": 0} {
		got := r.want(200, call{method: "GET", path: "/api/v1/latest" + query, token: viewer})["latest"].([]any)
		if len(got) != want {
			t.Errorf("%s lists %v", query, got)
		}
	}
}
