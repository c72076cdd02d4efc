package bolt

import (
	"fmt"
	"strings"

	bolt "go.etcd.io/bbolt"
)

// auditCatalog reads every item and compares the whole with the summary, which it returns. The error wraps
// storage.ErrCorrupt and names what is wrong.
func auditCatalog(tx *bolt.Tx) (summary, error) {
	var wrong findings
	items, pieces, sums := tx.Bucket([]byte(itemsBucket)), tx.Bucket([]byte(piecesBucket)), tx.Bucket([]byte(summaryBucket))
	if items == nil || pieces == nil || sums == nil {
		return summary{}, corruptf("a bucket is missing")
	}
	want, err := decodeSummary(sums.Get([]byte(summaryKey)))
	switch {
	case err != nil:
		wrong.add("%v", err)
	case want.tx != uint64(tx.ID()):
		wrong.add("the summary is of transaction %d, the file of %d", want.tx, tx.ID())
	}
	var have summary
	err = items.ForEach(func(k, b []byte) error {
		r, body, err := decodeRecord(k, b)
		have.add(&r)
		if err == nil && r.kind != recordLost { // what was lost has been reported when it was
			_, err = readValue(tx, k, &r, body)
		}
		if err != nil {
			wrong.add("%v", err)
		}
		return nil
	})
	if err != nil {
		return summary{}, err
	}
	if !have.same(&want) {
		wrong.add("%d items were found, the summary counts %d", have.count, want.count)
	}
	if have.last > want.last {
		wrong.add("an item has revision %d, greater than the last one, %d", have.last, want.last)
	}
	return want, wrong.err()
}

// findings gathers what is wrong with a file, and names the first few.
type findings struct {
	texts []string
	more  int
}

const maxFindings = 8

func (f *findings) add(format string, args ...any) {
	if len(f.texts) == maxFindings {
		f.more++
		return
	}
	f.texts = append(f.texts, fmt.Sprintf(format, args...))
}

func (f *findings) String() string {
	s := strings.Join(f.texts, "; ")
	if f.more > 0 {
		s += fmt.Sprintf("; and %d more", f.more)
	}
	return s
}

func (f *findings) err() error {
	if len(f.texts) == 0 {
		return nil
	}
	return corruptf("%s", f)
}
