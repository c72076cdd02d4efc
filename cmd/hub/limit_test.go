package main

import (
	"testing"

	"telemetryhub/hub"
)

func TestBuffersFitTheMemory(t *testing.T) {
	for _, tc := range []struct {
		limit, head   int64
		tail, viewers int
	}{
		{0, 0, 0, 0}, // not known: the hub's defaults
		{32 << 20, 2 << 20, 2 << 20, 64},
		{128 << 20, 4 << 20, 4 << 20, 128},
		{1 << 30, 32 << 20, 8 << 20, 1024},
		{64 << 30, 32 << 20, 8 << 20, 12_000},
	} {
		var o hub.Options
		fitMemory(&o, tc.limit)
		if o.HeadBytes != tc.head || o.TailBytes != tc.tail || o.MaxViewers != tc.viewers {
			t.Errorf("%d MiB: %+v, want %+v", tc.limit>>20, o, tc)
		}
		if tc.limit > 0 && int64(o.QueueBytes)+int64(o.TailBytes)+3*o.HeadBytes > tc.limit/3 {
			t.Errorf("%d MiB: the buffers may take up more than a third: %+v", tc.limit>>20, o)
		}
	}
}

func TestMemoryIsKnownOnLinux(t *testing.T) {
	if read("/proc/meminfo") == "" {
		t.Skip("this system has no /proc")
	}
	if n := memoryLimit(); n < 32<<20 {
		t.Errorf("this test runs in %d bytes of memory", n)
	}
}
