// Package sensor reads chips on the buses of a machine and turns what they say into rows.
//
// A [Chip] is one sensor: a driver of periph.io behind a [Guard], which bounds every operation and notices errors that drivers
// swallow. A [Sampler] reads chips on a schedule that is aligned with the clock, one goroutine for each bus, and gives what it
// reads to a [Sink]. A chip that fails is reported and tried again; the others go on.
//
// Buses come by injection ([Buses]): [Host] opens those of the machine, package simbus those of a simulated board.
package sensor
