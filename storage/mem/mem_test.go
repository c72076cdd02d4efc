package mem_test

import (
	"testing"

	"telemetryhub/storage"
	"telemetryhub/storage/mem"
	"telemetryhub/storage/storagetest"
)

func TestLog(t *testing.T) {
	storagetest.RunLog(t, storagetest.Harness[storage.Log]{
		Open:   func(testing.TB) storage.Log { return mem.NewLog() },
		Reopen: func(_ testing.TB, l storage.Log) storage.Log { return l.(*mem.Log).Reopen() },
	})
}

func TestCatalog(t *testing.T) {
	storagetest.RunCatalog(t, storagetest.Harness[storage.Catalog]{
		Open:   func(testing.TB) storage.Catalog { return mem.NewCatalog() },
		Reopen: func(_ testing.TB, c storage.Catalog) storage.Catalog { return c.(*mem.Catalog).Reopen() },
	})
}

func TestChunks(t *testing.T) {
	storagetest.RunChunks(t, storagetest.Harness[storage.Chunks]{
		Open:   func(testing.TB) storage.Chunks { return mem.NewChunks() },
		Reopen: func(_ testing.TB, c storage.Chunks) storage.Chunks { return c.(*mem.Chunks).Reopen() },
	})
}
