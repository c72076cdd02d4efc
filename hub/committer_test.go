package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"telemetryhub/storage"
	"telemetryhub/storage/mem"
	"telemetryhub/storage/record"
)

// stubborn is a log whose Append fails with err as long as that is set.
type stubborn struct {
	storage.Log

	mu      sync.Mutex // guards the fields below
	err     error
	appends int
}

func (l *stubborn) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

func (l *stubborn) Append(ctx context.Context, group []byte, last storage.Position) (storage.Position, error) {
	l.mu.Lock()
	l.appends++
	err := l.err
	l.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return l.Log.Append(ctx, group, last)
}

// bed is a committer on its own.
type bed struct {
	*committer
	log *stubborn
}

func newBed(interval time.Duration) *bed {
	log := &stubborn{Log: mem.NewLog()}
	return &bed{log: log, committer: &committer{held: func() error { return nil },
		log: log, queue: newQueue(4 << 20), streams: &streamTable{byKey: map[streamKey]*stream{}}, tail: newTail(1<<20, 0),
		outbox: newOutbox(mem.NewCatalog(), log, 0, slog.New(slog.DiscardHandler)),
		noRoom: func(bool) {}, stats: &counters{}, logger: slog.New(slog.DiscardHandler), interval: interval,
	}}
}

func (b *bed) stream(num uint32) *stream {
	s := &stream{key: streamKey{1, num}, refs: 1}
	b.streams.byKey[s.key] = s
	return s
}

func (b *bed) put(t *testing.T, s *stream, seq uint64, body []byte) chan error {
	t.Helper()
	e := entry{stream: s, readings: 1, head: record.Header{Kind: record.Data, Device: 1, Seq: seq, ArrivalMS: 1000}}
	var done chan error
	if s != nil {
		e.head.Stream = s.key.num
	} else {
		done = make(chan error, 1)
		e.done = done
	}
	if err := b.queue.put(t.Context(), e, body, nil); err != nil {
		t.Fatal(err)
	}
	return done
}

// stored returns the records of the log as text: stream, number and kind.
func (b *bed) stored(t *testing.T) (got []string) {
	t.Helper()
	err := b.log.Read(t.Context(), 0, func(e storage.Entry) bool {
		r, err := record.Read(e.Group)
		if err != nil {
			t.Fatal(err)
		}
		for r.Next() {
			rec := r.Record()
			if rec.Kind == record.Gap {
				g, err := rec.Gap()
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, fmt.Sprintf("gap %d-%d %s", g.FromSeq, g.ToSeq, g.Cause))
				continue
			}
			got = append(got, fmt.Sprintf("%d:%d", rec.Stream, rec.Seq))
		}
		return r.Err() == nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestCommitterDecidesInLogOrder(t *testing.T) {
	b := newBed(0)
	s1, s2 := b.stream(1), b.stream(2)
	for _, seq := range []uint64{1, 2, 2, 1, 5, 4, 6} {
		b.put(t, s1, seq, nil)
	}
	b.put(t, s2, 1, nil)
	if err := b.commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, b.stored(t), "1:1", "1:2", "gap 3-4 jump", "1:5", "1:6", "2:1")
	if s1.durable.Load() != 6 || s2.durable.Load() != 1 {
		t.Errorf("durable %d and %d, want 6 and 1", s1.durable.Load(), s2.durable.Load())
	}
}

func TestGroupOfDuplicatesIsNotAppended(t *testing.T) {
	b := newBed(0)
	s := b.stream(1)
	for range 2 {
		b.put(t, s, 1, nil)
		if err := b.commit(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if b.log.appends != 1 {
		t.Errorf("%d appends, want 1", b.log.appends)
	}
}

func TestGroupsKeepToTheirLimit(t *testing.T) {
	b := newBed(0)
	s := b.stream(1)
	body := bytes.Repeat([]byte{1}, 100<<10)
	for seq := uint64(1); seq <= 20; seq++ {
		b.put(t, s, seq, body)
	}
	if err := b.commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := len(b.stored(t)); got != 20 || b.log.appends < 4 {
		t.Errorf("%d records in %d groups, want 20 in at least 4", got, b.log.appends)
	}
}

func TestFullDiskIsAPauseNotALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(0)
		s := b.stream(1)
		b.put(t, s, 1, nil)
		done := b.put(t, nil, 0, nil)
		b.put(t, s, 2, nil)
		b.log.fail(fmt.Errorf("append: %w", storage.ErrFull))
		finished := make(chan error, 1)
		go func() { finished <- b.commit(t.Context()) }()
		if err := <-done; !errors.Is(err, storage.ErrFull) {
			t.Errorf("who waits is told %v, want ErrFull", err)
		}
		synctest.Wait()
		if !b.stats.full() || s.durable.Load() != 0 {
			t.Errorf("full %v, durable %d, want true and 0", b.stats.full(), s.durable.Load())
		}
		b.log.fail(nil)
		if err := <-finished; err != nil {
			t.Fatal(err)
		}
		want(t, b.stored(t), "1:1", "1:2") // what was refused must not appear later
		if b.stats.full() || s.durable.Load() != 2 {
			t.Errorf("full %v, durable %d, want false and 2", b.stats.full(), s.durable.Load())
		}
	})
}

// hangingLog is a log on a disk that answers nothing until it is let go.
type hangingLog struct {
	storage.Log
	let chan struct{}
}

func (l *hangingLog) Append(ctx context.Context, group []byte, last storage.Position) (storage.Position, error) {
	<-l.let
	return l.Log.Append(ctx, group, last)
}

func TestADiskThatAnswersNothingIsNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(0)
		disk := &hangingLog{Log: b.log, let: make(chan struct{})}
		b.committer.log = disk
		ready := func() error {
			s := Status{Stalled: b.stats.stalled()}
			return s.Ready()
		}
		b.put(t, b.stream(1), 1, nil)
		finished := make(chan error, 1)
		go func() { finished <- b.commit(t.Context()) }()
		time.Sleep(stallLimit - time.Second) // virtual
		if err := ready(); err != nil {
			t.Errorf("a disk that is slow counts as one that hangs: %v", err)
		}
		time.Sleep(2 * time.Second)
		if ready() == nil {
			t.Error("nothing can be acknowledged, and the hub says that it is ready")
		}
		close(disk.let)
		if err := <-finished; err != nil {
			t.Fatal(err)
		}
		if err := ready(); err != nil {
			t.Errorf("the disk works again: %v", err)
		}
	})
}

func TestNothingIsAckedAfterAFailedSync(t *testing.T) {
	b := newBed(0)
	s := b.stream(1)
	b.put(t, s, 1, nil)
	done := b.put(t, nil, 0, nil)
	b.log.fail(fmt.Errorf("append: %w", storage.ErrUnknown))
	if err := b.commit(t.Context()); !errors.Is(err, storage.ErrUnknown) {
		t.Fatalf("got %v, want ErrUnknown", err)
	}
	if err := <-done; !errors.Is(err, storage.ErrUnknown) {
		t.Errorf("who waits is told %v, want ErrUnknown", err)
	}
	if s.durable.Load() != 0 {
		t.Errorf("durable %d, want 0", s.durable.Load())
	}
	if err := b.queue.put(t.Context(), entry{}, nil, nil); !errors.Is(err, storage.ErrUnknown) {
		t.Errorf("the queue still takes: %v", err)
	}
}

func TestReleaseWaitsForWhatWasPutBefore(t *testing.T) {
	b := newBed(0)
	s := b.stream(1)
	b.put(t, s, 1, nil)
	b.queue.release(b.streams, s)
	if s.refs != 1 {
		t.Fatal("released before the batch was decided")
	}
	if err := b.commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.refs != 0 || b.streams.byKey[s.key] == nil {
		t.Errorf("refs %d, in table %v: a stream whose number is not in the catalog yet must stay", s.refs, b.streams.byKey[s.key] != nil)
	}
}

func TestCommitsKeepTheirDistanceAndAnIdleHubCommitsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(10 * time.Millisecond)
		ctx, cancel := context.WithCancel(t.Context())
		finished := make(chan error, 1)
		time.Sleep(time.Second)
		go func() { finished <- b.run(ctx) }()
		began := time.Now()
		if err := <-b.put(t, nil, 0, nil); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("an idle hub committed after %v, want at once", took)
		}
		if err := <-b.put(t, nil, 0, nil); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 10*time.Millisecond {
			t.Errorf("the second commit came after %v, want 10 ms", took)
		}
		cancel()
		if err := <-finished; err != nil {
			t.Fatal(err)
		}
	})
}

func TestFullGroupIsCommittedWithoutWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(time.Hour)
		b.begin = time.Now()
		finished := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { finished <- b.run(ctx) }()
		s := b.stream(1)
		for seq := uint64(1); seq <= 6; seq++ {
			b.put(t, s, seq, make([]byte, 100<<10))
		}
		synctest.Wait()
		if s.durable.Load() == 0 {
			t.Error("a full group still waits for the interval")
		}
		cancel()
		if err := <-finished; err != nil {
			t.Fatal(err)
		}
	})
}

func TestQueueIsBoundedAndLetsGoWhenTheCallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1000)
		if err := q.put(t.Context(), entry{}, make([]byte, 900), nil); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() { result <- q.put(ctx, entry{}, make([]byte, 900), nil) }()
		synctest.Wait()
		select {
		case err := <-result:
			t.Fatalf("a full queue took more: %v", err)
		default:
		}
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
		go func() { result <- q.put(t.Context(), entry{}, make([]byte, 900), nil) }()
		synctest.Wait()
		q.take(nil, nil)
		if err := <-result; err != nil {
			t.Fatal(err)
		}
	})
}

func TestTailForgetsTheOldestFirst(t *testing.T) {
	tl := newTail(100, 5)
	for pos := storage.Position(6); pos <= 10; pos++ {
		tl.push(pos, make([]byte, 40))
	}
	if _, _, ok := tl.after(5, nil); ok {
		t.Error("a position before the oldest group was said to be in memory")
	}
	got, _, ok := tl.after(8, nil)
	if !ok || len(got) != 2 || got[0].pos != 9 {
		t.Errorf("after 8: %v, %v, want 9 and 10", got, ok)
	}
}

func TestQueueIsBoundedForSmallBatchesToo(t *testing.T) {
	q := newQueue(storage.MaxGroup)
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // whoever would have to wait gives up
	n := 0
	for ; n < storage.MaxGroup; n++ {
		if err := q.put(ctx, entry{}, []byte{1}, nil); err != nil {
			break
		}
	}
	if size := n * int(reflect.TypeFor[entry]().Size()); size > storage.MaxGroup || entrySize < int(reflect.TypeFor[entry]().Size()) {
		t.Errorf("%d batches of one byte take %d bytes, want at most %d", n, size, storage.MaxGroup)
	}
}
