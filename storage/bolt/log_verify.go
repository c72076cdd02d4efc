package bolt

import (
	"telemetryhub/storage"
)

// verified is what a segment was found to hold.
type verified struct {
	// prev is what the first group says about the one before it; zero if it is damaged or there is none.
	prev link
	// end is the last group, position zero if there is none. Its sum is zero if it is damaged.
	end    link
	groups int
	intact int          // groups whose own seal is right, wherever they belong
	bad    []foundGroup // damaged groups, without their bytes
	holes  [][2]storage.Position
}

// flawed reports whether groups are damaged or missing.
func (v *verified) flawed() bool { return len(v.bad)+len(v.holes) > 0 }

// damage lists what is damaged although the file is in order.
func (v *verified) damage(path string) []Damage {
	var ds []Damage
	for _, g := range v.bad {
		ds = append(ds, Damage{File: path, What: g.damaged.Error(), From: uint64(g.pos), To: uint64(g.pos)})
	}
	for _, h := range v.holes {
		ds = append(ds, Damage{File: path, What: "groups are missing", From: uint64(h[0]), To: uint64(h[1])})
	}
	return ds
}

// verifySegment reads a whole segment. The error wraps storage.ErrCorrupt if the file itself is damaged: pages,
// header, keys, or the number of the last group. Groups whose seal is broken, and missing ones, are found but no error.
func verifySegment(p *pages, first storage.Position) (v verified, err error) {
	if err := p.checkHeader(logFormat, logVersion); err != nil {
		return v, err
	}
	if err := checkGraph(p); err != nil {
		return v, err
	}
	root, sequence, err := logRoot(p)
	if err != nil {
		return v, err
	}
	if err := v.readAll(p, root, first); err != nil {
		return v, err
	}
	if v.end.pos != sequence {
		return v, corruptf("the last group is %d and should be %d", v.end.pos, sequence)
	}
	return v, nil
}

// readAll checks every group.
func (v *verified) readAll(p *pages, root pageID, first storage.Position) error {
	c, err := p.seek(root, nil)
	if err != nil {
		return err
	}
	if err := c.filler(); err != nil {
		return err
	}
	var a assembly
	begun := false
	for {
		k, value, ok, err := c.next()
		if err != nil {
			return err
		}
		pos, piece, good := parseLogKey(k)
		if ok && (!good || pos < first) {
			return corruptf("key %x does not belong into the segment", k)
		}
		if begun && (!ok || pos != a.pos) {
			v.add(a.finish(false), first)
		}
		if !ok {
			return nil
		}
		if !begun || pos != a.pos {
			a.reset(pos)
			begun = true
		}
		a.add(piece, value)
	}
}

// filler reads the element that is in front of the groups.
func (c *cursor) filler() error {
	k, value, ok, err := c.next()
	if err != nil {
		return err
	}
	if pos, piece, good := parseLogKey(k); !ok || !good || pos != 0 || piece != 0 || len(value) != fillerSize {
		return corruptf("the filler is missing")
	}
	return nil
}

// add takes the next group.
func (v *verified) add(g foundGroup, first storage.Position) {
	at := max(v.end.pos, first-1)
	if g.damaged == nil {
		v.intact++
	}
	switch {
	case g.pos > at+1:
		v.holes = append(v.holes, [2]storage.Position{at + 1, g.pos - 1})
	case g.damaged == nil && v.end.sum != 0 && g.prev.sum != 0 && g.prev.sum != v.end.sum:
		g.damaged = corruptf("group %d does not belong behind group %d", g.pos, at)
	}
	if g.damaged != nil {
		v.bad = append(v.bad, g)
		g.sum = 0
	}
	if v.groups == 0 && g.damaged == nil {
		v.prev = g.prev
	}
	v.end = link{g.pos, g.sum}
	v.groups++
}

// glance checks a segment that was closed in order only as far as a few pages tell: header, meta pages, and that the
// last group is there, intact, and the one that it should be. The rest is read in the background, and whenever a group
// is read.
func glance(p *pages, first storage.Position) (end link, err error) {
	if len(p.notes) > 0 {
		return end, corruptf("%s", p.notes[0])
	}
	if err := p.checkHeader(logFormat, logVersion); err != nil {
		return end, err
	}
	root, sequence, err := logRoot(p)
	if err != nil {
		return end, err
	}
	c, err := p.seekLast(root)
	if err != nil {
		return end, err
	}
	k, _, ok, err := c.next()
	if err != nil {
		return end, err
	}
	pos, _, good := parseLogKey(k)
	if !ok || !good || pos != sequence || pos != 0 && pos < first {
		return end, corruptf("the last group is %d and should be %d", pos, sequence)
	}
	if pos == 0 {
		return link{}, nil
	}
	groups, _, err := readGroups(p, root, pos, pos, 0)
	if err != nil {
		return end, err
	}
	if len(groups) != 1 || groups[0].damaged != nil {
		return end, corruptf("the last group, %d, is damaged", pos)
	}
	return link{pos, groups[0].sum}, nil
}
