package bolt

import (
	"bytes"
	"fmt"
)

// deepBytes is how much of a node scanDeep looks at. A node of catalog or slice has at most four elements of a piece
// each, or fits in a page.
const deepBytes = 20 << 10

// scanDeep calls yield for everything in the file that could be an element of a leaf with one wrong bit in its header or
// in its table, where scan sees no leaf, or an element less. Most of what it yields is nonsense: only what has a proof of
// its own may be believed. All of it is stale, as nothing tells whether the page is in use.
func scanDeep(p *pages, yield func(element)) {
	p.meta.high = pageID(p.size / pageSize)
	for id := pageID(2); id < p.meta.high; id++ {
		b, err := p.raw(id, int(min(deepBytes, int64(p.meta.high-id)*pageSize)))
		if err != nil {
			continue // scan has listed it
		}
		d := deepNode{id: id, base: int64(id) * pageSize, b: b, yield: yield}
		listed := int(le.Uint16(b[10:]))
		d.read(listed)
		// The first key follows the table, so it tells too how many elements there are.
		if first := int(le.Uint32(b[pageHeaderSize+4:])); first%elemSize == 0 && first/elemSize != listed {
			d.read(first / elemSize)
		}
	}
}

// deepNode is a page that may be a leaf.
type deepNode struct {
	id    pageID
	base  int64 // of b in the file
	b     []byte
	yield func(element)
}

// read yields the elements of a leaf with so many of them. One wrong bit makes at most two of them look wrong, so it
// gives up at the third.
func (d *deepNode) read(count int) {
	end := int64(pageHeaderSize + count*elemSize)
	if count == 0 || end > int64(len(d.b)) {
		return
	}
	n := node{leaf: true, count: count, b: d.b}
	wrong := 0
	for i := range count {
		at, key, value := n.span(i)
		next := at + key + value
		if i+1 < count {
			next, _, _ = n.span(i + 1)
		}
		if at == end && key > 0 && at+key+value == next && next <= int64(len(d.b)) {
			if n.flags(i) == bucketElem && value > bucketValueSize+pageHeaderSize {
				inline := deepNode{id: d.id, base: d.base + at + key + bucketValueSize, b: n.value(i)[bucketValueSize:], yield: d.yield}
				inline.read(int(le.Uint16(inline.b[10:])))
			}
			d.give(at, key, value)
			end = next
			continue
		}
		if wrong++; wrong > 2 {
			return
		}
		d.vary(end, key, value)
		// Either the lengths are wrong, or the place of the next element: what comes after that one decides.
		if own := end + key + value; d.fits(&n, i+1, own) || next <= end || next >= int64(len(d.b)) {
			end = own
		} else {
			end = next
		}
	}
}

// fits reports whether element i ends where the one after it begins, if it begins at the place given.
func (d *deepNode) fits(n *node, i int, at int64) bool {
	if i >= n.count {
		return true
	}
	_, key, value := n.span(i)
	if i+1 == n.count {
		d.give(at, key, value) // nobody knows
		return false
	}
	next, _, _ := n.span(i + 1)
	return at+key+value == next
}

// vary yields an element with the lengths as they are and with each single bit of them turned.
func (d *deepNode) vary(at, key, value int64) {
	d.give(at, key, value)
	for bit := range 32 {
		d.give(at, key^1<<bit, value)
		d.give(at, key, value^1<<bit)
	}
}

func (d *deepNode) give(at, key, value int64) {
	if at < 0 || key <= 0 || at+key+value > int64(len(d.b)) {
		return
	}
	d.yield(element{origin: stale, page: d.id, off: d.base + at + key, key: d.b[at : at+key], value: d.b[at+key : at+key+value]})
}

// joinVariants joins parts of which several were found in some places: it tries the first of each, and every exchange in
// one place.
func joinVariants(parts [][][]byte, right func([]byte) bool) ([]byte, bool) {
	joined := make([]byte, 0, len(parts)*pieceMax)
	for at := range parts {
		if len(parts[at]) == 0 {
			return nil, false
		}
		for variant := range parts[at] {
			if at > 0 && variant == 0 {
				continue // the same as before
			}
			joined = joined[:0]
			for i, p := range parts {
				if i == at {
					joined = append(joined, p[variant]...)
				} else if len(p) > 0 {
					joined = append(joined, p[0]...)
				}
			}
			if right(joined) {
				return joined, true
			}
		}
	}
	return nil, false
}

// gap is a range of keys of a bucket that lies under pages that cannot be read: from lo to before hi; nil is no bound.
type gap struct{ lo, hi []byte }

func (g gap) String() string {
	switch {
	case g.lo == nil && g.hi == nil:
		return "anywhere"
	case g.lo == nil:
		return fmt.Sprintf("before %q", g.hi)
	case g.hi == nil:
		return fmt.Sprintf("from %q on", g.lo)
	}
	return fmt.Sprintf("from %q to before %q", g.lo, g.hi)
}

// gaps follows the tree of a bucket and returns where it breaks.
func (p *pages) gaps(bucket string) []gap {
	root, _, _, ok, err := p.bucket(bucket)
	if err != nil || !ok {
		return []gap{{}}
	}
	if root == 0 {
		return nil
	}
	var gaps []gap
	seen := make(map[pageID]bool)
	var walk func(id pageID, lo, hi []byte)
	walk = func(id pageID, lo, hi []byte) {
		n, err := p.node(id)
		if err != nil || seen[id] {
			gaps = append(gaps, gap{lo, hi})
			return
		}
		seen[id] = true
		if n.leaf {
			return
		}
		n.b = bytes.Clone(n.b) // the reader's bytes are gone with the next page
		for i := range n.count {
			childLo, childHi := lo, hi
			if i > 0 {
				childLo = n.key(i)
			}
			if i+1 < n.count {
				childHi = n.key(i + 1)
			}
			walk(n.child(i), childLo, childHi)
		}
	}
	walk(root, nil, nil)
	return gaps
}
