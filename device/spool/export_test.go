package spool

// What the tests need to put faults under a spool.
type (
	Filesystem = filesystem
	File       = file
)

// WithFS returns o on another filesystem.
func (o Options) WithFS(fs Filesystem) Options {
	o.fs = fs
	return o
}

// Folder is the real filesystem.
func Folder(dir string) Filesystem { return folder(dir) }
