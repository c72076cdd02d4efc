package storagetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"telemetryhub/storage"
)

// Plan says which operations fail, and how. The zero value lets all succeed.
type Plan struct {
	// At is the number, counted from 1, of the first operation that fails. Zero or negative means none.
	At int
	// For is how many operations in a row fail. Zero means one.
	For int
	// Err is what they return, wrapped.
	Err error
	// Done lets a write that fails take effect all the same, as a commit does whose last fsync failed. It is meant for
	// storage.ErrUnknown; the other errors promise that nothing was written.
	Done bool
	// Reads lets reads count, and fail, too. Otherwise only Append, Trim, Put, PutAll, Delete, Write and Drop do.
	Reads bool
	// Latency is how long every counted operation takes before it begins.
	Latency time.Duration
}

// Faults lets operations of the stores that it wraps fail. One count runs over all of them. After a write has failed
// with storage.ErrUnknown its store refuses every further write with storage.ErrUnknown, as the contracts demand.
// It is safe for use by many goroutines at once.
type Faults struct {
	plan Plan

	mu     sync.Mutex // guards the fields below
	count  int
	fired  bool
	broken error
}

// NewFaults returns faults that follow the plan.
func NewFaults(p Plan) *Faults {
	p.For = max(p.For, 1)
	return &Faults{plan: p}
}

// FailAt is the plan of an exhaustive loop: operation n, and no other, fails with err.
func FailAt(n int, err error) *Faults { return NewFaults(Plan{At: n, Err: err}) }

// Count returns how many operations have begun.
func (f *Faults) Count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count
}

// Fired reports whether an operation has failed by plan. A loop over At is at its end when it reports false.
func (f *Faults) Fired() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fired
}

// Break lets every counted operation fail with err, from now until Heal. With storage.ErrFull it is a full disk.
func (f *Faults) Break(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = err
}

// Heal ends what Break began. Stores that have failed with storage.ErrUnknown stay failed.
func (f *Faults) Heal() { f.Break(nil) }

// Log wraps a log.
func (f *Faults) Log(l storage.Log) storage.Log {
	faulty := &faultyLog{Log: l, gate: gate{faults: f}}
	faulty.last.Store(uint64(l.Last()))
	return faulty
}

// Catalog wraps a catalog. The result is a storage.BulkPutter if c is.
func (f *Faults) Catalog(c storage.Catalog) storage.Catalog {
	faulty := &faultyCatalog{Catalog: c, gate: gate{faults: f}}
	if bulk, ok := c.(storage.BulkPutter); ok {
		return &faultyBulk{faultyCatalog: faulty, bulk: bulk}
	}
	return faulty
}

// Chunks wraps chunks.
func (f *Faults) Chunks(c storage.Chunks) storage.Chunks {
	return &faultyChunks{Chunks: c, gate: gate{faults: f}}
}

// next counts one operation and returns the error that it must fail with.
func (f *Faults) next(ctx context.Context) error {
	f.mu.Lock()
	f.count++
	n, err := f.count, f.broken
	if n >= f.plan.At && n < f.plan.At+f.plan.For && f.plan.At > 0 {
		f.fired = true
		err = f.plan.Err
	}
	f.mu.Unlock()
	if wait := sleep(ctx, f.plan.Latency); wait != nil {
		return wait
	}
	if err != nil {
		return fmt.Errorf("operation %d fails on purpose: %w", n, err)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// gate stands before the operations of one store.
type gate struct {
	faults *Faults

	mu     sync.Mutex // guards failed
	failed error      // the ErrUnknown after which nothing is written any more
}

// read lets a read pass or returns its error.
func (g *gate) read(ctx context.Context) error {
	if !g.faults.plan.Reads {
		return nil
	}
	return g.faults.next(ctx)
}

// write runs do, or fails instead of it, or fails after it. Where a failed write may have been done in part, partly
// does that part; nil means that it may not.
func (g *gate) write(ctx context.Context, do, partly func() error) error {
	g.mu.Lock()
	failed := g.failed
	g.mu.Unlock()
	if failed != nil {
		return failed
	}
	err := g.faults.next(ctx)
	if err == nil {
		return do()
	}
	if ctx.Err() != nil {
		return err
	}
	if errors.Is(err, storage.ErrUnknown) {
		g.mu.Lock()
		g.failed = err
		g.mu.Unlock()
	}
	if g.faults.plan.Done {
		partly = do
	}
	if partly != nil {
		if real := partly(); real != nil {
			return real
		}
	}
	return err
}
