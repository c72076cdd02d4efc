package bolt

import (
	"encoding/binary"
	"maps"
	"slices"

	"telemetryhub/storage"
)

// chain returns the directories of the newest state, the first one first. The last one is told by the tail, each other
// by the one behind it. What is lost is listed as lost.
func (r *sliceRescue) chain() []numberedDirectory {
	want, known := r.end()
	r.old = !known && want.count == 0 // what belongs to the newest state cannot be told at all
	if r.old {
		want = r.lastDirectory()
	}
	var chain []numberedDirectory
	end := want
	for want.count > 0 {
		list := []numberedDirectory{{flush: want.flush}}
		if d, found := r.find(want); found {
			list[0].directory = d
		} else {
			list = r.rebuild(want)
		}
		want = tail{count: list[0].place, flush: list[0].prev, check: list[0].prevCheck}
		slices.Reverse(list)
		chain = append(chain, list...)
	}
	slices.Reverse(chain)
	if !known {
		r.report.add("the tail is gone, so nobody can say whether flushes are missing at the end")
		chain = r.withoutTail(chain, end)
	}
	return chain
}

// end returns what the tail of the newest state says: the state that the meta page names, or the one after it if the
// other meta page is damaged and may have named that, or the newest of which a tail is left if both are. If there is no
// such tail it returns what it would say by the last directory of the state, and false.
func (r *sliceRescue) end() (tail, bool) {
	var best tail
	for _, t := range r.tails {
		if t.tx > best.tx && (!r.named || t.tx <= r.tx || r.doubtful && t.tx == r.tx+1) {
			best = t
		}
	}
	if best.tx != 0 && (!r.named || best.tx >= r.tx) {
		return best, true
	}
	return r.lastDirectory(), false
}

// lastDirectory returns what the tail would say if the directory with the last place were the last flush.
func (r *sliceRescue) lastDirectory() tail {
	var best tail
	for num, all := range r.dirs {
		for _, d := range all {
			if (r.old || d.origin < stale) && d.place >= best.count {
				best = tail{count: d.place + 1, flush: num, check: d.check}
			}
		}
	}
	return best
}

// withoutTail adds the flushes behind the chain of which blocks are left, and lists the unknown rest as lost.
func (r *sliceRescue) withoutTail(chain []numberedDirectory, end tail) []numberedDirectory {
	more := make(map[uint64]bool)
	for k := range r.parts {
		if num := binary.BigEndian.Uint64([]byte(k)); end.count == 0 || num > end.flush {
			more[num] = true
		}
	}
	for _, num := range slices.Sorted(maps.Keys(more)) {
		if entries := r.entries(num, r.old); len(entries) > 0 {
			chain = append(chain, numberedDirectory{num, directory{kind: directoryKept, entries: entries}})
		}
	}
	if len(chain) == 0 {
		return []numberedDirectory{{0, directory{kind: directoryLost, lost: 1}}}
	}
	chain[len(chain)-1].lost++
	return chain
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

// rebuild makes directories again that were not found, from the blocks of their flushes: those behind the last one before
// that was found, up to the one that is meant. If not all of it comes out as it was, it lists what is missing as lost.
func (r *sliceRescue) rebuild(want tail) []numberedDirectory {
	var from tail // what the first of them follows
	if num, before, ok := r.before(want); ok {
		from = tail{count: before.place + 1, flush: num, check: before.check}
	}
	for _, old := range []bool{false, true} {
		list := r.between(from, want, old)
		if last := &list[len(list)-1]; last.check == want.check && last.place+1 == want.count {
			return list
		}
	}
	list := r.between(from, want, r.old)
	last := &list[len(list)-1]
	if have := from.count + uint64(len(list)); have < want.count {
		r.report.add("%d flushes before flush %d are lost", want.count-have, want.flush)
		last.lost = uint32(min(want.count-have, 1<<31))
	}
	if len(last.entries) == 0 {
		r.report.add("flush %d is lost", want.flush)
		last.kind, last.lost = directoryLost, last.lost+1
	}
	return list
}

// between chains what the blocks tell of the flushes behind one, up to another, which is always there.
func (r *sliceRescue) between(from, to tail, old bool) []numberedDirectory {
	nums := map[uint64]bool{to.flush: true}
	for k := range r.parts {
		if num := binary.BigEndian.Uint64([]byte(k)); num < to.flush && (from.count == 0 || num > from.flush) {
			nums[num] = true
		}
	}
	var list []numberedDirectory
	for _, num := range slices.Sorted(maps.Keys(nums)) {
		d := directory{kind: directoryKept, place: from.count, prev: from.flush, prevCheck: from.check, entries: r.entries(num, old)}
		if len(d.entries) == 0 && num != to.flush {
			continue
		}
		d.encode(r.slice, num)
		list = append(list, numberedDirectory{num, d})
		from = tail{count: d.place + 1, flush: num, check: d.check}
	}
	return list
}

// before returns the last directory before the one that is meant, of those that belong to the newest state.
func (r *sliceRescue) before(want tail) (num uint64, d foundDirectory, ok bool) {
	for n, all := range r.dirs {
		for _, c := range all {
			if n < want.flush && (r.old || c.origin < stale) && c.place+1 < want.count && (!ok || n > num) {
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
