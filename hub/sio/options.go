package sio

import (
	"io/fs"
	"log/slog"
	"sync/atomic"

	"telemetryhub/hub/sio/eio"
	"telemetryhub/hub/sio/socket"
)

// Options configures a Server. The zero value works.
type Options struct {
	// Version is told to clients in the welcome.
	Version string
	// Client holds the stock client as npm's socket.io-client has it in dist: socket.io.js and socket.io.min.js, and their
	// maps if they are to be served. One of the two stands in for the other. Nil means that none is served.
	Client fs.FS
	// Socket are the options of the layers below. Their metrics, loggers and Identify are set by this package.
	Socket socket.Options
	// Metrics is counted into. Nil means that nobody looks.
	Metrics *Metrics
	// Logger receives diagnostics, never a token, a sid or what messages say. Nil discards them.
	Logger *slog.Logger
}

// Metrics counts what happens. The zero value is ready. All fields are safe for concurrent use, and only to be read.
type Metrics struct {
	Engine  eio.Metrics
	Socket  socket.Metrics
	Frames  atomic.Uint64 // of the live feed that were sent
	Resumed atomic.Uint64 // feeds that went on where a client had been cut off
	Relayed atomic.Uint64 // messages of clients to others, counted once each
	Denied  atomic.Uint64 // what clients asked for and may not, or too often
}

func (o *Options) fill() {
	if o.Metrics == nil {
		o.Metrics = new(Metrics)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Socket.Metrics, o.Socket.Engine.Metrics = &o.Metrics.Socket, &o.Metrics.Engine
	o.Socket.Logger, o.Socket.Engine.Logger = o.Logger, o.Logger
}
