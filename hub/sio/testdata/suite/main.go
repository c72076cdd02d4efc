// Command suite is the server that the official test suites of Engine.IO v4 and Socket.IO v5 expect: an echo on port 3000,
// with pings every 300 ms and nobody to authenticate. The suites are in the repository socketio/socket.io, in
// docs/engine.io-protocol/v4-test-suite and docs/socket.io-protocol/v5-test-suite:
//
//	go run ./hub/sio/testdata/suite & (cd …/v4-test-suite && npm ci && npm test) && (cd …/v5-test-suite && npm ci && npm test)
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"telemetryhub/hub/frames"
	"telemetryhub/hub/sio/eio"
	"telemetryhub/hub/sio/socket"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "suite:", err)
		os.Exit(1)
	}
}

func run() error {
	options := eio.Options{
		PingInterval: 300 * time.Millisecond, PingTimeout: 200 * time.Millisecond, MaxPayload: 1_000_000,
		StrangerTimeout: 5 * time.Second,
	}
	engine, err := eio.New(func(s *eio.Session) eio.Stream {
		s.Admit()
		return &echo{session: s}
	}, options)
	if err != nil {
		return err
	}
	options.StrangerTimeout = time.Second // the suite waits for two
	back := socket.Handler{
		Connect: func(s *socket.Socket, auth json.RawMessage) error { s.State = auth; return nil },
		Connected: func(s *socket.Socket) {
			s.Emit("auth", socket.Message{Args: []json.RawMessage{s.State.(json.RawMessage)}})
		},
		Event: func(s *socket.Socket, e *socket.Event) {
			switch e.Name {
			case "message":
				s.Emit("message-back", e.Message)
			case "message-with-ack":
				e.Ack(e.Message)
			}
		},
	}
	sockets, err := socket.New(map[string]socket.Handler{"/": back, "/custom": back}, socket.Options{Engine: options})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/engine.io/", engine)
	mux.Handle("/socket.io/", sockets)
	return http.ListenAndServe("localhost:3000", mux)
}

// echo sends every message back.
type echo struct {
	session *eio.Session

	mu    sync.Mutex // guards the field below
	queue []message
}

type message struct {
	text bool
	data []byte
}

func (e *echo) Receive(text bool, data []byte) error {
	e.mu.Lock()
	e.queue = append(e.queue, message{text, append([]byte(nil), data...)})
	e.mu.Unlock()
	e.session.Wake()
	return nil
}

func (e *echo) Next(dst []byte) ([]byte, frames.Form, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.queue) == 0 {
		return dst, frames.Text, false
	}
	m := e.queue[0]
	e.queue = e.queue[1:]
	form := frames.Binary
	if m.text {
		form = frames.Text
	}
	return append(dst, m.data...), form, true
}

func (e *echo) End() {}
