package api

import (
	"context"
	"fmt"
	"mime"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
)

// maxFrame is the largest body of readings plus one byte: huma refuses a body that reaches its limit.
const maxFrame = wire.MaxFrame + 1

// ingestTypes are the media types of readings.
var ingestTypes = map[string]wire.Format{
	"application/json":       wire.JSON,
	"application/senml+json": wire.JSON,
	"application/cbor":       wire.CBOR,
	"application/senml+cbor": wire.CBOR,
	// curl -d says so unless it is told otherwise. The Origin rule keeps forms of other pages out.
	"application/x-www-form-urlencoded": wire.JSON,
	"":                                  wire.JSON,
}

type ingestInput struct {
	ID          string `path:"id" doc:"Device ID"`
	ContentType string `header:"Content-Type" doc:"application/json, application/senml+json, application/cbor or application/senml+cbor. Absent means JSON."`
	RawBody     []byte `contentType:"application/json"`
}

type ingestOutput struct {
	Status int
	Body   *ingestReport
}

// ingestReport tells which rows were refused, when some were.
type ingestReport struct {
	Stored int       `json:"stored" doc:"Number of readings that are on disk"`
	Bad    []badView `json:"bad" doc:"What was refused, and why"`
}

type badView struct {
	Row   int    `json:"row" doc:"Row of the request, counted from 0"`
	Value int    `json:"value,omitempty" doc:"Value of the row, counted from 1. Absent if the whole row was refused"`
	Count int    `json:"count" doc:"Number of readings that were refused"`
	Code  string `json:"code" doc:"Why, as a short word: type, number, exact, text, time, name, unit, sum, data, empty, more, limit, unreg"`
}

func (a *API) ingest(ctx context.Context, in *ingestInput) (*ingestOutput, error) {
	id, err := device.ParseID(in.ID)
	if err != nil {
		return nil, hub.ErrUnknownDevice
	}
	media := in.ContentType
	if media != "" {
		if media, _, err = mime.ParseMediaType(media); err != nil {
			media = in.ContentType
		}
	}
	format, ok := ingestTypes[media]
	if !ok {
		return nil, faultf(http.StatusUnsupportedMediaType,
			"Content-Type %.60q is not taken. Send application/json, application/senml+json, application/cbor or application/senml+cbor.", media)
	}
	result, err := a.Hub.Ingest(ctx, id, format, in.RawBody)
	if err != nil {
		return nil, err
	}
	if len(result.Bad) == 0 {
		return &ingestOutput{Status: http.StatusNoContent}, nil
	}
	report := &ingestReport{Stored: result.Stored, Bad: make([]badView, len(result.Bad))}
	for i, b := range result.Bad {
		report.Bad[i] = badView{Row: b.Row, Value: b.Value, Count: b.Count, Code: b.Code.String()}
	}
	if result.Stored == 0 {
		return nil, faultf(http.StatusUnprocessableEntity, "Nothing was stored: %s", describeBad(report.Bad))
	}
	return &ingestOutput{Status: http.StatusOK, Body: report}, nil
}

// describeBad says in words what was refused first.
func describeBad(bad []badView) string {
	b := bad[0]
	text := fmt.Sprintf("row %d was refused (%s)", b.Row, b.Code)
	if b.Value > 0 {
		text = fmt.Sprintf("value %d of row %d was refused (%s)", b.Value, b.Row, b.Code)
	}
	if len(bad) > 1 {
		text += fmt.Sprintf(", and so were %d more", len(bad)-1)
	}
	return text + "."
}

// ingestBody describes the forms by hand, which one Go type cannot.
func ingestBody() *huma.RequestBody {
	number := func() *huma.Schema { return &huma.Schema{Description: "Number, true or false, or text"} }
	byHand := &huma.Schema{
		OneOf: []*huma.Schema{
			{Type: "object", Description: "Metrics and values, stamped on arrival", AdditionalProperties: number()},
			{Type: "object", Description: "Metrics and values at a time", Required: []string{"v"}, Properties: map[string]*huma.Schema{
				"t": {Type: "integer", Description: "Unix milliseconds"},
				"v": {Type: "object", AdditionalProperties: number()},
			}},
			{Type: "array", Description: "A SenML pack (RFC 8428)", Items: &huma.Schema{Type: "object"}},
		},
		Examples: []any{map[string]any{"temperature": 21.4}},
	}
	binary := &huma.Schema{Type: "string", Format: "binary", Description: "The same as CBOR"}
	return &huma.RequestBody{Content: map[string]*huma.MediaType{
		"application/json":       {Schema: byHand},
		"application/senml+json": {Schema: byHand},
		"application/cbor":       {Schema: binary},
		"application/senml+cbor": {Schema: binary},
	}}
}
