package bolt

import (
	"cmp"
	"errors"
	"io"
	"os"
	"slices"

	"telemetryhub/storage"
)

// part is where the bytes of a piece were found.
type part struct {
	origin origin
	untold bool
	off    int64
	n      int
}

// rescuedGroup is a group that could be put together from the pages of a damaged file, at least in part.
type rescuedGroup struct {
	pos    storage.Position
	prev   link
	sum    uint32
	intact bool
	stale  bool // some of it comes from free pages, or from pages of which nobody knows whether they are free
	free   bool // some of it comes from pages that are known to be free
	unsure bool // there is more than one intact group for the position, and nothing tells which is right
	pieces []int
	parts  []part
}

// segmentFindings are all groups of a damaged segment.
type segmentFindings struct {
	groups []rescuedGroup // in order of position
	ours   bool           // something in the file has a checksum of ours
	// sequence is what the file says about its last group. known tells that it can be believed.
	sequence storage.Position
	known    bool
	// sound tells that the pages are in order, so that no group can have vanished from the end of the tree.
	sound bool
	// lost tells that the newest transaction may have been lost with its meta page.
	lost bool
}

// intact returns how many groups are intact.
func (f *segmentFindings) intact() (n int) {
	for i := range f.groups {
		if f.groups[i].intact {
			n++
		}
	}
	return n
}

// maxMissing is the most groups that a segment can have lost at its end. Where nobody knows how many they were,
// positions go on so much later. No segment of any size in use has as many groups.
const maxMissing = 1 << 24

// end returns the last position that may have been given to a group of the segment.
func (f *segmentFindings) end(first storage.Position) storage.Position {
	last := first - 1
	if n := len(f.groups); n > 0 {
		last = max(last, f.groups[n-1].pos)
	}
	switch {
	case f.known:
		return max(last, f.sequence)
	case f.sound:
		return last
	}
	return last + maxMissing
}

// rescueGroups searches all pages of a damaged segment. next is what the group behind the segment says about its last
// group; zero if there is none or nobody knows.
//
// A group is believed if its seal is right. Pages that are free hold older copies, which may replace a damaged piece,
// but also groups that were never acknowledged and whose position was given to another group later. So what comes from
// free pages is believed only if the group behind it confirms its checksum. Where nothing tells which pages are free, it
// is believed unless two groups claim one position.
func rescueGroups(p *pages, first storage.Position, next link) segmentFindings {
	f := segmentFindings{}
	f.lost = p.lostMeta || p.meta.high == 0
	if p.meta.high > 0 {
		_, sequence, err := logRoot(p)
		f.sequence, f.known = sequence, err == nil
		f.sound = checkGraph(p) == nil
		if p.lostMeta {
			f.sequence++ // the transaction that is lost had one group
		}
	}
	found := findPieces(p, first, &f.ours)
	for _, pos := range sortedKeys(found) {
		f.groups = append(f.groups, assemble(p.r, pos, found[pos]))
	}
	f.settle(next)
	f.dropImplausible(first)
	f.ours = f.ours || slices.ContainsFunc(f.groups, func(g rescuedGroup) bool { return g.intact })
	return f
}

// findPieces returns where the pieces of each position are.
func findPieces(p *pages, first storage.Position, ours *bool) map[storage.Position]map[int][]part {
	found := make(map[storage.Position]map[int][]part)
	see := func(e element) {
		if isHeader(e.value, logFormat) {
			*ours = true
		}
		pos, piece, ok := parseLogKey(e.key)
		if !ok || pos < first || piece >= maxLogPieces || len(e.value) > logPieceSize {
			return
		}
		if found[pos] == nil {
			found[pos] = make(map[int][]part)
		}
		found[pos][piece] = append(found[pos][piece], part{e.origin, e.untold, e.off, len(e.value)})
	}
	scan(p, see)
	scanDeep(p, see)
	return found
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// maxTries limits how many ways to put a group together are tried.
const maxTries = 1000

// assemble puts a group together: of the pieces in use if they are intact, else of whatever copies are.
func assemble(r io.ReaderAt, pos storage.Position, found map[int][]part) rescuedGroup {
	best := rescuedGroup{pos: pos, pieces: sortedKeys(found)}
	choices := make([][]part, len(best.pieces))
	for i, n := range best.pieces {
		choices[i] = distinct(r, found[n])
		best.parts = append(best.parts, choices[i][0])
	}
	tries := 0
	ways(choices, func(pick []int) bool {
		g := rescuedGroup{pos: pos, pieces: best.pieces}
		for i, k := range pick {
			p := choices[i][k]
			g.parts = append(g.parts, p)
			g.stale = g.stale || p.origin == stale
			g.free = g.free || p.origin == stale && !p.untold
		}
		if g.check(r) {
			if !best.intact {
				best = g
			} else if best.stale && g.sum != best.sum {
				best.unsure = true
			}
		}
		tries++
		return tries < maxTries && (!best.intact || best.stale)
	})
	return best
}

// ways calls try with choices, until it returns false: the first of everything, then all that differ from that in one
// place, as one wrong bit spoils one piece, then the rest.
func ways(choices [][]part, try func(pick []int) bool) {
	pick := make([]int, len(choices))
	if !try(pick) {
		return
	}
	for i := range pick {
		for pick[i] = 1; pick[i] < len(choices[i]); pick[i]++ {
			if !try(pick) {
				return
			}
		}
		pick[i] = 0
	}
	for i := 0; i < len(pick); {
		if pick[i]++; pick[i] < len(choices[i]) {
			if i = 0; !try(pick) {
				return
			}
			continue
		}
		pick[i] = 0
		i++
	}
}

// distinct orders copies by origin and leaves out those with the same bytes as one before.
func distinct(r io.ReaderAt, parts []part) []part {
	slices.SortStableFunc(parts, func(a, b part) int { return cmp.Compare(a.origin, b.origin) })
	seen := make(map[string]bool)
	var out []part
	for _, p := range parts {
		b := make([]byte, p.n)
		if _, err := r.ReadAt(b, p.off); err != nil || seen[string(b)] {
			continue
		}
		seen[string(b)] = true
		out = append(out, p)
	}
	if out == nil {
		return parts[:1]
	}
	return out
}

// check reads the group and its seal.
func (g *rescuedGroup) check(r io.ReaderAt) bool {
	f := g.load(r)
	g.prev, g.sum, g.intact = f.prev, f.sum, f.damaged == nil
	return g.intact
}

// read returns the group as it is to be believed.
func (g *rescuedGroup) read(r io.ReaderAt) foundGroup {
	f := g.load(r)
	if f.damaged == nil && !g.intact {
		f.damaged = corruptf("group %d may be one that was never acknowledged", g.pos)
	}
	return f
}

// load puts the parts together. Parts that cannot be read are left out.
func (g *rescuedGroup) load(r io.ReaderAt) foundGroup {
	var a assembly
	a.reset(g.pos)
	for i, p := range g.parts {
		b := make([]byte, p.n)
		if _, err := r.ReadAt(b, p.off); err == nil {
			a.add(g.pieces[i], b)
		}
	}
	return a.finish(true)
}

// settle drops what comes from free pages unless the group behind it confirms it.
func (f *segmentFindings) settle(next link) {
	for i := len(f.groups) - 1; i >= 0; i-- {
		g := &f.groups[i]
		confirmed := g.intact && next.pos == g.pos && next.sum == g.sum
		// What the newest transaction wrote cannot be confirmed by anything behind it, but it must continue the group
		// before it.
		last := i == len(f.groups)-1 && next.pos == 0 && f.lost && i > 0 && g.prev == link{f.groups[i-1].pos, f.groups[i-1].sum}
		if g.stale && !confirmed && (g.unsure || g.free && !last) {
			g.dropStale()
		}
		next = link{}
		if g.intact {
			next = g.prev
		}
	}
	f.groups = slices.DeleteFunc(f.groups, func(g rescuedGroup) bool { return len(g.parts) == 0 })
}

// dropStale leaves of a group only what is in use.
func (g *rescuedGroup) dropStale() {
	g.intact = false
	var pieces []int
	var parts []part
	for i, p := range g.parts {
		if p.origin != stale {
			pieces, parts = append(pieces, g.pieces[i]), append(parts, p)
		}
	}
	g.pieces, g.parts = pieces, parts
}

// dropImplausible removes damaged groups at positions that no group can have had: their key is what is damaged.
func (f *segmentFindings) dropImplausible(first storage.Position) {
	last := first - 1
	for _, g := range f.groups {
		if g.intact {
			last = max(last, g.pos)
		}
	}
	f.known = f.known && f.sequence >= last && f.sequence-last < maxMissing
	if f.known {
		last = f.sequence
	}
	f.groups = slices.DeleteFunc(f.groups, func(g rescuedGroup) bool { return !g.intact && g.pos > last })
}

// rescuedSource reads the groups of a damaged file where they were found.
type rescuedSource struct {
	fd     *os.File
	groups []rescuedGroup
}

// openRescued searches a damaged segment that nobody writes to.
func openRescued(path string, first storage.Position) (*rescuedSource, error) {
	fd, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	p, err := pagesToRescue(fd)
	if err != nil {
		return nil, errors.Join(err, fd.Close())
	}
	f := rescueGroups(p, first, link{})
	return &rescuedSource{fd: fd, groups: f.groups}, nil
}

func (s *rescuedSource) Close() error { return s.fd.Close() }

func (s *rescuedSource) read(from, to storage.Position, budget int) (groups []foundGroup, end bool, err error) {
	i, _ := slices.BinarySearchFunc(s.groups, from, func(g rescuedGroup, pos storage.Position) int { return cmp.Compare(g.pos, pos) })
	for ; i < len(s.groups) && s.groups[i].pos <= to; i++ {
		if budget <= 0 {
			return groups, false, nil
		}
		g := s.groups[i].read(s.fd)
		if g.damaged != nil {
			if _, err := s.fd.Stat(); errors.Is(err, os.ErrClosed) {
				return groups, false, err
			}
		}
		groups = append(groups, g)
		budget -= len(g.group) + 1
	}
	return groups, true, nil
}
