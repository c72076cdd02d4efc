package access

import "time"

// Reason says why an identity is no longer what it was.
type Reason string

// The reasons.
const (
	Revoked Reason = "revoked" // the credential was taken back, or its owner is gone
	Expired Reason = "expired" // its time is over
	Changed Reason = "changed" // it is still good, but for another role: authenticate again
)

// watch is somebody who wants to know. Those of one credential form a list.
type watch struct {
	credential string
	told       func(Reason)
	next, prev *watch
}

// watchIndex holds the first watch of every credential. It is guarded by Registry.mu.
type watchIndex map[string]*watch

func (x watchIndex) add(w *watch) {
	if first := x[w.credential]; first != nil {
		w.next, first.prev = first, w
	}
	x[w.credential] = w
}

// drop removes a watch. One that was removed or taken already is left alone.
func (x watchIndex) drop(w *watch) {
	switch {
	case w.prev != nil:
		w.prev.next = w.next
	case x[w.credential] == w && w.next != nil:
		x[w.credential] = w.next
	case x[w.credential] == w:
		delete(x, w.credential)
	default:
		return
	}
	if w.next != nil {
		w.next.prev = w.prev
	}
	w.next, w.prev = nil, nil
}

// take removes and returns the watches of a credential.
func (x watchIndex) take(credential string) []func(Reason) {
	var told []func(Reason)
	for w := x[credential]; w != nil; {
		next := w.next
		told = append(told, w.told)
		w.next, w.prev = nil, nil
		w = next
	}
	delete(x, credential)
	return told
}

// tell calls everybody. No lock may be held.
func tell(told []func(Reason), why Reason) {
	for _, f := range told {
		f(why)
	}
}

// Watch calls ended as soon as the identity is no longer what it was: its credential is revoked, runs out, or stands for
// another role. If that happened since the identity was authenticated, it is called before Watch returns, so nothing is
// missed in between. It is called at most once, from the goroutine that makes the change or from Run, and must neither
// block nor change anything in the registry: closing a connection or a channel is right.
//
// The caller must call stop when it no longer wants to know; ended may still be running when stop returns. A session
// that is watched counts as used. For the control socket nothing is ever called.
func (r *Registry) Watch(id Identity, ended func(Reason)) (stop func()) {
	if id.Kind == KindLocal {
		return func() {}
	}
	now := r.opts.Now()
	w := &watch{credential: id.Credential, told: ended}
	r.mu.Lock()
	why := r.changedLocked(id, now)
	if why == "" {
		r.watches.add(w)
	}
	soon := why == "" && r.expiryLocked(id.Credential).Before(now.Add(sweepEvery))
	r.mu.Unlock()
	if why != "" {
		ended(why)
		return func() {}
	}
	if soon {
		r.hurry()
	}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.watches.drop(w)
	}
}

// changedLocked says why the identity is no longer what it was, or nothing if it still is.
func (r *Registry) changedLocked(id Identity, now time.Time) Reason {
	if t := r.tokens.byID[id.Credential]; t != nil {
		if t.expired(now) {
			return Expired
		}
		return "" // tokens never change their rights
	}
	s := r.sessions.byID[id.Credential]
	if s == nil {
		return Revoked
	}
	u := r.people.owner(s)
	switch {
	case u == nil:
		return Revoked
	case !now.Before(r.sessionExpiry(s)):
		return Expired
	case u.role != id.Role:
		return Changed
	}
	return ""
}

// expiryLocked returns when the credential runs out if nobody uses it any more; far away for never.
func (r *Registry) expiryLocked(credential string) time.Time {
	if t := r.tokens.byID[credential]; t != nil && t.rec.Expires != 0 {
		return moment(t.rec.Expires)
	}
	if s := r.sessions.byID[credential]; s != nil {
		return r.sessionExpiry(s)
	}
	return r.opts.Now().Add(365 * 24 * time.Hour)
}
