// Package spool is the durable queue on the device: what was sampled waits here, over power cuts and outages, until
// the hub has acknowledged it.
//
// An [Entry] is appended, gets a position, becomes durable, is handed out by a [Reader] as a [Record] with its stream and
// sequence number, and is acknowledged. Acknowledged segments are deleted whole. FORMAT.md has every byte.
//
// # What it promises
//
//   - A record is handed out only after it is durable (or while the spool is in RAM mode, see below). So a number that the
//     hub has seen is never given to other data, unless the card lied about a sync; and then the stream has ended.
//   - A record comes back exactly as it was appended or not at all; what is missing is reported by a gap record, once,
//     or twice if the process dies in between. A gap may cover batches that were sent just before and did arrive.
//   - Order never changes. A record keeps its stream and number from the first time it is sent until it is
//     acknowledged, over restarts and crashes, so that a hub that already has it drops the copy.
//   - Memory and disk are bounded. When full, the oldest segment is dropped and reported, or appends are refused.
//   - What an append was not yet synced for (up to SyncEvery) can vanish at a power cut without a trace.
//
// # Streams
//
// The hub tells duplicates by (stream, sequence). Two things can make a device reuse a number: a tail that was durable, was
// sent, and is gone after a crash; and a copy of the card that lives on beside the original. Therefore:
//
//   - A spool that was not closed cleanly gives new records a new stream. Records that were already there keep their old
//     stream and number, because the hub may have some of them; they are delivered first. In an old stream no number is
//     ever given out again, so an acknowledgement beyond its end is harmless.
//   - If the hub has acknowledged a number of the current stream that this spool has never sent, somebody else uses
//     the stream. Records that were never sent move to a new stream ([ErrForked]); those that were sent are what both copies
//     had in common, and are acknowledged.
//   - If the hub acknowledges less than before (it was restored from a backup), sending resumes from there as far as
//     the records still exist.
//
// # RAM mode
//
// When the disk is full, read-only or broken, appends go on in memory up to RAMBytes, [Status].Fault says why, and each sync
// tries to move them to a new segment. A spool made by [NewMemory] is in this mode for ever. What is in memory dies with the
// process; the next open finds the spool unclean and takes a new stream, so that no number is reused.
//
// # Concurrency
//
// All methods may be called concurrently. There is one Reader at a time: [Spool.Resume] ends the one before.
package spool
