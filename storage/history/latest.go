package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"telemetryhub/device"
	"telemetryhub/storage"
)

// latestGroup is how many devices share one value of the catalog: with maxLatest readings each it is always small enough.
const latestGroup = 16

// maxLatest is how many newest readings are kept of one device: of more metrics, those that were silent longest are left
// out.
const maxLatest = device.MaxMetrics

// newest is the newest reading of a metric.
type newest struct {
	Point
	device    uint32
	arrivalMS int64
	pos       storage.Position
	elsewhere bool // the value is a long text, to be read from the chunks
}

func compareNewest(a, b *newest) int {
	return cmp.Or(cmp.Compare(a.device, b.device), cmp.Compare(a.Metric, b.Metric))
}

// older reports whether o takes the place of n: late readings do not, and of one time the later in the log does.
func (n *newest) older(o *newest) bool {
	return n.TimeMS < o.TimeMS || n.TimeMS == o.TimeMS && n.pos <= o.pos
}

func latestKey(group uint32) string { return fmt.Sprintf("%s%08x", prefixLatest, group) }

// Latest calls yield with the newest reading of every metric of every device, by filed time, until yield returns false:
// arrivalMS and pos are those of the record that it came in. The readings of one device follow each other. No Flush ends
// while it runs.
//
// Newest readings whose record in the catalog is damaged are looked for in the chunks of the last days; that is logged.
func (s *Store) Latest(ctx context.Context, yield func(deviceNum uint32, p Point, arrivalMS int64, pos storage.Position) bool) error {
	if err := s.take(ctx); err != nil {
		return fmt.Errorf("newest readings: %w", err)
	}
	defer s.release()
	l := latestReader{store: s, recent: s.heads.newest(nil), yield: yield, more: true}
	if err := l.run(ctx); err != nil {
		return fmt.Errorf("newest readings: %w", err)
	}
	return nil
}

// latestReader joins the newest readings of the catalog with those in memory.
type latestReader struct {
	store  *Store
	recent []newest // in memory, not yet yielded, by device and metric
	late   []newest // likewise, of groups that the catalog does not have, or that are damaged there
	seen   map[uint32]bool
	yield  func(uint32, Point, int64, storage.Position) bool
	more   bool
}

func (l *latestReader) run(ctx context.Context) error {
	l.seen = make(map[uint32]bool)
	var failed, damaged error
	err := l.store.catalog.List(ctx, prefixLatest, func(item storage.Item) bool {
		group, err := strconv.ParseUint(item.Key[len(prefixLatest):], 16, 32)
		if err != nil {
			return true // not ours
		}
		list, err := decodeLatest(item.Value)
		if errors.Is(err, storage.ErrCorrupt) {
			damaged = errors.Join(damaged, err)
			return true
		}
		if err == nil {
			l.seen[uint32(group)] = true
			err = l.group(ctx, uint32(group), list)
		}
		failed = err
		return err == nil && l.more
	})
	if failed != nil {
		return failed
	}
	if errors.Is(err, storage.ErrCorrupt) {
		damaged = errors.Join(damaged, err)
	} else if err != nil {
		return err
	}
	if !l.more {
		return nil
	}
	var found []newest
	if damaged != nil {
		l.store.o.Logger.Error("newest readings are damaged: they are looked for in the chunks", "err", damaged)
		found, err = l.store.findLatest(ctx, func(num uint32) bool { return !l.seen[num/latestGroup] })
		if err != nil {
			return err
		}
	}
	return l.emit(ctx, mergeNewest(found, append(l.late, l.recent...)))
}

// group yields the newest readings of the devices of a group. Groups come in order, and with them the devices in memory
// that lie before.
func (l *latestReader) group(ctx context.Context, group uint32, list []newest) error {
	n := 0
	for n < len(l.recent) && l.recent[n].device/latestGroup <= group {
		n++
	}
	mine := l.recent[:n]
	l.recent = l.recent[n:]
	first := 0
	for first < n && mine[first].device/latestGroup < group {
		first++
	}
	l.late = append(l.late, mine[:first]...) // they wait for what the chunks have
	return l.emit(ctx, mergeNewest(list, mine[first:]))
}

func (l *latestReader) emit(ctx context.Context, list []newest) error {
	for i := range list {
		n := &list[i]
		if l.store.heads.isDropped(n.device) {
			continue
		}
		if n.elsewhere {
			ok, err := l.store.fetch(ctx, n)
			if err != nil {
				return err
			}
			if !ok {
				l.store.o.Logger.Error("the text of a newest reading is lost", "device", n.device, "metric", n.Metric)
				continue
			}
		}
		if l.more = l.yield(n.device, n.Point, n.arrivalMS, n.pos); !l.more {
			return nil
		}
	}
	return nil
}

// fetch reads the value of a newest reading from the chunks.
func (s *Store) fetch(ctx context.Context, n *newest) (bool, error) {
	found := false
	q := Query{Device: n.device, Metrics: []uint32{n.Metric}, FromMS: n.TimeMS, ToMS: n.TimeMS + 1}
	err := s.Points(ctx, q, func(p Point) bool {
		n.Point, found = p, true
		return false
	})
	if errors.Is(err, storage.ErrCorrupt) {
		err = nil
	}
	return found, err
}

// mergeNewest joins two lists by device and metric. Of two readings of one metric the newer stays; of equal ones that of
// the second list.
func mergeNewest(a, b []newest) []newest {
	if len(b) == 0 {
		return a
	}
	out := make([]newest, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		switch c := compareNewest(&a[0], &b[0]); {
		case c < 0:
			out, a = append(out, a[0]), a[1:]
		case c > 0:
			out, b = append(out, b[0]), b[1:]
		default:
			n := a[0]
			if n.older(&b[0]) {
				n = b[0]
			}
			out, a, b = append(out, n), a[1:], b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// saveLatest brings the newest readings in the catalog up to date with frozen parts. Doing it again changes nothing.
func (s *Store) saveLatest(ctx context.Context, devices []*deviceHeads) error {
	var items []storage.Item
	size := 0
	for len(devices) > 0 {
		group := devices[0].num / latestGroup
		n := 1
		for n < len(devices) && devices[n].num/latestGroup == group {
			n++
		}
		if update := s.heads.newest(devices[:n]); len(update) > 0 {
			list, err := s.loadLatest(ctx, group)
			if err != nil {
				return err
			}
			value := encodeLatest(s.trimLatest(mergeNewest(list, update)))
			items, size = append(items, storage.Item{Key: latestKey(group), Value: value}), size+len(value)
		}
		devices = devices[n:]
		if len(items) > 0 && (size > putBytes || len(devices) == 0) {
			if err := s.putAll(ctx, items); err != nil {
				return fmt.Errorf("save newest readings: %w", err)
			}
			items, size = items[:0], 0
		}
	}
	return nil
}

// loadLatest returns the newest readings of a group of devices. If they are damaged it looks for them in the chunks.
func (s *Store) loadLatest(ctx context.Context, group uint32) ([]newest, error) {
	p, _, err := s.catalog.Get(ctx, latestKey(group))
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	var list []newest
	if err == nil {
		list, err = decodeLatest(p)
	}
	if errors.Is(err, storage.ErrCorrupt) {
		s.o.Logger.Error("newest readings are damaged: they are looked for in the chunks", "group", group, "err", err)
		list, err = s.findLatest(ctx, func(num uint32) bool { return num/latestGroup == group })
	}
	if err != nil {
		return nil, fmt.Errorf("newest readings of group %d: %w", group, err)
	}
	return list, nil
}

// trimLatest leaves out dropped devices, and of each device the metrics over maxLatest.
func (s *Store) trimLatest(list []newest) []newest {
	out := list[:0]
	for len(list) > 0 {
		n := 1
		for n < len(list) && list[n].device == list[0].device {
			n++
		}
		mine := list[:n]
		list = list[n:]
		if s.heads.isDropped(mine[0].device) {
			continue
		}
		if len(mine) > maxLatest {
			mine = slices.Clone(mine)
			slices.SortFunc(mine, func(a, b newest) int { return cmp.Compare(b.TimeMS, a.TimeMS) })
			mine = mine[:maxLatest]
			slices.SortFunc(mine, func(a, b newest) int { return compareNewest(&a, &b) })
		}
		out = append(out, mine...)
	}
	return out
}
