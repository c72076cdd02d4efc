package wire

import "fmt"

// CloseCode is a WebSocket close code of this protocol. After a code from 4000 to 4499 the other side reconnects by
// itself; after one from 4500 to 4999 somebody must act first. The numbers are never changed or reused.
type CloseCode uint16

// The close codes.
const (
	CloseSlow     CloseCode = 4001 // the receiver did not keep up with what was sent to it
	CloseDraining CloseCode = 4002 // the hub is stopping
	CloseResume   CloseCode = 4010 // the point to resume from is gone: start over with a snapshot
	CloseTooFast  CloseCode = 4029 // the sender ignored its limits
	CloseProtocol CloseCode = 4500 // a frame broke the protocol
	CloseWho      CloseCode = 4501 // no identity, or not the one that the hello claims
	CloseRevoked  CloseCode = 4503 // the token is no longer valid
	CloseReplaced CloseCode = 4509 // the same device connected again
	CloseTooBig   CloseCode = 4513 // a frame over the limit
)

// Reconnect reports whether the side that is closed may connect again by itself, with back-off.
func (c CloseCode) Reconnect() bool { return c < 4500 }

// Reason returns the text of the close frame, at most 123 bytes, or the number for a code of another version.
func (c CloseCode) Reason() string {
	switch c {
	case CloseSlow:
		return "slow: you did not read fast enough; reconnect and resume"
	case CloseDraining:
		return "draining: the hub is going away; reconnect later"
	case CloseResume:
		return "resume: that point is too far back; start over with a snapshot"
	case CloseTooFast:
		return "too fast: keep to the limits of the welcome; reconnect later"
	case CloseProtocol:
		return "protocol: a frame was not understood; check the client"
	case CloseWho:
		return "who are you: the token is missing, unknown or for another device"
	case CloseRevoked:
		return "revoked: this token is no longer valid; get a new one"
	case CloseReplaced:
		return "replaced: the same device connected again"
	case CloseTooBig:
		return "too big: a frame was over the size limit; send smaller batches"
	}
	return fmt.Sprintf("code %d", uint16(c))
}

// String returns the number and the reason.
func (c CloseCode) String() string { return fmt.Sprintf("%d %s", uint16(c), c.Reason()) }
