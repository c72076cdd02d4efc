package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Rules of giving memory back. Left alone, the runtime keeps what a busy time needed for minutes.
const (
	trimEvery = 10 * time.Second
	// trimQuiet is how little must have been allocated since the last look for the hub to count as quiet: a collection
	// then disturbs nobody.
	trimQuiet = 8 << 20
	// trimWorth is how much there must be to give back.
	trimWorth = 4 << 20
)

// trimMemory gives memory back to the system when the hub has become quiet, until ctx ends.
func trimMemory(ctx context.Context) error {
	tick := time.NewTicker(trimEvery)
	defer tick.Stop()
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/heap/free:bytes"}, {Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}}
	var allocated uint64
	busy := true // since the last trim
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		metrics.Read(samples)
		now := samples[0].Value.Uint64()
		quiet := now-allocated < trimQuiet
		allocated = now
		if !quiet {
			busy = true
			continue
		}
		garbage := samples[3].Value.Uint64() - min(samples[2].Value.Uint64(), samples[3].Value.Uint64())
		if busy || samples[1].Value.Uint64()+garbage > trimWorth {
			debug.FreeOSMemory()
			busy = false
		}
	}
}
