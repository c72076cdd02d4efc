package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"telemetryhub/device"
	"telemetryhub/device/wire"

	"pgregory.net/rapid"
)

// seed adds all vectors and a few frames that were trouble elsewhere.
func seed(f *testing.F) {
	f.Helper()
	for _, v := range vectors(f) {
		f.Add(v.format() == wire.CBOR, v.frame(f))
	}
	for _, s := range []string{
		``, `{`, `[]`, `{}`, `{"m":"data","r":[[1,0,1e400],[1,-0,-0.0]]}`, `[{"n":"a","v":1e400}]`, `{"\u006d":"data"}`,
		`{"m":"data","t":1,"r":[[1,0,20.1,1],[2,0,101325],[3,0,47],[1,0,1],[4,0,"\u0000"],[6,0,"x"],[40000,0,0.1e-7]]}`,
	} {
		f.Add(false, []byte(s))
	}
	for _, s := range []string{
		"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff", "\x84\x04\x01\x00\x80", "\xbf\xff", "\xf8\x10", "\xa1\x9f\xff\x00",
	} {
		f.Add(true, []byte(s))
	}
}

func formatOf(cbor bool) wire.Format {
	if cbor {
		return wire.CBOR
	}
	return wire.JSON
}

func checkError(t *testing.T, frame []byte, err error) {
	t.Helper()
	tooBig := errors.Is(err, wire.ErrTooBig)
	if tooBig != (len(frame) > wire.MaxFrame) || !tooBig && !errors.Is(err, wire.ErrProtocol) {
		t.Fatalf("%x: unexpected error %v", frame, err)
	}
}

// wellFormed asks the general decoders.
func wellFormed(cbor bool, frame []byte) bool {
	if cbor {
		return generalCBOR.Wellformed(frame) == nil
	}
	return json.Valid(frame)
}

// FuzzData: what the decoder takes is well-formed, gives the readings and the faults that the reference decoder gives,
// and comes back the same after encoding.
func FuzzData(f *testing.F) {
	seed(f)
	x := index(f, greenhouse())
	f.Fuzz(func(t *testing.T, binary bool, frame []byte) {
		var d wire.Decoder
		var b device.Batch
		form := formatOf(binary)
		flags, bad, err := d.Data(form, frame, x, &b)
		if err != nil {
			checkError(t, frame, err)
			return
		}
		if !wellFormed(binary, frame) {
			t.Fatalf("accepted, but not well-formed: %x", frame)
		}
		compareReference(t, binary, frame, x, &b, bad)

		for _, out := range []wire.Format{wire.CBOR, wire.JSON} {
			again, err := wire.AppendData(nil, out, x, &b, flags)
			if errors.Is(err, wire.ErrTooBig) {
				continue // a set of CBOR rows is larger in JSON
			}
			if err != nil {
				t.Fatalf("cannot encode what was decoded from %x: %v", frame, err)
			}
			var d2 wire.Decoder
			var b2 device.Batch
			flags2, bad, err := d2.Data(out, again, x, &b2)
			if err != nil || len(bad) > 0 || flags2.Clock(9) != flags.Clock(9) || b2.Seq != b.Seq || b2.BaseMS != b.BaseMS {
				t.Fatalf("%x: encoded as %x: %v %v", frame, again, err, bad)
			}
			if !sameReadings(flat(x, &b2), flat(x, &b)) {
				t.Fatalf("%x\ngot  %v\nwant %v", frame, flat(x, &b2), flat(x, &b))
			}
		}
	})
}

// sameReadings compares readings metric by metric, because joining rows and sorting rows of sets to the front move
// different metrics against each other. It does not compare OutOfRange, which belongs to the row and not to the reading.
func sameReadings(a, b []reading) bool {
	byMetric := func(a, b reading) int {
		if c := strings.Compare(a.metric, b.metric); c != 0 {
			return c
		}
		return strings.Compare(sortKey(a), sortKey(b))
	}
	a, b = slices.Clone(a), slices.Clone(b)
	slices.SortFunc(a, byMetric)
	slices.SortFunc(b, byMetric)
	return slices.EqualFunc(a, b, func(x, y reading) bool {
		x.q, y.q = x.q&device.FromDevice, y.q&device.FromDevice
		return sameReading(x, y)
	})
}

func compareReference(t rapid.TB, binary bool, frame []byte, x *wire.Index, b *device.Batch, bad []wire.Bad) {
	t.Helper()
	reference := referenceJSON
	if binary {
		reference = referenceCBOR
	} else if bytes.Contains(frame, []byte(`\u`)) || bytes.Contains(frame, []byte(`"S"`)) ||
		bytes.Contains(frame, []byte(`"T"`)) || bytes.Contains(frame, []byte(`"R"`)) {
		return // encoding/json folds the case of keys and replaces half surrogates
	}
	m, err := reference(frame)
	if err != nil {
		return // a tag whose content is of the wrong type, a map with keys that Go cannot hold
	}
	if m.seq != b.Seq || m.base != b.BaseMS {
		t.Fatalf("%q: got %d %d, want %d %d", frame, b.Seq, b.BaseMS, m.seq, m.base)
	}
	var want []reading
	faults := 0
	for _, r := range m.readings(x.Schema()) {
		if r.bad != 0 {
			faults++
		}
		if r.metric != "" {
			want = append(want, r.reading)
		}
	}
	if got := flat(x, b); !sameReadings(got, want) {
		t.Fatalf("%q (%x)\ngot  %v\nwant %v", frame, frame, got, want)
	}
	if len(bad) < wire.MaxBad && len(bad) != faults {
		t.Fatalf("%q (%x): got %v, want %d faults", frame, frame, bad, faults)
	}
}

// FuzzControl: every decoder takes only what is well-formed, and what it takes comes back the same through both formats.
func FuzzControl(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, binary bool, frame []byte) {
		in := formatOf(binary)
		peeked, peekErr := wire.Peek(in, frame)
		if peekErr != nil {
			checkError(t, frame, peekErr)
		}
		for typ, recode := range recoders {
			first, err := recode(in, frame, wire.JSON)
			if err != nil {
				checkError(t, frame, err)
				continue
			}
			if peekErr != nil || peeked != typ {
				t.Fatalf("%q: decoded as %s, but Peek says %s, %v", frame, typ, peeked, peekErr)
			}
			if !wellFormed(binary, frame) {
				t.Fatalf("accepted, but not well-formed: %x", frame)
			}
			second, err := recode(wire.JSON, first, wire.CBOR)
			if errors.Is(err, wire.ErrTooBig) {
				continue
			}
			if err != nil {
				t.Fatalf("%s: cannot decode %s: %v", typ, first, err)
			}
			third, err := recode(wire.CBOR, second, wire.JSON)
			if err != nil || !bytes.Equal(first, third) {
				t.Fatalf("%s: %s became %s, %v", typ, first, third, err)
			}
		}
	})
}

// FuzzLoose: what is taken is well-formed, and readings that stand keep all the rules.
func FuzzLoose(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, binary bool, frame []byte) {
		var d wire.Decoder
		readings, err := d.Loose(formatOf(binary), frame, now)
		if err != nil {
			checkError(t, frame, err)
			return
		}
		if !wellFormed(binary, frame) {
			t.Fatalf("accepted, but not well-formed: %x", frame)
		}
		for _, r := range readings {
			if len(r.Name) > 2*device.MaxNameLen || r.TimeMS > wire.MaxTimeMS+now || r.TimeMS < -wire.MaxTimeMS {
				t.Fatalf("%x: out of bounds: %+v", frame, r)
			}
			if (r.Bad != 0) != (r.Value.Type == device.Absent) {
				t.Fatalf("%x: a value and a fault, or neither: %+v", frame, r)
			}
			if r.Bad != 0 {
				continue
			}
			v := r.Value.Float()
			if device.CheckName(r.Name) != nil || wire.CheckUnit(r.Unit) != nil || v-v != 0 || r.Unit == "%" ||
				len(r.Value.Text()) > device.MaxTextLen {
				t.Fatalf("%x: stands and breaks a rule: %+v", frame, r)
			}
		}
	})
}
