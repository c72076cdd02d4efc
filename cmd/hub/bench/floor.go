package bench

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/lxzan/gws"
	"go.etcd.io/bbolt"

	"telemetryhub/device"
	"telemetryhub/device/wire"
)

// Floor is the least that a server must do to keep the promise "acked means on disk" with the same libraries: it decodes
// each batch, puts what waits into one bbolt transaction, begun at least an interval after the one before, and acks after
// it. It checks nothing, finds no duplicates, and nobody can read what it wrote.
type Floor struct {
	gws.BuiltinEventHandler
	interval time.Duration
	db       *bbolt.DB
	index    *wire.Index
	server   http.Server
	done     chan struct{}

	mu      sync.Mutex // guards the fields below
	waiting []waiting
	buf     []byte
	ready   chan struct{}
	closed  bool
}

type decoder struct {
	wire.Decoder
	batch device.Batch
}

var decoders = sync.Pool{New: func() any { return new(decoder) }}

type waiting struct {
	c   *gws.Conn
	seq uint64
}

// ListenFloor starts a floor on a loopback port with its file in dir.
func ListenFloor(dir string, interval time.Duration) (*Floor, net.Addr, error) {
	db, err := bbolt.Open(filepath.Join(dir, "floor.bolt"), 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType, InitialMmapSize: 1 << 30, PageSize: 4096})
	if err != nil {
		return nil, nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("log")); return err })
	if err != nil {
		return nil, nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	index, err := wire.NewIndex(schema())
	if err != nil {
		return nil, nil, err
	}
	f := &Floor{interval: interval, db: db, index: index, ready: make(chan struct{}, 1), done: make(chan struct{})}
	up := gws.NewUpgrader(f, &gws.ServerOption{SubProtocols: []string{wire.SubprotocolCBOR}, ReadMaxPayloadSize: wire.MaxFrame})
	f.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, err := up.Upgrade(w, r); err == nil {
			go c.ReadLoop()
		}
	})
	go func() { _ = f.server.Serve(ln) }() // ends with the process
	go f.commit()
	return f, ln.Addr(), nil
}

// OnMessage decodes a batch and leaves it to the committer.
func (f *Floor) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	if t, err := wire.Peek(wire.CBOR, m.Bytes()); err != nil || t != wire.TypeData {
		if t == wire.TypeHello {
			w := wire.Welcome{NowMS: time.Now().UnixMilli(), Schema: wire.SchemaOK, PingS: 25, Limits: wire.Limits{Win: 32, Bytes: 1 << 18, Max: wire.MaxFrame}}
			_ = c.WriteMessage(gws.OpcodeBinary, wire.AppendWelcome(nil, wire.CBOR, &w)) // OnClose reports it
		}
		return
	}
	d := decoders.Get().(*decoder)
	defer decoders.Put(d)
	if _, _, err := d.Data(wire.CBOR, m.Bytes(), f.index, &d.batch); err != nil {
		panic(fmt.Errorf("floor: %w", err)) // the generator is ours
	}
	f.mu.Lock()
	f.waiting = append(f.waiting, waiting{c, d.batch.Seq})
	f.buf = append(f.buf, m.Bytes()...)
	f.mu.Unlock()
	select {
	case f.ready <- struct{}{}:
	default:
	}
}

func (f *Floor) commit() {
	defer close(f.done)
	var begin time.Time
	var key [10]byte
	last := map[*gws.Conn]uint64{}
	for pos := uint64(1); ; pos++ {
		<-f.ready
		time.Sleep(f.interval - time.Since(begin))
		begin = time.Now()
		f.mu.Lock()
		list, buf := f.waiting, f.buf
		f.waiting, f.buf = nil, nil
		closed := f.closed
		f.mu.Unlock()
		if closed {
			return
		}
		if len(list) == 0 {
			continue
		}
		err := f.db.Update(func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte("log"))
			b.FillPercent = 1
			binary.BigEndian.PutUint64(key[:], pos)
			for piece := uint16(0); len(buf) > 0; piece++ {
				binary.BigEndian.PutUint16(key[8:], piece)
				n := min(len(buf), 4000)
				if err := b.Put(append([]byte(nil), key[:]...), buf[:n]); err != nil {
					return err
				}
				buf = buf[n:]
			}
			return nil
		})
		if err != nil {
			panic(fmt.Errorf("floor: %w", err)) // a benchmark without a disk is none
		}
		clear(last)
		for _, w := range list {
			last[w.c] = w.seq
		}
		for c, seq := range last {
			_ = c.WriteMessage(gws.OpcodeBinary, wire.AppendAck(nil, wire.CBOR, &wire.Ack{Seq: seq})) // OnClose reports it
		}
	}
}

// Close ends the floor and removes its file.
func (f *Floor) Close() error {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	select {
	case f.ready <- struct{}{}:
	default:
	}
	<-f.done
	_ = f.server.Close() // nobody is to be served any more
	if err := f.db.Close(); err != nil {
		return err
	}
	return os.Remove(f.db.Path())
}
