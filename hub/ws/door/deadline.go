package door

import (
	"errors"
	"os"
	"sync"
	"time"
)

// deadlines are those of a connection without TLS: that cannot go on with a write that was cut short.
type deadlines struct{ read, write deadline }

// deadline is the read or the write deadline of a connection, which is given to the connection below only where somebody waits
// for that. net/http and its handlers set and lift one about eight times for each request, and hardly ever wait: most of that
// is now a note, and the timer of the last request stays for the next. One that is too early by then is put off when it fires,
// so that a deadline holds as it was set.
type deadline struct {
	mu      sync.Mutex // guards the fields below
	wanted  time.Time  // zero for none
	below   time.Time  // what the connection below has
	waiting int        // calls that read or write
}

// set is SetReadDeadline or SetWriteDeadline, and give that of the connection below.
func (d *deadline) set(t time.Time, give func(time.Time) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wanted = t
	if d.waiting == 0 || t.IsZero() || !d.below.IsZero() && !t.Before(d.below) {
		return nil
	}
	d.below = t
	return give(t)
}

// begin is called before the connection below is read or written to.
func (d *deadline) begin(give func(time.Time) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.wanted.IsZero() || !d.below.IsZero() {
		now := time.Now()
		if passed(d.wanted, now) {
			return os.ErrDeadlineExceeded
		}
		if passed(d.below, now) || d.below.IsZero() || !d.wanted.IsZero() && d.wanted.Before(d.below) {
			if err := d.giveLocked(give); err != nil {
				return err
			}
		}
	}
	d.waiting++
	return nil
}

// end is called after that. It reports whether the call was only cut short by a deadline that is no longer wanted.
func (d *deadline) end(err error) (again bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting--
	return err != nil && errors.Is(err, os.ErrDeadlineExceeded) && !passed(d.wanted, time.Now())
}

// settle gives the connection below the deadline as it is.
func (d *deadline) settle(give func(time.Time) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = d.giveLocked(give) // it fails on a connection that is closed, which who uses it will see
}

func (d *deadline) giveLocked(give func(time.Time) error) error {
	if d.below.Equal(d.wanted) {
		return nil
	}
	d.below = d.wanted
	return give(d.wanted)
}

func passed(t, now time.Time) bool { return !t.IsZero() && !t.After(now) }
