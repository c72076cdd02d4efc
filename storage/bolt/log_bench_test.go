//go:build linux

package bolt_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"telemetryhub/storage"
	"telemetryhub/storage/bolt"
)

// benchDir is on the disk of the working copy: the temporary folder may be in memory, where fsync costs nothing.
func benchDir(b *testing.B) string {
	dir, err := os.MkdirTemp(".", "bench-*.test")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			b.Error(err)
		}
	})
	return dir
}

// usage is what the process has used so far.
type usage struct {
	cpu     int64 // nanoseconds
	written int64 // bytes given to write(2)
}

func used(b *testing.B) usage {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	u := usage{cpu: r.Utime.Nano() + r.Stime.Nano()}
	io, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return u
	}
	for line := range strings.Lines(string(io)) {
		_, _ = fmt.Sscanf(line, "wchar: %d", &u.written) // other lines do not match
	}
	return u
}

func benchGroups(b *testing.B, write func(b *testing.B) func(group []byte) error) {
	for _, n := range []int{320, 8 << 10, 128 << 10, 512 << 10} {
		b.Run(fmt.Sprintf("%d", n), func(b *testing.B) {
			group := make([]byte, n)
			for i := range group {
				group[i] = byte(rand.Uint32())
			}
			f := write(b)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			before := used(b)
			for b.Loop() {
				if err := f(group); err != nil {
					b.Fatal(err)
				}
			}
			after := used(b)
			b.ReportMetric(float64(after.cpu-before.cpu)/float64(b.N)/1e3, "cpu-µs/op")
			b.ReportMetric(float64(after.written-before.written)/float64(b.N)/float64(n), "written/byte")
		})
	}
}

func BenchmarkLogAppend(b *testing.B) {
	benchGroups(b, func(b *testing.B) func(group []byte) error {
		l, err := bolt.OpenLog(benchDir(b), bolt.LogOptions{})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := l.Close(); err != nil {
				b.Error(err)
			}
		})
		trim := 0
		return func(group []byte) error {
			_, err := l.Append(b.Context(), group, l.Last())
			if trim += len(group); trim > 256<<20 {
				trim = 0
				return l.Trim(b.Context(), l.Last())
			}
			return err
		}
	})
}

// BenchmarkFloor appends to one file and calls fdatasync: no durable log can be faster.
func BenchmarkFloor(b *testing.B) {
	benchGroups(b, func(b *testing.B) func(group []byte) error {
		f, err := os.Create(filepath.Join(benchDir(b), "floor"))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			if err := f.Close(); err != nil {
				b.Error(err)
			}
		})
		n := 0
		return func(group []byte) error {
			if n += len(group); n > 512<<20 {
				n = 0
				if _, err := f.Seek(0, 0); err != nil {
					return err
				}
			}
			if _, err := f.Write(group); err != nil {
				return err
			}
			return unix.Fdatasync(int(f.Fd()))
		}
	})
}

// BenchmarkLogOpen opens a log of 256 MiB, as a crash leaves it and as a clean end does.
func BenchmarkLogOpen(b *testing.B) {
	dir, crashed := benchDir(b), benchDir(b)
	l, err := bolt.OpenLog(dir, bolt.LogOptions{})
	if err != nil {
		b.Fatal(err)
	}
	group := make([]byte, 24<<10)
	for range 256 << 20 / len(group) {
		for i := 0; i < len(group); i += 8 {
			group[i] = byte(rand.Uint32())
		}
		if _, err := l.Append(b.Context(), group, l.Last()); err != nil {
			b.Fatal(err)
		}
	}
	if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil {
		b.Fatal(err)
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	for name, dir := range map[string]string{"crashed": crashed, "closed": dir} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(256 << 20)
			for b.Loop() {
				l, err := bolt.OpenLog(dir, bolt.LogOptions{})
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if ds := l.Damage(); len(ds) > 0 {
					b.Fatal(ds)
				}
				if name == "crashed" { // without the mark of a clean end
					if _, err := l.Append(b.Context(), group, l.Last()); err != nil {
						b.Fatal(err)
					}
					unmark(b, l, dir)
				} else if err := l.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// unmark closes a log and lets it look as if it had crashed.
func unmark(b *testing.B, l *bolt.Log, dir string) {
	b.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.bolt"))
	if err != nil || len(paths) == 0 {
		b.Fatal(err)
	}
	last := paths[len(paths)-1]
	image, err := os.ReadFile(last)
	if err != nil {
		b.Fatal(err)
	}
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(last, image, 0o600); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkLogRead reads a whole log.
func BenchmarkLogRead(b *testing.B) {
	for _, n := range []int{320, 24 << 10} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l, err := bolt.OpenLog(benchDir(b), bolt.LogOptions{SegmentBytes: 4 << 20})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() {
				if err := l.Close(); err != nil {
					b.Error(err)
				}
			})
			total := 0
			for ; total < min(16<<20, 8000*n); total += n {
				if _, err := l.Append(b.Context(), make([]byte, n), l.Last()); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(int64(total))
			b.ReportAllocs()
			for b.Loop() {
				got := 0
				err := l.Read(b.Context(), 0, func(e storage.Entry) bool { got += len(e.Group); return true })
				if err != nil || got != total {
					b.Fatal(got, err)
				}
			}
		})
	}
}
