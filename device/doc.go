// Package device holds the words that the whole project shares: what a device is called, what it can measure, and
// what it says.
//
// A [Metric] is a named quantity of one device. Metrics that are sampled together form a [Set]. The sets and metrics
// that a device declares in one birth are its [Schema]. A [Row] is one instant of a set or of a single metric, and a
// [Batch] is a sequence of rows that is numbered, stored and acknowledged whole.
//
// The package depends on the standard library only and does no I/O.
package device
