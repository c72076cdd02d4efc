package api

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// newDocument returns the huma API on the router. It serves no pages: those of huma load scripts from elsewhere.
func newDocument(r *router, version, cookie string) huma.API {
	return humago.New(r, huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Telemetry hub", Version: version,
				Description: "Times are Unix milliseconds; queries also take RFC 3339. Errors are problem documents (RFC 9457) whose " +
					"detail says what to do. State changes with a session cookie need an Origin header of the hub's own.",
				License: &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"},
			},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"token":   {Type: "http", Scheme: "bearer", Description: "API, device or enrolment token"},
					"session": {Type: "apiKey", In: "cookie", Name: cookie, Description: "Set by login; without TLS its name differs"},
				},
			},
		},
		Formats:                      map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{reword},
	})
}

// register adds an operation whose errors leave by way of outward. What it needs is written into the document.
func register[I, O any](a *API, op huma.Operation, handler func(context.Context, *I) (*O, error)) {
	need := rules[op.Method+" "+op.Path]
	op.BodyReadTimeout = a.BodyTimeout
	more := []int{http.StatusUnprocessableEntity} // unknown parameters
	if op.MaxBodyBytes > 0 {
		more = append(more, http.StatusRequestTimeout, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType)
	}
	for _, status := range more {
		if !slices.Contains(op.Errors, status) {
			op.Errors = append(op.Errors, status)
		}
	}
	if !need.open {
		op.Security = []map[string][]string{{"token": {}}, {"session": {}}}
	}
	if need.action != "" {
		op.Extensions = map[string]any{"x-action": need.action}
	}
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handler(ctx, in)
		if err != nil {
			return nil, a.outward(ctx, err)
		}
		return out, nil
	})
}

// describe adds the routes that have no Go types to the document, and serves it. It is encoded when somebody first asks: that
// takes as long as all the rest of a start.
func (a *API) describe() {
	doc := a.huma.OpenAPI()
	for _, op := range undescribed() {
		if need := rules[op.Method+" "+op.Path]; !need.open {
			op.Security = []map[string][]string{{"token": {}}, {"session": {}}}
		}
		for _, status := range op.Errors {
			op.Responses[strconv.Itoa(status)] = &huma.Response{Description: http.StatusText(status), Content: map[string]*huma.MediaType{
				problemType: {Schema: &huma.Schema{Ref: "#/components/schemas/ErrorModel"}}}}
		}
		doc.AddOperation(op)
	}
	// huma knows one good status for each operation.
	send := doc.Paths["/api/v1/devices/{id}/readings"].Post.Responses
	send["200"] = &huma.Response{Description: "Some rows were refused; the others are on disk", Content: send["204"].Content}
	send["204"] = &huma.Response{Description: "Everything is on disk"}
	asJSON := func() ([]byte, error) { return json.MarshalIndent(doc, "", "  ") }
	a.router.HandleFunc("GET /api/openapi.json", a.fixed("application/vnd.oai.openapi+json; charset=utf-8", asJSON))
	a.router.HandleFunc("GET /api/openapi.yaml", a.fixed("application/vnd.oai.openapi; charset=utf-8", doc.YAML))
}

// fixed answers with what does not change while the hub runs.
func (a *API) fixed(contentType string, encode func() ([]byte, error)) http.HandlerFunc {
	encode = sync.OnceValues(encode)
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := encode()
		if err != nil {
			writeProblem(w, a.outward(r.Context(), err))
			return
		}
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(body) // the client has gone: nobody is left to be told
	}
}

// undescribed are the operations that huma does not serve.
func undescribed() []*huma.Operation {
	text := func(description, media string) map[string]*huma.Response {
		return map[string]*huma.Response{"200": {Description: description,
			Content: map[string]*huma.MediaType{media: {Schema: &huma.Schema{Type: "string"}}}}}
	}
	upgrade := map[string]*huma.Response{"101": {Description: "The connection is a WebSocket now"}}
	return []*huma.Operation{
		{OperationID: "metrics", Method: http.MethodGet, Path: "/metrics", Tags: []string{"status"},
			Summary: "The hub's own figures for Prometheus", Description: "Programs on the hub's own machine need no token, unless a proxy stands before the hub.",
			Responses: text("Prometheus text format", "text/plain"), Errors: []int{401, 403}},
		{OperationID: "live-sse", Method: http.MethodGet, Path: "/api/v1/live/sse", Tags: []string{"live"},
			Summary: "Follow the newest readings as server-sent events",
			Description: "Each event is one frame of the live feed: a snapshot first, then changes. Its id resumes after it, by the " +
				"header Last-Event-ID. An event named reset means that this was not possible, and that a snapshot follows; one named bye, " +
				"that the hub ends the stream, and why. With Accept-Encoding: deflate it is compressed.",
			Parameters: append(feedParams(), &huma.Param{Name: "Last-Event-ID", In: "header", Schema: &huma.Schema{Type: "string"}}),
			Responses:  text("Events", "text/event-stream"), Errors: []int{401, 403, 422, 503}},
		{OperationID: "live-poll", Method: http.MethodGet, Path: "/api/v1/live/poll", Tags: []string{"live"},
			Summary: "Follow the newest readings by polling",
			Description: "Answers with the frames after the token as soon as there are any, or with none when the wait is over. Ask again " +
				"with the token of the answer. reset means that what came after the token is not known any more, and that a snapshot " +
				"follows. The token is the ETag too, so that If-None-Match is answered 304 while nothing comes. An answer without an " +
				"ETag is compressed if Accept-Encoding has deflate or gzip, and that makes it smaller.",
			Parameters: append(feedParams(),
				&huma.Param{Name: "wait", In: "query", Description: "How long to wait for frames: up to 60s; 0 answers at once",
					Schema: &huma.Schema{Type: "string", Default: "25s"}},
				&huma.Param{Name: "If-None-Match", In: "header", Schema: &huma.Schema{Type: "string"}}),
			Responses: map[string]*huma.Response{
				"200": {Description: "Frames", Content: map[string]*huma.MediaType{"application/json": {Schema: pollSchema()}}},
				"304": {Description: "Nothing has come"},
			}, Errors: []int{401, 403, 410, 422, 503}},
		{OperationID: "device-socket", Method: http.MethodGet, Path: "/device/v1", Tags: []string{"live"},
			Summary: "Connect a device", Description: "WebSocket, subprotocols hub.v1.cbor and hub.v1.json; see PROTOCOL.md.", Responses: upgrade},
		{OperationID: "live-socket", Method: http.MethodGet, Path: "/api/v1/live", Tags: []string{"live"},
			Summary: "Follow the newest readings", Description: `WebSocket. Send {"subscribe":{"devices":["*"],"metrics":["*"],` +
				`"mode":"latest","after":""}}: a snapshot comes first, then changes.`, Responses: upgrade},
	}
}

func pollSchema() *huma.Schema {
	return &huma.Schema{Type: "object", Required: []string{"frames", "token"}, Properties: map[string]*huma.Schema{
		"reset":  {Type: "boolean", Description: "The token was too old: begin anew with the snapshot that follows"},
		"frames": {Type: "array", Items: &huma.Schema{Type: "object"}, Description: "Frames of the live feed, in order"},
		"token":  {Type: "string", Description: "What the next poll sends as after"},
	}}
}

func feedParams() []*huma.Param {
	list := func(name, description string) *huma.Param {
		return &huma.Param{Name: name, In: "query", Description: description, Schema: &huma.Schema{Type: "string"}}
	}
	return []*huma.Param{
		list("devices", "Only these devices: IDs, or beginnings with * at the end, separated by commas"),
		list("metrics", "Only these metrics: names, or beginnings with * at the end, separated by commas"),
		{Name: "mode", In: "query", Description: "latest conflates; all has every reading", Schema: &huma.Schema{
			Type: "string", Enum: []any{"latest", "all"}, Default: "latest"}},
		list("after", "Resumes after the frame with this token"),
		{Name: "tick", In: "query", Description: "Least milliseconds between frames; 0 means 100, a negative number none",
			Schema: &huma.Schema{Type: "number"}},
	}
}

// readingsResponse describes the answer about history, which is streamed.
func readingsResponse() *huma.Response {
	value := &huma.Schema{Description: "Number, true or false, or text"}
	gap := &huma.Schema{Type: "object", Description: "A recorded loss", Properties: map[string]*huma.Schema{
		"from": {Type: "integer"}, "to": {Type: "integer"}, "count": {Type: "integer"}, "cause": {Type: "string"},
		"from_seq": {Type: "integer"}, "to_seq": {Type: "integer"},
	}, Required: []string{"cause"}}
	points := &huma.Schema{Type: "object", Required: []string{"device", "metric", "unit", "points", "gaps"},
		Properties: map[string]*huma.Schema{
			"device": {Type: "string"}, "metric": {Type: "string"}, "unit": {Type: "string"},
			"points": {Type: "array", Items: &huma.Schema{Type: "array", Description: "[Unix ms, value]", Items: value}},
			"gaps":   {Type: "array", Items: gap},
			"next":   {Type: "integer", Description: "The first time that the limit left out: ask again with from=next"},
			"damage": {Type: "string", Description: "Readings that are damaged on the hub's disk were left out"},
		}}
	return &huma.Response{Description: "The readings", Content: map[string]*huma.MediaType{
		"application/json":     {Schema: points},
		"text/csv":             {Schema: &huma.Schema{Type: "string"}},
		"application/x-ndjson": {Schema: &huma.Schema{Type: "string"}},
	}}
}
