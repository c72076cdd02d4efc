package ws

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"telemetryhub/device/wire"
	"telemetryhub/hub/frames"
)

// offer is what a request to upgrade asks for.
type offer struct {
	key      string
	protocol string      // the subprotocol that is agreed on, "" if none was offered
	format   wire.Format // what we send
}

// readOffer checks the request as RFC 6455 section 4.2.1 wants it.
func readOffer(r *http.Request) (offer, *refusedError) {
	switch {
	case r.Method != http.MethodGet:
		e := refuse(refusedHandshake, http.StatusMethodNotAllowed, "A WebSocket is opened with GET.")
		e.header = http.Header{"Allow": {http.MethodGet}}
		return offer{}, e
	case r.ProtoMajor != 1 || r.ProtoMinor < 1:
		return offer{}, refuse(refusedHandshake, http.StatusBadRequest, "A WebSocket is opened with HTTP/1.1.")
	case !frames.WantsUpgrade(r):
		return offer{}, needUpgrade(
			"This address speaks WebSocket: connect with a WebSocket client (Connection: Upgrade, Upgrade: websocket).")
	case r.ContentLength != 0:
		return offer{}, refuse(refusedHandshake, http.StatusBadRequest, "A request that opens a WebSocket has no body.")
	case !frames.IsVersion13(r):
		return offer{}, needUpgrade("Only version 13 of the WebSocket protocol is spoken here.")
	}
	o := offer{key: frames.Key(r), format: wire.JSON}
	if o.key == "" {
		return offer{}, refuse(refusedHandshake, http.StatusBadRequest,
			"Sec-WebSocket-Key must be there once, with 16 bytes in base64.")
	}
	wanted := r.Header.Values(frames.HeaderProtocol)
	switch {
	case len(wanted) == 0:
	case frames.HasToken(wanted, wire.SubprotocolCBOR):
		o.protocol, o.format = wire.SubprotocolCBOR, wire.CBOR
	case frames.HasToken(wanted, wire.SubprotocolJSON):
		o.protocol = wire.SubprotocolJSON
	default:
		return offer{}, refuse(refusedHandshake, http.StatusBadRequest,
			"Offer the subprotocol "+wire.SubprotocolCBOR+" or "+wire.SubprotocolJSON+", or none.")
	}
	return o, nil
}

// refusedError is an upgrade that does not happen, as the client sees it.
type refusedError struct {
	why    refusal
	status int
	detail string // says what to do
	header http.Header
	cause  error // for the log
}

func (e *refusedError) Error() string {
	return fmt.Sprintf("upgrade refused with %d: %s", e.status, e.detail)
}

func refuse(why refusal, status int, detail string) *refusedError {
	return &refusedError{why: why, status: status, detail: detail}
}

// refuseFor is refuse with the time after which the client may come again.
func refuseFor(why refusal, status int, detail string, after time.Duration) *refusedError {
	e := refuse(why, status, detail)
	seconds := int64((after + time.Second - 1) / time.Second)
	e.header = http.Header{"Retry-After": {strconv.FormatInt(max(seconds, 1), 10)}}
	return e
}

// needUpgrade says what is spoken here (RFC 9110 section 15.5.22, RFC 6455 section 4.4).
func needUpgrade(detail string) *refusedError {
	e := refuse(refusedHandshake, http.StatusUpgradeRequired, detail)
	e.header = http.Header{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}, frames.HeaderVersion: {"13"}}
	return e
}

// write answers with a problem document (RFC 9457).
func (e *refusedError) write(w http.ResponseWriter) {
	for k, v := range e.header {
		w.Header()[k] = v
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(e.status)
	// The client has gone if this fails, and there is nobody else to tell.
	_ = json.NewEncoder(w).Encode(struct {
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{http.StatusText(e.status), e.status, e.detail})
}
