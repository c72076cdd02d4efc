package lossyfs

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
)

// Mode says what of the changes that were not durable survives a power cut.
type Mode string

// The modes.
const (
	// None loses all of them.
	None Mode = "none"
	// Prefix keeps those before some moment, as a disk that never reorders.
	Prefix Mode = "prefix"
	// Subset lets every block have any of its states since the last sync, every size likewise, and keeps the names up to
	// some moment.
	Subset Mode = "subset"
	// Torn is Subset in which blocks are torn between their sectors.
	Torn Mode = "torn"
)

// Modes are all modes.
var Modes = []Mode{None, Prefix, Subset, Torn}

const sector = 512

// FailAfter lets the power fail after so many more changes and syncs: from then on everything fails. Negative means
// never.
func (d *Disk) FailAfter(changes int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left = changes
}

// Dead reports whether the power has failed.
func (d *Disk) Dead() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead
}

// Cut makes the disk what a power cut might leave of it, and brings the power back. Nobody may be using the disk. It returns
// how many changes were not durable before.
func (d *Disk) Cut(mode Mode, r *rand.Rand) (int, error) {
	if !slices.Contains(Modes, mode) {
		return 0, fmt.Errorf("no such mode: %q", mode)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c := cut{mode: mode, dice: r, until: d.someMomentLocked(r)}
	pending := len(d.pending)
	for i, p := range d.pending {
		if mode == Prefix && p.seq <= c.until || (mode == Subset || mode == Torn) && r.IntN(len(d.pending)-i+1) > 0 {
			d.makeDurableLocked(p)
		} else {
			break // later names depend on earlier ones
		}
	}
	d.pending = nil
	for _, id := range slices.Sorted(maps.Keys(d.nodes)) { // in order, so that the same seed does the same
		n := d.nodes[id]
		if n.dir() {
			n.names = maps.Clone(n.durableNames)
			continue
		}
		pending += len(n.dirty) + len(n.sizes)
		c.settle(n)
	}
	d.left, d.dead, d.faults = -1, false, nil
	d.collectLocked()
	return pending, nil
}

// someMomentLocked picks a moment between the first change that is not durable and now.
func (d *Disk) someMomentLocked(r *rand.Rand) uint64 {
	first := d.seq
	for _, p := range d.pending {
		first = min(first, p.seq-1)
	}
	for _, n := range d.nodes {
		for _, versions := range n.dirty {
			first = min(first, versions[0].seq-1)
		}
		for _, s := range n.sizes {
			first = min(first, s.seq-1)
		}
	}
	return first + r.Uint64N(d.seq-first+1)
}

// cut is one power cut.
type cut struct {
	mode  Mode
	dice  *rand.Rand
	until uint64
}

// settle gives a file its state after the cut.
func (c *cut) settle(n *node) {
	for _, i := range slices.Sorted(maps.Keys(n.dirty)) {
		states := append([]version[*block]{{0, n.durable[i]}}, n.dirty[i]...)
		b := pick(c, states)
		if c.mode == Torn && c.dice.IntN(2) == 0 {
			b = c.tear(states)
		}
		n.durable[i] = b
	}
	n.durableSize = pick(c, append([]version[int64]{{0, n.durableSize}}, n.sizes...))
	for i := range n.durable {
		if i*blockSize >= n.durableSize {
			delete(n.durable, i)
		}
	}
	if b := n.durable[n.durableSize/blockSize]; b != nil {
		end := *b
		clear(end[n.durableSize%blockSize:])
		n.durable[n.durableSize/blockSize] = &end
	}
	n.blocks, n.size = maps.Clone(n.durable), n.durableSize
	n.settled()
}

// pick chooses one of the states, the first of which is durable.
func pick[T any](c *cut, states []version[T]) T {
	switch c.mode {
	case None:
		return states[0].value
	case Prefix:
		chosen := states[0].value
		for _, s := range states[1:] {
			if s.seq <= c.until {
				chosen = s.value
			}
		}
		return chosen
	}
	return states[c.dice.IntN(len(states))].value
}

// tear takes each sector from any of the states.
func (c *cut) tear(states []version[*block]) *block {
	b := new(block)
	for at := 0; at < blockSize; at += sector {
		if s := states[c.dice.IntN(len(states))].value; s != nil {
			copy(b[at:at+sector], s[at:])
		}
	}
	return b
}

// collectLocked forgets the nodes that have no name, and counts the names of the others.
func (d *Disk) collectLocked() {
	links := map[uint64]uint32{rootID: 1}
	var walk func(n *node)
	walk = func(n *node) {
		for _, id := range n.names {
			links[id]++
			if child := d.nodes[id]; child.dir() && links[id] == 1 {
				walk(child)
			}
		}
	}
	walk(d.nodes[rootID])
	for id, n := range d.nodes {
		if n.links = links[id]; n.links == 0 {
			delete(d.nodes, id)
		}
	}
}
