package bolt

import (
	"encoding/binary"
	"slices"

	"telemetryhub/storage"
)

// chain returns the directories of the newest state, the first one first. The last one is told by the tail, each other
// by the one behind it. What is lost is listed as lost.
func (r *sliceRescue) chain() []numberedDirectory {
	var chain []numberedDirectory
	for want := r.end(); want.count > 0; {
		d, found := r.find(want)
		if !found {
			d = r.rebuild(want)
		}
		chain = append(chain, numberedDirectory{want.flush, d})
		want = tail{count: d.place, flush: d.prev, check: d.prevCheck}
	}
	slices.Reverse(chain)
	return chain
}

// end returns what the tail of the newest state says, or what it would say by the last directory.
func (r *sliceRescue) end() tail {
	best, of := tail{}, stale+1
	for _, t := range r.tails {
		if t.origin < of || t.origin == of && t.tx > best.tx {
			best, of = t.tail, t.origin
		}
	}
	if of < stale {
		return best
	}
	// The tail is an old one or there is none. The newest state may have more.
	if of > stale {
		r.report.add("the tail is gone, so nobody can say whether flushes are missing at the end")
	}
	for num, all := range r.dirs {
		for _, d := range all {
			if d.origin < stale && d.place >= best.count {
				best = tail{count: d.place + 1, flush: num, check: d.check}
			}
		}
	}
	return best
}

// find returns the directory that is meant. Its checksum proves that it is the right one, wherever it was found.
func (r *sliceRescue) find(want tail) (directory, bool) {
	for _, d := range r.dirs[want.flush] {
		if d.check == want.check && d.place+1 == want.count {
			return d.directory, true
		}
	}
	return directory{}, false
}

// rebuild makes a directory again that was not found, from the blocks of its flush and the directory before it. If not
// all of it comes out as it was, it lists what is missing as lost.
func (r *sliceRescue) rebuild(want tail) directory {
	d := directory{kind: directoryKept}
	if num, before, ok := r.before(want); ok {
		d.place, d.prev, d.prevCheck = before.place+1, num, before.check
	}
	missing := want.count - 1 - d.place
	for _, old := range []bool{false, true} {
		d.entries = r.entries(want.flush, old)
		if d.encode(r.slice, want.flush); d.check == want.check && missing == 0 {
			return d
		}
	}
	if missing > 0 {
		r.report.add("%d flushes before flush %d are lost", missing, want.flush)
	}
	d.entries, d.lost = r.entries(want.flush, false), uint32(min(missing, 1<<32-2))
	if len(d.entries) == 0 {
		r.report.add("flush %d is lost", want.flush)
		d.kind, d.lost = directoryLost, d.lost+1
	}
	for i, e := range d.entries {
		if e.size&lostBit != 0 {
			r.report.add("block %d of flush %d is lost", i, want.flush)
		}
	}
	return d
}

// before returns the last directory before the one that is meant, of those that belong to the newest state.
func (r *sliceRescue) before(want tail) (num uint64, d foundDirectory, ok bool) {
	for n, all := range r.dirs {
		for _, c := range all {
			if n < want.flush && c.origin < stale && c.place+1 < want.count && (!ok || n > num) {
				num, d, ok = n, c, true
			}
		}
	}
	return num, d, ok
}

// entries lists the blocks of a flush as the blocks tell it themselves.
func (r *sliceRescue) entries(flush uint64, old bool) []blockEntry {
	found := make(map[uint32]blockEntry)
	count := uint32(0)
	for k := range r.parts {
		if b := []byte(k); binary.BigEndian.Uint64(b) != flush || binary.BigEndian.Uint16(b[12:]) != 0 {
			continue
		}
		key := storage.BlockKey{Flush: flush, Index: binary.BigEndian.Uint32([]byte(k)[8:])}
		h, _, ok := r.block(key, func(h *blockHeader) bool { return key.Index < h.count }, old)
		if ok {
			found[key.Index], count = blockEntry{size: h.size, sum: h.sum}, h.count
		}
	}
	if uint64(count) > uint64(len(found))+maxLostBlocks {
		return nil
	}
	entries := make([]blockEntry, count)
	for i := range entries {
		e, ok := found[uint32(i)]
		if !ok {
			e.size = lostBit
		}
		entries[i] = e
	}
	return entries
}

// maxLostBlocks is how many blocks of one flush may be listed as lost one by one. More is not what damage does to a slice
// that was written by this program.
const maxLostBlocks = 1 << 20
