// Package chip emulates sensors at register level: what a driver writes and reads on the bus, when a conversion is done, and
// what the registers then hold. Nothing of a driver is replaced, so the real one runs against it.
//
// A [Chip] samples an [Air], the physical truth around it. A [Bus] holds chips at their addresses, and faults.
//
// The maths comes from the data sheets and not from the drivers, so that a mistake of either shows. What an emulation cannot
// show are electrical faults, clock stretching, and a data sheet that both sides misread.
package chip
