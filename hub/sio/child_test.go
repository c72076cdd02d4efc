package sio_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/hub/access"
	"telemetryhub/hub/sio"
	"telemetryhub/hub/sio/eio"
	"telemetryhub/hub/sio/socket"
	"telemetryhub/hub/ws/door"
	"telemetryhub/storage/bolt"
)

// hubEnv makes the test binary a hub on a folder and an address, so that it can be killed.
const hubEnv = "HUB_SIO_HUB"

// runHub is that hub, behind the door that all connections come through: /socket.io/ is the feed, /echo/ a server that sends everything back, and what is posted to
// /ingest/<device> is a reading. /drop breaks the connections of viewers. It ends only by being killed, or when nobody reads what it says any more.
func runHub(args string) (err error) {
	dir, addr, _ := strings.Cut(args, " ")
	catalog, err := bolt.OpenCatalog(filepath.Join(dir, "catalog.bolt"), bolt.CatalogOptions{})
	if err != nil {
		return err
	}
	chunks, err := bolt.OpenChunks(filepath.Join(dir, "history"), bolt.ChunksOptions{})
	if err != nil {
		return err
	}
	log, err := bolt.OpenLog(filepath.Join(dir, "log"), bolt.LogOptions{MaxBytes: 1 << 30})
	if err != nil {
		return err
	}
	ctx := context.Background()
	core, err := hub.Open(ctx, hub.Stores{Log: log, Chunks: chunks, Catalog: catalog}, hub.Options{})
	if err != nil {
		return err
	}
	auth := newFakeAuth()
	options := sio.Options{Socket: socket.Options{Engine: eio.Options{Admit: door.Admit}}}
	feed, err := sio.New(core.Subscribe, auth, options)
	if err != nil {
		return err
	}
	echo, err := socket.New(map[string]socket.Handler{"/": {Event: echoEvent}}, socket.Options{})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/socket.io/", feed)
	mux.Handle("/echo/", echo)
	mux.HandleFunc("POST /drop", func(http.ResponseWriter, *http.Request) { auth.tell("viewer", access.Changed) })
	mux.HandleFunc("POST /ingest/{device}", func(w http.ResponseWriter, r *http.Request) {
		id := device.ID(r.PathValue("device"))
		if _, err := core.Device(ctx, id); errors.Is(err, hub.ErrUnknownDevice) {
			if _, err := core.AddDevice(ctx, id, hub.DeviceAttrs{}); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
		body, err := io.ReadAll(r.Body)
		if err == nil {
			_, err = core.Ingest(ctx, id, wire.JSON, body)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	front, err := door.New(ln, door.Options{Timeout: time.Second})
	if err != nil {
		return err
	}
	failed := make(chan error, 4)
	go func() { failed <- core.Run(ctx) }()
	go func() { failed <- feed.Run(ctx) }()
	go func() { failed <- front.Server(mux).Serve(front) }()
	fmt.Println("ready", ln.Addr())
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin) // ends with the parent
		failed <- err
	}()
	return <-failed
}

func echoEvent(s *socket.Socket, e *socket.Event) {
	switch {
	case e.Name == "ask":
		if err := s.Ask("question", e.Message, 5*time.Second, func(m socket.Message, err error) {
			if err == nil {
				s.Emit("answer", m)
			}
		}); err != nil {
			s.Close(1011, err.Error())
		}
	case e.Name == "drop":
		s.Close(4010, "told to")
	case e.Wanted():
		e.Ack(e.Message)
	default:
		s.Emit(e.Name, e.Message)
	}
}

// child is a hub in a process of its own.
type child struct {
	t    *testing.T
	dir  string
	addr string
	cmd  *exec.Cmd
	in   io.Closer
}

func startHub(t *testing.T) *child {
	t.Helper()
	c := &child{t: t, dir: t.TempDir(), addr: "127.0.0.1:0"}
	if err := c.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	return c
}

func (c *child) start() error {
	c.cmd = exec.Command(os.Args[0], "-test.run=^$")
	c.cmd.Env = append(os.Environ(), hubEnv+"="+c.dir+" "+c.addr)
	c.cmd.Stderr = os.Stderr
	in, err := c.cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.cmd.Start(); err != nil {
		return err
	}
	c.in = in
	line, err := bufio.NewReader(out).ReadString('\n')
	addr, ready := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	if !ready {
		return fmt.Errorf("the hub says %q, %v", line, err)
	}
	c.addr = addr
	return nil
}

// kill ends the hub as a power cut would.
func (c *child) kill() {
	_ = c.cmd.Process.Signal(syscall.SIGKILL) // it may be gone already
	_ = c.cmd.Wait()                          // which says that it was killed
	_ = c.in.Close()
}
