package wire_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"telemetryhub/device"
	"telemetryhub/device/wire"
)

func TestPeek(t *testing.T) {
	for _, c := range []struct {
		frame string
		want  wire.Type
		ok    bool
	}{
		{`{"m":"hello"}`, wire.TypeHello, true},
		{" \n{ \"m\" : \"data\" , ", wire.TypeData, true}, // the rest is for the decoder
		{`{"t":1,"m":"ack"}`, wire.TypeAck, true},
		{`{"v":{},"m":"gap"}`, wire.TypeGap, true},
		{`{"\u006d":"\u0067ap"}`, wire.TypeGap, true},
		{`{"m":"weather"}`, wire.TypeUnknown, true},
		{`{"m":""}`, wire.TypeUnknown, true},
		{`{"m":5}`, wire.ByHand, true},
		{`{"M":"hello"}`, wire.ByHand, true},
		{`{}`, wire.ByHand, true},
		{`{"v":230}`, wire.ByHand, true},
		{`{"v":[230]}`, wire.ByHand, true},
		{`{"x":"m","v":{}}`, wire.Envelope, true},
		{`{"m":null,"v":{}}`, wire.Envelope, true},
		{`[{"n":"a"}]`, wire.SenML, true},
		{`[ {`, wire.SenML, true},
		{`[]`, 0, false},
		{`[[{}]]`, 0, false},
		{`"m"`, 0, false},
		{`null`, 0, false},
		{``, 0, false},
		{`{"a":1`, 0, false},
		{`{"a" 1}`, 0, false},
		{`{"a":01}`, 0, false},
		{`{"m":"hel`, 0, false},
	} {
		got, err := wire.Peek(wire.JSON, []byte(c.frame))
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%s: got %s, %v, want %s", c.frame, got, err, c.want)
		}
	}
	for _, c := range []struct {
		frame string
		want  wire.Type
		ok    bool
	}{
		{"\x82\x01\xa0", wire.TypeHello, true},
		{"\x98\x05\x18\x04", wire.TypeData, true},
		{"\x81\x00", wire.TypeUnknown, true},
		{"\x81\x12", wire.TypeUnknown, true},
		{"\x81\x1b\xff\xff\xff\xff\xff\xff\xff\xff", wire.TypeUnknown, true},
		{"\xa1\x61a\x01", wire.ByHand, true},
		{"\xa0", wire.ByHand, true},
		{"\xa1\x61v\xa0", wire.Envelope, true},
		{"\xa1\x61m\x01", wire.ByHand, true},
		{"\x81\xa0", wire.SenML, true},
		{"\xa1\x61m\x61x", 0, false},
		{"\xa1\x01\x01", 0, false},
		{"\x80", 0, false},
		{"\x81\x61x", 0, false},
		{"\x9f\x04\xff", 0, false},
		{"\xbb\xff\xff\xff\xff\xff\xff\xff\xff", 0, false},
		{"", 0, false},
		{"\x01", 0, false},
	} {
		got, err := wire.Peek(wire.CBOR, []byte(c.frame))
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%x: got %s, %v, want %s", c.frame, got, err, c.want)
		}
	}
}

// TestMessagesThatBreakARuleAreRefused: one case for each check. A frame that only just keeps the rule stands beside it.
func TestMessagesThatBreakARuleAreRefused(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	const sha = "7fd82f11311d1cc76ef6403953c490dc39d63ef1845f51d6fe62b3b09fc00199"
	const lim = `"lim":{"win":1,"bytes":1,"max":1}`
	many := func(n int, f func(i int) string) string {
		var s []string
		for i := range n {
			s = append(s, f(i))
		}
		return strings.Join(s, ",")
	}
	metrics := func(n int) string {
		return many(n, func(i int) string { return fmt.Sprintf(`{"a":%d,"n":"m%d"}`, i+1, i) })
	}
	for _, c := range []struct{ name, ok, bad string }{
		{"hello", `"dev":"a.b_c-d0"`, `"dev":".a"`},
		{"hello", `"st":"` + x(64) + `","next":1,"have":1`, `"st":"` + x(65) + `","next":1,"have":1`},
		{"hello", `"st":"é","next":1,"have":1`, `"st":"\u0007","next":1,"have":1`},
		{"hello", `"st":"a","next":9007199254740991,"have":1`, `"st":"a","next":9007199254740992,"have":1`},
		{"hello", `"st":"a","next":2,"have":2`, `"st":"a","next":2,"have":3`},
		{"hello", `"st":"a","next":2,"have":1`, `"st":"a","next":2,"have":0`},
		{"hello", `"st":null`, `"next":1,"have":1`},
		{"hello", `"fw":"` + x(64) + `"`, `"fw":"` + x(65) + `"`},
		{"hello", `"tq":2`, `"tq":3`},
		{"hello", `"tq":2.0`, `"tq":1.5`},
		{"hello", `"up":5`, `"up":-5`},
		{"hello", `"up":5`, `"up":"5"`},
		{"hello", `"up":9007199254740991`, `"up":9007199254740992`},
		{"hello", `"cfg":9007199254740991`, `"cfg":9007199254740992`},
		{"hello", `"caps":[` + many(32, func(int) string { return `"c"` }) + `]`,
			`"caps":[` + many(33, func(int) string { return `"c"` }) + `]`},
		{"hello", `"caps":["c"]`, `"caps":[""]`},
		{"hello", `"schema":"` + x(64) + `"`, `"schema":"` + x(65) + `"`},
		{"hello", `"new":1,"New":1`, `"new":1,"new":1`},
		{"welcome", lim + `,"ping":1`, lim + `,"ping":0`},
		{"welcome", lim + `,"ping":1`, `"lim":{"win":0,"bytes":1,"max":1},"ping":1`},
		{"welcome", lim + `,"ping":1`, `"ping":1`},
		{"welcome", `"lim":{"win":1,"bytes":1,"max":65536},"ping":1`, `"lim":{"win":1,"bytes":1,"max":65537},"ping":1`},
		{"welcome", lim + `,"ping":1,"schema":"ok"`, lim + `,"ping":1,"schema":"maybe"`},
		{"welcome", lim + `,"ping":1,"ack":9007199254740991`, lim + `,"ping":1,"ack":9007199254740992`},
		{"welcome", lim + `,"ping":1,"cfg":9007199254740991`, lim + `,"ping":1,"cfg":9007199254740992`},
		{"birth", `"id":"1"`, `"id":""`},
		{"birth", `"id":"` + x(64) + `"`, `"id":"` + x(65) + `"`},
		{"birth", `"id":"1","metrics":[` + metrics(256) + `]`, `"id":"1","metrics":[` + metrics(257) + `]`},
		{"birth", `"id":"1","metrics":[{"a":65535,"n":"m"}]`, `"id":"1","metrics":[{"a":65536,"n":"m"}]`},
		{"birth", `"id":"1","metrics":[{"a":1,"n":"m"}]`, `"id":"1","metrics":[{"n":"m"}]`},
		{"birth", `"id":"1","metrics":[` + metrics(2) + `]`, `"id":"1","metrics":[{"a":1,"n":"m"},{"a":2,"n":"m"}]`},
		{"birth", `"id":"1","metrics":[{"a":1,"n":"` + x(64) + `"}]`, `"id":"1","metrics":[{"a":1,"n":"` + x(65) + `"}]`},
		{"birth", `"id":"1","metrics":[{"a":1,"n":"m","u":"` + x(32) + `"}]`,
			`"id":"1","metrics":[{"a":1,"n":"m","u":"` + x(33) + `"}]`},
		{"birth", `"id":"1","metrics":[{"a":1,"n":"m","u":"µg/m³"}]`,
			`"id":"1","metrics":[{"a":1,"n":"m","u":"\u202e"}]`},
		{"birth", `"id":"1","metrics":[{"a":1,"n":"m","k":"counter"}]`,
			`"id":"1","metrics":[{"a":1,"n":"m","k":"meter"}]`},
		{"birth", `"id":"1","metrics":[{"a":1,"n":"m","x":-15}]`, `"id":"1","metrics":[{"a":1,"n":"m","x":-16}]`},
		{"birth", `"id":"1","metrics":[{"a":1,"n":"m","x":15}]`, `"id":"1","metrics":[{"a":1,"n":"m","x":1000}]`},
		{"birth", `"id":"1","metrics":[{"a":1,"n":"m","lo":1,"hi":1}]`,
			`"id":"1","metrics":[{"a":1,"n":"m","lo":1.5,"hi":1}]`},
		{"birth", `"id":"1","metrics":[{"a":1,"n":"m","lo":1e308}]`, `"id":"1","metrics":[{"a":1,"n":"m","lo":1e309}]`},
		{"birth", `"id":"1","metrics":[{"a":1,"n":"m","iv":31622400000}]`,
			`"id":"1","metrics":[{"a":1,"n":"m","iv":31622400001}]`},
		{"birth", `"id":"1","metrics":[{"a":1,"n":"m","iv":0}]`, `"id":"1","metrics":[{"a":1,"n":"m","iv":-1}]`},
		{"birth", `"id":"1","metrics":[{"a":1,"n":"m","cls":"` + x(64) + `"}]`,
			`"id":"1","metrics":[{"a":1,"n":"m","cls":"` + x(65) + `"}]`},
		{"birth", `"id":"1","metrics":[{"a":1,"n":"m","src":"` + x(128) + `"}]`,
			`"id":"1","metrics":[{"a":1,"n":"m","src":"` + x(129) + `"}]`},
		{"birth", `"id":"1","metrics":[` + metrics(2) + `],"sets":[{"i":1,"a":[1,2]}]`,
			`"id":"1","metrics":[` + metrics(2) + `],"sets":[{"i":0,"a":[1,2]}]`},
		{"birth", `"id":"1","metrics":[` + metrics(2) + `],"sets":[{"i":1,"a":[1]}]`,
			`"id":"1","metrics":[` + metrics(2) + `],"sets":[{"i":1,"a":[]}]`},
		{"birth", `"id":"1","metrics":[` + metrics(2) + `],"sets":[{"i":1,"a":[2]}]`,
			`"id":"1","metrics":[` + metrics(2) + `],"sets":[{"i":1,"a":[3]}]`},
		{"birth", `"id":"1","metrics":[` + metrics(2) + `],"sets":[{"i":1,"a":[1,2]}]`,
			`"id":"1","metrics":[` + metrics(2) + `],"sets":[{"i":1,"a":[1,1]}]`},
		{"birth", `"id":"1","metrics":[` + metrics(2) + `],"sets":[{"i":1,"a":[1,2]},{"i":2,"a":[2,1]}]`,
			`"id":"1","metrics":[` + metrics(2) + `],"sets":[{"i":1,"a":[1,2]},{"i":2,"a":[1,2]}]`},
		{"birth", `"id":"1","metrics":[` + metrics(2) + `],"sets":[{"i":1,"a":[1]},{"i":2,"a":[2]}]`,
			`"id":"1","metrics":[` + metrics(2) + `],"sets":[{"i":1,"a":[1]},{"i":1,"a":[2]}]`},
		{"birth", `"id":"1","metrics":[` + metrics(65) + `],"sets":[` + many(64, func(i int) string { return fmt.Sprintf(`{"i":%d,"a":[%d]}`, i+1, i+1) }) + `]`,
			`"id":"1","metrics":[` + metrics(65) + `],"sets":[` + many(65, func(i int) string { return fmt.Sprintf(`{"i":%d,"a":[%d]}`, i+1, i+1) }) + `]`},
		{"birth", `"id":"1","cmds":[{"n":"a.b-c_d"}]`, `"id":"1","cmds":[{"n":"a/b"}]`},
		{"birth", `"id":"1","cmds":[{"n":"a"},{"n":"b"}]`, `"id":"1","cmds":[{"n":"a"},{"n":"a"}]`},
		{"birth", `"id":"1","cmds":[` + many(64, func(i int) string { return fmt.Sprintf(`{"n":"c%d"}`, i) }) + `]`,
			`"id":"1","cmds":[` + many(65, func(i int) string { return fmt.Sprintf(`{"n":"c%d"}`, i) }) + `]`},
		{"gap", `"s":1`, `"s":0`},
		{"gap", `"s":3,"from":1,"to":2`, `"s":3,"from":2,"to":1`},
		{"gap", `"s":3,"from":1,"to":2`, `"s":3,"from":0,"to":2`},
		{"gap", `"s":3,"from":1,"to":2`, `"s":3,"from":1,"to":3`},
		{"gap", `"s":1,"t0":5,"t1":5`, `"s":1,"t0":6,"t1":5`},
		{"gap", `"s":1,"n":9007199254740991`, `"s":1,"n":9007199254740992`},
		{"ack", `"s":9007199254740991`, `"s":9007199254740992`},
		{"ack", `"s":1,"bad":[{"s":1,"i":0,"code":"type"}]`, `"s":1,"bad":[{"s":1,"i":0}]`},
		{"ack", `"s":1,"bad":[` + many(32, func(int) string { return `{"code":"x"}` }) + `]`,
			`"s":1,"bad":[` + many(33, func(int) string { return `{"code":"x"}` }) + `]`},
		{"slow", `"why":"` + x(64) + `"`, `"why":"` + x(65) + `"`},
		{"cmd", `"id":"1","n":"relay"`, `"id":"","n":"relay"`},
		{"cmd", `"id":"1","n":"relay"`, `"id":"1","n":""`},
		{"cmd", `"id":"1","n":"relay","a":{"on":true,"to":null}`, `"id":"1","n":"relay","a":{"on":[true]}`},
		{"cmd", `"id":"1","n":"relay","a":{"on":"` + x(4096) + `"}`, `"id":"1","n":"relay","a":{"on":"` + x(4097) + `"}`},
		{"cmd", `"id":"1","n":"relay","a":{"on":1e308}`, `"id":"1","n":"relay","a":{"on":1e309}`},
		{"cmd", `"id":"1","n":"relay","a":{"on":1}`, `"id":"1","n":"relay","a":{"on":1,"on":2}`},
		{"cmd", `"id":"1","n":"relay","a":{"on":1}`, `"id":"1","n":"relay","a":{"o n":1}`},
		{"cmd", `"id":"1","n":"relay","a":{` + many(32, func(i int) string { return fmt.Sprintf(`"a%d":1`, i) }) + `}`,
			`"id":"1","n":"relay","a":{` + many(33, func(i int) string { return fmt.Sprintf(`"a%d":1`, i) }) + `}`},
		{"cmd", `"id":"1","n":"relay","ttl":9007199254740991`, `"id":"1","n":"relay","ttl":9007199254740992`},
		{"result", `"id":"1","st":"done"`, `"id":"1","st":"finished"`},
		{"result", `"id":"1","st":"done","pc":100`, `"id":"1","st":"done","pc":101`},
		{"result", `"id":"1","st":"done","err":"` + x(512) + `"`, `"id":"1","st":"done","err":"` + x(513) + `"`},
		{"result", `"id":"1","st":"done","err":"é\u00a0👩\u200d🌾"`, `"id":"1","st":"done","err":"a\u001b[2J"`},
		{"event", `"lvl":"info","code":"x","msg":"é"`, `"lvl":"info","code":"x","msg":"\u202eb"`},
		{"bye", `"code":1000,"why":"é"`, `"code":1000,"why":"a\nb"`},
		{"cfg", `"rev":1,"sha":"` + sha + `","doc":""`, `"rev":0,"sha":"` + sha + `","doc":""`},
		{"cfg", `"rev":1,"sha":"` + sha + `","doc":""`, `"rev":1,"sha":"` + sha[2:] + `","doc":""`},
		{"cfg", `"rev":1,"sha":"` + sha + `","doc":"` + x(32768) + `"`,
			`"rev":1,"sha":"` + sha + `","doc":"` + x(32769) + `"`},
		{"cfgr", `"rev":1,"st":"applied"`, `"rev":1,"st":"done"`},
		{"cfgr", `"rev":1,"st":"applied"`, `"rev":0,"st":"applied"`},
		{"ota", `"id":"1","ver":"2","url":"u","sha256":"` + sha + `"`, `"id":"1","ver":"2","sha256":"` + sha + `"`},
		{"ota", `"id":"1","ver":"2","url":"u","sha256":"` + sha + `"`, `"id":"1","ver":"2","url":"u","sha256":""`},
		{"ota", `"id":"1","ver":"2","url":"u","sha256":"` + sha + `","hours":[0,24]`,
			`"id":"1","ver":"2","url":"u","sha256":"` + sha + `","hours":[0,25]`},
		{"ota", `"id":"1","ver":"2","url":"u","sha256":"` + sha + `","hours":[2,5]`,
			`"id":"1","ver":"2","url":"u","sha256":"` + sha + `","hours":[2]`},
		{"time", `"t0":9007199254740991`, `"t0":9007199254740992`},
		{"event", `"lvl":"info","code":"x"`, `"lvl":"debug","code":"x"`},
		{"event", `"lvl":"info","code":"x"`, `"lvl":"info","code":""`},
		{"err", `"code":"invalid"`, `"code":""`},
		{"bye", `"code":1000`, `"code":1001`},
		{"bye", `"code":4999`, `"code":5000`},
	} {
		for body, ok := range map[string]bool{c.ok: true, c.bad: false} {
			frame := []byte(`{"m":"` + c.name + `",` + body + `}`)
			typ, _ := wire.Peek(wire.JSON, frame)
			_, err := recoders[typ](wire.JSON, frame, wire.CBOR)
			if ok && err != nil || !ok && !errors.Is(err, wire.ErrProtocol) {
				t.Errorf("%.200s: %v", frame, err)
			}
		}
	}
}

func TestAFrameThatIsNotUTF8IsRefusedWherever(t *testing.T) {
	if _, err := wire.DecodeHello(wire.JSON, []byte("{\"m\":\"hello\",\"new\":\"\xff\"}")); !errors.Is(err, wire.ErrProtocol) {
		t.Errorf("got %v", err)
	}
}

func TestUnknownCauseOfAGapIsOther(t *testing.T) {
	g, err := wire.DecodeGap(wire.JSON, []byte(`{"m":"gap","s":1,"why":"aliens"}`))
	if err != nil || g.Cause != device.CauseOther {
		t.Errorf("got %+v, %v", g, err)
	}
}

// TestFreeTextIsMadeFit: what a program puts into a text for people never makes a message that the other side refuses.
func TestFreeTextIsMadeFit(t *testing.T) {
	for _, text := range []string{strings.Repeat("é", 400), "\xff\xfe", strings.Repeat("x", 511) + "é", "<&>\n\"", "a\u202eb\x1b"} {
		for _, f := range []wire.Format{wire.JSON, wire.CBOR} {
			e, err := wire.DecodeErr(f, wire.AppendErr(nil, f, &wire.Err{Code: wire.ErrCodeInvalid, Msg: text}))
			if err != nil || len(e.Msg) > wire.MaxText || !utf8.ValidString(e.Msg) || e.Msg == "" {
				t.Errorf("%s, %.20q: got %q, %v", f, text, e.Msg, err)
			}
			r, err := wire.DecodeResult(f, wire.AppendResult(nil, f, &wire.Result{
				ID: "1", State: wire.ResultDone, Value: device.TextValue(text), Err: text}))
			if err != nil || r.Value.Type != device.String {
				t.Errorf("%s, %.20q: got %+v, %v", f, text, r, err)
			}
		}
	}
}

func TestArgumentsKeepTheirTypes(t *testing.T) {
	want := wire.Cmd{ID: "1", Name: "relay", TTLMS: 5, Args: []wire.Arg{
		{Name: "a", Value: device.NumberValue(-0.1)}, {Name: "b", Value: device.NumberValue(1e300)},
		{Name: "c", Value: device.BoolValue(false)}, {Name: "d", Value: device.TextValue("<é>")}, {Name: "e"},
	}}
	for _, f := range []wire.Format{wire.JSON, wire.CBOR} {
		got, err := wire.DecodeCmd(f, wire.AppendCmd(nil, f, &want))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v", f, got, err)
		}
	}
}

func TestCloseCodes(t *testing.T) {
	for _, c := range []struct {
		code      wire.CloseCode
		number    uint16
		reconnect bool
	}{
		{wire.CloseSlow, 4001, true}, {wire.CloseDraining, 4002, true}, {wire.CloseResume, 4010, true},
		{wire.CloseTooFast, 4029, true}, {wire.CloseProtocol, 4500, false}, {wire.CloseWho, 4501, false},
		{wire.CloseRevoked, 4503, false}, {wire.CloseReplaced, 4509, false}, {wire.CloseTooBig, 4513, false},
	} {
		if uint16(c.code) != c.number || c.code.Reconnect() != c.reconnect {
			t.Errorf("%s: number %d, reconnect %v", c.code, uint16(c.code), c.code.Reconnect())
		}
		if r := c.code.Reason(); len(r) > 123 || strings.HasPrefix(r, "code ") {
			t.Errorf("%d has the reason %q of %d bytes", uint16(c.code), r, len(r))
		}
	}
}

func TestNamesAndNumbersOfMessagesAndFaultsAreFixed(t *testing.T) {
	text := protocolPage(t)
	for typ := wire.TypeHello; typ <= wire.TypeBye; typ++ {
		closes := "| err |"
		if typ.Closes() {
			closes = "| closes"
		} else if typ == wire.TypeErr || typ == wire.TypeBye {
			closes = "| ignored |"
		}
		line := lineWith(text, fmt.Sprintf("| %d | `%s` |", typ, typ))
		if !strings.Contains(line, closes) {
			t.Errorf("PROTOCOL.md says of message %d, %s: %q", typ, typ, line)
		}
	}
	for code := wire.BadOther; code <= wire.BadUnreg; code++ {
		if lineWith(text, fmt.Sprintf("| %d | `%s` |", code, code)) == "" {
			t.Errorf("PROTOCOL.md does not list the fault %d, %s", code, code)
		}
	}
}
