package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain is also main for the tests that need a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("HUB_TEST_MAIN") != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what must happen: much longer than it takes, since the machine may be busy.
const patience = time.Minute

// screen is what a command prints. It can be read while the command runs.
type screen struct {
	mu   sync.Mutex // guards the fields below
	text bytes.Buffer
	news chan struct{} // closed at the next write
}

func newScreen() *screen { return &screen{news: make(chan struct{})} }

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.news)
	s.news = make(chan struct{})
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *screen) now() (string, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String(), s.news
}

// process is a hub that runs inside the test.
type process struct {
	t        *testing.T
	dir      string
	out, err *screen
	cancel   context.CancelFunc
	code     chan int
}

// environment makes a world's env from pairs.
func environment(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

// start runs hub serve and waits until it has said where it is.
func start(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	p := launch(t, dir, args...)
	p.until(p.out, "data   ")
	return p
}

// launch runs hub serve.
func launch(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{t: t, dir: dir, out: newScreen(), err: newScreen(), cancel: cancel, code: make(chan int, 1)}
	args = append([]string{"serve", "--data", dir, "--http", "127.0.0.1:0", "--mqtt", "off", "--mqtts", "off"}, args...)
	go func() { p.code <- run(ctx, args, world{environment(), strings.NewReader(""), p.out, p.err}) }()
	t.Cleanup(func() { p.stop() })
	return p
}

// until waits until a screen shows the text.
func (p *process) until(s *screen, text string) string {
	p.t.Helper()
	timeout := time.After(patience)
	for {
		shown, news := s.now()
		if strings.Contains(shown, text) {
			return shown
		}
		select {
		case <-news:
		case code := <-p.code:
			p.code <- code
			p.t.Fatalf("the hub ended with %d before it said %q:\n%s%s", code, text, p.out, p.err)
		case <-timeout:
			p.t.Fatalf("the hub did not say %q:\n%s%s", text, p.out, p.err)
		}
	}
}

// stop stops the hub in order and returns its exit code.
func (p *process) stop() int {
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	p.cancel()
	code := <-p.code
	p.code <- code
	return code
}

var urls = regexp.MustCompile(`https?://[^\s#/]+`)

// url returns the first address that the hub has said.
func (p *process) url() string { return urls.FindString(p.out.String()) }

// hub runs a client command and returns what it prints.
func (p *process) hub(code int, args ...string) string {
	p.t.Helper()
	return command(p.t, code, world{env: environment("HUB_DATA", p.dir), in: strings.NewReader("")}, args...)
}

// command runs a command, checks its exit code, and returns what it prints as results and errors.
func command(t *testing.T, code int, w world, args ...string) string {
	t.Helper()
	out, errs := newScreen(), newScreen()
	w.out, w.err = out, errs
	if got := run(t.Context(), args, w); got != code {
		t.Fatalf("hub %s ended with %d, want %d:\n%s%s", strings.Join(args, " "), got, code, out, errs)
	}
	return out.String() + errs.String()
}

// json runs a client command and returns its result decoded.
func (p *process) json(args ...string) map[string]any {
	p.t.Helper()
	text := p.hub(0, append(args, "--output", "json")...)
	var v map[string]any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		p.t.Fatalf("hub %s prints %s: %v", strings.Join(args, " "), text, err)
	}
	return v
}

// ask sends a request to the hub and returns status and body.
func (p *process) ask(method, path, token, body string) (int, string) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, p.url()+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, string(text)
}
