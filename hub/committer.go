package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"telemetryhub/device"
	"telemetryhub/storage"
	"telemetryhub/storage/record"
)

// fullRetry is how often a commit that found no room is tried again.
const fullRetry = 500 * time.Millisecond

// committer is the one writer of the log. It alone decides what is a duplicate and what is missing, in log order.
type committer struct {
	log      storage.Log
	queue    *queue
	streams  *streamTable
	tail     *tail
	stats    *counters
	logger   *slog.Logger
	interval time.Duration
	held     func() error // says why nothing may be appended although the log has room
	outbox   *outbox
	noRoom   func(bool) // told at each try that found no room, and once when there is room again

	last  storage.Position
	begin time.Time // of the last commit

	entries []entry // what was taken from the queue and its bodies
	buf     []byte

	// The group being built.
	serial   uint64 // marks what the group has touched
	group    record.Group
	scratch  []byte
	undo     []undo
	streamsT []*stream
	sessions []*Session
	readings int
	gaps     int
	dups     int
}

// undo is what a stream was before the group.
type undo struct {
	s      *stream
	last   uint64
	lastMS int64
}

// run commits until ctx ends and the queue is empty and closed, or until the log fails. An error that wraps
// storage.ErrUnknown means that nothing may be acknowledged any more.
func (c *committer) run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-c.queue.ready:
		case <-ctx.Done():
			c.queue.close(ErrDraining)
			return c.commit(ctx)
		}
		if wait := c.interval - time.Since(c.begin); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-c.queue.urgent:
			case <-ctx.Done():
			}
		}
		if err := c.commit(ctx); err != nil {
			return err
		}
	}
}

// commit takes all that waits and appends it in as many groups as it needs.
func (c *committer) commit(ctx context.Context) error {
	c.begin = time.Now()
	c.entries, c.buf = c.queue.take(c.entries, c.buf)
	entries, buf := c.entries, c.buf
	for len(entries) > 0 {
		if err := context.Cause(ctx); errors.Is(err, storage.ErrUnknown) {
			return c.end(entries, err) // another store has failed
		}
		n, used := c.build(entries, buf)
		err := c.append(context.WithoutCancel(ctx)) // what has begun is finished, also while stopping
		if errors.Is(err, storage.ErrFull) && ctx.Err() == nil {
			c.rollback()
			if c.held() == nil && c.outbox.yield(ctx) {
				continue
			}
			c.refuse(entries, err)
			if err := c.waitForRoom(ctx); err != nil {
				return c.fail(entries, err)
			}
			continue
		}
		if err != nil {
			return c.fail(entries, err)
		}
		c.publish(entries[:n])
		entries, buf = entries[n:], buf[used:]
	}
	clear(c.entries) // lets go of the sessions
	return nil
}

// build puts entries into the group until it is full. It returns how many entries and how many bytes of bodies it took.
func (c *committer) build(entries []entry, buf []byte) (n, used int) {
	c.serial++
	c.group.Reset(c.begin.UnixMilli())
	c.undo, c.streamsT, c.sessions = c.undo[:0], c.streamsT[:0], c.sessions[:0]
	c.readings, c.gaps, c.dups = 0, 0, 0
	for i := range entries {
		e := &entries[i]
		size := e.body + e.refused
		if c.group.Len()+size+3*(record.MaxOverhead+gapSize) > storage.MaxGroup && i > 0 {
			return i, used
		}
		if !e.release && !e.told {
			c.add(e, buf[used:used+e.body], buf[used+e.body:used+size])
		}
		used += size
	}
	return len(entries), used
}

// gapSize bounds the body of a gap record that the committer makes.
const gapSize = 80

func (c *committer) add(e *entry, body, refused []byte) {
	if s := e.session; s != nil && s.mark != c.serial {
		s.mark = c.serial
		c.sessions = append(c.sessions, s)
	}
	if s := e.stream; s != nil {
		if e.head.Seq <= s.last {
			c.dups++
			return
		}
		if s.mark != c.serial {
			s.mark = c.serial
			c.streamsT = append(c.streamsT, s)
			c.undo = append(c.undo, undo{s, s.last, s.lastMS})
		}
		if e.head.Seq > s.last+1 {
			c.addGap(e, device.Gap{FromSeq: s.last + 1, ToSeq: e.head.Seq - 1, FromMS: s.lastMS, ToMS: e.firstMS, Cause: device.CauseJump})
		}
		s.last = e.head.Seq
		s.lastMS = max(s.lastMS, e.lastMS)
	}
	c.group.Append(&e.head, body)
	c.readings += e.readings
	if len(refused) > 0 {
		h := e.head
		h.Kind, h.Seq = record.Gap, 0
		c.group.Append(&h, refused)
		c.gaps++
	}
}

func (c *committer) addGap(e *entry, g device.Gap) {
	h := e.head
	h.Kind, h.Seq = record.Gap, 0
	c.scratch = record.AppendGap(c.scratch[:0], &g)
	c.group.Append(&h, c.scratch)
	c.gaps++
}

// append makes the group durable. A group of duplicates only is durable already, since groups follow each other.
func (c *committer) append(ctx context.Context) error {
	if c.group.Count() == 0 {
		return nil
	}
	if err := c.held(); err != nil {
		return err
	}
	began := time.Now()
	c.stats.appending.Store(&began)
	pos, err := c.log.Append(ctx, c.group.Bytes(), c.last)
	c.stats.appending.Store(nil)
	if err != nil {
		return err
	}
	c.last = pos
	return nil
}

// publish tells everybody that the group is durable: first the view that decides about duplicates, then the cursors,
// then those who wait for an acknowledgement.
func (c *committer) publish(entries []entry) {
	c.streams.committed(c.streamsT)
	if c.group.Count() > 0 {
		c.outbox.ledger.note(c.last, c.group.Len(), c.begin.UnixMilli())
		c.tail.push(c.last, bytes.Clone(c.group.Bytes()))
		c.stats.commits.Add(1)
		c.stats.committedBytes.Add(uint64(c.group.Len()))
		if c.stats.full() { // a group without records proves nothing
			c.stats.fullAt.Store(nil)
			c.noRoom(false)
			c.logger.Info("there is room for readings again")
		}
	}
	c.stats.readings.Add(uint64(c.readings))
	c.stats.gaps.Add(uint64(c.gaps))
	c.stats.duplicates.Add(uint64(c.dups))
	for i := range entries {
		if e := &entries[i]; e.session != nil {
			e.session.decided(e.frame)
		}
	}
	for _, s := range c.sessions {
		s.committed()
	}
	for i := range entries {
		e := &entries[i]
		switch {
		case e.release:
			c.streams.release(e.stream)
		case e.done != nil:
			e.tell(nil)
		}
	}
}

// rollback undoes what build did to the streams: nothing of the group was written.
func (c *committer) rollback() {
	for _, u := range c.undo {
		u.s.last, u.s.lastMS = u.last, u.lastMS
	}
}

// refuse answers "later" to those who wait for an answer. Devices with a stream keep their batches until they are acked;
// theirs stay in line.
func (c *committer) refuse(entries []entry, err error) {
	now := time.Now()
	if c.stats.fullAt.Swap(&now) == nil {
		c.logger.Error("no room for readings: devices hold theirs until there is, free some space", "err", err)
	}
	for i := range entries {
		if entries[i].done != nil {
			entries[i].tell(err)
		}
	}
	c.noRoom(true)
}

// waitForRoom waits until it is worth trying again.
func (c *committer) waitForRoom(ctx context.Context) error {
	select {
	case <-time.After(fullRetry):
		return nil
	case <-ctx.Done():
		return ErrDraining
	}
}

// fail ends ingestion with what the group being built came to.
func (c *committer) fail(entries []entry, err error) error {
	c.rollback()
	return c.end(entries, fmt.Errorf("append to the log: %w", err))
}

// end ends ingestion: err is told to everybody who waits, and nothing is acknowledged any more.
func (c *committer) end(entries []entry, err error) error {
	c.queue.close(err)
	c.giveUp(entries, err)
	waiting, _ := c.queue.take(nil, nil)
	c.giveUp(waiting, err)
	return err
}

func (c *committer) giveUp(entries []entry, err error) {
	for i := range entries {
		e := &entries[i]
		switch {
		case e.release:
			c.streams.release(e.stream)
		case e.done != nil:
			e.tell(err)
		}
	}
}

// tell answers an Ingest, once.
func (e *entry) tell(err error) {
	if !e.told {
		e.told = true
		e.done <- err
	}
}
