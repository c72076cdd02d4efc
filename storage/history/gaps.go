package history

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"telemetryhub/device"
	"telemetryhub/storage"
)

// putBytes is how many bytes of values are written to the catalog at a time.
const putBytes = 1 << 20

func gapsKey(deviceNum uint32) string { return fmt.Sprintf("%s%010d", prefixGaps, deviceNum) }

// Gaps returns the gaps of a device that were recorded and overlap [fromMS, toMS), by time. What [Store.Points] finds
// damaged is not among them: its DamageError tells.
//
// If the record of gaps is itself damaged the whole range is returned as one more gap, with an error that wraps
// storage.ErrCorrupt.
func (s *Store) Gaps(ctx context.Context, deviceNum uint32, fromMS, toMS int64) ([]Gap, error) {
	var list gapList
	var damaged error
	recent, dropped := s.heads.gaps(deviceNum)
	if dropped {
		return nil, nil
	}
	for _, num := range []uint32{deviceNum, 0} {
		stored, err := s.loadGaps(ctx, num)
		if errors.Is(err, storage.ErrCorrupt) {
			damaged = errors.Join(damaged, err)
			list = append(list, Gap{FromMS: fromMS, ToMS: toMS - 1, Cause: device.CauseDamaged, Anybody: true})
		} else if err != nil {
			return nil, err
		}
		list = append(list, stored...)
	}
	list = tidy(append(list, recent...))
	return slices.DeleteFunc(list, func(g Gap) bool { return g.ToMS < fromMS || g.FromMS >= toMS }), damaged
}

// gaps returns the gaps in memory of a device and of everybody, and whether the device was dropped.
func (h *heads) gaps(deviceNum uint32) (gapList, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list gapList
	for _, num := range []uint32{deviceNum, 0} {
		if d := h.devices[num]; d != nil {
			for _, p := range []*part{d.frozen, d.active} {
				if p != nil {
					list = append(list, p.gaps...)
				}
			}
		}
	}
	return list, h.dropped[deviceNum]
}

func (s *Store) loadGaps(ctx context.Context, deviceNum uint32) (gapList, error) {
	p, _, err := s.catalog.Get(ctx, gapsKey(deviceNum))
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	var list gapList
	if err == nil {
		list, err = decodeGaps(p)
	}
	if err != nil {
		return nil, fmt.Errorf("gaps of device %d: %w", deviceNum, err)
	}
	for i := range list {
		list[i].Anybody = list[i].Anybody || deviceNum == 0
	}
	return list, nil
}

// saveGaps joins the gaps of frozen parts with those in the catalog, where they are from then on. Doing it again, after a
// crash, changes nothing but perhaps the counts of gaps without sequence numbers.
func (s *Store) saveGaps(ctx context.Context, f *frozen) error {
	var items []storage.Item
	var saved []*deviceHeads // those that items are of
	size := 0
	for i, d := range f.devices {
		if d.frozen != nil && len(d.frozen.gaps) > 0 {
			list, err := s.loadGaps(ctx, d.num)
			if errors.Is(err, storage.ErrCorrupt) {
				s.o.Logger.Error("the record of gaps is damaged: all of the past may have gaps now", "device", d.num, "err", err)
				list = gapList{{FromMS: device.EarliestMS, ToMS: f.after.arrivalMS, Cause: device.CauseDamaged, Anybody: true}}
			} else if err != nil {
				return err
			}
			list = tidy(append(list, d.frozen.gaps...))
			if len(list) > maxGaps {
				list = coarsen(list, maxGaps/2)
			}
			value := encodeGaps(list)
			items = append(items, storage.Item{Key: gapsKey(d.num), Value: value})
			saved, size = append(saved, d), size+len(value)
		}
		if len(items) > 0 && (size > putBytes || i == len(f.devices)-1) {
			if err := s.putAll(ctx, items); err != nil {
				return fmt.Errorf("save gaps: %w", err)
			}
			s.heads.gapsSaved(saved)
			items, saved, size = items[:0], saved[:0], 0
		}
	}
	return nil
}

// gapsSaved forgets the gaps of frozen parts: another try of the flush must not count them again.
func (h *heads) gapsSaved(devices []*deviceHeads) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range devices {
		d.frozen.gaps = nil
	}
}

const gapAnybody = 1 << 7 // beside the place of the cause

func encodeGaps(list gapList) []byte {
	p := binary.AppendUvarint(newValue(), uint64(len(list)))
	before := int64(0)
	for i := range list {
		g := &list[i]
		head := byte(slices.Index(causes[:], g.Cause))
		if g.Anybody {
			head |= gapAnybody
		}
		p = append(p, head)
		p = binary.AppendVarint(p, g.FromMS-before)
		p = binary.AppendUvarint(p, uint64(g.ToMS-g.FromMS))
		p = binary.AppendUvarint(p, g.Count)
		p = binary.AppendUvarint(p, uint64(g.Stream))
		p = binary.AppendUvarint(p, g.FromSeq)
		p = binary.AppendUvarint(p, g.ToSeq)
		before = g.FromMS
	}
	return sealValue(p)
}

func decodeGaps(p []byte) (gapList, error) {
	f, err := openValue(p)
	if err != nil {
		return nil, err
	}
	var list gapList
	before := int64(0)
	for range f.Max(uint64(f.Len())) {
		head := f.Byte()
		g := Gap{Anybody: head&gapAnybody != 0, Cause: device.CauseOther}
		if i := int(head &^ gapAnybody); i < len(causes) {
			g.Cause = causes[i]
		}
		g.FromMS = before + f.Varint()
		g.ToMS = g.FromMS + int64(f.Max(math.MaxInt64))
		g.Count, g.Stream, g.FromSeq, g.ToSeq = f.Uvarint(), f.Uint32(), f.Uvarint(), f.Uvarint()
		before = g.FromMS
		list = append(list, g)
	}
	if !f.Done() {
		return nil, errValue
	}
	return list, nil
}
