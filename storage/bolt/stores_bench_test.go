package bolt_test

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	bbolt "go.etcd.io/bbolt"

	"telemetryhub/storage"
	"telemetryhub/storage/bolt"
)

// Benchmarks whose name begins with Floor do the same with bbolt and nothing else: compare each with its floor, on the
// same disk at the same time.

func floorDB(b *testing.B) *bbolt.DB {
	b.Helper()
	db, err := bbolt.Open(filepath.Join(b.TempDir(), "floor.bolt"), 0o600, &bbolt.Options{
		PageSize: 4096, FreelistType: bbolt.FreelistMapType, InitialMmapSize: 1 << 30,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := db.Close(); err != nil {
			b.Error(err)
		}
	})
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket([]byte("data"))
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return db
}

func deviceKey(i int) string { return fmt.Sprintf("device/%05d", i%10_000) }

func BenchmarkFloorPut(b *testing.B) {
	db, value := floorDB(b), make([]byte, 300)
	b.ReportAllocs()
	for i := range b.N {
		err := db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("data")).Put([]byte(deviceKey(i)), value) })
		if err != nil {
			b.Fatal(err)
		}
	}
}

func benchCatalog(b *testing.B) *bolt.Catalog {
	b.Helper()
	c := openCatalog(b, filepath.Join(b.TempDir(), "catalog.bolt"))
	b.Cleanup(func() {
		if err := c.Close(); err != nil {
			b.Error(err)
		}
	})
	return c
}

func BenchmarkCatalogPut(b *testing.B) {
	c, value := benchCatalog(b), make([]byte, 300)
	b.ReportAllocs()
	for i := range b.N {
		if _, err := c.Put(b.Context(), deviceKey(i), value, storage.Any); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCatalogPutParallel64(b *testing.B) {
	c, value := benchCatalog(b), make([]byte, 300)
	work := make(chan int)
	var wg sync.WaitGroup
	b.ReportAllocs()
	for range 64 {
		wg.Go(func() {
			for i := range work {
				if _, err := c.Put(b.Context(), deviceKey(i), value, storage.Any); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for i := range b.N {
		work <- i
	}
	close(work)
	wg.Wait()
}

func BenchmarkCatalogGet(b *testing.B) {
	c := benchCatalog(b)
	items := make([]storage.Item, 10_000)
	for i := range items {
		items[i] = storage.Item{Key: deviceKey(i), Value: make([]byte, 300)}
	}
	if err := c.PutAll(b.Context(), items); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if _, _, err := c.Get(b.Context(), deviceKey(i*7)); err != nil {
			b.Fatal(err)
		}
	}
}

func benchBlocks(n int) [][]byte {
	blocks := make([][]byte, n)
	for i := range blocks {
		blocks[i] = make([]byte, 32<<10)
	}
	return blocks
}

func BenchmarkFloorWrite10x32KiB(b *testing.B) {
	db, blocks := floorDB(b), benchBlocks(10)
	b.SetBytes(10 * 32 << 10)
	b.ReportAllocs()
	for i := range b.N {
		err := db.Update(func(tx *bbolt.Tx) error {
			for j, block := range blocks {
				key := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, uint64(i)), uint32(j))
				if err := tx.Bucket([]byte("data")).Put(key, block); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkChunksWrite10x32KiB(b *testing.B) {
	c, blocks := openChunks(b, b.TempDir(), bolt.ChunksOptions{}), benchBlocks(10)
	defer c.Close()
	b.SetBytes(10 * 32 << 10)
	b.ReportAllocs()
	for i := range b.N {
		// A new slice now and then keeps the file at a size that a day may have.
		if err := c.Write(b.Context(), storage.Slice(i/200), uint64(i), blocks); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkChunksBlock32KiB(b *testing.B) {
	c := openChunks(b, b.TempDir(), bolt.ChunksOptions{})
	defer c.Close()
	for f := range uint64(20) {
		if err := c.Write(b.Context(), 1, f, benchBlocks(10)); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(32 << 10)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if _, err := c.Block(b.Context(), 1, storage.BlockKey{Flush: uint64(i % 20), Index: uint32(i / 20 % 10)}); err != nil {
			b.Fatal(err)
		}
	}
}
