package sio_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/hub/sio"
	"telemetryhub/hub/sio/siotest"
	"telemetryhub/storage/mem"
)

// realHub is a hub over stores in memory.
func realHub(t *testing.T) *hub.Hub {
	t.Helper()
	stores := hub.Stores{Log: mem.NewLog(), Chunks: mem.NewChunks(), Catalog: mem.NewCatalog()}
	core, err := hub.Open(context.Background(), stores, hub.Options{})
	if err != nil {
		t.Fatal(err)
	}
	run(t, core.Run)
	return core
}

// run runs f until the test ends.
func run(t *testing.T, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestTheHubTellsOfDevicesInBothModes(t *testing.T) {
	core := realHub(t)
	for _, id := range []device.ID{"attic", "cellar-1"} {
		if _, err := core.AddDevice(t.Context(), id, hub.DeviceAttrs{}); err != nil {
			t.Fatal(err)
		}
		if _, err := core.Ingest(t.Context(), id, wire.JSON, []byte(`{"n":1}`)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := sio.New(core.Subscribe, newFakeAuth(), sio.Options{})
	if err != nil {
		t.Fatal(err)
	}
	site := siotest.Serve(t, s)
	t.Cleanup(func() { _ = s.Shutdown(context.Background()) })
	run(t, s.Run)
	connect := func(auth string) func(event, part string) {
		c, _ := site.Open()
		c.Say("40" + auth)
		return func(event, part string) {
			t.Helper()
			siotest.Until(t, event+" with "+part, func() bool {
				text := c.Text()
				return strings.HasPrefix(text, `42["`+event+`"`) && strings.Contains(text, part)
			})
		}
	}
	clients := map[string]func(event, part string){
		"latest": connect(`{"token":"viewer"}`), "all": connect(`{"token":"viewer","subscribe":{"mode":"all"}}`),
	}
	for _, wait := range clients {
		wait("snapshot", `"id":"attic"`)
	}
	for i, id := range []device.ID{"cellar-1", "attic"} {
		name := fmt.Sprintf("<Room> %d", i)
		if _, err := core.UpdateDevice(t.Context(), id, hub.DevicePatch{Name: &name}); err != nil {
			t.Fatal(err)
		}
	}
	quoted, err := json.Marshal("<Room> 1")
	if err != nil {
		t.Fatal(err)
	}
	for mode, wait := range clients {
		t.Log(mode)
		wait("device", `"id":"attic","presence":"live","name":`+string(quoted))
	}
	if err := core.DeleteDevice(t.Context(), "attic"); err != nil {
		t.Fatal(err)
	}
	for _, wait := range clients {
		wait("device", `"gone":true`)
	}
}
