package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"

	bolt "go.etcd.io/bbolt"

	"telemetryhub/storage"
)

// sliceRescue gathers what can be made out in a damaged slice file.
type sliceRescue struct {
	slice  storage.Slice
	parts  map[string][]foundPart // by key: at most one is right
	dirs   map[uint64][]foundDirectory
	tails  []tail
	report findings

	// What the meta pages say: whether one is left, its transaction, and whether it is doubtful that this is the newest.
	named    bool
	tx       uint64
	doubtful bool
	// old lets what may be of an earlier state be taken too, because nothing else is left.
	old bool
}

type foundPart struct {
	value  []byte
	origin origin
}

type foundDirectory struct {
	directory
	origin origin
}

// salvageSlice replaces a damaged slice file by a new one with every block that can be proven right, and tells what
// happened. The damaged file is kept under another name. If it fails nothing was changed.
//
// What belongs to the newest state is told by the tail, the chain of directories that begins there, and the checksums
// that they hold. What is gone stays listed as lost, so that it is never taken for something that was not there. A file of
// which nothing is left becomes an empty slice that says so, because the hub must be able to write on.
func salvageSlice(path string, slice storage.Slice, fo fileOptions, why error) (_ Damage, err error) {
	defer recoverTo(&err)
	fail := func(err error) (Damage, error) { return Damage{}, fmt.Errorf("rescue %s: %w", path, err) }
	d, err := openDamaged(path)
	if err != nil {
		return fail(err)
	}
	defer d.close() // only read
	r := sliceRescue{slice: slice, parts: make(map[string][]foundPart), dirs: make(map[uint64][]foundDirectory)}
	r.named, r.tx, r.doubtful = d.p.meta.high != 0, d.p.meta.txid, len(d.p.notes) > 0
	scan(d.p, r.see)
	scanDeep(d.p, r.see)
	chain := r.chain()
	kept := 0
	f, err := buildFile(path+tempSuffix, fo, func(f *file) (err error) {
		kept, err = r.store(f, chain)
		return err
	})
	if err != nil {
		return fail(err)
	}
	aside, err := d.swapIn(f)
	if err = errors.Join(err, f.close()); err != nil {
		return fail(err)
	}
	if len(r.report.texts) == 0 {
		r.report.add("none is missing")
	}
	return Damage{File: path, What: why.Error(), Action: fmt.Sprintf("%d blocks were put into a new file (%s); the damaged one is kept as %s",
		kept, &r.report, filepath.Base(aside))}, nil
}

// see takes in an element. In which bucket it was is not known, so it is tried as everything that it may be.
func (r *sliceRescue) see(e element) {
	switch {
	case string(e.key) == tailKey:
		right := func(b []byte) bool { _, err := decodeTail(r.slice, b); return err == nil }
		if b, ok := repair(e.value, right); ok {
			t, _ := decodeTail(r.slice, b)
			r.tails = append(r.tails, t)
		}
	case len(e.key) == 8:
		r.seeDirectory(e)
	case len(e.key) == partKey && len(e.value) <= pieceMax:
		r.seePart(e)
	}
}

func (r *sliceRescue) seeDirectory(e element) {
	num := binary.BigEndian.Uint64(e.key)
	d, err := decodeDirectory(r.slice, num, e.value)
	if err != nil {
		return
	}
	for i := range r.dirs[num] {
		if old := &r.dirs[num][i]; old.check == d.check {
			old.origin = min(old.origin, e.origin)
			return
		}
	}
	r.dirs[num] = append(r.dirs[num], foundDirectory{d, e.origin})
}

func (r *sliceRescue) seePart(e element) {
	k := string(e.key)
	for i := range r.parts[k] {
		if old := &r.parts[k][i]; bytes.Equal(old.value, e.value) {
			old.origin = min(old.origin, e.origin)
			return
		}
	}
	r.parts[k] = append(r.parts[k], foundPart{bytes.Clone(e.value), e.origin})
}

// store fills a new file with the flushes of the chain, and returns how many blocks it kept.
func (r *sliceRescue) store(f *file, chain []numberedDirectory) (kept int, err error) {
	for first := true; first || len(chain) > 0; first = false {
		err := f.update(func(tx *bolt.Tx) error {
			t, err := newFlushTx(tx, r.slice, first)
			if err != nil {
				return err
			}
			for size := 0; len(chain) > 0 && size < batchBytes; chain = chain[1:] {
				n, bytes, err := r.storeFlush(t, chain[0])
				if err != nil {
					return err
				}
				kept, size = kept+n, size+bytes
			}
			return t.finish()
		})
		if err != nil {
			return kept, err
		}
	}
	return kept, nil
}

// storeFlush stores the blocks of one directory that can be had, and marks the others as lost.
func (r *sliceRescue) storeFlush(t *flushTx, d numberedDirectory) (kept, size int, err error) {
	for i := range d.entries {
		e := &d.entries[i]
		key := storage.BlockKey{Flush: d.flush, Index: uint32(i)}
		h, block, ok := r.block(key, func(h *blockHeader) bool { return h.size == e.size && h.sum == e.sum }, true)
		if !ok { // also if it was lost before
			e.size |= lostBit
			r.report.add("block %d of flush %d is lost", i, d.flush)
			continue
		}
		if err := t.put(key, h, block); err != nil {
			return kept, size, err
		}
		kept, size = kept+1, size+len(block)
	}
	return kept, size, t.list(d.flush, d.directory)
}

// block joins the parts of a block. want tells from its header whether it is the right one; old allows parts of earlier
// states of the file.
func (r *sliceRescue) block(key storage.BlockKey, want func(*blockHeader) bool, old bool) (blockHeader, []byte, bool) {
	for _, first := range r.parts[string(blockPart(key, 0))] {
		h, rest, err := splitBlock(first.value)
		if err != nil || !want(&h) || h.size > storage.MaxBlock || first.origin == stale && !old {
			continue
		}
		variants := [][][]byte{{rest}}
		for n, part := len(rest), uint16(1); n < int(h.size); n, part = n+pieceMax, part+1 {
			var all [][]byte
			for _, p := range r.parts[string(blockPart(key, part))] {
				if old || p.origin < stale {
					all = append(all, p.value)
				}
			}
			variants = append(variants, all)
		}
		if b, ok := joinVariants(variants, func(b []byte) bool { return h.intact(r.slice, key, b) == nil }); ok {
			return h, b, true
		}
	}
	return blockHeader{}, nil, false
}
