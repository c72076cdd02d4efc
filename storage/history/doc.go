// Package history makes history out of the log and answers questions about it.
//
// [Store.Apply] takes the groups of the log in order and collects their rows in heads, in memory: one head for each
// series, that is for each set of a device and for each metric that came alone. [Store.Flush] turns the heads into
// chunks (package chunk) and makes them durable, then moves the checkpoint: the position from where the log must be
// applied again after a start. [Store.Points] and its sisters see heads and chunks as one.
//
// A row is filed under the device's time, or under its arrival where that time is not acceptable (device.Filed). All
// times in this package are filed times in Unix milliseconds unless they say otherwise.
//
// The log stays the truth until a flush is complete: a crash at any moment loses nothing and doubles nothing, because
// blocks of an incomplete flush are removed at the next Open. FORMAT.md has every byte and the order of writing.
package history
