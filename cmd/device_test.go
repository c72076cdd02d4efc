package cmd_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pi is a simulated Raspberry Pi: a board in one process, and the device program, unmodified, in another.
type pi struct {
	t   *testing.T
	dir string
	out *bytes.Buffer

	board, device *exec.Cmd
}

// newPi starts a device that enrols by itself and reads its sensor every 100 ms.
func newPi(t *testing.T, s *server, id string) *pi {
	t.Helper()
	p := &pi{t: t, dir: t.TempDir(), out: new(bytes.Buffer)}
	var enrolment struct{ Token string }
	s.run(&enrolment, "enrol", "create", "--uses", "1")
	p.write("enrolment", enrolment.Token)
	p.write("device.yaml", fmt.Sprintf(`hub: http://%s
device: %s
data: data
enrolment-file: enrolment
spool: {sync: 100ms}
sensors:
  - {chip: bme280, bus: I2C1, every: 100ms}
`, s.addr, id))
	p.startBoard()
	p.startDevice()
	t.Cleanup(func() {
		p.end(p.device, syscall.SIGKILL)
		p.end(p.board, syscall.SIGKILL)
		if t.Failed() {
			t.Logf("the device said:\n%s", tail(p.out.String(), 3000))
		}
	})
	return p
}

func (p *pi) write(name, text string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pi) socket() string { return filepath.Join(p.dir, "board.sock") }

func (p *pi) startBoard() {
	p.t.Helper()
	p.board = exec.Command(program(p.t, "firmware-sim"), "board", "--socket", p.socket())
	if err := p.board.Start(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pi) startDevice() {
	p.t.Helper()
	p.device = exec.Command(program(p.t, "device"), "run", "--config", filepath.Join(p.dir, "device.yaml"))
	p.device.Env = append(os.Environ(), "PERIPH_SIM="+p.socket())
	p.device.Stdout, p.device.Stderr = p.out, p.out
	if err := p.device.Start(); err != nil {
		p.t.Fatal(err)
	}
}

// end ends a process and returns how it ended.
func (p *pi) end(c *exec.Cmd, sig syscall.Signal) error {
	_ = c.Process.Signal(sig) // it may have ended
	return c.Wait()
}

// shown is what the hub says of a device.
type shown struct {
	Presence string
	Events   []struct{ Code, Text string }
}

func (s *server) device(token, id string) (d shown) {
	s.t.Helper()
	a := s.ask(http.MethodGet, "/api/v1/devices/"+id, token, "")
	if a.code == http.StatusNotFound {
		return d // it has not enrolled yet
	}
	if err := json.Unmarshal([]byte(a.text), &d); err != nil {
		s.t.Fatalf("%v: %+v", err, a)
	}
	return d
}

// TestSimulatedPiIsReadByTheRealAgent runs all of it: chip, driver, schedule, spool, socket, log, history. The hub, the device and
// the board are killed in turn; what the hub then has is without a hole that nobody explains.
func TestSimulatedPiIsReadByTheRealAgent(t *testing.T) {
	s := newServer(t)
	viewer := s.token("viewer")
	p := newPi(t, s, "pi-1")
	points := func() int { return len(s.points(viewer, "pi-1", "temperature").Points) }
	grow := func(what string) {
		t.Helper()
		n := points()
		until(t, what, func() bool { return points() > n+5 })
	}
	until(t, "the first readings arrive", func() bool { return s.device(viewer, "pi-1").Presence == "live" && points() > 5 })

	s.kill()
	s.start()
	grow("it goes on after the hub was killed")

	_ = p.end(p.device, syscall.SIGKILL) // killed
	p.startDevice()
	grow("it goes on after the device was killed, with the token that it has")

	_ = p.end(p.board, syscall.SIGKILL) // killed
	until(t, "the hub shows that the sensor failed", func() bool {
		e := s.device(viewer, "pi-1").Events
		return len(e) > 0 && e[len(e)-1].Code == "sensor_fault" && strings.Contains(e[len(e)-1].Text, "bme280@I2C1/0x76")
	})
	p.startBoard()
	until(t, "the hub shows that the sensor works again", func() bool {
		e := s.device(viewer, "pi-1").Events
		return e[len(e)-1].Code == "sensor_ok"
	})
	grow("it goes on after the board came back")

	if err := p.end(p.device, syscall.SIGTERM); err != nil {
		t.Errorf("the device ended with %v", err)
	}
	got := s.points(viewer, "pi-1", "temperature")
	last := int64(0)
	for _, pt := range got.Points {
		at, err := pt[0].Int64()
		if err != nil {
			t.Fatal(err)
		}
		v, err := pt[1].Float64()
		if err != nil {
			t.Fatal(err)
		}
		if at <= last || v < 5 || v > 35 {
			t.Fatalf("%v degrees at %d, after %d", v, at, last)
		}
		last = at
	}
	p.startDevice() // for the clean-up
}

// TestDeviceThatTheHubRefusesEndsWithItsOwnExitCode: a service manager must not start it for ever.
func TestDeviceThatTheHubRefusesEndsWithItsOwnExitCode(t *testing.T) {
	s := newServer(t)
	viewer := s.token("viewer")
	p := newPi(t, s, "pi-1")
	until(t, "it is live", func() bool { return s.device(viewer, "pi-1").Presence == "live" })
	var tokens struct {
		Tokens []struct{ ID, Device string }
	}
	s.run(&tokens, "token", "list")
	for _, tok := range tokens.Tokens {
		if tok.Device == "pi-1" {
			s.run(nil, "token", "revoke", tok.ID)
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- p.device.Wait() }()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the device did not end")
	}
	if code := p.device.ProcessState.ExitCode(); code != 5 {
		t.Errorf("exit code %d, want 5", code)
	}
	p.startDevice() // for the clean-up
}
