package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"telemetryhub/device"
	"telemetryhub/hub"
	"telemetryhub/hub/access"
)

const schemaPath = "/api/live.schema.json"

// schema is the published schema of the live feed. What it does not name is refused here, so that nothing comes that it does
// not describe.
type schema struct {
	t        *testing.T
	compiler *jsonschema.Compiler
}

func (r *rig) schema(t *testing.T) *schema {
	t.Helper()
	resp, text := r.do(call{method: "GET", path: schemaPath})
	if got := resp.Header.Get("Content-Type"); got != "application/schema+json" {
		t.Errorf("it comes as %s", got)
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	closeObjects(doc)
	s := &schema{t, jsonschema.NewCompiler()}
	if err := s.compiler.AddResource("live", doc); err != nil {
		t.Fatal(err)
	}
	return s
}

// closeObjects makes a schema refuse members that it does not name.
func closeObjects(v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, item := range v {
			closeObjects(item)
		}
		if _, ok := v["properties"].(map[string]any); ok {
			v["additionalProperties"] = false
		}
		if _, ok := v["prefixItems"]; ok {
			v["items"] = false
		}
	case []any:
		for _, item := range v {
			closeObjects(item)
		}
	}
}

// fits reports whether a text is what the definition says.
func (s *schema) fits(definition, text string) error {
	s.t.Helper()
	compiled, err := s.compiler.Compile("live#/$defs/" + definition)
	if err != nil {
		s.t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		s.t.Fatalf("%v: %s", err, text)
	}
	return compiled.Validate(v)
}

// TestEveryFrameFitsTheSchema drives a hub through everything that a frame can tell.
func TestEveryFrameFitsTheSchema(t *testing.T) {
	r := newRig(t)
	s := r.schema(t)
	dev, viewer := r.device("pump"), r.token(access.Viewer)
	seen := map[string]int{}
	poll := func(query string) string {
		resp, body := r.do(call{method: "GET", path: "/api/v1/live/poll?" + query, token: viewer})
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
		if err := s.fits("poll", body); err != nil {
			t.Errorf("%v\n%s", err, body)
		}
		var p polled
		if err := json.Unmarshal([]byte(body), &p); err != nil {
			t.Fatal(err)
		}
		for _, f := range p.Frames {
			var frame struct{ Type string }
			if err := json.Unmarshal(f, &frame); err != nil {
				t.Fatal(err)
			}
			seen[frame.Type]++
			for _, member := range []string{"now", "more", "gone", "name", "seen", "u", "q"} {
				if bytes.Contains(f, []byte(`"`+member+`":`)) {
					seen[frame.Type+" "+member]++
				}
			}
		}
		if p.Reset {
			seen["reset"]++
		}
		return p.Token
	}
	empty := poll("wait=0")
	for i := range 400 { // more than one frame holds
		attrs := hub.DeviceAttrs{Name: strings.Repeat("n", 200)}
		if _, err := r.hub.AddDevice(t.Context(), device.ID(fmt.Sprintf("d%03d", i)), attrs); err != nil {
			t.Fatal(err)
		}
	}
	all, latest := poll("wait=0&mode=all"), poll("wait=0")
	for _, body := range []string{
		`{"temperature":21.5,"door":true,"note":"a \"quoted\" <text>"}`,
		`[{"n":"temperature","u":"Cel","v":-1e-9},{"n":"rain","u":"mm","v":1e300}]`,
	} {
		r.send("pump", dev, body)
	}
	poll("mode=all&after=" + all)
	latest = poll("after=" + latest)
	if err := r.hub.DeleteDevice(t.Context(), "d000"); err != nil {
		t.Fatal(err)
	}
	poll("after=" + latest)
	poll("wait=0")
	poll("wait=0&after=" + strings.SplitN(latest, ".", 2)[0]) // as after a restart
	poll("wait=0&after=of-another-hub")
	poll("wait=0&after=" + empty + "&devices=none")
	for _, what := range []string{"welcome", "snapshot", "snapshot now", "snapshot more", "snapshot name", "changes", "changes now", "changes more",
		"changes gone", "readings", "snapshot seen", "snapshot u", "reset"} {
		if seen[what] == 0 {
			t.Errorf("no frame had %s: %v", what, seen)
		}
	}
}

func TestEventsFitTheSchema(t *testing.T) {
	r := newRig(t)
	s := r.schema(t)
	r.device("pump")
	made, err := r.access.CreateToken(t.Context(), access.Local(), access.TokenSpec{Role: access.Viewer})
	if err != nil {
		t.Fatal(err)
	}
	h := bearerOf(made.Secret.Reveal())
	h.Set("Last-Event-ID", "of-another-hub")
	e := r.follow("", h)
	if err := r.access.RevokeToken(t.Context(), access.Local(), made.ID); err != nil {
		t.Fatal(err)
	}
	for {
		ev, ok := e.next()
		if !ok {
			t.Fatal("the stream ends without a farewell")
		}
		definition := ev.name
		if definition == "" {
			definition = "frame"
		}
		if err := s.fits(definition, ev.data); err != nil {
			t.Errorf("%s: %v", ev.data, err)
		}
		if ev.name == "bye" {
			return
		}
	}
}

func TestTheSchemaRefusesWhatDoesNotFit(t *testing.T) {
	s := newRig(t).schema(t)
	for _, c := range []struct{ definition, text string }{
		{"frame", `{"type":"snapshot","now":1,"devices":[]}`},
		{"frame", `{"type":"snapshot","now":1,"devices":[],"more":true,"token":"t"}`},
		{"frame", `{"type":"changes","devices":[{"id":"a"}],"token":"t"}`},
		{"frame", `{"type":"readings","token":"t","readings":[["a","m",1]]}`},
		{"frame", `{"type":"readings","token":"t","readings":[["a","m",1,null]]}`},
		{"frame", `{"type":"readings","token":"t","readings":[["a","m",1,2,0]]}`},
		{"frame", `{"type":"readings","token":"t","readings":[["a","m",1,2,1,1]]}`},
		{"subscribe", `{}`},
		{"subscribe", `{"subscribe":{"mode":"some"}}`},
		{"subscribe", `{"subscribe":{"devices":["a*b"]}}`},
		{"subscribe", `{"subscribe":{"devices":[""]}}`},
	} {
		if s.fits(c.definition, c.text) == nil {
			t.Errorf("%s is taken for a %s", c.text, c.definition)
		}
	}
	for _, text := range []string{`{"subscribe":{}}`, `{"subscribe":{"devices":["*"],"metrics":["temp*"],"mode":"all","after":"t","tick":-1}}`} {
		if err := s.fits("subscribe", text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestTheChannelsAreDescribed(t *testing.T) {
	r := newRig(t)
	s := r.schema(t)
	_, text := r.do(call{method: "GET", path: "/api/asyncapi.yaml"})
	var doc map[string]any
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	if doc["asyncapi"] != "3.0.0" {
		t.Errorf("it is of version %v", doc["asyncapi"])
	}
	_, text = r.do(call{method: "GET", path: schemaPath})
	var frames map[string]any
	if err := json.Unmarshal([]byte(text), &frames); err != nil {
		t.Fatal(err)
	}
	for _, d := range []map[string]any{doc, frames} {
		walkRefs(d, func(ref string) {
			file, pointer, _ := strings.Cut(ref, "#/")
			var at any = d
			if file == "live.schema.json" {
				at = frames
			} else if file != "" {
				t.Errorf("%s leads out of what is served", ref)
			}
			for step := range strings.SplitSeq(pointer, "/") {
				m, _ := at.(map[string]any)
				at = m[step]
			}
			if at == nil {
				t.Errorf("%s leads nowhere", ref)
			}
		})
	}
	routes := r.api.Routes()
	for name, c := range doc["channels"].(map[string]any) {
		address := c.(map[string]any)["address"].(string)
		if !strings.Contains(strings.Join(routes, "\n")+"\n", "GET "+address+"\n") {
			t.Errorf("channel %s is at %s, where nothing is", name, address)
		}
	}
	for name, m := range doc["components"].(map[string]any)["messages"].(map[string]any) {
		message := m.(map[string]any)
		examples := message["examples"].([]any)
		ref, ok := message["payload"].(map[string]any)["$ref"].(string)
		if !ok {
			continue
		}
		for _, e := range examples {
			payload := toJSON(t, e.(map[string]any)["payload"])
			if err := s.fits(strings.TrimPrefix(ref, "live.schema.json#/$defs/"), payload); err != nil {
				t.Errorf("the example of %s: %v", name, err)
			}
		}
	}
}
