package bolt

import (
	"errors"
)

// origin says where a leaf element was found in a damaged file.
type origin uint8

const (
	// inTree: it can be reached from the root, so it belongs to the newest state.
	inTree origin = iota
	// orphan: its page is neither reachable nor free, because something that pointed to it is damaged. It belongs to the
	// newest state too.
	orphan
	// stale: its page is free, or nobody can say whether it is. It is what some earlier state held, or a transaction that
	// was never completed.
	stale
)

// element is a leaf element as it was found. Key and value are valid until the next one.
type element struct {
	origin origin
	// untold qualifies stale: nothing tells whether the page is free.
	untold     bool
	page       pageID
	off        int64 // of the value in the file
	key, value []byte
}

// scanner reads everything that looks like a leaf in a file, however damaged.
type scanner struct {
	p *pages
	// reached marks pages in the tree, free those in the freelist.
	reached, free []bool
	broken        bool // the tree could not be followed everywhere
	listed        bool // the freelist can be believed
	untold        bool // see element
	unread        []pageID
	yield         func(element)
}

// scan calls yield for every element of every leaf that can be made out in the file, those in the tree first. Elements
// of the buckets' tree itself are not yielded, only what the buckets hold. It returns the pages that could not be read.
// There is no error: what cannot be understood is not yielded.
func scan(p *pages, yield func(element)) []pageID {
	all := p.size / pageSize
	s := &scanner{p: p, reached: make([]bool, all), free: make([]bool, all), yield: yield}
	p.meta.high = min(p.meta.high, pageID(all)) // the file may have been cut
	if p.meta.high > 0 {
		s.follow(p.meta.root, true, 0)
	} else {
		s.broken = true
	}
	s.readFreelist()
	s.untold = s.broken && !s.listed
	p.meta.high = pageID(all) // a newer transaction, whose meta page is lost, may have used pages beyond
	for id := pageID(2); id < pageID(all); id++ {
		if s.reached[id] {
			continue
		}
		from := stale
		if s.broken && s.listed && !s.free[id] {
			from = orphan
		}
		n, ok := s.load(id)
		if !ok {
			continue
		}
		// What follows in the same node is contents, even if it looks like a page.
		for i := range pageID(len(n.b) / pageSize) {
			s.reached[id+i] = true
		}
		if n.leaf {
			s.elements(id, from, n)
		}
	}
	return s.unread
}

func (s *scanner) readFreelist() {
	if s.p.meta.high == 0 || checkFreelist(s.p) != nil {
		return
	}
	ids, size, err := s.p.freelist()
	if err != nil {
		return
	}
	s.listed = true
	for _, id := range ids {
		s.free[id] = true
	}
	for i := range pageID(size / pageSize) {
		s.free[s.p.meta.freelist+i] = true
	}
	for id := s.p.meta.high; id < pageID(len(s.free)); id++ {
		s.free[id] = true
	}
}

// checkFreelist returns nil if the freelist is in itself what a freelist can be.
func checkFreelist(p *pages) error {
	c := &graphCheck{p: p, used: make([]bool, p.meta.high)}
	err := c.freelist()
	if errors.Is(err, errUnaccounted) {
		return nil // which is so for every page of the tree, as the tree was not walked
	}
	return err
}

// load reads a page of the tree as far as it can be understood.
func (s *scanner) load(id pageID) (node, bool) {
	b, err := s.p.raw(id, pageHeaderSize)
	if err != nil {
		s.unread = append(s.unread, id)
		return node{}, false
	}
	if pageID(le.Uint64(b)) != id {
		return node{}, false
	}
	size := (int64(le.Uint32(b[12:])) + 1) * pageSize
	flags, count := le.Uint16(b[8:]), int(le.Uint16(b[10:]))
	if flags != leafPage && flags != branchPage {
		return node{}, false
	}
	if told := s.extent(id, flags == leafPage, count); told > 0 {
		size = told
	}
	if size > maxNodeBytes || int64(id)*pageSize+size > s.p.size {
		size = pageSize
	}
	if b, err = s.p.raw(id, int(size)); err != nil {
		s.unread = append(s.unread, id)
		return node{}, false
	}
	count = min(count, (len(b)-pageHeaderSize)/elemSize)
	return node{leaf: flags == leafPage, count: count, b: b}, true
}

// extent returns how many bytes the pages of a node take up by what its elements say, zero if they do not lie one behind
// the other. Its header may count pages to it that are others, or leave out its own.
func (s *scanner) extent(id pageID, leaf bool, count int) int64 {
	table := pageHeaderSize + count*elemSize
	if int64(id)*pageSize+int64(table) > s.p.size {
		return 0
	}
	b, err := s.p.raw(id, table)
	if err != nil {
		return 0
	}
	n, next := node{leaf: leaf, b: b}, int64(table)
	for i := range count {
		at, key, value := n.span(i)
		if at != next || key == 0 {
			return 0
		}
		next = at + key + value
	}
	return (next + pageSize - 1) / pageSize * pageSize
}

// follow walks the tree and notes where it breaks.
func (s *scanner) follow(id pageID, top bool, depth int) {
	if depth > maxDepth || !s.p.inUse(id) || s.reached[id] {
		s.broken = true
		return
	}
	n, ok := s.load(id)
	if !ok {
		s.broken = true
		return
	}
	if strict, err := parseNode(n.b, "page"); err != nil || strict.leaf != n.leaf {
		s.broken = true
	}
	for i := range pageID(len(n.b) / pageSize) {
		s.reached[id+i] = true
	}
	if n.leaf {
		s.leaf(id, top, n, depth)
		return
	}
	n.b = append([]byte(nil), n.b...)
	for i := range n.count {
		s.follow(n.child(i), top, depth+1)
	}
}

// leaf goes into the buckets of a leaf of the top tree, and yields the elements of any other.
func (s *scanner) leaf(id pageID, top bool, n node, depth int) {
	if !top {
		s.elements(id, inTree, n)
		return
	}
	n.b = append([]byte(nil), n.b...)
	for i := range n.count {
		if !n.within(i) {
			s.broken = true
			continue
		}
		root, _, inline, err := n.bucketAt(i)
		switch {
		case err != nil:
			s.broken = true
		case root != 0:
			s.follow(root, false, depth+1)
		default:
			s.inline(id, inTree, n.valueAt(i), inline)
		}
	}
}

// elements yields what lies within the page. Elements of buckets inside are yielded too.
func (s *scanner) elements(id pageID, from origin, n node) {
	for i := range n.count {
		if !n.within(i) {
			continue
		}
		if n.flags(i) == 0 {
			s.yield(element{origin: from, untold: s.untold && from == stale, page: id, off: int64(id)*pageSize + n.valueAt(i), key: n.key(i), value: n.value(i)})
			continue
		}
		if root, _, inline, err := n.bucketAt(i); err == nil && root == 0 {
			s.inline(id, from, n.valueAt(i), inline)
		}
	}
}

// inline yields the elements of a bucket whose page is inside a value, which is at the offset in the node's page.
func (s *scanner) inline(id pageID, from origin, at int64, n node) {
	base := int64(id)*pageSize + at + bucketValueSize
	for i := range n.count {
		s.yield(element{origin: from, untold: s.untold && from == stale, page: id, off: base + n.valueAt(i), key: n.key(i), value: n.value(i)})
	}
}

// valueAt returns where in the page a value begins.
func (n *node) valueAt(i int) int64 {
	at, key, _ := n.span(i)
	return at + key
}

// within reports whether key and value of an element lie within the page.
func (n *node) within(i int) bool {
	at, key, value := n.span(i)
	return at <= int64(len(n.b)) && key > 0 && at+key+value <= int64(len(n.b))
}
