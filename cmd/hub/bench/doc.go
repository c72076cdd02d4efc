// Package bench measures the hub on the machine at hand: a load generator in a process of its own drives a hub in
// another, and beside it a floor, which is the same stack with nothing else (gws, CBOR, one bbolt transaction a group).
// Figures are meant to be read as ratios to the floor of the same run.
package bench
