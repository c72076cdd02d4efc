package bolt

import (
	"bytes"
	"fmt"

	"telemetryhub/storage"
)

// errUnaccounted means that a page is lost: nothing uses it and it is not free.
var errUnaccounted = fmt.Errorf("%w: lost page", storage.ErrCorrupt)

// graphCheck walks a whole file. When it is satisfied bbolt may open the file for writing: every page that it will
// follow, reuse or free is what it should be.
type graphCheck struct {
	p    *pages
	used []bool // by page: reached from the root or from the freelist
}

// checkGraph returns nil if every page below the high-water mark is exactly one of: in the tree, in the freelist's own
// pages, or free; and if all keys are in order. Otherwise it returns an error that wraps storage.ErrCorrupt. Values are
// not its concern.
func checkGraph(p *pages) error {
	if len(p.notes) > 0 {
		return corruptf("%s", p.notes[0])
	}
	c := &graphCheck{p: p, used: make([]bool, p.meta.high)}
	if err := c.tree(p.meta.root, true, nil, nil, 0); err != nil {
		return err
	}
	return c.freelist()
}

// take marks the pages of a node as used.
func (c *graphCheck) take(id pageID, bytes int) error {
	for i := id; i < id+pageID(bytes/pageSize); i++ {
		if c.used[i] {
			return corruptf("page %d is used twice", i)
		}
		c.used[i] = true
	}
	return nil
}

// tree checks a page and everything under it. Its keys must be in [lo, hi); nil is no bound. Buckets are in the top tree
// and nothing else is.
func (c *graphCheck) tree(id pageID, top bool, lo, hi []byte, depth int) error {
	n, err := c.p.node(id)
	if err != nil {
		return err
	}
	if err := c.take(id, len(n.b)); err != nil {
		return err
	}
	if depth > maxDepth {
		return corruptf("the tree is too deep at page %d", id)
	}
	if n.count == 0 {
		if depth > 0 {
			return corruptf("page %d is empty", id)
		}
		return nil
	}
	if lo != nil && bytes.Compare(n.key(0), lo) < 0 || hi != nil && bytes.Compare(n.key(n.count-1), hi) >= 0 {
		return corruptf("keys of page %d are outside those of its parent", id)
	}
	if n.leaf {
		return c.leaf(id, top, n)
	}
	// The bytes of n are gone when a child has been read.
	n.b = bytes.Clone(n.b)
	for i := range n.count {
		childHi := hi
		if i+1 < n.count {
			childHi = n.key(i + 1)
		}
		if err := c.tree(n.child(i), top, n.key(i), childHi, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// leaf checks the kind of every element and goes down into the buckets of the top tree.
func (c *graphCheck) leaf(id pageID, top bool, n node) error {
	var roots []pageID
	for i := range n.count {
		if flags := n.flags(i); flags != 0 && flags != bucketElem || top != (flags == bucketElem) {
			return corruptf("element %d of page %d has the flags %#x", i, id, flags)
		}
		if !top {
			continue
		}
		root, _, inline, err := n.bucketAt(i)
		if err != nil {
			return err
		}
		if root != 0 {
			roots = append(roots, root)
			continue
		}
		for k := range inline.count {
			if inline.flags(k) != 0 {
				return corruptf("element %d of bucket %q has the flags %#x", k, n.key(i), inline.flags(k))
			}
		}
	}
	for _, root := range roots {
		if err := c.tree(root, false, nil, nil, 0); err != nil {
			return err
		}
	}
	return nil
}

// freelist checks that the free pages are exactly those that nothing else uses.
func (c *graphCheck) freelist() error {
	ids, size, err := c.p.freelist()
	if err != nil {
		return err
	}
	if err := c.take(c.p.meta.freelist, size); err != nil {
		return err
	}
	last := pageID(1)
	for _, id := range ids {
		if id <= last || id >= c.p.meta.high {
			return corruptf("the freelist is not in order at page %d", id)
		}
		if c.used[id] {
			return corruptf("page %d is in use and free", id)
		}
		c.used[id], last = true, id
	}
	for id := pageID(2); id < c.p.meta.high; id++ {
		if !c.used[id] {
			return fmt.Errorf("%w: page %d is neither in use nor free", errUnaccounted, id)
		}
	}
	return nil
}

// freelist returns the free pages as they are listed and the bytes of the list's own pages.
func (p *pages) freelist() ([]pageID, int, error) {
	id := p.meta.freelist
	b, err := p.raw(id, pageHeaderSize)
	if err != nil {
		return nil, 0, err
	}
	if flags := le.Uint16(b[8:]); pageID(le.Uint64(b)) != id || flags != freelistPage {
		return nil, 0, corruptf("page %d is not the freelist", id)
	}
	count := uint64(le.Uint16(b[10:]))
	size := (uint64(le.Uint32(b[12:])) + 1) * pageSize
	if size > maxNodeBytes {
		return nil, 0, corruptf("the freelist is too long")
	}
	if b, err = p.raw(id, int(size)); err != nil {
		return nil, 0, err
	}
	b = b[pageHeaderSize:]
	if count == 0xFFFF { // too many for the header: the first entry is the count
		count, b = le.Uint64(b), b[8:]
	}
	if count > uint64(len(b)/8) {
		return nil, 0, corruptf("the freelist has %d entries and no room for them", count)
	}
	ids := make([]pageID, count)
	for i := range ids {
		ids[i] = pageID(le.Uint64(b[i*8:]))
	}
	return ids, int(size), nil
}

// bucket finds a bucket of the file: its root page, or its only page if it is inline. ok is false if there is none.
func (p *pages) bucket(name string) (root pageID, sequence uint64, inline node, ok bool, err error) {
	id := p.meta.root
	for range maxDepth {
		n, err := p.node(id)
		if err != nil {
			return 0, 0, node{}, false, err
		}
		i, found := n.find([]byte(name))
		if !n.leaf {
			id = n.child(i)
			continue
		}
		if !found {
			return 0, 0, node{}, false, nil
		}
		root, sequence, inline, err = n.bucketAt(i)
		return root, sequence, inline, err == nil, err
	}
	return 0, 0, node{}, false, fmt.Errorf("find bucket %s: %w", name, corruptf("the tree is too deep"))
}
