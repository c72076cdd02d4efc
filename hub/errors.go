package hub

import "errors"

// Errors that adapters branch on.
var (
	// ErrUnknownDevice means that no such device exists.
	ErrUnknownDevice = errors.New("unknown device")
	// ErrUnknownMetric means that the device has never sent or declared a metric of that name.
	ErrUnknownMetric = errors.New("unknown metric")
	// ErrExists means that the device exists already.
	ErrExists = errors.New("the device exists already")
	// ErrDeleted means that a device of that ID existed once. IDs are never given twice, because history and other
	// systems still know the old one by it.
	ErrDeleted = errors.New("a device of this ID was deleted, and IDs are never given twice: choose another")
	// ErrDraining means that the hub is stopping. Try again in a moment.
	ErrDraining = errors.New("the hub is stopping, try again in a moment")
	// ErrTooMany means that a limit on connections is reached. Try again later.
	ErrTooMany = errors.New("too many connections, try again later")
	// ErrBusy means that the hub could not take the readings in time. Nothing was stored; try again later.
	ErrBusy = errors.New("the hub is busy, try again later")
	// ErrBehind means that the history has not taken up yet what was acknowledged. Try again later.
	ErrBehind = errors.New("the history is behind what was acknowledged, try again in a moment")
	// ErrResume means that a viewer cannot go on from its token: subscribe again without one.
	ErrResume = errors.New("the token is too old or of other data: subscribe again without it")
	// ErrSlow means that a viewer in mode all did not read fast enough.
	ErrSlow = errors.New("too slow: the readings not yet sent are no longer in memory")
)

// BadInput is an error in what a peer sent. Its text says what to change.
type BadInput struct {
	// Code is a short stable word, as in wire's list of codes for bad rows, or "" where there is none.
	Code string
	Text string
}

func (e *BadInput) Error() string { return e.Text }
