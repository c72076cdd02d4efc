package api_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"telemetryhub/hub/access"
	"telemetryhub/storage"
)

// damagedChunks gives back damaged blocks while bad is set.
type damagedChunks struct {
	storage.Chunks
	bad *atomic.Bool
}

func (c damagedChunks) Block(ctx context.Context, s storage.Slice, k storage.BlockKey) ([]byte, error) {
	if c.bad.Load() {
		return nil, fmt.Errorf("block %d: %w", k.Flush, storage.ErrCorrupt)
	}
	return c.Chunks.Block(ctx, s, k)
}

func TestDamageIsToldAndTheRestIsAnswered(t *testing.T) {
	var bad atomic.Bool
	r := newRig(t, func(p *parts) { p.stores.Chunks = damagedChunks{p.stores.Chunks, &bad} })
	dev, viewer := r.device("pump"), r.token(access.Viewer)
	r.send("pump", dev, fmt.Sprintf(`{"t":%d,"v":{"a":1}}`, t0))
	r.want(204, call{method: "POST", path: "/api/v1/flush", token: r.token(access.Admin)})
	r.send("pump", dev, fmt.Sprintf(`{"t":%d,"v":{"a":2}}`, t0+1000))
	bad.Store(true)

	a := r.history(viewer, "/api/v1/devices/pump/readings?metric=a")
	if len(a.Points) != 1 || string(a.Points[0][1]) != "2" || a.Damage == "" || len(a.Gaps) == 0 || a.Gaps[0]["cause"] != "damaged" {
		t.Errorf("the answer is %+v", a)
	}
	_, body := r.do(call{method: "GET", path: "/api/v1/devices/pump/readings?format=ndjson", token: viewer})
	if lines := strings.Split(strings.TrimSpace(body), "\n"); len(lines) != 2 || !strings.Contains(lines[0], `{"a":2}`) ||
		!strings.HasPrefix(lines[1], `{"gaps":[{"from":`) || !strings.Contains(lines[1], `"cause":"damaged"`) || !strings.Contains(lines[1], `],"damage":"Some readings`) {
		t.Errorf("the lines are %q", lines)
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET", r.server.URL+"/api/v1/devices/pump/readings?format=csv", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = bearerOf(viewer)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err == nil || !strings.HasSuffix(string(text), ",2\r\n") {
		t.Errorf("the table ends well: %q, %v", text, err)
	}
}
