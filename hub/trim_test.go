package hub

import (
	"testing"
	"time"

	"telemetryhub/storage/mem"
	"telemetryhub/storage/record"
)

func TestLogIsKeptUntilTheHistoryHasIt(t *testing.T) {
	log := mem.NewLog()
	h, err := Open(t.Context(), Stores{Log: log, Chunks: mem.NewChunks(), Catalog: mem.NewCatalog()}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var g record.Group // what the history's cursor has not come to, as when a checkpoint begins while it is behind
	g.Reset(time.Now().UnixMilli())
	end, err := log.Append(t.Context(), g.Bytes(), log.Last())
	if err != nil {
		t.Fatal(err)
	}
	if err := h.checkpoint(t.Context(), end); err != nil {
		t.Fatal(err)
	}
	if log.First() > h.history.Checkpoint() {
		t.Errorf("the log begins after %d, the history has come to %d", log.First(), h.history.Checkpoint())
	}
}
