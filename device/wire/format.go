package wire

// Format is how a frame is written. The opcode of the frame tells it: text is JSON, binary is CBOR.
type Format uint8

// The formats.
const (
	JSON Format = 1
	CBOR Format = 2
)

// String returns JSON or CBOR.
func (f Format) String() string {
	if f == CBOR {
		return "CBOR"
	}
	return "JSON"
}

// Type tells messages apart. In CBOR the number is the first item of a message; in JSON the name is the value of m.
// Numbers and names are never changed or reused.
type Type uint8

// The messages, then the forms without a type that people send by hand.
const (
	TypeUnknown Type = 0 // a message of a newer version: answered by err, otherwise ignored
	TypeHello   Type = 1
	TypeWelcome Type = 2
	TypeBirth   Type = 3
	TypeData    Type = 4
	TypeState   Type = 5
	TypeGap     Type = 6
	TypeAck     Type = 7
	TypeSlow    Type = 8
	TypeCmd     Type = 9
	TypeResult  Type = 10
	TypeCfg     Type = 11
	TypeCfgr    Type = 12
	TypeOTA     Type = 13
	TypeTime    Type = 14
	TypeEvent   Type = 15
	TypeErr     Type = 16
	TypeBye     Type = 17

	// The forms by hand. These numbers do not go over the wire.
	ByHand   Type = 253 // {"temperature":21.4}
	Envelope Type = 254 // {"t":1766000000123,"v":{"temperature":21.4}}
	SenML    Type = 255 // [{"n":"temperature","v":21.4}]
)

var typeNames = [...]string{
	TypeHello: "hello", TypeWelcome: "welcome", TypeBirth: "birth", TypeData: "data", TypeState: "state",
	TypeGap: "gap", TypeAck: "ack", TypeSlow: "slow", TypeCmd: "cmd", TypeResult: "result", TypeCfg: "cfg",
	TypeCfgr: "cfgr", TypeOTA: "ota", TypeTime: "time", TypeEvent: "event", TypeErr: "err", TypeBye: "bye",
}

// String returns the name that JSON messages carry in m.
func (t Type) String() string {
	switch {
	case t == ByHand:
		return "by hand"
	case t == Envelope:
		return "envelope"
	case t == SenML:
		return "senml"
	case t == TypeUnknown || int(t) >= len(typeNames):
		return "unknown"
	}
	return typeNames[t]
}

// Loose reports whether frames of the type are read by [Decoder.Loose].
func (t Type) Loose() bool { return t >= ByHand }

// typeNamed is the inverse of Type.String for messages.
func typeNamed(name []byte) Type {
	for t := TypeHello; int(t) < len(typeNames); t++ {
		if typeNames[t] == string(name) {
			return t
		}
	}
	return TypeUnknown
}

// Closes reports whether a fault in a message of the type closes the connection with the code of [CloseFor], because
// the two sides would not agree any more. After a fault in any other message the answer is an err, and the message is
// ignored.
func (t Type) Closes() bool {
	switch t {
	case TypeHello, TypeWelcome, TypeBirth, TypeData, TypeGap, TypeAck:
		return true
	}
	return false
}
