package ws_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// loadEnv makes the test binary a load generator: a process of its own, so that the CPU time of the server is only that.
const loadEnv = "HUB_WS_LOAD"

// load drives addr from another process. It returns when conns connections are open.
type load struct {
	tb  testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startLoad(tb testing.TB, addr string, conns int) *load {
	tb.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", loadEnv, addr, conns))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	l := &load{tb, cmd, in, bufio.NewReader(out)}
	l.wait("open")
	return l
}

func (l *load) wait(word string) {
	l.tb.Helper()
	if line, err := l.out.ReadString('\n'); err != nil || strings.TrimSpace(line) != word {
		l.tb.Fatalf("the load generator says %q (%v), want %q", line, err, word)
	}
}

// send makes every connection send frames, window at a time, and returns when all are acknowledged.
func (l *load) send(frames, window int) {
	l.tb.Helper()
	if _, err := fmt.Fprintf(l.in, "%d %d\n", frames, window); err != nil {
		l.tb.Fatal(err)
	}
	l.wait("done")
}

// stop closes the connections.
func (l *load) stop() {
	l.tb.Helper()
	if err := l.in.Close(); err != nil {
		l.tb.Error(err)
	}
	if err := l.cmd.Wait(); err != nil {
		l.tb.Error(err)
	}
}

// generate is the load generator.
func generate(args string) error {
	addr, count, _ := strings.Cut(args, " ")
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	conns := make([]*loader, n)
	for i := range conns {
		if conns[i], err = newLoader(addr, i); err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
	}
	fmt.Println("open")
	for {
		var frames, window int
		if _, err := fmt.Scanln(&frames, &window); err != nil {
			return nil // the test has closed our input
		}
		var all sync.WaitGroup
		errs := make(chan error, n)
		for _, c := range conns {
			all.Go(func() {
				if err := c.run(frames, window); err != nil {
					errs <- err
				}
			})
		}
		all.Wait()
		select {
		case err := <-errs:
			return err
		default:
			fmt.Println("done")
		}
	}
}

// loader is one connection of the generator. It sends frames of about the size of ten readings.
type loader struct {
	conn   net.Conn
	r      *bufio.Reader
	sent   uint64
	frames []byte
}

const loadFrame = 110

func newLoader(addr string, i int) (*loader, error) {
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, request(fmt.Sprintf("dev:d%d", i))); err != nil {
		return nil, err
	}
	l := &loader{conn: conn, r: bufio.NewReaderSize(conn, 1024)}
	for {
		line, err := l.r.ReadString('\n')
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(line, "HTTP/1.1 ") && !strings.HasPrefix(line, "HTTP/1.1 101 ") {
			return nil, fmt.Errorf("refused: %s", line)
		}
		if line == "\r\n" {
			return l, nil
		}
	}
}

// run sends frames, window in one write, and waits for the ack of the last of each window.
func (l *loader) run(frames, window int) error {
	body := strings.Repeat("r", loadFrame)
	for frames > 0 {
		n := min(window, frames)
		l.frames = l.frames[:0]
		for range n {
			l.frames = append(l.frames, masked(fin|opBinary, body)...)
		}
		if _, err := l.conn.Write(l.frames); err != nil {
			return err
		}
		frames -= n
		l.sent += uint64(n)
		for acked := uint64(0); acked < l.sent; {
			head, err := l.r.Peek(2)
			if err != nil {
				return err
			}
			size := 2 + int(head[1])
			f, err := l.r.Peek(size)
			if err != nil {
				return err
			}
			if f[0] == fin|opBinary {
				acked = binary.BigEndian.Uint64(f[2:])
			}
			if _, err := l.r.Discard(size); err != nil {
				return err
			}
		}
	}
	return nil
}
