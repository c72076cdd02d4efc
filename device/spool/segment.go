package spool

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	iofs "io/fs"
	"slices"
	"strconv"
	"strings"
)

const (
	segmentMagic  = "HUBSPOOL"
	segmentHeader = 32
	segmentSuffix = ".seg"
	tempSuffix    = ".tmp"
)

// segment is one file of the log.
type segment struct {
	name  string
	first uint64 // no record of the segment has a lower position
	nonce uint64
	size  int64 // bytes that were written
}

func segmentName(first, nonce uint64) string {
	return fmt.Sprintf("%016x-%016x%s", first, nonce, segmentSuffix)
}

func parseSegmentName(name string) (segment, bool) {
	hex, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(hex) != 33 || hex[16] != '-' {
		return segment{}, false
	}
	first, err1 := strconv.ParseUint(hex[:16], 16, 64)
	nonce, err2 := strconv.ParseUint(hex[17:], 16, 64)
	if errors.Join(err1, err2) != nil || first == 0 || first >= maxPosition || segmentName(first, nonce) != name {
		return segment{}, false
	}
	return segment{name: name, first: first, nonce: nonce}, true
}

func encodeSegmentHeader(seg segment) []byte {
	b := make([]byte, 0, segmentHeader)
	b = append(b, segmentMagic...)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint64(b, seg.first)
	b = binary.LittleEndian.AppendUint64(b, seg.nonce)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// checkSegmentHeader refuses a header of a newer version. A damaged one passes: the records have checksums of their own.
func checkSegmentHeader(r io.ReaderAt) error {
	var b [segmentHeader]byte
	if _, err := r.ReadAt(b[:], 0); err != nil {
		return nil // too short or unreadable: no record will be found either
	}
	whole := bytes.HasPrefix(b[:], []byte(segmentMagic)) &&
		crc32.Checksum(b[:28], castagnoli) == binary.LittleEndian.Uint32(b[28:])
	if v := binary.LittleEndian.Uint32(b[8:]); whole && v > version {
		return fmt.Errorf("segment version %d: %w", v, ErrNewerFormat)
	}
	return nil
}

// openSegments returns the segments among names in order, with their sizes. It changes nothing.
func openSegments(fs filesystem, names []string) ([]segment, error) {
	var segs []segment
	for _, name := range names {
		seg, ok := parseSegmentName(name)
		if !ok {
			continue
		}
		var err error
		if seg.size, err = inspect(fs, name); err != nil {
			return nil, fmt.Errorf("segment %s: %w", name, err)
		}
		segs = append(segs, seg)
	}
	// Of two that begin alike the shorter one is empty and goes first.
	slices.SortFunc(segs, func(a, b segment) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.size, b.size))
	})
	return segs, nil
}

func inspect(fs filesystem, name string) (size int64, err error) {
	f, err := fs.Open(name, false)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }() // it was only read
	if size, err = f.Size(); err != nil {
		return 0, err
	}
	return size, checkSegmentHeader(f)
}

// writer appends to the newest segment.
type writer struct {
	fs     filesystem
	f      file
	seg    segment
	synced int64  // bytes that are durable
	ctx    uint64 // the context that the segment last declared
	named  bool   // the file's name is durable
}

// createSegment makes the file with its header. Nothing is durable before sync. After an error there may be a file.
func createSegment(fs filesystem, seg segment) (*writer, error) {
	f, err := fs.Create(seg.name)
	if err != nil {
		return nil, fmt.Errorf("create spool segment: %w", err)
	}
	w := &writer{fs: fs, f: f, seg: seg}
	if err := w.write(encodeSegmentHeader(seg)); err != nil {
		_ = f.Close() // nobody will read it
		return nil, err
	}
	return w, nil
}

func (w *writer) write(b []byte) error {
	if _, err := w.f.WriteAt(b, w.seg.size); err != nil {
		return fmt.Errorf("write spool segment: %w", err)
	}
	w.seg.size += int64(len(b))
	return nil
}

func (w *writer) sync() error {
	if w.synced == w.seg.size {
		return nil
	}
	if err := w.f.Sync(); err != nil {
		return fmt.Errorf("sync spool segment: %w", err)
	}
	if !w.named {
		if err := w.fs.SyncDir(); err != nil {
			return fmt.Errorf("sync spool folder: %w", err)
		}
		w.named = true
	}
	w.synced = w.seg.size
	return nil
}

// cut removes what was written but never synced, and closes the file.
func (w *writer) cut() error {
	if w.synced == 0 {
		return w.discard()
	}
	if err := errors.Join(w.f.Truncate(w.synced), w.f.Sync()); err != nil {
		return fmt.Errorf("cut spool segment: %w", err)
	}
	_ = w.f.Close() // all of it is synced
	return nil
}

// discard removes the file.
func (w *writer) discard() error {
	if err := w.fs.Remove(w.seg.name); err != nil && !errors.Is(err, iofs.ErrNotExist) {
		return fmt.Errorf("remove spool segment: %w", err)
	}
	_ = w.f.Close() // nobody will read it
	return nil
}
