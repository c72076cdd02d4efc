package cmd_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"telemetryhub/storage/storagetest/lossyfs"
)

// lossyVar asks this program to be the server of a lossy disk, and says where to mount it.
const lossyVar = "LOSSYFS_MOUNT"

// TestLossyDiskServer is the other process of lossyDisk, and no test.
func TestLossyDiskServer(t *testing.T) {
	dir := os.Getenv(lossyVar)
	if dir == "" {
		return
	}
	if err := lossyfs.Serve(dir, os.Stdin, os.NewFile(3, "replies")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// lossyDisk is a file system in another process that can lose what was not synced, and fail when it is told to.
type lossyDisk struct {
	t      *testing.T
	dir    string
	orders *json.Encoder
	reply  *json.Decoder
}

// newLossyDisk mounts an empty disk until the test ends. Whoever uses it must have ended before: begin with the disk.
func newLossyDisk(t *testing.T) *lossyDisk {
	t.Helper()
	needRoot(t, "mount a file system of its own")
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("this test needs FUSE: %v", err)
	}
	d := &lossyDisk{t: t, dir: filepath.Join(t.TempDir(), "disk")}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestLossyDiskServer$")
	cmd.Env = append(os.Environ(), lossyVar+"="+d.dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, child, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{child}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // which tells it to unmount and end
		if err := cmd.Wait(); err != nil {
			t.Errorf("the lossy disk: %v", err)
		}
		_ = out.Close() // only read
	})
	_ = child.Close() // the process has its own
	d.orders, d.reply = json.NewEncoder(in), json.NewDecoder(out)
	d.answer("mount")
	return d
}

func (d *lossyDisk) answer(what string) (r lossyfs.Reply) {
	d.t.Helper()
	if err := d.reply.Decode(&r); err != nil && err != io.EOF {
		d.t.Fatalf("lossy disk: %s: %v", what, err)
	} else if err != nil || r.Err != "" {
		d.t.Fatalf("lossy disk: %s: %v %s", what, err, r.Err)
	}
	return r
}

// do gives an order and waits for the reply.
func (d *lossyDisk) do(o lossyfs.Order) lossyfs.Reply {
	d.t.Helper()
	if err := d.orders.Encode(o); err != nil {
		d.t.Fatal(err)
	}
	return d.answer(o.Do)
}

func (d *lossyDisk) fail(f lossyfs.Fault) {
	d.t.Helper()
	d.do(lossyfs.Order{Do: "fail", Fault: &f})
}

// needRoot skips a test that this user cannot run.
func needRoot(t *testing.T, what string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skipf("only root may %s: run this test as root, as the gate does", what)
	}
}
