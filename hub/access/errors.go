package access

import (
	"errors"
	"fmt"
	"time"
)

// Errors that callers branch on. What is not found is reported by an error that wraps storage.ErrNotFound; errors of
// the catalog (storage.ErrFull and the like) are passed on wrapped.
var (
	// ErrNotToken means that the text cannot be a token: the hub issues none like it.
	ErrNotToken = errors.New("not a token of this hub: it is mistyped, or a part of it is missing")
	// ErrUnknownToken means that the token is well formed but not in force.
	ErrUnknownToken = errors.New("unknown token: it was revoked, or another hub issued it")
	// ErrExpired means that the token was good until some time ago.
	ErrExpired = errors.New("token expired: ask an administrator for a new one")
	// ErrNoSession means that a cookie stands for no session, or for one that is over.
	ErrNoSession = errors.New("not logged in, or the session is over: log in again")
	// ErrDenied means that the identity may not do this.
	ErrDenied = errors.New("not allowed")
	// ErrCredentials means that name and password do not belong together. It does not tell whether the name exists.
	ErrCredentials = errors.New("wrong name or password")
	// ErrThrottled means that there were too many attempts. The error is a *ThrottledError.
	ErrThrottled = errors.New("too many attempts")
	// ErrBusy means that too many passwords wait to be checked. The same call may succeed in some seconds.
	ErrBusy = errors.New("too many logins at once: try again in some seconds")
	// ErrLink means that a one-time link is not, or no longer, valid.
	ErrLink = errors.New("this link is not valid any more: it was used, replaced or is too old; ask for a new one")
	// ErrClaimed means that the hub has an administrator already, so that there is no setup link.
	ErrClaimed = errors.New("the hub is set up already")
	// ErrPassword means that a new password cannot be taken. The error says why.
	ErrPassword = errors.New("unusable password")
	// ErrInvalid means that an argument cannot be taken. The error says why.
	ErrInvalid = errors.New("invalid")
	// ErrExists means that the name is taken.
	ErrExists = errors.New("exists already")
	// ErrEnrolled means that the device has a token already, which an enrolment token must not replace.
	ErrEnrolled = errors.New("the device is enrolled already: revoke its tokens first, or give it a token by hand")
	// ErrSpent means that an enrolment token has no use left.
	ErrSpent = errors.New("the enrolment token is used up")
	// ErrLastAdmin means that nobody would be left to administer the hub.
	ErrLastAdmin = errors.New("this is the last administrator who can log in: make another one first")
)

// ThrottledError says how long to wait. It is an ErrThrottled.
type ThrottledError struct {
	// After is the time after which the next attempt is looked at.
	After time.Duration
}

// Error says how long to wait, in whole seconds.
func (e *ThrottledError) Error() string {
	return fmt.Sprintf("%v: try again in %d s", ErrThrottled, int64(e.After.Seconds())+1)
}

// Is reports whether target is ErrThrottled.
func (e *ThrottledError) Is(target error) bool { return target == ErrThrottled }
