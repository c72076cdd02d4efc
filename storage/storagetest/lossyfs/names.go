package lossyfs

import (
	"maps"
	"slices"
	"syscall"
)

// entry is a node as FUSE wants to know it.
type entry struct {
	id    uint64
	mode  uint32
	size  int64
	links uint32
}

func (n *node) entry() entry { return entry{n.id, n.mode, n.size, n.links} }

// dirLocked returns the node, which must be a folder.
func (d *Disk) dirLocked(id uint64) (*node, syscall.Errno) {
	n := d.nodes[id]
	switch {
	case n == nil:
		return nil, syscall.ENOENT
	case !n.dir():
		return nil, syscall.ENOTDIR
	}
	return n, 0
}

// setLocked changes names, all or nothing.
func (d *Disk) setLocked(sets ...nameSet) syscall.Errno {
	if errno := d.changeLocked(); errno != 0 {
		return errno
	}
	for _, s := range sets {
		names := d.nodes[s.dir].names
		if s.id == 0 {
			delete(names, s.name)
		} else {
			names[s.name] = s.id
		}
	}
	d.pending = append(d.pending, rename{d.seq, sets})
	return 0
}

// stat returns what is known about a node.
func (d *Disk) stat(id uint64) (entry, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.nodes[id]
	if n == nil {
		return entry{}, syscall.ENOENT
	}
	return n.entry(), 0
}

// lookup finds a name in a folder.
func (d *Disk) lookup(dir uint64, name string) (entry, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, errno := d.dirLocked(dir)
	if errno != 0 {
		return entry{}, errno
	}
	id, ok := n.names[name]
	if !ok {
		return entry{}, syscall.ENOENT
	}
	return d.nodes[id].entry(), 0
}

// list returns the names in a folder, in order.
func (d *Disk) list(dir uint64) (names []string, entries []entry, errno syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, errno := d.dirLocked(dir)
	if errno != 0 {
		return nil, nil, errno
	}
	names = slices.Sorted(maps.Keys(n.names))
	for _, name := range names {
		entries = append(entries, d.nodes[n.names[name]].entry())
	}
	return names, entries, 0
}

// create makes a node of any type under a new name.
func (d *Disk) create(dir uint64, name string, mode uint32) (entry, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	in, errno := d.dirLocked(dir)
	if errno != 0 {
		return entry{}, errno
	}
	if _, taken := in.names[name]; taken {
		return entry{}, syscall.EEXIST
	}
	if mode&syscall.S_IFMT == 0 {
		mode |= syscall.S_IFREG
	}
	n := newNode(d.last+1, mode)
	d.nodes[n.id] = n
	if errno := d.setLocked(nameSet{dir, name, n.id}); errno != 0 {
		delete(d.nodes, n.id)
		return entry{}, errno
	}
	d.last++
	return n.entry(), 0
}

// link gives a file one more name.
func (d *Disk) link(id, dir uint64, name string) (entry, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, errno := d.fileLocked(id)
	if errno != 0 {
		return entry{}, errno
	}
	in, errno := d.dirLocked(dir)
	if errno != 0 {
		return entry{}, errno
	}
	if _, taken := in.names[name]; taken {
		return entry{}, syscall.EEXIST
	}
	if errno := d.setLocked(nameSet{dir, name, id}); errno != 0 {
		return entry{}, errno
	}
	n.links++
	return n.entry(), 0
}

// remove takes a name away. wantDir says whether it must be that of an empty folder.
func (d *Disk) remove(dir uint64, name string, wantDir bool) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	in, errno := d.dirLocked(dir)
	if errno != 0 {
		return errno
	}
	n := d.nodes[in.names[name]]
	switch {
	case n == nil:
		return syscall.ENOENT
	case wantDir && !n.dir():
		return syscall.ENOTDIR
	case !wantDir && n.dir():
		return syscall.EISDIR
	case wantDir && len(n.names) > 0:
		return syscall.ENOTEMPTY
	}
	if errno := d.setLocked(nameSet{dir: dir, name: name}); errno != 0 {
		return errno
	}
	n.links--
	return 0
}

// rename moves a name, over an existing one if noReplace is not set.
func (d *Disk) rename(dir uint64, name string, toDir uint64, toName string, noReplace bool) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	from, errno := d.dirLocked(dir)
	if errno != 0 {
		return errno
	}
	to, errno := d.dirLocked(toDir)
	if errno != 0 {
		return errno
	}
	id, ok := from.names[name]
	if !ok {
		return syscall.ENOENT
	}
	old := d.nodes[to.names[toName]]
	switch {
	case old != nil && noReplace:
		return syscall.EEXIST
	case old != nil && old.dir():
		return syscall.EISDIR
	case old != nil && old.id == id:
		return 0
	}
	if errno := d.setLocked(nameSet{dir: dir, name: name}, nameSet{toDir, toName, id}); errno != 0 {
		return errno
	}
	if old != nil {
		old.links--
	}
	return 0
}

// chmod changes permissions.
func (d *Disk) chmod(id uint64, mode uint32) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.nodes[id]
	if n == nil {
		return syscall.ENOENT
	}
	n.mode = n.mode&syscall.S_IFMT | mode&^syscall.S_IFMT
	return 0
}

// files returns the numbers of all files.
func (d *Disk) files() (ids []uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, n := range d.nodes {
		if !n.dir() {
			ids = append(ids, id)
		}
	}
	return ids
}
