package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDevicesAreAddedFromAFile(t *testing.T) {
	p := start(t, t.TempDir())
	p.hub(0, "device", "add", "pump-2")
	path := filepath.Join(t.TempDir(), "devices.txt")
	const text = "# the farm\npump-1 \"Pump, north\" site=farm floor=1\n\npump-2\n  fan-1  # behind the house\nBad ID\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p.hub(exitUsage, "device", "add", "--from", path) // ID is no label
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "Bad ID", "BAD")), 0o600); err != nil {
		t.Fatal(err)
	}
	out := p.hub(exitPartial, "device", "add", "--from", path)
	if !strings.Contains(out, "pump-2: ") || !strings.Contains(out, "BAD: ") || strings.Count(out, "thd_") != 2 {
		t.Errorf("adding from a file says %s", out)
	}
	var list struct {
		Devices []struct {
			ID, Name string
			Labels   map[string]string
		}
	}
	if err := json.Unmarshal([]byte(p.hub(0, "device", "list", "--output", "json")), &list); err != nil {
		t.Fatal(err)
	}
	if d := list.Devices; len(d) != 3 || d[1].ID != "pump-1" || d[1].Name != "Pump, north" || d[1].Labels["floor"] != "1" {
		t.Errorf("the devices are %+v", d)
	}
	w := world{env: environment("HUB_DATA", p.dir), in: strings.NewReader("a\nb\n")}
	var made []map[string]any
	if err := json.Unmarshal([]byte(command(t, 0, w, "device", "add", "--from", "-", "--output", "json")), &made); err != nil || len(made) != 2 ||
		!strings.HasPrefix(made[1]["token"].(string), "thd_") {
		t.Errorf("adding from standard input gives %v, %v", made, err)
	}
}

func TestEverythingIsAdministeredFromTheCommandLine(t *testing.T) {
	p := start(t, t.TempDir())
	dev := p.json("device", "add", "pump")["token"].(string)
	if status, body := p.ask("POST", "/api/v1/devices/pump/readings", dev, `{"temperature":21.5}`); status != 204 {
		t.Fatalf("readings are answered %d %s", status, body)
	}
	if out := p.hub(0, "device", "show", "pump"); !strings.Contains(out, "temperature") {
		t.Errorf("the device is %s", out)
	}
	p.hub(exitConflict, "device", "add", "pump")
	p.hub(exitNotFound, "device", "show", "none")
	p.hub(exitUsage, "device", "add", "Not An Id")

	made := p.json("token", "create", "--role", "operator", "--label", "grafana", "--devices", "pump", "--expires", "1h")
	if made["role"] != "operator" || made["expires"] == nil || !strings.HasPrefix(made["token"].(string), "tha_") {
		t.Errorf("the token is %v", made)
	}
	if out := p.hub(0, "token", "list"); !strings.Contains(out, "grafana") || strings.Contains(out, made["token"].(string)) {
		t.Errorf("the tokens are %s", out)
	}
	p.hub(0, "token", "revoke", made["id"].(string))
	if status, _ := p.ask("GET", "/api/v1/me", made["token"].(string), ""); status != 401 {
		t.Errorf("the revoked token is answered %d", status)
	}
	p.hub(exitNotFound, "token", "revoke", "none")
	p.hub(0, "token", "create", "--device", "pump")
	if v := p.json("enrol", "create", "--uses", "3"); v["uses"] != 3.0 || v["kind"] != "enrolment" {
		t.Errorf("the enrolment token is %v", v)
	}

	if out := p.hub(0, "user", "add", "vera", "--role", "operator"); !strings.Contains(out, "/#link=thl_") {
		t.Errorf("the new person is %s", out)
	}
	p.hub(0, "user", "role", "vera", "viewer")
	p.hub(0, "user", "link", "vera")
	if out := p.hub(0, "user", "list"); !strings.Contains(out, "viewer") || !strings.Contains(out, "none yet") {
		t.Errorf("the people are %s", out)
	}
	p.hub(0, "user", "rm", "vera")
	p.hub(exitNotFound, "user", "rm", "vera")

	p.hub(0, "flush")
	if out := p.hub(0, "status"); !strings.Contains(out, "acknowledging  yes") {
		t.Errorf("the status is %s", out)
	}
	p.hub(0, "device", "rm", "pump")
	p.hub(exitNotFound, "device", "rm", "pump")
	p.hub(exitConflict, "device", "add", "pump")
}

func TestTablesShowNothingThatATerminalActsOn(t *testing.T) {
	p := start(t, t.TempDir())
	p.hub(0, "device", "add", "pump", "--name", "a\x1b]0;owned\x07b\u202e\n=c")
	if out := p.hub(0, "device", "list"); strings.ContainsAny(out, "\x1b\x07\u202e") || strings.Count(out, "\n") != 2 {
		t.Errorf("the table is %q", out)
	}
}

func TestLinesOfDevicesAreSplit(t *testing.T) {
	fields, err := splitFields(` a "b c" d=e#f   # g`)
	if err != nil || len(fields) != 3 || fields[1] != (field{"b c", true}) || fields[2].text != "d=e#f" {
		t.Errorf("got %+v, %v", fields, err)
	}
	if _, err := splitFields(`a "b`); err == nil {
		t.Error("a quote that is not closed is taken")
	}
}

func TestWhatIsNotThereIsToldWithWhatToDo(t *testing.T) {
	p := start(t, t.TempDir())
	p.hub(0, "device", "add", "pump")
	for _, c := range []struct {
		code int
		args []string
		want string
	}{
		{exitNotFound, []string{"device", "show", "none"}, "hub device list"},
		{exitNotFound, []string{"device", "rm", "none"}, "hub device list"},
		{exitNotFound, []string{"token", "create", "--device", "none"}, "hub device add"},
		{exitNotFound, []string{"token", "revoke", "none"}, "hub token list"},
		{exitNotFound, []string{"user", "link", "nobody"}, "hub user list"},
		{exitNotFound, []string{"user", "role", "nobody", "viewer"}, "hub user list"},
		{exitNotFound, []string{"user", "rm", "nobody"}, "hub user list"},
		{exitConflict, []string{"device", "add", "pump"}, "hub token create --device"},
	} {
		if out := p.hub(c.code, c.args...); !strings.Contains(out, c.want) || strings.Contains(out, "access/") {
			t.Errorf("hub %s says %q, want %q", strings.Join(c.args, " "), out, c.want)
		}
	}
}
