package lossyfs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// forever is how long the kernel may believe what it was told: nobody else changes the disk.
const forever = 1 << 30 // seconds

// rawFS answers the kernel. It stands on a Disk and keeps nothing itself.
type rawFS struct {
	fuse.RawFileSystem
	disk *Disk
}

// String implements fuse.RawFileSystem.
func (*rawFS) String() string { return "lossyfs" }

func attr(e entry) fuse.Attr {
	return fuse.Attr{
		Ino: e.id, Size: uint64(e.size), Blocks: uint64((e.size + 511) / 512), Mode: e.mode, Nlink: e.links, Blksize: blockSize,
	}
}

func answer(out *fuse.EntryOut, e entry, errno syscall.Errno) fuse.Status {
	if errno == 0 {
		out.NodeId, out.Generation, out.EntryValid, out.AttrValid, out.Attr = e.id, 1, forever, forever, attr(e)
	}
	return fuse.Status(errno)
}

// Lookup implements fuse.RawFileSystem.
func (f *rawFS) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	e, errno := f.disk.lookup(h.NodeId, name)
	return answer(out, e, errno)
}

// GetAttr implements fuse.RawFileSystem.
func (f *rawFS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	return f.attributes(in.NodeId, out)
}

func (f *rawFS) attributes(id uint64, out *fuse.AttrOut) fuse.Status {
	e, errno := f.disk.stat(id)
	out.AttrValid, out.Attr = forever, attr(e)
	return fuse.Status(errno)
}

// SetAttr implements fuse.RawFileSystem.
func (f *rawFS) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if size, ok := in.GetSize(); ok {
		if errno := f.disk.truncate(in.NodeId, int64(size)); errno != 0 {
			return fuse.Status(errno)
		}
	}
	if mode, ok := in.GetMode(); ok {
		if errno := f.disk.chmod(in.NodeId, mode); errno != 0 {
			return fuse.Status(errno)
		}
	}
	return f.attributes(in.NodeId, out)
}

// Mknod implements fuse.RawFileSystem. Sockets are made so.
func (f *rawFS) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	e, errno := f.disk.create(in.NodeId, name, in.Mode)
	return answer(out, e, errno)
}

// Mkdir implements fuse.RawFileSystem.
func (f *rawFS) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	e, errno := f.disk.create(in.NodeId, name, syscall.S_IFDIR|in.Mode&0o7777)
	return answer(out, e, errno)
}

// Unlink implements fuse.RawFileSystem.
func (f *rawFS) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return fuse.Status(f.disk.remove(h.NodeId, name, false))
}

// Rmdir implements fuse.RawFileSystem.
func (f *rawFS) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	return fuse.Status(f.disk.remove(h.NodeId, name, true))
}

// Rename implements fuse.RawFileSystem.
func (f *rawFS) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	if in.Flags&^unix.RENAME_NOREPLACE != 0 {
		return fuse.EINVAL
	}
	return fuse.Status(f.disk.rename(in.NodeId, from, in.Newdir, to, in.Flags != 0))
}

// Link implements fuse.RawFileSystem.
func (f *rawFS) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	e, errno := f.disk.link(in.Oldnodeid, in.NodeId, name)
	return answer(out, e, errno)
}

// Access implements fuse.RawFileSystem.
func (f *rawFS) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.OK }

// Create implements fuse.RawFileSystem.
func (f *rawFS) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	e, errno := f.disk.create(in.NodeId, name, syscall.S_IFREG|in.Mode&0o7777)
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return answer(&out.EntryOut, e, errno)
}

// Open implements fuse.RawFileSystem. The cache of the kernel outlives a file that is closed, as with a real disk.
func (f *rawFS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

// Read implements fuse.RawFileSystem.
func (f *rawFS) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n, errno := f.disk.read(in.NodeId, int64(in.Offset), buf)
	return fuse.ReadResultData(buf[:n]), fuse.Status(errno)
}

// Write implements fuse.RawFileSystem.
func (f *rawFS) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	errno := f.disk.write(in.NodeId, int64(in.Offset), data)
	return uint32(len(data)), fuse.Status(errno)
}

// Flush implements fuse.RawFileSystem. Closing a file makes nothing durable.
func (f *rawFS) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

// Fsync implements fuse.RawFileSystem.
func (f *rawFS) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return fuse.Status(f.disk.sync(in.NodeId))
}

// FsyncDir implements fuse.RawFileSystem.
func (f *rawFS) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return fuse.Status(f.disk.sync(in.NodeId))
}

// OpenDir implements fuse.RawFileSystem.
func (f *rawFS) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status { return fuse.OK }

// ReadDir implements fuse.RawFileSystem.
func (f *rawFS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	names, entries, errno := f.disk.list(in.NodeId)
	for i := int(in.Offset); i < len(names); i++ {
		if !out.AddDirEntry(fuse.DirEntry{Name: names[i], Ino: entries[i].id, Mode: entries[i].mode, Off: uint64(i + 1)}) {
			break
		}
	}
	return fuse.Status(errno)
}

// StatFs implements fuse.RawFileSystem. The disk is large.
func (f *rawFS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	const total = 1 << 40 / blockSize
	out.Blocks, out.Bfree, out.Bavail, out.Bsize, out.Frsize, out.NameLen = total, total, total, blockSize, blockSize, 255
	return fuse.OK
}
