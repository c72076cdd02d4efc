package socket

import (
	"encoding/json"
	"testing"
)

func FuzzPacket(f *testing.F) {
	for _, seed := range []string{
		`0`, `0{"token":"1"}`, `0/custom,`, `0/custom,{"token":"abc"}`, `1`, `1/custom,`, `2["a"]`, `2/nsp,12["a",1,{"b":[true]}]`, `312[]`,
		`3/nsp,1["x"]`, `4{"message":"x"}`, `51-["a",{"_placeholder":true,"num":0}]`, `62-/n,7[{"_placeholder":true,"num":1}]`,
		`abc`, `2{}`, `2abc["x"]`, `2[]`, `5["x"]`, `599-["x"]`, `2[["[[[["]]`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := readPacket(text)
		if err != nil {
			return
		}
		if p.attachments > maxAttachments || len(p.namespace) > maxName || len(p.payload) > 0 && !json.Valid(p.payload) {
			t.Fatalf("%q was read as %+v", text, p)
		}
		if p.kind == typeConnect || p.kind == typeDisconnect {
			return
		}
		args, err := p.readArgs()
		if err != nil {
			return
		}
		// What is relayed to others is written as it was read.
		m := Message{Args: args, Attachments: make([][]byte, p.attachments)}
		again, err := readPacket(appendAck(nil, p.namespace, 7, m))
		if err != nil {
			t.Fatalf("%q was read, but not what it was written as: %v", text, err)
		}
		if back, err := again.readArgs(); err != nil || len(back) != len(args) {
			t.Fatalf("%q lost arguments on its way: %v", text, err)
		}
	})
}
