package bolt

import "bytes"

// cursor walks the elements of one bucket in the order of their keys. After an error it is of no more use.
type cursor struct {
	p        *pages
	branches []frame
	leaf     node
	at       int
}

type frame struct {
	node  node
	child int
	hi    []byte // the keys under the node are less; nil is no bound
}

// bounds returns the bounds of the keys under the child.
func (f *frame) bounds() (lo, hi []byte) {
	if f.child+1 < f.node.count {
		return f.node.key(f.child), f.node.key(f.child + 1)
	}
	return f.node.key(f.child), f.hi
}

// seek returns a cursor at the first element whose key is not less than key, in the tree under root.
func (p *pages) seek(root pageID, key []byte) (*cursor, error) {
	c := &cursor{p: p}
	if err := c.down(root, func(n *node) int { i, _ := n.find(key); return i }); err != nil {
		return nil, err
	}
	c.at, _ = c.leaf.find(key)
	return c, nil
}

// seekLast returns a cursor at the last element of the tree.
func (p *pages) seekLast(root pageID) (*cursor, error) {
	c := &cursor{p: p}
	if err := c.down(root, func(n *node) int { return n.count - 1 }); err != nil {
		return nil, err
	}
	c.at = max(c.leaf.count-1, 0)
	return c, nil
}

// down goes from a page to a leaf, by the child that choose names in each branch. A page whose keys are not within the
// bounds of its parent is not the one that belongs there.
func (c *cursor) down(id pageID, choose func(n *node) int) error {
	var lo, hi []byte
	if i := len(c.branches) - 1; i >= 0 {
		lo, hi = c.branches[i].bounds()
	}
	for len(c.branches) < maxDepth {
		n, err := c.p.node(id)
		if err != nil {
			return err
		}
		if lo != nil && (n.count == 0 || bytes.Compare(n.key(0), lo) < 0) ||
			hi != nil && (n.count == 0 || bytes.Compare(n.key(n.count-1), hi) >= 0) {
			return corruptf("keys of page %d are outside those of its parent", id)
		}
		if n.leaf {
			c.leaf, c.at = n, 0
			return nil
		}
		n.b = bytes.Clone(n.b) // the reader's bytes are gone with the next page
		f := frame{node: n, child: choose(&n), hi: hi}
		c.branches = append(c.branches, f)
		id = n.child(f.child)
		lo, hi = f.bounds()
	}
	return corruptf("the tree is too deep at page %d", id)
}

// next returns the element that the cursor is at and moves on. Key and value are valid until the next call. ok is false
// at the end.
func (c *cursor) next() (key, value []byte, ok bool, err error) {
	for c.at >= c.leaf.count {
		i := len(c.branches) - 1
		for i >= 0 && c.branches[i].child+1 >= c.branches[i].node.count {
			i--
		}
		if i < 0 {
			return nil, nil, false, nil
		}
		c.branches = c.branches[:i+1]
		f := &c.branches[i]
		f.child++
		if err := c.down(f.node.child(f.child), func(*node) int { return 0 }); err != nil {
			return nil, nil, false, err
		}
	}
	i := c.at
	c.at++
	return c.leaf.key(i), c.leaf.value(i), true, nil
}
