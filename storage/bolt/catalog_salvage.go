package bolt

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"path/filepath"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"

	"telemetryhub/storage"
)

// revisionJump is added to the greatest known revision when a catalog is rescued, so that no revision is given twice
// although the newest may be unknown.
const revisionJump = 1 << 32

// candidate is a record that was found in a damaged catalog.
type candidate struct {
	key    string
	record record
	body   []byte // the value, if it follows the record
	origin origin
	pages  []pageID // that it was found on
}

func (c *candidate) whole() bool {
	return c.record.kind != recordInline || c.record.intact(c.key, c.body) == nil
}

// catalogRescue gathers what can be made out of one state of a damaged catalog.
type catalogRescue struct {
	tx     uint64 // the transaction that made the state
	ours   bool
	items  map[string][]*candidate
	pieces map[string][][]byte // everything that was found under a key: at most one is right
	sums   []foundSummary
	broken int // records of the newest state that could not be read
	gaps   []gap

	chosen map[string]*candidate
	last   storage.Revision // the greatest one known
	proven bool             // chosen is all that the state had
	report findings
}

// foundSummary is a summary and the page that it was on, which is the root of its transaction: the buckets of a catalog
// fit in one page.
type foundSummary struct {
	summary
	page   pageID
	origin origin
}

// salvageCatalog replaces a damaged catalog by a new one with what can be proven right, and tells what happened. The
// damaged file is kept under another name. If it fails nothing was changed.
//
// Items of the newest state are kept. A record from a page that was free may have been deleted on purpose, a revoked
// token for instance; it is kept only if the summary proves that it belongs to the newest state.
func salvageCatalog(path string, fo fileOptions, why error) (_ Damage, err error) {
	defer recoverTo(&err)
	fail := func(err error) (Damage, error) { return Damage{}, fmt.Errorf("rescue %s: %w", path, err) }
	d, err := openDamaged(path)
	if err != nil {
		return fail(err)
	}
	defer d.close() // only read
	r := rescueCatalog(d.p)
	if !r.ours {
		return fail(fmt.Errorf("%w of this program: nothing in it is ours; move it away", errNotBolt))
	}
	items := r.values()
	f, err := buildFile(path+tempSuffix, fo, func(f *file) error { return storeItems(f, items, r.last+revisionJump) })
	if err != nil {
		return fail(err)
	}
	aside, err := d.swapIn(f)
	if err = errors.Join(err, f.close()); err != nil {
		return fail(err)
	}
	return Damage{File: path, What: why.Error(), Action: fmt.Sprintf("%d items were put into a new file (%s); the damaged one is kept as %s",
		len(items), &r.report, filepath.Base(aside))}, nil
}

// rescueCatalog chooses the state that is rescued: the one that the meta page names. If one meta page is damaged it may
// have been the newer one; then the state after that is better, if it can be proven to be whole. If both are, the newest
// state of which a root page is left is the best that can be had.
func rescueCatalog(p *pages) *catalogRescue {
	named, doubtful := p.meta, len(p.notes) > 0
	r := gatherCatalog(p)
	slices.SortFunc(r.sums, func(a, b foundSummary) int { return cmp.Compare(b.tx, a.tx) })
	for _, s := range r.sums {
		if named.high != 0 && !(doubtful && s.tx == named.txid+1) {
			continue
		}
		p.meta = meta{root: s.page, high: pageID(p.size / pageSize), txid: s.tx}
		if later := gatherCatalog(p); later.choose() || named.high == 0 {
			return later
		}
	}
	r.choose()
	return r
}

// gatherCatalog reads all that can be read, from the point of view of the state that p.meta names.
func gatherCatalog(p *pages) *catalogRescue {
	r := &catalogRescue{
		tx: p.meta.txid, items: make(map[string][]*candidate), pieces: make(map[string][][]byte),
		chosen: make(map[string]*candidate), gaps: p.gaps(itemsBucket),
	}
	scan(p, r.see)
	scanDeep(p, r.see)
	return r
}

// see takes in an element. In which bucket it was is not known, so it is tried as everything that it may be.
func (r *catalogRescue) see(e element) {
	if isHeader(e.value, catalogFormat) {
		r.ours = true
		return
	}
	if string(e.key) == summaryKey {
		if s, ok := repair(e.value, func(b []byte) bool { _, err := decodeSummary(b); return err == nil }); ok {
			sum, _ := decodeSummary(s)
			r.sums, r.ours = append(r.sums, foundSummary{sum, e.page, e.origin}), true
			return
		}
	}
	if len(e.key) == len(pieceKey(0, 0)) && len(e.value) <= pieceMax {
		k := string(e.key)
		if !slices.ContainsFunc(r.pieces[k], func(b []byte) bool { return bytes.Equal(b, e.value) }) {
			r.pieces[k] = append(r.pieces[k], bytes.Clone(e.value))
		}
	}
	if len(e.key) > storage.MaxKey {
		return
	}
	c := candidate{key: string(e.key), origin: e.origin, pages: []pageID{e.page}}
	var err error
	if c.record, c.body, err = decodeRecord(e.key, e.value); err != nil {
		if e.origin == stale || !plausible(e.value) {
			return
		}
		if !c.repair(e) {
			r.broken++
			return
		}
	}
	c.body, r.ours = bytes.Clone(c.body), true
	r.note(&c)
}

// plausible reports whether a value looks like a record with at most one wrong bit in its head.
func plausible(b []byte) bool {
	if len(b) < recordHead {
		return false
	}
	size, body := uint32(b[9])<<24|uint32(b[10])<<16|uint32(b[11])<<8|uint32(b[12]), uint32(len(b)-recordHead)
	return bits.OnesCount32(size^body) <= 1 || body == 0 && b[0] <= 7
}

// repair looks for the one bit of key or head that makes the checksum right.
func (c *candidate) repair(e element) bool {
	both := append(bytes.Clone(e.key), e.value...)
	n := len(e.key)
	fixed, ok := repairBit(both, n+recordHead, func(b []byte) bool {
		return headCheck(b[n:n+recordHead], b[:n]) == binary.BigEndian.Uint32(b[n+recordHead-4:])
	})
	if ok {
		c.key = string(fixed[:n])
		c.record, c.body, _ = decodeRecord(fixed[:n], fixed[n:])
	}
	return ok
}

// repair returns b as it is if it is right, or with the one bit turned back that makes it right.
func repair(b []byte, right func([]byte) bool) ([]byte, bool) {
	if right(b) {
		return b, true
	}
	return repairBit(bytes.Clone(b), len(b), right)
}

// repairBit turns each of the first n bytes' bits in b until it is right.
func repairBit(b []byte, n int, right func([]byte) bool) ([]byte, bool) {
	for i := range n * 8 {
		b[i/8] ^= 1 << (i % 8)
		if right(b) {
			return b, true
		}
		b[i/8] ^= 1 << (i % 8)
	}
	return b, false
}

// note keeps a candidate. Copies of one record on several pages are one candidate, with the best origin and a body that
// is intact, if there is one.
func (r *catalogRescue) note(c *candidate) {
	for _, old := range r.items[c.key] {
		if old.record != c.record {
			continue
		}
		old.origin = min(old.origin, c.origin)
		if old.pages[len(old.pages)-1] != c.pages[0] {
			old.pages = append(old.pages, c.pages[0])
		}
		if !old.whole() && c.whole() {
			old.body = c.body
		}
		return
	}
	r.items[c.key] = append(r.items[c.key], c)
}

// choose finds the records of the state as far as they can be had. It reports whether these are all.
func (r *catalogRescue) choose() bool {
	loose := make(map[pageID][]*candidate) // stale ones that nothing newer replaces, by page
	for key, all := range r.items {
		for _, c := range all {
			r.last = max(r.last, c.record.revision)
			if c.origin < stale && (r.chosen[key] == nil || r.chosen[key].record.revision < c.record.revision) {
				r.chosen[key] = c
			}
		}
		if r.chosen[key] == nil {
			c := slices.MaxFunc(all, func(a, b *candidate) int { return cmp.Compare(a.record.revision, b.record.revision) })
			for _, id := range c.pages {
				loose[id] = append(loose[id], c)
			}
		}
	}
	i := slices.IndexFunc(r.sums, func(s foundSummary) bool { return s.tx == r.tx })
	if i < 0 { // the state may have another one if a foreign program wrote to the file
		i = slices.IndexFunc(r.sums, func(s foundSummary) bool { return s.origin == inTree })
	}
	if i < 0 {
		r.report.add("the summary is gone, so nobody can say whether items are missing%s", suspects(loose))
		return false
	}
	want := &r.sums[i].summary
	r.last = max(r.last, want.last)
	if r.proven = r.prove(want, loose); r.proven {
		r.report.add("none is missing")
		return true
	}
	if missing := int64(want.count) - int64(len(r.chosen)); missing > 0 {
		r.report.add("%d are missing%s%s", missing, r.where(), suspects(loose))
	} else {
		r.report.add("%d were expected", want.count)
	}
	if r.broken > 0 {
		r.report.add("%d records could not be read", r.broken)
	}
	return false
}

// prove completes chosen with stale records, of one page or of all, if the summary shows that this is the newest state.
func (r *catalogRescue) prove(want *summary, loose map[pageID][]*candidate) bool {
	var have summary
	for _, c := range r.chosen {
		have.add(&c.record)
	}
	if have.same(want) {
		return true
	}
	all := make(map[*candidate]bool)
	try := func(set []*candidate) bool {
		sum := have
		for _, c := range set {
			sum.add(&c.record)
		}
		if !sum.same(want) {
			return false
		}
		for _, c := range set {
			r.chosen[c.key] = c
		}
		return true
	}
	for _, set := range loose {
		if try(set) {
			return true
		}
		for _, c := range set {
			if try([]*candidate{c}) {
				return true
			}
		}
		for _, c := range set {
			all[c] = true
		}
	}
	return try(slices.Collect(maps.Keys(all)))
}

// where tells in which ranges of keys items are missing.
func (r *catalogRescue) where() string {
	if len(r.gaps) == 0 || len(r.gaps) > maxFindings {
		return ""
	}
	texts := make([]string, len(r.gaps))
	for i, g := range r.gaps {
		texts[i] = g.String()
	}
	return " (" + strings.Join(texts, ", ") + ")"
}

// suspects names keys that are missing or were deleted earlier: nobody can say which.
func suspects(loose map[pageID][]*candidate) string {
	var keys []string
	for _, set := range loose {
		for _, c := range set {
			keys = append(keys, fmt.Sprintf("%q", c.key))
		}
	}
	if len(keys) == 0 {
		return ""
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	more := ""
	if n := len(keys) - maxFindings; n > 0 {
		keys, more = keys[:maxFindings], fmt.Sprintf(" and %d others", n)
	}
	return ", perhaps among " + strings.Join(keys, ", ") + more + ", of which an earlier state is left"
}

// rescuedItem is what goes into the new file.
type rescuedItem struct {
	key    string
	record record
	value  []byte
}

// values puts the values to the chosen records. Where a value is gone a record stays that says so.
func (r *catalogRescue) values() []rescuedItem {
	items := make([]rescuedItem, 0, len(r.chosen))
	for key, c := range r.chosen {
		item := rescuedItem{key: key, record: c.record, value: c.body}
		if c.record.kind == recordPieces {
			item.value = r.assemble(c)
		}
		if err := item.record.intact(key, item.value); err != nil {
			if item.record.kind != recordLost {
				r.report.add("%v", err)
			}
			item.record, item.value = item.record.lost(key), nil
		}
		items = append(items, item)
	}
	slices.SortFunc(items, func(a, b rescuedItem) int { return strings.Compare(a.key, b.key) })
	return items
}

// assemble joins the pieces of a value. It returns nothing if they do not fit.
func (r *catalogRescue) assemble(c *candidate) []byte {
	parts := make([][][]byte, c.record.pieces())
	for i := range parts {
		parts[i] = r.pieces[string(pieceKey(c.record.revision, i))]
	}
	value, _ := joinVariants(parts, func(b []byte) bool { return c.record.intact(c.key, b) == nil })
	return value
}

// storeItems fills a new file, some items in each transaction.
func storeItems(f *file, items []rescuedItem, last storage.Revision) error {
	sum := summary{last: last}
	for more := true; more; more = len(items) > 0 {
		n, size := 0, 0
		for n < len(items) && n < batchItems && size < batchBytes {
			size += len(items[n].value)
			n++
		}
		err := f.update(func(tx *bolt.Tx) error {
			t := newCatalogTx(tx, sum)
			for _, item := range items[:n] {
				if err := t.put([]byte(item.key), item.value, item.record); err != nil {
					return err
				}
			}
			sum = t.sum
			return t.finish()
		})
		if err != nil {
			return err
		}
		items = items[n:]
	}
	return nil
}
