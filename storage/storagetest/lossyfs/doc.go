// Package lossyfs is a file system in memory for tests that knows what of it would survive a power cut.
//
// A [Disk] keeps two states of everything: what programs see, and what is durable because it was synced. [Disk.Cut] makes
// of both what a power cut might leave. A [Fault] lets chosen operations fail. Serve mounts a Disk by FUSE and takes
// orders over a pipe; it belongs into a process of its own, because a process that maps files of its own file system can
// wait for itself for ever.
//
// What the model is strict about: a name is durable only when its folder was synced, blocks of 4 KiB reach the disk in any
// order, a block may be torn between sectors of 512 bytes, and the size of a file is durable on its own. A failed sync
// leaves the pages in the kernel's cache as if they were durable, as Linux does.
package lossyfs
