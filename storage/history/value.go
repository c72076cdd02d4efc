package history

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"telemetryhub/storage"
	"telemetryhub/storage/chunk"
)

// valueVersion is the format version of what the history keeps in the catalog, and of its blocks.
const valueVersion = 1

// Keys of the catalog.
const (
	keyCheckpoint = "history/checkpoint"
	keyIntent     = "history/intent"
	prefixLatest  = "history/latest/"
	prefixGaps    = "history/gaps/"
	prefixDropped = "history/dropped/"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errValue reports a value that is intact for the store but does not follow the format.
var errValue = fmt.Errorf("%w: it does not follow the format", storage.ErrCorrupt)

// openValue checks the version and the checksum of a value and returns its fields.
func openValue(p []byte) (chunk.Fields, error) {
	if len(p) < 5 || p[0] == 0 {
		return chunk.Fields{}, errValue
	}
	if p[0] > valueVersion {
		return chunk.Fields{}, fmt.Errorf("format version %d, this program reads up to %d: %w", p[0], valueVersion,
			storage.ErrNewerFormat)
	}
	if crc32.Checksum(p[5:], castagnoli) != binary.LittleEndian.Uint32(p[1:]) {
		return chunk.Fields{}, fmt.Errorf("%w: the checksum does not hold", storage.ErrCorrupt)
	}
	return chunk.NewFields(p[5:]), nil
}

// newValue begins a value, to be finished with sealValue.
func newValue() []byte { return []byte{valueVersion, 0, 0, 0, 0} }

func sealValue(p []byte) []byte {
	binary.LittleEndian.PutUint32(p[1:], crc32.Checksum(p[5:], castagnoli))
	return p
}

// checkpoint says what is durable in chunks.
type checkpoint struct {
	flush     uint64
	pos       storage.Position
	arrivalMS int64 // of the last record in it
}

func (c checkpoint) encode() []byte {
	p := binary.AppendUvarint(newValue(), c.flush)
	p = binary.AppendUvarint(p, uint64(c.pos))
	return sealValue(binary.AppendVarint(p, c.arrivalMS))
}

func decodeCheckpoint(p []byte) (checkpoint, error) {
	f, err := openValue(p)
	if err != nil {
		return checkpoint{}, fmt.Errorf("checkpoint: %w", err)
	}
	c := checkpoint{flush: f.Uvarint(), pos: storage.Position(f.Uvarint()), arrivalMS: f.Varint()}
	if !f.Done() {
		return checkpoint{}, fmt.Errorf("checkpoint: %w", errValue)
	}
	return c, nil
}

// intent says what a flush is about to write. Until a checkpoint has its number, blocks of it do not count.
type intent struct {
	flush  uint64
	slices []storage.Slice // ascending
}

func (i intent) encode() []byte {
	p := binary.AppendUvarint(newValue(), i.flush)
	p = binary.AppendUvarint(p, uint64(len(i.slices)))
	before := int64(0)
	for _, s := range i.slices {
		p = binary.AppendVarint(p, int64(s)-before)
		before = int64(s)
	}
	return sealValue(p)
}

func decodeIntent(p []byte) (intent, error) {
	f, err := openValue(p)
	if err != nil {
		return intent{}, fmt.Errorf("intent: %w", err)
	}
	i := intent{flush: f.Uvarint()}
	n := f.Max(uint64(f.Len()))
	at := int64(0)
	for range n {
		at += f.Varint()
		i.slices = append(i.slices, storage.Slice(at))
	}
	if !f.Done() || !slices.IsSorted(i.slices) {
		return intent{}, fmt.Errorf("intent: %w", errValue)
	}
	return i, nil
}
