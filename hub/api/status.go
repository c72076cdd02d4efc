package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"telemetryhub/hub/access"
)

func (a *API) statusRoutes() {
	tag := []string{"status"}
	register(a, huma.Operation{OperationID: "healthz", Method: http.MethodGet, Path: "/healthz", Tags: tag,
		Summary: "Whether the hub works at all", Errors: []int{503}}, a.healthz)
	register(a, huma.Operation{OperationID: "readyz", Method: http.MethodGet, Path: "/readyz", Tags: tag,
		Summary: "Whether the hub can acknowledge readings", Errors: []int{503}}, a.readyz)
	register(a, huma.Operation{OperationID: "status", Method: http.MethodGet, Path: "/api/v1/status", Tags: tag,
		Summary: "How the hub is doing", Errors: []int{401, 403}}, a.status)
	register(a, huma.Operation{OperationID: "flush", Method: http.MethodPost, Path: "/api/v1/flush", Tags: tag,
		Summary: "Move everything that has been acknowledged into the history files", DefaultStatus: http.StatusNoContent,
		Description: "Returns when it is done. Nothing depends on it: the hub does so by itself.",
		Errors:      []int{401, 403, 503}}, a.flush)
	register(a, huma.Operation{OperationID: "audit", Method: http.MethodGet, Path: "/api/v1/audit", Tags: tag,
		Summary: "What was changed, by whom", Description: "Newest first.", Errors: []int{401, 403, 404, 422}}, a.audit)
	register(a, huma.Operation{OperationID: "latest", Method: http.MethodGet, Path: "/api/v1/latest", Tags: []string{"readings"},
		Summary: "The newest reading of every metric", Errors: []int{401, 403, 422}}, a.latest)
}

type probeOutput struct {
	Body struct {
		Status string `json:"status" enum:"ok"`
	}
}

func (a *API) healthz(context.Context, *struct{}) (*probeOutput, error) {
	return ok(), nil
}

func (a *API) readyz(context.Context, *struct{}) (*probeOutput, error) {
	status := a.Hub.Status()
	if err := status.Ready(); err != nil {
		return nil, &fault{http.StatusServiceUnavailable, "The hub cannot acknowledge readings now: " + sentence(err.Error()), 5}
	}
	return ok(), nil
}

func ok() *probeOutput {
	out := &probeOutput{}
	out.Body.Status = "ok"
	return out
}

func (a *API) flush(ctx context.Context, _ *struct{}) (*struct{}, error) {
	if err := a.Hub.FlushHistory(ctx); err != nil {
		return nil, err
	}
	a.record(ctx, access.Maintain, "", "flush history")
	return nil, nil
}

type auditInput struct {
	Before string `query:"before" maxLength:"32" doc:"Only entries before the one with this id, to go on from an earlier answer"`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

// auditView is one entry of the audit log.
type auditView struct {
	ID         string `json:"id"`
	At         int64  `json:"at" doc:"Unix ms"`
	Who        string `json:"who"`
	Credential string `json:"credential,omitempty" doc:"Public name of the token or session"`
	What       string `json:"what"`
	Target     string `json:"target,omitempty"`
	Detail     string `json:"detail,omitempty"`
	Damaged    bool   `json:"damaged,omitempty" doc:"The entry cannot be read any more"`
}

type auditOutput struct {
	Body struct {
		Entries []auditView `json:"entries"`
		Next    string      `json:"next,omitempty" doc:"Ask again with before=next for older ones"`
	}
}

func (a *API) audit(ctx context.Context, in *auditInput) (*auditOutput, error) {
	entries, err := a.Access.Audit(ctx, who(ctx).id, in.Before, in.Limit)
	if err != nil {
		return nil, err
	}
	out := &auditOutput{}
	out.Body.Entries = make([]auditView, len(entries))
	for i, e := range entries {
		out.Body.Entries[i] = auditView{e.ID, millis(e.At), e.Who, e.Credential, e.What, e.Target, e.Detail, e.Damaged}
	}
	if n := len(entries); n == in.Limit {
		out.Body.Next = entries[n-1].ID
	}
	return out, nil
}

// statusView is how the hub is doing. Positions are places in the log: they only grow, and say nothing by themselves.
type statusView struct {
	Version     string   `json:"version"`
	Started     int64    `json:"started" doc:"Unix ms"`
	Now         int64    `json:"now" doc:"The hub's clock, Unix ms"`
	Ready       bool     `json:"ready" doc:"Readings are acknowledged"`
	Reason      string   `json:"reason,omitempty" doc:"Why not"`
	Fingerprint string   `json:"fingerprint,omitempty" doc:"SHA-256 of the hub's certificate, for devices to pin"`
	Plaintext   []string `json:"plaintext,omitempty" doc:"Addresses at which devices may connect without TLS"`
	Damage      []string `json:"damage" doc:"What was found damaged in the store since the start, and what was done about it"`

	Watermarks watermarkView `json:"watermarks"`
	Cursors    []cursorView  `json:"cursors" doc:"How far readings have been handed on, by reader"`
	Disk       diskView      `json:"disk"`
	Counts     countView     `json:"counts" doc:"Since the start of the hub"`

	Devices  int `json:"devices"`
	Sessions int `json:"sessions" doc:"Devices that are connected"`
	Viewers  int `json:"viewers" doc:"Subscriptions to the live feed"`
}

type watermarkView struct {
	Durable    uint64 `json:"durable" doc:"Everything up to here is on disk and acknowledged"`
	Historic   uint64 `json:"historic" doc:"Everything up to here is in history files"`
	First      uint64 `json:"first" doc:"The log begins after this position"`
	LagBytes   int64  `json:"lag_bytes" doc:"Size of the log that is not in history files yet"`
	LagSeconds int64  `json:"lag_seconds" doc:"How long the oldest reading that is not in history files has waited"`
}

// cursorView is how far one outside cursor has got.
type cursorView struct {
	Name       string `json:"name" doc:"mqtt is the broker in the hub, mqtt-bridge one elsewhere"`
	Position   uint64 `json:"position" doc:"Everything up to here has been handed on"`
	LagBytes   uint64 `json:"lag_bytes" doc:"Size of the log that has not"`
	LagSeconds int64  `json:"lag_seconds" doc:"How long the oldest of it has waited"`
	Skipped    uint64 `json:"skipped" doc:"How often some of it was lost, because too much had not been handed on"`
	SkippedTo  int64  `json:"skipped_to,omitempty" doc:"When what was lost last had arrived, Unix ms"`
}

type diskView struct {
	LogBytes     int64 `json:"log_bytes"`
	HistoryBytes int64 `json:"history_bytes"`
	Full         bool  `json:"full" doc:"Readings are not taken because there is no room"`
	ReadOnly     bool  `json:"read_only" doc:"The disk takes no writes"`
	HistoryStuck bool  `json:"history_stuck" doc:"History files cannot be written, and the log grows"`
}

type countView struct {
	Readings   uint64 `json:"readings" doc:"Acknowledged"`
	Commits    uint64 `json:"commits"`
	Duplicates uint64 `json:"duplicates" doc:"Batches that had been stored before"`
	Gaps       uint64 `json:"gaps" doc:"Losses that were recorded"`
	Refused    uint64 `json:"refused" doc:"Readings that could not be taken"`
	Replaced   uint64 `json:"replaced" doc:"Connections that a newer one of the same device replaced"`
	Lost       uint64 `json:"lost" doc:"Records that were damaged before they were in history files; each left a gap"`
}

type statusOutput struct{ Body statusView }

func (a *API) status(context.Context, *struct{}) (*statusOutput, error) {
	s := a.Hub.Status()
	v := statusView{
		Version: a.Version, Started: millis(a.started), Now: time.Now().UnixMilli(), Ready: true, Fingerprint: a.Fingerprint,
		Watermarks: watermarkView{
			Durable: uint64(s.Durable), Historic: uint64(s.Historic), First: uint64(s.First),
			LagBytes: s.History.LogBytes, LagSeconds: int64(s.History.Waiting.Seconds()),
		},
		Disk: diskView{LogBytes: s.LogBytes, HistoryBytes: s.ChunkBytes, Full: s.Full, ReadOnly: s.ReadOnly, HistoryStuck: s.HistoryStuck},
		Counts: countView{Readings: s.Readings, Commits: s.Commits, Duplicates: s.Duplicates, Gaps: s.Gaps, Refused: s.Refused,
			Replaced: s.Replaced, Lost: s.History.Lost},
		Devices: s.Devices, Sessions: s.Sessions, Viewers: s.Viewers,
	}
	v.Plaintext, v.Damage, v.Cursors = a.Plaintext, []string{}, []cursorView{}
	for i := range s.Cursors {
		c := &s.Cursors[i]
		v.Cursors = append(v.Cursors, cursorView{
			c.Name, uint64(c.Position), c.LagBytes, int64(c.Lag(time.Now()).Seconds()), c.Skipped.Ranges, c.Skipped.Last.ToMS,
		})
	}
	if a.Damage != nil {
		v.Damage = append(v.Damage, a.Damage()...)
	}
	if err := s.Ready(); err != nil {
		v.Ready, v.Reason = false, sentence(err.Error())
	}
	return &statusOutput{v}, nil
}
