package api

import (
	"context"
	"strings"
	"time"

	"telemetryhub/hub/access"
)

type latestInput struct {
	Devices []string `query:"device" maxItems:"64" doc:"Only these devices: IDs, or beginnings with * at the end, separated by commas"`
	Metrics []string `query:"metric" maxItems:"64" doc:"Only these metrics: names, or beginnings with * at the end, separated by commas"`
}

// latestReading is the newest reading of one metric of one device.
type latestReading struct {
	Device   string `json:"device"`
	Presence string `json:"presence" enum:"never,live,stale,offline" doc:"Whether the value can still be believed"`
	Metric   string `json:"metric"`
	Unit     string `json:"unit"`
	latestView
}

type latestOutput struct {
	Body struct {
		Now    int64           `json:"now" doc:"The hub's clock, Unix ms: what t is to be compared with"`
		Latest []latestReading `json:"latest" doc:"Sorted by device"`
	}
}

func (a *API) latest(ctx context.Context, in *latestInput) (*latestOutput, error) {
	out := &latestOutput{}
	out.Body.Now = time.Now().UnixMilli()
	out.Body.Latest = []latestReading{}
	id := who(ctx).id
	for _, d := range a.Hub.Devices(ctx) {
		if !id.CanOn(access.ReadLive, d.ID) || !matches(in.Devices, string(d.ID)) {
			continue
		}
		for _, m := range d.Metrics {
			if m.Latest == nil || !matches(in.Metrics, m.Name) {
				continue
			}
			out.Body.Latest = append(out.Body.Latest, latestReading{
				Device: string(d.ID), Presence: d.Presence.String(), Metric: m.Name, Unit: m.Unit, latestView: *viewLatest(m.Latest),
			})
		}
	}
	return out, nil
}

// matches reports whether a pattern names s. No patterns name everything.
func matches(patterns []string, s string) bool {
	for _, p := range patterns {
		if head, star := strings.CutSuffix(p, "*"); p == s || star && strings.HasPrefix(s, head) {
			return true
		}
	}
	return len(patterns) == 0
}
