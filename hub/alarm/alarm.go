// Package alarm has one timer do the work of thousands. A timer of the runtime starts a goroutine when it fires, and hundreds that
// do so at the same moment wake threads, find little to do and go to sleep again, which costs more than what they are for. The
// alarms of a [Clock] are called by one goroutine, one after the other.
package alarm

import (
	"container/heap"
	"math"
	"sync"
	"time"
)

// Clock tells time and calls alarms. It is safe for concurrent use. It needs no end: without alarms it has nothing that runs.
type Clock struct {
	epoch time.Time

	mu      sync.Mutex // guards the fields below; never held while an alarm is called
	due     queue
	timer   *time.Timer   // nil until there was an alarm
	armed   time.Duration // when it fires, never if it does not
	calling bool          // the timer is set when that is done
}

const never = time.Duration(math.MaxInt64)

// New returns a clock at zero.
func New() *Clock { return &Clock{epoch: time.Now(), armed: never} }

// Now is the time since New, on the monotonic clock.
func (c *Clock) Now() time.Duration { return time.Since(c.epoch) }

// Alarm is one alarm of a clock, part of its owner.
type Alarm struct {
	clock *Clock
	call  func()
	at    time.Duration
	place int // in the queue, from 1; 0 if it is not set
}

// Init prepares the alarm. What it calls must not block: other alarms wait. It may set the alarm again.
func (a *Alarm) Init(c *Clock, call func()) { a.clock, a.call = c, call }

// Set has the alarm called once, at a time of the clock or soon after, and not when it was to be called before. It does not wait
// for a call that is under way, after which there is another one then.
func (a *Alarm) Set(at time.Duration) {
	c := a.clock
	c.mu.Lock()
	defer c.mu.Unlock()
	if a.at = at; a.place > 0 {
		heap.Fix(&c.due, a.place-1)
	} else {
		heap.Push(&c.due, a)
	}
	c.armLocked()
}

// Stop has the alarm not called, unless that has begun. An alarm that was never prepared may be stopped.
func (a *Alarm) Stop() {
	c := a.clock
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if a.place > 0 {
		heap.Remove(&c.due, a.place-1)
	}
}

// armLocked sets the timer, unless it fires in time anyway.
func (c *Clock) armLocked() {
	if c.calling || len(c.due) == 0 || c.armed <= c.due[0].at {
		return
	}
	c.armed = c.due[0].at
	if wait := c.armed - c.Now(); c.timer == nil {
		c.timer = time.AfterFunc(wait, c.ring)
	} else {
		c.timer.Reset(wait)
	}
}

// ring calls the alarms that are due.
func (c *Clock) ring() {
	c.mu.Lock()
	if c.calling { // the timer was set to another time just when it fired
		c.mu.Unlock()
		return
	}
	c.calling = true
	// What becomes due in between has a turn of its own, so that alarms that are set to the present do not keep it busy for ever.
	for now := c.Now(); len(c.due) > 0 && c.due[0].at <= now; {
		a := heap.Pop(&c.due).(*Alarm)
		c.mu.Unlock()
		a.call()
		c.mu.Lock()
	}
	c.calling, c.armed = false, never
	c.armLocked()
	c.mu.Unlock()
}

// Sooner rounds a time down to one of 25 moments between two calls of what is called every so often. To wake up for each of
// thousands costs several times as much as to call those that share a moment.
func Sooner(at, every time.Duration) time.Duration {
	grid := step(every)
	return at / grid * grid
}

// Later rounds it up.
func Later(at, every time.Duration) time.Duration { return Sooner(at+step(every)-1, every) }

func step(every time.Duration) time.Duration { return max(every/25, 1) }

// queue is a heap of alarms.
type queue []*Alarm

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].at < q[j].at }

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i+1, j+1
}

func (q *queue) Push(x any) {
	a := x.(*Alarm)
	*q = append(*q, a)
	a.place = len(*q)
}

func (q *queue) Pop() any {
	list := *q
	a := list[len(list)-1]
	list[len(list)-1] = nil
	*q, a.place = list[:len(list)-1], 0
	return a
}
