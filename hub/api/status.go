package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"telemetryhub/hub/access"
)

func (a *API) statusRoutes() {
	tag := []string{"status"}
	register(a, huma.Operation{OperationID: "healthz", Method: http.MethodGet, Path: "/healthz", Tags: tag,
		Summary: "Whether the hub works at all", Errors: []int{503}}, a.healthz)
	register(a, huma.Operation{OperationID: "readyz", Method: http.MethodGet, Path: "/readyz", Tags: tag,
		Summary: "Whether the hub can acknowledge readings", Errors: []int{503}}, a.readyz)
	register(a, huma.Operation{OperationID: "flush", Method: http.MethodPost, Path: "/api/v1/flush", Tags: tag,
		Summary: "Move everything that has been acknowledged into the history files", DefaultStatus: http.StatusNoContent,
		Description: "Returns when it is done. Nothing depends on it: the hub does so by itself.",
		Errors:      []int{401, 403, 503}}, a.flush)
	register(a, huma.Operation{OperationID: "audit", Method: http.MethodGet, Path: "/api/v1/audit", Tags: tag,
		Summary: "What was changed, by whom", Description: "Newest first.", Errors: []int{401, 403, 422}}, a.audit)
	register(a, huma.Operation{OperationID: "latest", Method: http.MethodGet, Path: "/api/v1/latest", Tags: []string{"readings"},
		Summary: "The newest reading of every metric", Errors: []int{401, 403, 422}}, a.latest)
}

type probeOutput struct {
	Body struct {
		Status string `json:"status" enum:"ok"`
	}
}

func (a *API) healthz(context.Context, *struct{}) (*probeOutput, error) {
	if err := a.Hub.Status().Healthy(); err != nil {
		return nil, &fault{http.StatusServiceUnavailable, "The hub does not work as it should: " + sentence(err.Error()), 0}
	}
	return ok(), nil
}

func (a *API) readyz(context.Context, *struct{}) (*probeOutput, error) {
	if err := a.Hub.Status().Ready(); err != nil {
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
