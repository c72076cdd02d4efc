package wire_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"telemetryhub/device"
	"telemetryhub/device/wire"

	"github.com/fxamacker/cbor/v2"
)

var update = flag.Bool("update", false, "write testdata from PROTOCOL.md; review the difference")

// vector is one example of PROTOCOL.md.
type vector struct {
	Name   string `json:"name"`
	Format string `json:"format"` // json or cbor
	// Type is the name of the message, "unknown", or "by hand", "envelope", "senml". For refused frames it is the decoder
	// that refuses; if empty, telling the type fails already.
	Type string `json:"type,omitempty"`
	// Raw is the frame: the text itself, or hexadecimal for CBOR.
	Raw string `json:"raw"`
	// Schema is the name of the birth that data and state refer to.
	Schema string `json:"schema,omitempty"`
	// Now is the arrival in Unix milliseconds, for times relative to it.
	Now int64 `json:"now,omitempty"`
	// Oneway means that encoders write the same content in another way.
	Oneway bool `json:"oneway,omitempty"`
	// Error means that the frame is refused.
	Error bool `json:"error,omitempty"`
	// Decoded is the content: for data and state the rows, for readings by hand the readings, for any other message its
	// JSON form without m.
	Decoded json.RawMessage `json:"decoded,omitempty"`
}

func (v *vector) format() wire.Format {
	if v.Format == "cbor" {
		return wire.CBOR
	}
	return wire.JSON
}

func (v *vector) frame(t testing.TB) []byte {
	t.Helper()
	if v.format() == wire.JSON {
		return []byte(v.Raw)
	}
	b, err := hex.DecodeString(v.Raw)
	if err != nil {
		t.Fatalf("%s: %v", v.Name, err)
	}
	return b
}

func vectors(t testing.TB) map[string]*vector {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no vectors in testdata", err)
	}
	all := map[string]*vector{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var list []*vector
		if err := json.Unmarshal(b, &list); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, v := range list {
			if all[v.Name] != nil {
				t.Fatalf("two vectors have the name %s", v.Name)
			}
			all[v.Name] = v
		}
	}
	return all
}

var fence = regexp.MustCompile("(?m)^```(json|cbor) ([a-z0-9-]+)(.*)\n((?:[^`].*\n)+)```$")

// documented reads the examples of PROTOCOL.md. Decoded is empty.
func documented(t *testing.T) (examples []*vector, diagnoses map[string]string) {
	t.Helper()
	page, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	diagnoses = map[string]string{}
	for _, m := range fence.FindAllStringSubmatch(string(page), -1) {
		v := &vector{Format: m[1], Name: m[2], Raw: strings.TrimSuffix(m[4], "\n")}
		for _, attr := range strings.Fields(m[3]) {
			key, value, _ := strings.Cut(attr, "=")
			switch key {
			case "schema":
				v.Schema = value
			case "as":
				v.Type = strings.ReplaceAll(value, "hand", "by hand")
			case "oneway":
				v.Oneway = true
			case "error":
				v.Error = true
			case "now":
				if v.Now, err = strconv.ParseInt(value, 10, 64); err != nil {
					t.Fatal(err)
				}
			default:
				t.Fatalf("%s: what is %q?", v.Name, attr)
			}
		}
		if v.Format == "cbor" {
			var digits strings.Builder
			for line := range strings.Lines(v.Raw) {
				code, comment, _ := strings.Cut(line, "#")
				if strings.TrimSpace(code) == "" && diagnoses[v.Name] == "" {
					diagnoses[v.Name] = strings.TrimSpace(comment)
				}
				digits.WriteString(strings.Join(strings.Fields(code), ""))
			}
			v.Raw = digits.String()
		}
		examples = append(examples, v)
	}
	return examples, diagnoses
}

// TestPageAndVectorsAgree: every example of PROTOCOL.md is a vector and every vector is an example.
func TestPageAndVectorsAgree(t *testing.T) {
	examples, diagnoses := documented(t)
	if *update {
		writeVectors(t, examples)
	}
	left := vectors(t)
	for _, e := range examples {
		v := left[e.Name]
		if v == nil {
			t.Errorf("%s is not in testdata", e.Name)
			continue
		}
		delete(left, e.Name)
		want := *v
		want.Decoded = nil
		if e.Type == "" {
			e.Type = want.Type
		}
		e.Decoded = nil
		if !reflect.DeepEqual(*e, want) {
			t.Errorf("%s: the page says\n%+v\nthe vector says\n%+v", e.Name, *e, want)
		}
		if text := diagnoses[e.Name]; text != "" {
			if got, err := cbor.Diagnose(v.frame(t)); err != nil || got != text {
				t.Errorf("%s: the bytes are %s (%v), the comment says %s", e.Name, got, err, text)
			}
		}
	}
	for name := range left {
		t.Errorf("%s is not in PROTOCOL.md", name)
	}
}

func writeVectors(t *testing.T, examples []*vector) {
	t.Helper()
	all := map[string]*vector{}
	files := map[string][]*vector{}
	for _, v := range examples {
		all[v.Name] = v
	}
	for _, v := range examples {
		file := "refused"
		if !v.Error {
			typ, err := wire.Peek(v.format(), v.frame(t))
			if err != nil {
				t.Fatalf("%s: %v", v.Name, err)
			}
			v.Type = typ.String()
			file = strings.ReplaceAll(v.Type, " ", "")
			if v.Decoded, err = decodeVector(t, all, v); err != nil {
				t.Fatalf("%s: %v", v.Name, err)
			}
		}
		files[file] = append(files[file], v)
	}
	for file, list := range files {
		var buf bytes.Buffer
		enc := json.NewEncoder(&buf)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(list); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join("testdata", file+".json"), buf.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestVectorsDecode: each vector is what it says, and decodes to what it says or is refused.
func TestVectorsDecode(t *testing.T) {
	all := vectors(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		v := all[name]
		t.Run(name, func(t *testing.T) {
			typ, err := wire.Peek(v.format(), v.frame(t))
			switch {
			case v.Error && v.Type == "":
				if !errors.Is(err, wire.ErrProtocol) {
					t.Fatalf("Peek: got %v, %v, want a protocol error", typ, err)
				}
				return
			case err != nil:
				t.Fatalf("Peek: %v", err)
			case !v.Error && typ.String() != v.Type:
				t.Fatalf("Peek: got %s, want %s", typ, v.Type)
			}
			got, err := decodeVector(t, all, v)
			if v.Error {
				if !errors.Is(err, wire.ErrProtocol) || wire.CloseFor(err) != wire.CloseProtocol {
					t.Fatalf("got %s, %v, want a protocol error", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !sameJSON(t, got, v.Decoded) {
				t.Errorf("got  %s\nwant %s", got, v.Decoded)
			}
		})
	}
}

// TestVectorsEncode: encoders write exactly the bytes of the vectors, except for those marked one-way.
func TestVectorsEncode(t *testing.T) {
	all := vectors(t)
	for name, v := range all {
		if v.Error || v.Oneway {
			continue
		}
		frame := v.frame(t)
		var got []byte
		var err error
		switch typ, _ := wire.Peek(v.format(), frame); typ {
		case wire.TypeData, wire.TypeState:
			got, err = recodeRows(t, all, v, typ)
		default:
			if recoders[typ] == nil {
				continue
			}
			got, err = recoders[typ](v.format(), frame, v.format())
		}
		if err != nil || !bytes.Equal(got, frame) {
			t.Errorf("%s: got\n%s\nwant\n%s\n(%v)", name, got, frame, err)
		}
	}
}

// TestFormatsSayTheSame: a vector and its -cbor twin decode to the same.
func TestFormatsSayTheSame(t *testing.T) {
	all := vectors(t)
	twins := 0
	for name, v := range all {
		twin := all[name+"-cbor"]
		if v.Type == "senml" || v.Type == "unknown" || twin == nil {
			continue
		}
		twins++
		if !sameJSON(t, v.Decoded, twin.Decoded) {
			t.Errorf("%s: %s\nbut in CBOR %s", name, v.Decoded, twin.Decoded)
		}
	}
	if twins < 15 {
		t.Errorf("only %d vectors have a twin", twins)
	}
}

// decodeVector decodes the frame of v with the decoder that v names.
func decodeVector(t testing.TB, all map[string]*vector, v *vector) (json.RawMessage, error) {
	t.Helper()
	frame := v.frame(t)
	var d wire.Decoder
	for typ := wire.TypeUnknown; typ <= wire.TypeBye; typ++ {
		switch {
		case typ.String() != v.Type:
		case typ == wire.TypeUnknown:
			return nil, nil
		case typ == wire.TypeData || typ == wire.TypeState:
			var b device.Batch
			decode := d.Data
			if typ == wire.TypeState {
				decode = d.State
			}
			x := vectorIndex(t, all, v.Schema)
			flags, bad, err := decode(v.format(), frame, x, &b)
			if err != nil {
				return nil, err
			}
			return neutralRows(t, x, &b, flags, bad), nil
		default:
			out, err := recoders[typ](v.format(), frame, wire.JSON)
			if err != nil {
				return nil, err
			}
			m := fmt.Sprintf(`{"m":%q`, v.Type)
			return json.RawMessage("{" + strings.TrimPrefix(strings.TrimPrefix(string(out), m), ",")), nil
		}
	}
	readings, err := d.Loose(v.format(), frame, v.Now)
	if err != nil {
		return nil, err
	}
	return neutralReadings(t, readings), nil
}

func sameJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	var x, y any
	if err := errors.Join(json.Unmarshal(a, &x), json.Unmarshal(b, &y)); err != nil {
		t.Fatalf("%v in %s or %s", err, a, b)
	}
	return reflect.DeepEqual(x, y)
}

func protocolPage(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

func lineWith(page, part string) string {
	for line := range strings.Lines(page) {
		if strings.Contains(line, part) {
			return line
		}
	}
	return ""
}
