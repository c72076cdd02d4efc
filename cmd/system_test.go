package cmd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// programs builds the programs once for all tests of this package and returns their folder.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "telemetryhub-bin-")
	if err != nil {
		return "", err
	}
	for _, name := range []string{"hub", "device", "firmware-sim"} {
		build := exec.Command("go", "build", "-o", filepath.Join(dir, name), "telemetryhub/cmd/"+name)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := programs(); err == nil {
		_ = os.RemoveAll(dir) // a temporary folder
	}
	os.Exit(code)
}

func program(t *testing.T, name string) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// server is a hub in a process of its own, on a data folder and an address that survive its restarts.
type server struct {
	t    *testing.T
	dir  string
	addr string
	args []string
	wrap []string // a program to run the hub under, such as strace

	cmd  *exec.Cmd
	out  *bytes.Buffer
	done chan struct{}
	err  error // of the process, once done is closed
}

// newServer starts a hub on an empty folder and stops it when the test ends.
func newServer(t *testing.T, args ...string) *server {
	t.Helper()
	s := &server{t: t, dir: filepath.Join(t.TempDir(), "data"), addr: freeAddress(t), args: args}
	s.start()
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("the hub said:\n%s", tail(s.out.String(), 6000))
		}
	})
	return s
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// freeAddress returns a loopback address that is the test's until it ends, also while its server is down: somebody else on this
// machine would soon have the port, as one to listen on or as one to call from. A socket that is bound and never listens keeps
// it; those that listen share it, since they all set SO_REUSEADDR (socket(7)).
func freeAddress(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) }) // nothing was ever sent
	err = errors.Join(syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1), syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	if err != nil {
		t.Fatal(err)
	}
	own, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", own.(*syscall.SockaddrInet4).Port)
}

// launch starts the process without waiting for it to be ready.
func (s *server) launch() {
	s.t.Helper()
	args := append(append(append([]string{}, s.wrap...), program(s.t, "hub"), "serve", "--data", s.dir, "--http", s.addr, "--mqtt", "off"), s.args...)
	s.cmd = exec.Command(args[0], args[1:]...)
	if s.out == nil {
		s.out = new(bytes.Buffer)
	}
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	cmd, done := s.cmd, make(chan struct{})
	s.done = done
	go func() {
		s.err = cmd.Wait()
		close(done)
	}()
}

// start starts the process and returns when it is ready.
func (s *server) start() {
	s.t.Helper()
	s.launch()
	s.ready(patience)
}

func (s *server) ready(within time.Duration) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	retry := time.NewTicker(5 * time.Millisecond)
	defer retry.Stop()
	for {
		resp, err := http.Get("http://" + s.addr + "/readyz")
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body) // only the status counts
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-s.done:
			s.t.Fatalf("the hub ended instead of starting: %v\n%s", s.err, tail(s.out.String(), 4000))
		case <-ctx.Done():
			s.t.Fatalf("the hub was not ready in %v (%v)\n%s", within, err, tail(s.out.String(), 4000))
		case <-retry.C:
		}
	}
}

// kill ends the process as a power cut would: at once.
func (s *server) kill() {
	if s.cmd.Process != nil {
		_ = s.cmd.Process.Signal(syscall.SIGKILL) // it may have ended already
		<-s.done
	}
}

// stop ends the process as an operator would.
func (s *server) stop() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-s.done:
	case <-time.After(patience):
		s.t.Fatalf("the hub did not stop in %v\n%s", patience, tail(s.out.String(), 4000))
	}
	if s.err != nil {
		s.t.Fatalf("the hub stopped with %v\n%s", s.err, tail(s.out.String(), 4000))
	}
}

// run runs a command of the hub's command line on its data folder and decodes its JSON output.
func (s *server) run(into any, args ...string) {
	s.t.Helper()
	cmd := exec.Command(program(s.t, "hub"), append(args, "--data", s.dir, "--output", "json")...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("hub %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	if into != nil {
		if err := json.Unmarshal(out, into); err != nil {
			s.t.Fatalf("hub %s: %v in %s", strings.Join(args, " "), err, out)
		}
	}
}

// add adds a device and returns its token.
func (s *server) add(id string) string {
	s.t.Helper()
	var answer struct{ Token string }
	s.run(&answer, "device", "add", id)
	if answer.Token == "" {
		s.t.Fatalf("no token for %s", id)
	}
	return answer.Token
}

// token makes an API token.
func (s *server) token(role string) string {
	s.t.Helper()
	var answer struct{ Token string }
	s.run(&answer, "token", "create", "--role", role)
	return answer.Token
}

// get asks the API and returns the open answer, which must have status 200. It asks again if the hub says that it is behind, as
// one may be for a while on a busy machine.
func (s *server) get(token, path string) io.ReadCloser {
	s.t.Helper()
	for began := time.Now(); ; <-time.After(100 * time.Millisecond) {
		req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+s.addr+path, nil)
		if err != nil {
			s.t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			s.t.Fatal(err)
		}
		if resp.StatusCode == http.StatusOK {
			return resp.Body
		}
		body, _ := io.ReadAll(resp.Body) // for the message only
		resp.Body.Close()
		if resp.StatusCode != http.StatusServiceUnavailable || !bytes.Contains(body, []byte("behind")) || time.Since(began) > patience {
			s.t.Fatalf("GET %s: %s\n%s", path, resp.Status, body)
		}
	}
}
