package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// settingsOf returns the settings that a command line, an environment and a file give.
func settingsOf(t *testing.T, file string, env []string, args ...string) (*serveSettings, error) {
	t.Helper()
	if file != "" {
		path := filepath.Join(t.TempDir(), "hub.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	w := world{env: environment(env...), in: strings.NewReader(""), out: newScreen(), err: newScreen()}
	root := newRoot(w)
	c, rest, err := root.Find(append([]string{"serve"}, args...))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.ParseFlags(rest); err != nil {
		t.Fatal(err)
	}
	return loadServeSettings(c, w)
}

func TestFlagsStandAboveEnvironmentAboveFileAboveDefaults(t *testing.T) {
	const file = "http: 127.0.0.1:3\ncommit-interval: 7ms\ndata: /file\n"
	for _, c := range []struct {
		name, file string
		env        []string
		args       []string
		http       string
		commit     time.Duration
	}{
		{"defaults", "", nil, []string{"--data", "d"}, "127.0.0.1:8080", 2 * time.Millisecond},
		{"file", file, nil, nil, "127.0.0.1:3", 7 * time.Millisecond},
		{"environment", file, []string{"HUB_HTTP", "127.0.0.1:2", "HUB_COMMIT_INTERVAL", "card"}, nil, "127.0.0.1:2", time.Second},
		{"flags", file, []string{"HUB_HTTP", "127.0.0.1:2"}, []string{"--http", "127.0.0.1:1", "--commit-interval", "1ms"}, "127.0.0.1:1", time.Millisecond},
		{"PORT", "", []string{"PORT", "99", "HUB_DATA", "d"}, nil, "127.0.0.1:99", 2 * time.Millisecond},
		{"PORT and file", file, []string{"PORT", "99"}, nil, "127.0.0.1:99", 7 * time.Millisecond},
		{"PORT and HUB_HTTP", file, []string{"PORT", "99", "HUB_HTTP", "127.0.0.1:2"}, nil, "127.0.0.1:2", 7 * time.Millisecond},
		{"PORT and flag", file, []string{"PORT", "99"}, []string{"--http", "127.0.0.1:1"}, "127.0.0.1:1", 7 * time.Millisecond},
	} {
		s, err := settingsOf(t, c.file, c.env, c.args...)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if s.http != c.http || s.commit != c.commit {
			t.Errorf("%s: got %s and %s, want %s and %s", c.name, s.http, s.commit, c.http, c.commit)
		}
	}
}

func TestListsAndSwitchesComeFromEverywhere(t *testing.T) {
	const file = "data: d\nlan: true\nallow-origin:\n  - https://a.example\n  - https://b.example\ntrusted-proxy: 10.0.0.0/8\nlog-level: debug\n"
	s, err := settingsOf(t, file, nil)
	if err != nil || !s.lan || len(s.allowOrigins) != 2 || len(s.proxies) != 1 || s.level != -4 || s.https != defaultHTTPS {
		t.Errorf("from the file: %+v, %v", s, err)
	}
	s, err = settingsOf(t, "", []string{"HUB_DATA", "d", "HUB_LAN", "true", "HUB_ALLOW_ORIGIN", "https://a.example,https://b.example"})
	if err != nil || !s.lan || len(s.allowOrigins) != 2 {
		t.Errorf("from the environment: %+v, %v", s, err)
	}
}

func TestWhatIsNotUnderstoodIsRefusedWithItsLine(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"data: d\nhtpp: 127.0.0.1:1\n", "hub.yaml:2: unknown setting \"htpp\""},
		{"data: d\n\nlan: perhaps\n", "hub.yaml:3: lan"},
		{"data: d\nlan: [true]\n", "hub.yaml:2: lan"},
		{"data: d\nhttp:\n  port: 1\n", "http"},
		{"data: d\nhttp: 127.0.0.1:1\nhttp: 127.0.0.1:2\n", "http"},
		{"data: d\nconfig: other.yaml\n", "hub.yaml:2: unknown setting"},
		{"- data\n", "hub.yaml:1"},
		{"data: [\n", "configuration"},
		{"just text\n", "hub.yaml:1"},
		{"data: d\ncommit-interval: banana\n", "hub.yaml:2: --commit-interval banana"},
		{"data: d\n\nlog-level: loud\n", "hub.yaml:3: --log-level loud"},
		{"data: d\n\"log-level\": loud\n", "hub.yaml:2: --log-level loud"},
		{"http: 0.0.0.0:1\n", "hub.yaml:1: --http 0.0.0.0:1"},
		{"data: d\nhttp: nonsense\n", "hub.yaml:2: --http nonsense"},
		{"data: d\nhttp: 127.0.0.1:99999\n", "hub.yaml:2: --http 127.0.0.1:99999"},
		{"data: d\nlan-plaintext:\n  - 127.0.0.1:1\n  - \"\"\n", "hub.yaml:2: --lan-plaintext"},
		{"data: d\ntrusted-proxy: [10.0.0.0/8, proxy]\n", "hub.yaml:2: --trusted-proxy proxy"},
		{"data: d\nallow-origin: \"*\"\n", "hub.yaml:2: --allow-origin"},
		{"data: d\ntls-key: key.pem\n", "hub.yaml:2: --tls-cert and --tls-key"},
		{"lan: yes\n", "hub.yaml:1: lan: \"yes\": write true or false"},
	} {
		_, err := settingsOf(t, c.file, nil, "--data", "d")
		if err == nil || !strings.Contains(err.Error(), c.want) || exitCode(err) != exitUsage {
			t.Errorf("%q gives %v, want %s", c.file, err, c.want)
		}
	}
	if _, err := settingsOf(t, "# nothing but a comment\n", nil, "--data", "d"); err != nil {
		t.Errorf("a file with nothing in it gives %v", err)
	}
}

func TestWhatTheEnvironmentGetsWrongIsNamed(t *testing.T) {
	for name, value := range map[string]string{
		"HUB_COMMIT_INTERVAL": "banana", "HUB_LOG_FORMAT": "xml", "HUB_LAN": "", "HUB_HTTP": "nonsense", "PORT": "abc",
	} {
		_, err := settingsOf(t, "", []string{name, value}, "--data", "d")
		if err == nil || !strings.Contains(err.Error(), name) || exitCode(err) != exitUsage {
			t.Errorf("%s=%s gives %v", name, value, err)
		}
	}
	_, err := settingsOf(t, "commit-interval: 1ms\n", nil, "--data", "d", "--commit-interval", "banana")
	if err == nil || strings.Contains(err.Error(), "hub.yaml") {
		t.Errorf("a flag is wrong, and the file is blamed: %v", err)
	}
}

// An empty address means a free port on all interfaces to the system.
func TestNothingIsServedAtAnAddressThatIsEmpty(t *testing.T) {
	s, err := settingsOf(t, "", []string{"HUB_LAN_PLAINTEXT", "127.0.0.1:1,"}, "--data", "d")
	if err != nil || len(s.lanPlaintext) != 1 {
		t.Errorf("a comma at the end: %+v, %v", s, err)
	}
	if _, err := settingsOf(t, "", nil, "--data", "d", "--lan-plaintext", "127.0.0.1:1", "--lan-plaintext", ""); err == nil {
		t.Error("an empty --lan-plaintext is taken")
	}
}

func TestCommandLinesThatCannotBeMeantAreRefused(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"serve"}, "--data"},
		{[]string{"serve", "--data", dir, "extra"}, "extra"},
		{[]string{"serve", "--data", dir, "--nonsense"}, "nonsense"},
		{[]string{"serve", "--data", dir, "--http", "0.0.0.0:0"}, "--lan"},
		{[]string{"serve", "--data", dir, "--http", ":0"}, "without encryption"},
		{[]string{"serve", "--data", dir, "--http", "192.0.2.1:0"}, "--lan-plaintext"},
		{[]string{"serve", "--data", dir, "--http", "nonsense"}, "host:port"},
		{[]string{"serve", "--data", dir, "--https", "127.0.0.1:0"}, "certificate"},
		{[]string{"serve", "--data", dir, "--tls-cert", "x"}, "--tls-key"},
		{[]string{"serve", "--data", dir, "--public-url", "hub.example"}, "https://hub.example.org"},
		{[]string{"serve", "--data", dir, "--public-url", "https://hub.example/path"}, "https://hub.example.org"},
		{[]string{"serve", "--data", dir, "--trusted-proxy", "proxy"}, "10.0.0.0/8"},
		{[]string{"serve", "--data", dir, "--commit-interval", "0"}, "card"},
		{[]string{"serve", "--data", dir, "--log-level", "loud"}, "debug"},
		{[]string{"serve", "--data", dir, "--log-format", "xml"}, "json"},
		{[]string{"serve", "--data", dir, "--config", filepath.Join(dir, "none")}, "none"},
		{[]string{"serve", "--data", dir, "--http", "127.0.0.1:0", "--allow-origin", "*"}, "origin"},
		{[]string{"nonsense"}, "unknown command"},
		{[]string{"device", "nonsense"}, "unknown command"},
		{[]string{"device", "list"}, "HUB_DATA"},
		{[]string{"device", "list", "--data", dir, "--output", "xml"}, "table or json"},
		{[]string{"device", "add", "--data", dir}, "name the device"},
		{[]string{"device", "add", "a", "b", "--data", dir}, "at most 1"},
		{[]string{"device", "add", "a", "--label", "b", "--data", dir}, "key=value"},
		{[]string{"token", "create", "--data", dir}, "--role"},
		{[]string{"user", "add", "--data", dir}, "accepts 1 arg"},
		{[]string{"check"}, "--data"},
		{[]string{"device", "show", "", "--data", dir}, "is empty"},
		{[]string{"token", "revoke", "", "--data", dir}, "is empty"},
		{[]string{"enrol", "create", "--uses", "0", "--data", dir}, "--uses 0"},
		{[]string{"enrol", "create", "--uses", "2000000", "--data", dir}, "1000000"},
		{[]string{"completion", "tcsh"}, "unknown command"},
	} {
		if out := command(t, exitUsage, world{env: environment()}, c.args...); !strings.Contains(out, c.want) {
			t.Errorf("hub %s says %q, want %q", strings.Join(c.args, " "), out, c.want)
		}
	}
}

func TestPlainTextBeyondTheMachineBecomesTLS(t *testing.T) {
	s, err := settingsOf(t, "", nil, "--data", "d", "--lan", "--http", "0.0.0.0:8080")
	if err != nil || s.http != "" || s.https != "0.0.0.0:8080" {
		t.Errorf("got %+v, %v", s, err)
	}
	for _, addr := range []string{"127.0.0.1:1", "localhost:1", "[::1]:1", "127.9.9.9:1"} {
		if _, err := settingsOf(t, "", nil, "--data", "d", "--http", addr); err != nil {
			t.Errorf("%s is refused: %v", addr, err)
		}
	}
}

func TestHelpExplainsEverything(t *testing.T) {
	out := command(t, exitOK, world{env: environment()}, "--help")
	for _, word := range []string{"serve", "device", "token", "enrol", "user", "status", "flush", "check", "version", "completion", "exit-codes"} {
		if !strings.Contains(out, word) {
			t.Errorf("hub --help does not name %s", word)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if out := command(t, exitOK, world{env: environment()}, "completion", shell); len(out) < 500 {
			t.Errorf("the completion for %s is %q", shell, out)
		}
	}
	if out := command(t, exitOK, world{env: environment()}, "exit-codes", "--help"); !strings.Contains(out, "130") {
		t.Errorf("hub exit-codes says %s", out)
	}
	if out := command(t, exitOK, world{env: environment()}, "version", "--output", "json"); !strings.Contains(out, `"version"`) {
		t.Errorf("hub version says %s", out)
	}
}
