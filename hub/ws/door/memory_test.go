package door_test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"telemetryhub/hub/ws/door"
)

// visitorsEnv makes the test binary a crowd of clients: a process of its own, so that only the memory of the door is seen.
const visitorsEnv = "HUB_DOOR_VISITORS"

// crowd is what the clients do: connect, say something, and wait until their input ends.
type crowd struct {
	Addr  string
	Count int
	TLS   bool
	Say   []byte
	// More is said in one write, of which all but the last byte gets through: the end of a TLS record is missing.
	More []byte
}

// cutter loses the last byte of what is written.
type cutter struct {
	net.Conn
	cut bool
}

func (c *cutter) Write(p []byte) (int, error) {
	if !c.cut {
		return c.Conn.Write(p)
	}
	n, err := c.Conn.Write(p[:len(p)-1])
	return n + 1, err
}

func (c crowd) run() error {
	for i := range c.Count {
		conn, err := net.Dial("tcp", c.Addr)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		below := &cutter{Conn: conn}
		if conn = below; c.TLS {
			conn = tls.Client(below, &tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true})
		}
		if _, err := conn.Write(c.Say); err != nil {
			return fmt.Errorf("client %d: %w", i, err)
		}
		if below.cut = len(c.More) > 0; below.cut {
			if _, err := conn.Write(c.More); err != nil {
				return fmt.Errorf("client %d: %w", i, err)
			}
		}
	}
	fmt.Println("here")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// start begins the crowd. stop ends it.
func (c crowd) start(t *testing.T) (stop func()) {
	t.Helper()
	args, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), visitorsEnv+"="+string(args))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "here\n" {
		t.Fatalf("the crowd says %q, %v", line, err)
	}
	return func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// memory returns what the heap and the stacks hold.
func memory() int64 {
	runtime.GC()
	runtime.GC() // what pools hold goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

func TestStrangerCostsWhatThePackagePromises(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes memory of its own")
	}
	var large, small []string
	for i := range 60 {
		large = append(large, fmt.Sprintf("F%d:%s", i, strings.Repeat("x", 93)))
		small = append(small, fmt.Sprintf("%c%c:x", 'A'+i%26, 'A'+i/26))
	}
	head := func(fields []string) string {
		return strings.Replace(get("/read", append([]string{"Content-Length:9"}, fields...)...), "GET", "POST", 1)
	}
	if n := len(head(large)); n < 5900 || n > 6<<10 {
		t.Fatalf("the large head has %d bytes, which is not just below the limit", n)
	}
	for name, c := range map[string]crowd{
		"silent":                                {},
		"head not ended":                        {Say: []byte(head(large)[:5900])},
		"small fields, body never sent":         {Say: []byte(head(small))},
		"large fields, body never sent":         {Say: []byte(head(large))},
		"silent for TLS":                        {},
		"half a TLS hello":                      {Say: []byte(clientHello(t)[:200])},
		"long TLS hello":                        {Say: []byte("\x16\x03\x01\x40\x00\x01\x00\xff\xff" + strings.Repeat("x", 16000))},
		"TLS, little said":                      {TLS: true, Say: []byte("G")},
		"TLS, head not ended":                   {TLS: true, Say: []byte(head(large)[:5900])},
		"TLS, small fields, body never sent":    {TLS: true, Say: []byte(head(small))},
		"TLS, large fields, body never sent":    {TLS: true, Say: []byte(head(large))},
		"TLS, large fields, record not ended":   {TLS: true, Say: []byte(head(large)), More: make([]byte, 16<<10)},
		"TLS, head not ended, record not ended": {TLS: true, Say: []byte(head(large)[:5900]), More: make([]byte, 16<<10)},
	} {
		t.Run(name, func(t *testing.T) {
			c.Count = 400
			o := door.Options{MaxStrangers: c.Count}
			if strings.Contains(name, "TLS") {
				o = withTLS(o)
			}
			h := open(t, o)
			c.Addr = h.addr
			before := memory()
			defer c.start(t)()
			eventually(t, "all are in", func() bool { return h.Metrics.Strangers.Load() == int64(c.Count) })
			<-time.After(50 * time.Millisecond) // what they said is on its way
			cost := (memory() - before) / int64(c.Count)
			t.Logf("%d bytes", cost)
			limit := int64(32 << 10)
			if o.TLS != nil {
				limit = 64 << 10
			}
			if cost > limit {
				t.Errorf("a stranger costs %d bytes, want at most %d", cost, limit)
			}
		})
	}
}
