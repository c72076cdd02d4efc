package lossyfs

import (
	"maps"
	"sync"
	"syscall"
)

const blockSize = 4096

// rootID is the number of the top folder, as FUSE has it.
const rootID = 1

// block is never changed once it is stored.
type block [blockSize]byte

// version is one state of a block, or of a size, since the last sync.
type version[T any] struct {
	seq   uint64
	value T
}

// node is a file, a folder or a socket.
type node struct {
	id    uint64
	mode  uint32 // type and permissions; permissions are durable at once
	links uint32

	// Of a folder: what it holds now, and what of it is durable.
	names, durableNames map[string]uint64

	// Of a file. A missing block, and a nil one, is all zeros.
	blocks, durable   map[int64]*block
	size, durableSize int64
	dirty             map[int64][]version[*block]
	sizes             []version[int64]
	metaDirty         bool // one of the first two blocks was written since the last sync
}

func (n *node) dir() bool { return n.mode&syscall.S_IFMT == syscall.S_IFDIR }

// rename is a change of names that is not durable yet. All of it becomes durable at once.
type rename struct {
	seq  uint64
	sets []nameSet
}

// nameSet gives a name to a node, or takes it away if id is zero.
type nameSet struct {
	dir  uint64
	name string
	id   uint64
}

// Disk is the file system. Its methods are safe for concurrent use. Errors are those of the system.
type Disk struct {
	mu      sync.Mutex // guards the fields below
	nodes   map[uint64]*node
	last    uint64 // number of the newest node
	seq     uint64 // of the last change
	pending []rename
	faults  []*Fault
	left    int64 // changes until the power fails, negative for never
	dead    bool
}

// New returns an empty disk.
func New() *Disk {
	d := &Disk{nodes: make(map[uint64]*node), last: rootID, left: -1}
	d.nodes[rootID] = newNode(rootID, syscall.S_IFDIR|0o700)
	return d
}

func newNode(id uint64, mode uint32) *node {
	n := &node{id: id, mode: mode, links: 1}
	if n.dir() {
		n.names, n.durableNames = make(map[string]uint64), make(map[string]uint64)
	} else {
		n.blocks, n.durable, n.dirty = make(map[int64]*block), make(map[int64]*block), make(map[int64][]version[*block])
	}
	return n
}

// changeLocked is called before every change and every sync. It decides whether the power is still there.
func (d *Disk) changeLocked() syscall.Errno {
	if d.left == 0 {
		d.dead = true
	}
	if d.dead {
		return syscall.EIO
	}
	if d.left > 0 {
		d.left--
	}
	d.seq++
	return 0
}

// file returns the node, which must not be a folder.
func (d *Disk) fileLocked(id uint64) (*node, syscall.Errno) {
	n := d.nodes[id]
	switch {
	case n == nil:
		return nil, syscall.ENOENT
	case n.dir():
		return nil, syscall.EISDIR
	}
	return n, 0
}

// read fills p from the offset and returns how much there was.
func (d *Disk) read(id uint64, off int64, p []byte) (int, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, errno := d.fileLocked(id)
	if errno != 0 {
		return 0, errno
	}
	if d.dead {
		return 0, syscall.EIO
	}
	if errno := d.failLocked(Read, n); errno != 0 {
		return 0, errno
	}
	p = p[:max(0, min(int64(len(p)), n.size-off))]
	clear(p)
	for done := 0; done < len(p); {
		at := off + int64(done)
		in := int(at % blockSize)
		part := p[done:min(len(p), done+blockSize-in)]
		if b := n.blocks[at/blockSize]; b != nil {
			copy(part, b[in:])
		}
		done += len(part)
	}
	return len(p), 0
}

// write writes p at the offset.
func (d *Disk) write(id uint64, off int64, p []byte) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, errno := d.fileLocked(id)
	if errno == 0 {
		errno = d.changeLocked()
	}
	if errno == 0 {
		errno = d.failLocked(Write, n)
	}
	if errno != 0 {
		return errno
	}
	for done := 0; done < len(p); {
		at := off + int64(done)
		in := int(at % blockSize)
		b := new(block)
		if old := n.blocks[at/blockSize]; old != nil {
			*b = *old
		}
		done += copy(b[in:], p[done:])
		d.putLocked(n, at/blockSize, b)
	}
	if end := off + int64(len(p)); end > n.size {
		d.resizeLocked(n, end)
	}
	return 0
}

func (d *Disk) putLocked(n *node, i int64, b *block) {
	n.blocks[i] = b
	n.dirty[i] = append(n.dirty[i], version[*block]{d.seq, b})
	n.metaDirty = n.metaDirty || i < 2
}

func (d *Disk) resizeLocked(n *node, size int64) {
	n.size = size
	n.sizes = append(n.sizes, version[int64]{d.seq, size})
}

// truncate gives a file a size.
func (d *Disk) truncate(id uint64, size int64) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, errno := d.fileLocked(id)
	if errno == 0 {
		errno = d.changeLocked()
	}
	if errno != 0 {
		return errno
	}
	for i, b := range n.blocks {
		switch start := i * blockSize; {
		case b == nil || start+blockSize <= size:
		case start >= size:
			d.putLocked(n, i, nil)
		default:
			cut := *b
			clear(cut[size-start:])
			d.putLocked(n, i, &cut)
		}
	}
	d.resizeLocked(n, size)
	return 0
}

// sync makes a file durable, or the names in a folder.
func (d *Disk) sync(id uint64) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.nodes[id]
	if n == nil {
		return syscall.ENOENT
	}
	if errno := d.changeLocked(); errno != 0 {
		return errno
	}
	if n.dir() {
		d.syncNamesLocked(id)
		return 0
	}
	errno, lost := d.failSyncLocked(n)
	if lost {
		// The kernel has marked the pages clean: its cache still shows them, the disk never will.
		n.blocks = maps.Clone(n.durable)
	} else {
		n.durable = maps.Clone(n.blocks)
	}
	n.durableSize = n.size
	n.settled()
	return errno
}

// settled forgets what was not durable.
func (n *node) settled() {
	clear(n.dirty)
	n.sizes, n.metaDirty = nil, false
}

// syncNamesLocked makes the names in a folder durable, and with them every change that also concerns other folders.
func (d *Disk) syncNamesLocked(dir uint64) {
	kept := d.pending[:0]
	for _, r := range d.pending {
		here := false
		for _, s := range r.sets {
			here = here || s.dir == dir
		}
		if here {
			d.makeDurableLocked(r)
		} else {
			kept = append(kept, r)
		}
	}
	d.pending = kept
}

func (d *Disk) makeDurableLocked(r rename) {
	for _, s := range r.sets {
		names := d.nodes[s.dir].durableNames
		if s.id == 0 {
			delete(names, s.name)
		} else {
			names[s.name] = s.id
		}
	}
}
