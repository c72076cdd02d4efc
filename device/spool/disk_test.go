package spool_test

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"

	"telemetryhub/device/spool"
)

// disk is a folder in memory that writes down every change, so that the power can be cut after any of them.
type disk struct {
	mu     sync.Mutex
	names  map[string]*inode
	ops    []op
	locked bool
	// fail is asked before every change; an error stops it. A write may be half done before.
	fail func(kind string, name string) error
	free int64
}

type inode struct{ data []byte }

type op struct {
	kind     string // create, write, sync, truncate, rename, remove, syncdir
	name, to string
	node     *inode
	off      int64
	data     []byte
}

func newDisk() *disk { return &disk{names: map[string]*inode{}, free: 1 << 40} }

func (d *disk) do(o op) error {
	if d.fail != nil {
		if err := d.fail(o.kind, o.name); err != nil {
			if o.kind == "write" {
				o.data = o.data[:len(o.data)/2]
				d.apply(o)
			}
			return err
		}
	}
	d.apply(o)
	return nil
}

func (d *disk) apply(o op) {
	d.ops = append(d.ops, o)
	switch o.kind {
	case "create":
		d.names[o.name] = o.node
	case "write":
		if need := int(o.off) + len(o.data); need > len(o.node.data) {
			o.node.data = append(o.node.data, make([]byte, need-len(o.node.data))...)
		}
		copy(o.node.data[o.off:], o.data)
	case "truncate":
		if int(o.off) < len(o.node.data) {
			o.node.data = o.node.data[:o.off:o.off]
		}
	case "rename":
		d.names[o.to] = d.names[o.name]
		delete(d.names, o.name)
	case "remove":
		delete(d.names, o.name)
	}
}

// count returns how many changes there were.
func (d *disk) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.ops)
}

// killed returns the folder as another process sees it after the first n changes.
func (d *disk) killed(n int) *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return replay(d.ops[:n])
}

// powerCut returns the folder after a power cut behind the first n changes. What was not synced is there, partly there or
// missing, as rng wants it. Changes of names keep their order, as a journalling filesystem does it.
func (d *disk) powerCut(n int, rng *rand.Rand) *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	synced := map[*inode]int{} // the changes of a file before this place are durable
	named := 0
	for i, o := range d.ops[:n] {
		switch o.kind {
		case "sync":
			synced[o.node] = i
		case "syncdir":
			named = i
		}
	}
	lastName := named + rng.IntN(n-named+1)
	var kept []op
	for i, o := range d.ops[:n] {
		switch o.kind {
		case "create", "rename", "remove":
			if i <= named || i < lastName {
				kept = append(kept, o)
			}
		case "write", "truncate":
			if i < synced[o.node] {
				kept = append(kept, o)
				continue
			}
			switch rng.IntN(3) {
			case 0:
				kept = append(kept, o)
			case 1:
				o.data = o.data[:rng.IntN(len(o.data)+1)]
				kept = append(kept, o)
			}
		}
	}
	return replay(kept)
}

func replay(ops []op) *disk {
	d := newDisk()
	nodes := map[*inode]*inode{}
	for _, o := range ops {
		if o.node != nil {
			if nodes[o.node] == nil {
				nodes[o.node] = &inode{}
			}
			o.node = nodes[o.node]
		}
		if o.kind == "rename" && d.names[o.name] == nil {
			continue
		}
		d.apply(o)
	}
	d.ops = nil
	return d
}

// clone returns an independent copy.
func (d *disk) clone() *disk {
	c := newDisk()
	for name, n := range d.names {
		c.names[name] = &inode{data: slices.Clone(n.data)}
	}
	return c
}

func (d *disk) Lock() (func() error, error) {
	if d.locked {
		return nil, spool.ErrLocked
	}
	d.locked = true
	return func() error { d.locked = false; return nil }, nil
}

func (d *disk) List() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.names)), nil
}

func (d *disk) Create(name string) (spool.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := &inode{}
	return &handle{d, n, name}, d.do(op{kind: "create", name: name, node: n})
}

func (d *disk) Open(name string, _ bool) (spool.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.names[name]
	if n == nil {
		return nil, fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
	}
	return &handle{d, n, name}, nil
}

func (d *disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.do(op{kind: "rename", name: from, to: to})
}

func (d *disk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.do(op{kind: "remove", name: name})
}

func (d *disk) SyncDir() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.do(op{kind: "syncdir"})
}

func (d *disk) Free() (int64, error) { return d.free, nil }

type handle struct {
	d    *disk
	n    *inode
	name string
}

func (h *handle) ReadAt(p []byte, off int64) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if off >= int64(len(h.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, h.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *handle) WriteAt(p []byte, off int64) (int, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	if err := h.d.do(op{kind: "write", name: h.name, node: h.n, off: off, data: slices.Clone(p)}); err != nil {
		return len(p) / 2, err
	}
	return len(p), nil
}

func (h *handle) Sync() error {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	return h.d.do(op{kind: "sync", name: h.name, node: h.n})
}

func (h *handle) Truncate(size int64) error {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	return h.d.do(op{kind: "truncate", name: h.name, node: h.n, off: size})
}

func (h *handle) Size() (int64, error) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	return int64(len(h.n.data)), nil
}

func (h *handle) Close() error { return nil }

// full fails every change that takes room.
func full(kind, _ string) error {
	if kind == "write" || kind == "create" {
		return syscall.ENOSPC
	}
	return nil
}
