package history

import (
	"cmp"
	"math"
	"slices"

	"telemetryhub/device"
	"telemetryhub/storage/record"
)

// Gap is a range of filed time in which readings of a device are known to be missing.
type Gap struct {
	// FromMS and ToMS are the first and the last millisecond. Where the times of what is missing are not known they
	// are those of the arrival of the news.
	FromMS, ToMS int64
	Cause        device.Cause
	// Count is how many readings are lost, as far as it is known.
	Count uint64
	// Stream, FromSeq and ToSeq say which batches are missing, zero if unknown or if several streams are joined.
	Stream         uint32
	FromSeq, ToSeq uint64
	// Anybody means that damage hit the store itself and readings of this device may or may not be among the lost.
	Anybody bool
}

// maxGaps is how many gaps of one device are told apart, in memory and in the catalog. Beyond that the closest
// neighbours of the same cause are joined, so that a flood of gaps costs detail, never the knowledge that something is
// missing.
const maxGaps = 2048

const gapBytes = 72

// gapList is a bounded collection of gaps.
type gapList []Gap

// fileGap returns the gap that a record speaks of.
func fileGap(g *device.Gap, h record.Header) Gap {
	from, fromOK := device.Filed(g.FromMS, h.ArrivalMS)
	to, toOK := device.Filed(g.ToMS, h.ArrivalMS)
	if !fromOK && toOK {
		from = to
	}
	return Gap{
		FromMS: min(from, to), ToMS: max(from, to), Cause: known(g.Cause), Count: g.Count,
		Stream: h.Stream, FromSeq: g.FromSeq, ToSeq: g.ToSeq,
	}
}

// known returns the cause, or device.CauseOther for one that this program does not know. So there are few causes.
func known(c device.Cause) device.Cause {
	if slices.Contains(causes[:], c) {
		return c
	}
	return device.CauseOther
}

// causes are stored by their place: only append.
var causes = [...]device.Cause{
	device.CauseOther, device.CauseSpoolFull, device.CauseDamaged, device.CauseJump, device.CauseRefused,
	device.CauseSensor, device.CauseSkipped,
}

// add adds a gap, joined with one that it touches.
func (l *gapList) add(g Gap) {
	list := *l
	for i := len(list) - 1; i >= 0 && i >= len(list)-8; i-- {
		if list[i].touches(&g) {
			list[i] = list[i].join(&g)
			return
		}
	}
	*l = append(list, g)
	if len(*l) > maxGaps {
		*l = coarsen(*l, maxGaps/2)
	}
}

// touches reports whether g and o are one loss: of one stream, for one cause, and nothing between them.
func (g *Gap) touches(o *Gap) bool {
	if g.Cause != o.Cause || g.Stream != o.Stream || g.Anybody != o.Anybody {
		return false
	}
	if g.FromMS <= o.ToMS+1 && o.FromMS <= g.ToMS+1 {
		return true
	}
	// Rows that were refused and readings that a sensor failed to give are parts of batches whose other rows are there.
	whole := g.Cause != device.CauseRefused && g.Cause != device.CauseSensor
	return whole && g.FromSeq > 0 && o.FromSeq > 0 && (g.ToSeq+1 == o.FromSeq || o.ToSeq+1 == g.FromSeq)
}

// within reports whether g is what is known as a part of o: it was applied twice, before a crash and after it.
func (g *Gap) within(o *Gap) bool {
	return g.FromSeq > 0 && g.Stream == o.Stream && g.FromSeq >= o.FromSeq && g.ToSeq <= o.ToSeq &&
		g.FromMS >= o.FromMS && g.ToMS <= o.ToMS
}

// join returns the one gap that g and o are.
func (g *Gap) join(o *Gap) Gap {
	switch {
	case g.within(o):
		return *o
	case o.within(g):
		return *g
	}
	j := *g
	j.FromMS, j.ToMS = min(g.FromMS, o.FromMS), max(g.ToMS, o.ToMS)
	j.Count = g.Count + o.Count
	if j.Count < g.Count {
		j.Count = math.MaxUint64
	}
	if g.Stream != o.Stream || g.FromSeq == 0 || o.FromSeq == 0 {
		j.FromSeq, j.ToSeq = 0, 0
		if g.Stream != o.Stream {
			j.Stream = 0
		}
		return j
	}
	j.FromSeq, j.ToSeq = min(g.FromSeq, o.FromSeq), max(g.ToSeq, o.ToSeq)
	return j
}

// tidy sorts gaps by time and joins those that touch.
func tidy(list gapList) gapList {
	slices.SortFunc(list, func(a, b Gap) int {
		return cmp.Or(cmp.Compare(a.Cause, b.Cause), cmp.Compare(a.Stream, b.Stream), cmp.Compare(a.FromMS, b.FromMS))
	})
	out := list[:0]
	for i := range list {
		if n := len(out); n > 0 && out[n-1].touches(&list[i]) {
			out[n-1] = out[n-1].join(&list[i])
			continue
		}
		out = append(out, list[i])
	}
	slices.SortStableFunc(out, func(a, b Gap) int { return cmp.Compare(a.FromMS, b.FromMS) })
	return out
}

// coarsen joins the closest neighbours of the same cause until at most n gaps are left. n is at least twice the number
// of causes.
func coarsen(list gapList, n int) gapList {
	list = tidy(list)
	slices.SortStableFunc(list, func(a, b Gap) int { return cmp.Compare(a.Cause, b.Cause) })
	apart := func(i int) int64 { // how far list[i] is from the one before it
		if list[i].Cause != list[i-1].Cause || list[i].Anybody != list[i-1].Anybody {
			return math.MaxInt64
		}
		return list[i].FromMS - list[i-1].ToMS
	}
	if len(list) <= n {
		return list
	}
	order := make([]int, 0, len(list)-1) // of the places between neighbours, closest first
	for i := 1; i < len(list); i++ {
		order = append(order, i)
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(apart(a), apart(b)) })
	closed := make([]bool, len(list))
	for _, i := range order[:len(list)-n] {
		closed[i] = apart(i) != math.MaxInt64
	}
	out := make(gapList, 0, n)
	for i := range list {
		if closed[i] {
			last := &out[len(out)-1]
			*last = last.join(&list[i])
			continue
		}
		out = append(out, list[i])
	}
	slices.SortStableFunc(out, func(a, b Gap) int { return cmp.Compare(a.FromMS, b.FromMS) })
	return out
}

// gapLocked adds a gap to the heads of a device; number 0 stands for all devices.
func (h *heads) gapLocked(num uint32, g Gap) {
	d := h.deviceLocked(num)
	if d == nil {
		return
	}
	g.Anybody = num == 0
	before := len(d.active.gaps)
	d.active.gaps.add(g)
	h.growLocked(d, int64(len(d.active.gaps)-before)*gapBytes)
}
