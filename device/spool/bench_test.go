package spool_test

import (
	"os"
	"path/filepath"
	"testing"

	"telemetryhub/device/spool"
)

// BenchmarkAppend compares with BenchmarkFloor: the same bytes written to a file, and nothing else. Neither syncs.
func BenchmarkAppend(b *testing.B) {
	s, err := spool.Open(filepath.Join(b.TempDir(), "spool"), spool.Options{MinFree: -1, SyncBytes: 1 << 40, MaxBytes: 64 << 20})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	e := spool.Entry{Count: 30, Body: make([]byte, 300)}
	b.SetBytes(300)
	for b.Loop() {
		if err := s.Append(e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFloor(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "file"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	body := make([]byte, 344)
	var off int64
	b.SetBytes(300)
	for b.Loop() {
		if _, err := f.WriteAt(body, off%(64<<20)); err != nil {
			b.Fatal(err)
		}
		off += 344
	}
}

// BenchmarkNext reads back from disk what is durable.
func BenchmarkNext(b *testing.B) {
	s, err := spool.Open(filepath.Join(b.TempDir(), "spool"), spool.Options{MinFree: -1, SyncBytes: 1 << 40})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for range 50_000 {
		if err := s.Append(spool.Entry{Count: 30, Body: make([]byte, 300)}); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Sync(); err != nil {
		b.Fatal(err)
	}
	stream := s.Outgoing().Stream
	r, err := s.Resume(stream, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(300)
	b.ReportAllocs()
	for b.Loop() {
		_, ok, err := r.Next()
		if err != nil {
			b.Fatal(err)
		}
		if !ok {
			if r, err = s.Resume(stream, 0); err != nil {
				b.Fatal(err)
			}
		}
	}
	r.Close()
}
