package lossyfs

import (
	"fmt"
	"path"
	"syscall"
)

// Op is an operation that can be made to fail.
type Op string

// The operations.
const (
	Read  Op = "read"
	Write Op = "write"
	// Sync is any sync of a file, SyncData one after which only data would be durable, and SyncMeta one of a database
	// file's meta page (the first two blocks of the file).
	Sync     Op = "sync"
	SyncData Op = "sync data"
	SyncMeta Op = "sync meta"
)

// Fault makes operations fail.
type Fault struct {
	Op Op `json:"op"`
	// File is a pattern of path.Match for the file's path from the root. Empty means every file.
	File string `json:"file,omitempty"`
	// Skip lets so many operations pass first. Times is how many fail then; zero means all.
	Skip  int `json:"skip,omitempty"`
	Times int `json:"times,omitempty"`
	// Errno is the error. Zero means EIO.
	Errno syscall.Errno `json:"errno,omitempty"`
	// Lost says that what a failed sync should have made durable is lost. Otherwise it is durable nevertheless.
	Lost bool `json:"lost,omitempty"`

	hits int
}

// Fail adds a fault. The first one that fits an operation counts.
func (d *Disk) Fail(f Fault) error {
	if _, err := path.Match(f.File, ""); err != nil {
		return fmt.Errorf("fault: %w", err)
	}
	if f.Errno == 0 {
		f.Errno = syscall.EIO
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = append(d.faults, &f)
	return nil
}

// Heal removes all faults and returns how many operations failed because of them.
func (d *Disk) Heal() (hits int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.faults {
		hits += f.hits
	}
	d.faults = nil
	return hits
}

// Hits returns how many operations have failed since the faults were added.
func (d *Disk) Hits() (hits int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.faults {
		hits += f.hits
	}
	return hits
}

// failLocked returns the error that an operation is to fail with.
func (d *Disk) failLocked(op Op, n *node) syscall.Errno {
	if f := d.faultLocked(n, op); f != nil {
		return f.Errno
	}
	return 0
}

// failSyncLocked does the same for a sync, and tells whether what it was for is lost.
func (d *Disk) failSyncLocked(n *node) (syscall.Errno, bool) {
	kind := SyncData
	if n.metaDirty {
		kind = SyncMeta
	}
	if f := d.faultLocked(n, Sync, kind); f != nil {
		return f.Errno, f.Lost
	}
	return 0, false
}

func (d *Disk) faultLocked(n *node, ops ...Op) *Fault {
	if len(d.faults) == 0 {
		return nil
	}
	name := d.pathLocked(rootID, "", n.id)
	for _, f := range d.faults {
		match := false
		for _, op := range ops {
			match = match || f.Op == op
		}
		if match && f.File != "" {
			match, _ = path.Match(f.File, name) // Fail has checked the pattern
		}
		if !match {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		if f.Times > 0 && f.hits >= f.Times {
			continue
		}
		f.hits++
		return f
	}
	return nil
}

// pathLocked returns the path of a node, or an empty string if it has none.
func (d *Disk) pathLocked(dir uint64, at string, id uint64) string {
	for name, child := range d.nodes[dir].names {
		p := path.Join(at, name)
		if child == id {
			return p
		}
		if d.nodes[child].dir() {
			if found := d.pathLocked(child, p, id); found != "" {
				return found
			}
		}
	}
	return ""
}
