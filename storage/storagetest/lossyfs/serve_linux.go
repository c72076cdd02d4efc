package lossyfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Order is what Serve is told to do, one JSON document a line.
type Order struct {
	// Do is "fail after", "state", "restore", "fail", "heal" or "forget".
	Do string `json:"do"`
	// Changes is for "fail after".
	Changes int64 `json:"changes,omitempty"`
	// Mode and Seed are for "restore": after the power has come back the disk is mounted anew.
	Mode Mode   `json:"mode,omitempty"`
	Seed uint64 `json:"seed,omitempty"`
	// Fault is for "fail".
	Fault *Fault `json:"fault,omitempty"`
}

// Reply answers an Order.
type Reply struct {
	Err string `json:"err,omitempty"`
	// Dead says that the power has failed, Hits how many operations failed because of faults, Pending how many changes a
	// power cut found that were not durable.
	Dead    bool `json:"dead,omitempty"`
	Hits    int  `json:"hits,omitempty"`
	Pending int  `json:"pending,omitempty"`
}

// Serve mounts an empty disk at dir, which must be an empty folder, answers orders until in ends, and unmounts. It needs the
// rights to mount. It writes one Reply when it is ready.
func Serve(dir string, in io.Reader, out io.Writer) error {
	m := &mount{dir: dir, disk: New()}
	if err := m.mount(); err != nil {
		return err
	}
	orders, replies := json.NewDecoder(in), json.NewEncoder(out)
	err := replies.Encode(Reply{})
	for err == nil {
		var o Order
		if err = orders.Decode(&o); err != nil {
			break
		}
		r, oerr := m.obey(o)
		if oerr != nil {
			r.Err = oerr.Error()
		}
		err = replies.Encode(r)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, m.unmount())
}

// mount is a disk and the server that the kernel talks to.
type mount struct {
	dir    string
	disk   *Disk
	server *fuse.Server
	served chan struct{}
}

func (m *mount) mount() error {
	server, err := fuse.NewServer(&rawFS{fuse.NewDefaultRawFileSystem(), m.disk}, m.dir, &fuse.MountOptions{
		Name: "lossyfs", FsName: "lossyfs", DirectMountStrict: true, DisableXAttrs: true, DisableReadDirPlus: true,
		ExplicitDataCacheControl: true, MaxWrite: 1 << 20,
	})
	if err != nil {
		return fmt.Errorf("mount %s: %w", m.dir, err)
	}
	m.server, m.served = server, make(chan struct{})
	go func() {
		defer close(m.served)
		server.Serve()
	}()
	return server.WaitMount()
}

// unmount takes the folder away from whoever still uses it.
func (m *mount) unmount() error {
	if err := unix.Unmount(m.dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", m.dir, err)
	}
	return nil
}

func (m *mount) obey(o Order) (r Reply, err error) {
	switch o.Do {
	case "fail after":
		m.disk.FailAfter(o.Changes)
	case "state":
	case "restore":
		if err := m.unmount(); err != nil {
			return r, err
		}
		<-m.served // the users of the disk have ended, so the kernel lets go of it
		if r.Pending, err = m.disk.Cut(o.Mode, rand.New(rand.NewPCG(o.Seed, 11))); err != nil {
			return r, err
		}
		err = m.mount()
	case "fail":
		if o.Fault == nil {
			return r, errors.New("no fault")
		}
		err = m.disk.Fail(*o.Fault)
	case "heal":
		r.Hits = m.disk.Heal()
	case "forget":
		err = m.forget()
	default:
		err = fmt.Errorf("no such order: %q", o.Do)
	}
	r.Dead = m.disk.Dead()
	if o.Do != "heal" {
		r.Hits = m.disk.Hits()
	}
	return r, err
}

// forget empties the kernel's cache, so that everything is read from the disk again, also through maps.
func (m *mount) forget() error {
	for _, id := range m.disk.files() {
		if s := m.server.InodeNotify(id, 0, 0); s != fuse.OK && s != fuse.Status(syscall.ENOENT) {
			return fmt.Errorf("forget node %d: %v", id, s)
		}
	}
	return nil
}
