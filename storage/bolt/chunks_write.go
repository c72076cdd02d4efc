package bolt

import (
	"bytes"
	"encoding/binary"

	bolt "go.etcd.io/bbolt"

	"telemetryhub/storage"
)

// appendFill is how full bbolt makes the pages of keys that come in order.
const appendFill = 0.95

// flushTx is a write transaction of a slice file.
type flushTx struct {
	tx              *bolt.Tx
	slice           storage.Slice
	blocks, flushes *bolt.Bucket
	tail            tail
	lost            uint32 // what the directories that rewind deleted said of others
}

// newFlushTx reads the tail, which a new file does not have yet.
func newFlushTx(tx *bolt.Tx, slice storage.Slice, isNew bool) (*flushTx, error) {
	t := &flushTx{tx: tx, slice: slice, blocks: tx.Bucket([]byte(blocksBucket)), flushes: tx.Bucket([]byte(flushesBucket))}
	tails := tx.Bucket([]byte(tailBucket))
	if t.blocks == nil || t.flushes == nil || tails == nil {
		return nil, corruptf("a bucket is missing")
	}
	t.blocks.FillPercent, t.flushes.FillPercent = appendFill, appendFill
	if isNew {
		return t, nil
	}
	var err error
	t.tail, err = decodeTail(slice, tails.Get([]byte(tailKey)))
	if err == nil && t.tail.tx != uint64(tx.ID()-1) {
		err = corruptf("the tail is of transaction %d, the file of %d", t.tail.tx, tx.ID()-1)
	}
	return t, err
}

// finish stores the tail.
func (t *flushTx) finish() error {
	t.tail.tx = uint64(t.tx.ID())
	return t.tx.Bucket([]byte(tailBucket)).Put([]byte(tailKey), t.tail.encode(t.slice))
}

// write stores the blocks of one flush in place of it and all later ones.
func (t *flushTx) write(flush uint64, blocks [][]byte) error {
	if err := t.rewind(flush); err != nil {
		return err
	}
	d := directory{kind: directoryKept, entries: make([]blockEntry, len(blocks))}
	for i, block := range blocks {
		key := storage.BlockKey{Flush: flush, Index: uint32(i)}
		h := blockHeader{size: uint32(len(block)), count: uint32(len(blocks))}
		h.sum = blockSum(t.slice, key, h.count, block)
		d.entries[i] = blockEntry{size: h.size, sum: h.sum}
		if err := t.put(key, h, block); err != nil {
			return err
		}
	}
	return t.list(flush, d)
}

// put stores one block in parts. It refers to block until the transaction ends.
func (t *flushTx) put(key storage.BlockKey, h blockHeader, block []byte) error {
	n := min(len(block), pieceMax-blockHead)
	first := append(h.put(make([]byte, 0, blockHead+n)), block[:n]...)
	if err := t.blocks.Put(blockPart(key, 0), first); err != nil {
		return err
	}
	for part, rest := uint16(1), block[n:]; len(rest) > 0; part++ {
		n := min(len(rest), pieceMax)
		if err := t.blocks.Put(blockPart(key, part), rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// list chains a directory to the last one and stores it.
func (t *flushTx) list(flush uint64, d directory) error {
	d.place, d.prev, d.prevCheck = t.tail.count, t.tail.flush, t.tail.check
	d.lost, t.lost = d.lost+t.lost, 0
	b := d.encode(t.slice, flush)
	t.tail = tail{count: d.place + 1, flush: flush, check: d.check}
	return t.flushes.Put(flushKey(flush), b)
}

// rewind forgets a flush and all later ones: the tail is then that of the flush before.
func (t *flushTx) rewind(flush uint64) error {
	k, v := t.flushes.Cursor().Last()
	if err := t.matches(k, v); err != nil {
		return err
	}
	if k == nil || bytes.Compare(k, flushKey(flush)) < 0 {
		return nil // the ordinary case
	}
	if err := t.keepLost(flush); err != nil {
		return err
	}
	before, beforeValue := seekBefore(t.flushes, flushKey(flush))
	for _, b := range []*bolt.Bucket{t.flushes, t.blocks} {
		if err := deleteFrom(b, flushKey(flush)); err != nil {
			return err
		}
	}
	if before == nil {
		t.tail = tail{}
		return nil
	}
	if len(before) != 8 {
		return corruptf("a flush has a key of %d bytes", len(before))
	}
	num := binary.BigEndian.Uint64(before)
	d, err := decodeDirectory(t.slice, num, beforeValue)
	t.tail = tail{count: d.place + 1, flush: num, check: d.check}
	return err
}

// keepLost gathers what is said to be lost beside the flushes from the given one on, before they are deleted: it may have
// been before them.
func (t *flushTx) keepLost(flush uint64) error {
	c := t.flushes.Cursor()
	for k, v := c.Seek(flushKey(flush)); k != nil; k, v = c.Next() {
		if len(k) != 8 {
			return corruptf("a flush has a key of %d bytes", len(k))
		}
		d, err := decodeDirectory(t.slice, binary.BigEndian.Uint64(k), v)
		if err != nil {
			return err
		}
		if t.lost += d.lost; d.kind == directoryLost {
			t.lost-- // itself
		}
	}
	return nil
}

// matches checks that the last directory is the one that the tail names.
func (t *flushTx) matches(k, v []byte) error {
	switch {
	case k == nil && t.tail.count == 0:
		return nil
	case len(k) != 8:
		return corruptf("flush %d should be the last, there is a key of %d bytes", t.tail.flush, len(k))
	}
	num := binary.BigEndian.Uint64(k)
	d, err := decodeDirectory(t.slice, num, v)
	if err == nil && (t.tail.flush != num || t.tail.check != d.check || t.tail.count != d.place+1) {
		err = corruptf("flush %d should be the last, flush %d is", t.tail.flush, num)
	}
	return err
}

// seekBefore returns the last element whose key is less than key, as copies.
func seekBefore(b *bolt.Bucket, key []byte) (k, v []byte) {
	c := b.Cursor()
	if k, _ = c.Seek(key); k == nil {
		k, v = c.Last()
	} else {
		k, v = c.Prev()
	}
	return bytes.Clone(k), bytes.Clone(v)
}

// deleteFrom deletes all keys that are not less than key.
func deleteFrom(b *bolt.Bucket, key []byte) error {
	var keys [][]byte // first, because deleting moves a cursor
	c := b.Cursor()
	for k, _ := c.Seek(key); k != nil; k, _ = c.Next() {
		keys = append(keys, bytes.Clone(k))
	}
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// writeFlush is one durable Write.
func writeFlush(f *file, slice storage.Slice, flush uint64, blocks [][]byte, isNew bool) error {
	return f.update(func(tx *bolt.Tx) error {
		t, err := newFlushTx(tx, slice, isNew)
		if err != nil {
			return err
		}
		if err := t.write(flush, blocks); err != nil {
			return err
		}
		return t.finish()
	})
}
