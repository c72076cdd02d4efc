package bolt

import (
	"bytes"
)

// node is a branch or leaf page whose every element has been checked to lie within it. Its bytes are those of the
// reader that it came from.
type node struct {
	leaf  bool
	count int
	b     []byte
}

// parseNode checks that a page is exactly what bbolt writes: the elements' keys and values lie one behind the other,
// without space between, behind the table of elements, in as few pages as possible, and the keys ascend.
func parseNode(b []byte, name string) (node, error) {
	n := node{count: int(le.Uint16(b[10:])), b: b}
	switch flags := le.Uint16(b[8:]); flags {
	case leafPage:
		n.leaf = true
	case branchPage:
		if n.count == 0 {
			return node{}, corruptf("%s is a branch without children", name)
		}
	default:
		return node{}, corruptf("%s has the type %#x", name, flags)
	}
	next := int64(pageHeaderSize + n.count*elemSize)
	if next > int64(len(b)) {
		return node{}, corruptf("%s has %d elements, more than it has room for", name, n.count)
	}
	var last []byte
	for i := range n.count {
		at, key, value := n.span(i)
		if at != next || key == 0 || at+key+value > int64(len(b)) {
			return node{}, corruptf("element %d of %s is not where it should be", i, name)
		}
		k := b[at : at+key]
		if i > 0 && bytes.Compare(last, k) >= 0 {
			return node{}, corruptf("key %d of %s is out of order", i, name)
		}
		last, next = k, at+key+value
	}
	if len(b)%pageSize == 0 && next <= int64(len(b)-pageSize) {
		return node{}, corruptf("%s has more pages than it needs", name)
	}
	return n, nil
}

// span returns where the key of an element begins and the lengths of key and value.
func (n *node) span(i int) (at, key, value int64) {
	e := int64(pageHeaderSize + i*elemSize)
	if n.leaf {
		return e + int64(le.Uint32(n.b[e+4:])), int64(le.Uint32(n.b[e+8:])), int64(le.Uint32(n.b[e+12:]))
	}
	return e + int64(le.Uint32(n.b[e:])), int64(le.Uint32(n.b[e+4:])), 0
}

func (n *node) key(i int) []byte {
	at, key, _ := n.span(i)
	return n.b[at : at+key]
}

func (n *node) value(i int) []byte {
	at, key, value := n.span(i)
	return n.b[at+key : at+key+value]
}

// child returns the page that an element of a branch points to.
func (n *node) child(i int) pageID { return pageID(le.Uint64(n.b[pageHeaderSize+i*elemSize+8:])) }

// flags returns the flags of an element of a leaf.
func (n *node) flags(i int) uint32 { return le.Uint32(n.b[pageHeaderSize+i*elemSize:]) }

// bucketAt reads the element of a leaf as a bucket: its root page and sequence, or its page if it is inline.
func (n *node) bucketAt(i int) (root pageID, sequence uint64, inline node, err error) {
	v := n.value(i)
	if n.flags(i) != bucketElem || len(v) < bucketValueSize {
		return 0, 0, node{}, corruptf("%q is not a bucket", n.key(i))
	}
	root, sequence = pageID(le.Uint64(v)), le.Uint64(v[8:])
	if root != 0 {
		if len(v) != bucketValueSize {
			return 0, 0, node{}, corruptf("bucket %q has %d bytes too many", n.key(i), len(v)-bucketValueSize)
		}
		return root, sequence, node{}, nil
	}
	if len(v) < bucketValueSize+pageHeaderSize {
		return 0, 0, node{}, corruptf("bucket %q is cut", n.key(i))
	}
	inline, err = parseNode(v[bucketValueSize:], "bucket "+string(n.key(i)))
	if err == nil && !inline.leaf {
		err = corruptf("bucket %q is not a leaf", n.key(i))
	}
	return 0, sequence, inline, err
}

// find returns the index of the element with the key, and whether it is there. In a branch it is the child that would
// hold the key.
func (n *node) find(key []byte) (int, bool) {
	lo, hi := 0, n.count
	for lo < hi {
		mid := (lo + hi) / 2
		switch c := bytes.Compare(n.key(mid), key); {
		case c == 0:
			return mid, true
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	if !n.leaf && lo > 0 {
		lo--
	}
	return lo, false
}
