package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"

	bolt "go.etcd.io/bbolt"

	"telemetryhub/storage"
)

// The format of the catalog file.
const (
	catalogFormat  = "catalog"
	catalogVersion = 1
)

// CatalogOptions configure a Catalog. The zero value works.
type CatalogOptions struct {
	// MaxBytes limits the file, in steps of 64 KiB. A Put beyond it fails with storage.ErrFull. Zero means no limit.
	MaxBytes int64
	// ReadOnly opens an existing file and never writes. A damaged file is then refused with storage.ErrCorrupt.
	ReadOnly bool
	// Logger receives diagnostics. Nil discards them.
	Logger *slog.Logger
}

// Catalog is a storage.Catalog in one file. Puts and deletes that are under way at the same time share a commit.
type Catalog struct {
	file   *file
	writer *catalogWriter // nil if the catalog is read-only
	damage []Damage
}

var (
	_ storage.Catalog    = (*Catalog)(nil)
	_ storage.BulkPutter = (*Catalog)(nil)
)

// OpenCatalog opens the file and makes it if it does not exist. Every item is read and verified. A damaged file is
// replaced by a new one with everything that can be proven right; the damaged one is kept beside it, and the damage is
// reported by Damage. Errors: storage.ErrNewerFormat, storage.ErrLocked, storage.ErrReadOnly, storage.ErrFull, and storage.ErrCorrupt
// if nothing can be rescued; in all these cases the file was left as it was.
func OpenCatalog(path string, opts CatalogOptions) (*Catalog, error) {
	fo := fileOptions{
		format: catalogFormat, version: catalogVersion, buckets: []string{itemsBucket, piecesBucket, summaryBucket},
		readOnly: opts.ReadOnly, maxBytes: opts.MaxBytes, growBytes: 64 << 10,
	}
	c := new(Catalog)
	f, sum, err := openCatalogFile(path, fo)
	if errors.Is(err, storage.ErrCorrupt) && !opts.ReadOnly {
		var d Damage
		if d, err = salvageCatalog(path, fo, err); err != nil {
			return nil, err
		}
		if opts.Logger != nil {
			opts.Logger.Error("catalog is damaged", "file", d.File, "what", d.What, "action", d.Action)
		}
		c.damage = append(c.damage, d)
		f, sum, err = openCatalogFile(path, fo)
	}
	if err != nil {
		return nil, err
	}
	c.file = f
	if !opts.ReadOnly {
		c.writer = startCatalogWriter(f, sum)
	}
	return c, nil
}

// Damage returns what was found damaged when the catalog was opened. Values that are gone for good are reported once;
// their keys fail with storage.ErrCorrupt until they are put or deleted.
func (c *Catalog) Damage() []Damage { return slices.Clone(c.damage) }

// openCatalogFile opens the file, or makes it, and verifies it.
func openCatalogFile(path string, fo fileOptions) (*file, summary, error) {
	f, err := openFile(path, fo)
	if errors.Is(err, os.ErrNotExist) && !fo.readOnly {
		f, err = createFile(path, fo, func(f *file) error { return storeItems(f, nil, 0) })
	}
	if err != nil {
		return nil, summary{}, err
	}
	var sum summary
	err = f.view(func(tx *bolt.Tx) (err error) {
		sum, err = auditCatalog(tx)
		return err
	})
	if err != nil {
		return nil, summary{}, errors.Join(fmt.Errorf("verify %s: %w", path, err), f.close())
	}
	return f, sum, nil
}

// createFile makes a file with contents and gives it its name. storage.ErrUnknown means that the file is there, but
// perhaps not for ever.
func createFile(path string, fo fileOptions, fill func(f *file) error) (*file, error) {
	f, err := buildFile(path+tempSuffix, fo, fill)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	if err := f.publish(path); err != nil {
		if f.path == path {
			err = fmt.Errorf("%w: %w", storage.ErrUnknown, err)
		}
		return nil, errors.Join(fmt.Errorf("create %s: %w", path, err), f.close())
	}
	return f, nil
}

// Get implements storage.Catalog.
func (c *Catalog) Get(ctx context.Context, key string) (value []byte, rev storage.Revision, err error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	err = c.file.view(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(itemsBucket)).Get([]byte(key))
		if b == nil {
			return storage.ErrNotFound
		}
		value, rev, err = readItem(tx, []byte(key), b)
		return err
	})
	if err != nil {
		return nil, 0, fmt.Errorf("get %q: %w", key, err)
	}
	return value, rev, nil
}

// readItem returns a copy of the value of a key, which has been verified, and its revision. b is what the items bucket
// has for the key.
func readItem(tx *bolt.Tx, key, b []byte) ([]byte, storage.Revision, error) {
	r, body, err := decodeRecord(key, b)
	if err != nil {
		return nil, 0, err
	}
	value, err := readValue(tx, key, &r, body)
	return value, r.revision, err
}

// readValue copies first and verifies the copy: the bytes of the map might change under the checksum.
func readValue(tx *bolt.Tx, key []byte, r *record, body []byte) ([]byte, error) {
	value := append([]byte{}, body...)
	if n := r.pieces(); n > 0 {
		value = make([]byte, 0, r.size)
		c := tx.Bucket([]byte(piecesBucket)).Cursor()
		part := 0
		for k, v := c.Seek(pieceKey(r.revision, 0)); k != nil && part < n; k, v = c.Next() {
			if !bytes.Equal(k, pieceKey(r.revision, part)) || len(value)+len(v) > int(r.size) {
				break
			}
			value, part = append(value, v...), part+1
		}
	}
	return value, r.intact(string(key), value)
}

// Bounds of what List reads in one transaction.
const (
	listItems = 256
	listBytes = 1 << 20
)

// List implements storage.Catalog.
func (c *Catalog) List(ctx context.Context, prefix string, yield func(storage.Item) bool) error {
	p := page{prefix: []byte(prefix), next: []byte(prefix)}
	for !p.end {
		if err := ctx.Err(); err != nil {
			return err
		}
		p.items = p.items[:0]
		if err := c.file.view(p.read); err != nil {
			return fmt.Errorf("list %q: %w", prefix, err)
		}
		for _, item := range p.items {
			if err := ctx.Err(); err != nil {
				return err
			}
			if !yield(item) {
				return nil
			}
		}
	}
	if p.damaged != nil {
		return fmt.Errorf("list %q: %w", prefix, p.damaged)
	}
	return ctx.Err()
}

// page is the part of a list that one transaction reads.
type page struct {
	prefix, next []byte
	items        []storage.Item
	end          bool
	damaged      error // the first damage that was met
}

func (p *page) read(tx *bolt.Tx) error {
	size := 0
	c := tx.Bucket([]byte(itemsBucket)).Cursor()
	for k, b := c.Seek(p.next); k != nil && bytes.HasPrefix(k, p.prefix); k, b = c.Next() {
		p.next = append(append(p.next[:0], k...), 0) // the smallest key after k
		value, rev, err := readItem(tx, k, b)
		if err != nil {
			if p.damaged == nil {
				p.damaged = err
			}
			continue
		}
		p.items = append(p.items, storage.Item{Key: string(k), Value: value, Revision: rev})
		if size += len(value); size >= listBytes || len(p.items) >= listItems {
			return nil
		}
	}
	p.end = true
	return nil
}

// Put implements storage.Catalog.
func (c *Catalog) Put(ctx context.Context, key string, value []byte, expect storage.Revision) (storage.Revision, error) {
	item := storage.Item{Key: key, Value: value}
	if err := checkItem(item); err != nil {
		return 0, err
	}
	ch := change{items: []storage.Item{item}, expect: expect}
	if err := c.change(ctx, &ch); err != nil {
		return 0, fmt.Errorf("put %q: %w", key, err)
	}
	return ch.revision, nil
}

// Delete implements storage.Catalog.
func (c *Catalog) Delete(ctx context.Context, key string, expect storage.Revision) error {
	ch := change{items: []storage.Item{{Key: key}}, expect: expect, remove: true}
	if err := c.change(ctx, &ch); err != nil {
		return fmt.Errorf("delete %q: %w", key, err)
	}
	return nil
}

// PutAll implements storage.BulkPutter. Up to about 4 MiB share a commit.
func (c *Catalog) PutAll(ctx context.Context, items []storage.Item) error {
	for _, item := range items {
		if err := checkItem(item); err != nil {
			return err
		}
	}
	for len(items) > 0 {
		n, size := 0, 0
		for n < len(items) && n < batchItems && size < batchBytes {
			size += len(items[n].Value)
			n++
		}
		if err := c.change(ctx, &change{items: items[:n], expect: storage.Any}); err != nil {
			return fmt.Errorf("put %d items: %w", n, err)
		}
		items = items[n:]
	}
	return ctx.Err()
}

func (c *Catalog) change(ctx context.Context, ch *change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.writer == nil {
		return storage.ErrReadOnly
	}
	return c.writer.do(ctx, ch)
}

// Close waits until every change that has begun is durable or has failed.
func (c *Catalog) Close() error {
	if c.writer != nil {
		c.writer.stop()
	}
	return c.file.close()
}

func checkItem(item storage.Item) error {
	if len(item.Key) == 0 || len(item.Key) > storage.MaxKey {
		return fmt.Errorf("put a key of %d bytes: %w: 1 to %d are allowed", len(item.Key), storage.ErrTooLarge, storage.MaxKey)
	}
	if len(item.Value) > storage.MaxValue {
		return fmt.Errorf("put %d bytes under %q: %w: at most %d", len(item.Value), item.Key, storage.ErrTooLarge, storage.MaxValue)
	}
	return nil
}
