package bolt_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// diskOp is one thing that a process asked the disk to do, as strace saw it.
type diskOp struct {
	call string // write, truncate, sync, create, rename, link, unlink, say
	ino  int    // of the file; -1 for folders
	path string
	to   string
	off  int64
	data []byte
}

// trace runs this test binary as a child under strace and returns what it did to the folder and what it said on its
// standard output.
func trace(t *testing.T, dir, child string) []diskOp {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("power cuts are replayed from a trace: install strace")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "trace")
	cmd := exec.CommandContext(t.Context(), strace, "-f", "-xx", "-s", "1000000", "-o", out, "-e", "signal=none", "-e",
		"trace=openat,pwrite64,write,fsync,fdatasync,fallocate,ftruncate,truncate,renameat,renameat2,linkat,unlinkat", exe)
	cmd.Env = append(os.Environ(), childVar+"="+child, "CHILD_DIR="+dir, "GOMAXPROCS=1")
	if b, err := cmd.CombinedOutput(); err != nil {
		if strings.Contains(string(b), "PTRACE") || strings.Contains(string(b), "ptrace") {
			t.Skipf("power cuts are replayed from a trace, but strace may not trace here: %s", b)
		}
		t.Fatalf("child: %v\n%s", err, b)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() // only read
	p := traceParser{dir: dir, fds: make(map[int]int), names: make(map[string]int), open: make(map[string]string)}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		p.line(lines.Text())
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return p.ops
}

// traceParser turns lines of strace into operations on the files under a folder.
type traceParser struct {
	dir   string
	ops   []diskOp
	fds   map[int]int       // descriptor to file number
	names map[string]int    // path to file number
	open  map[string]string // by thread: a call that has begun and not ended
	next  int
}

var (
	traceLine    = regexp.MustCompile(`^(\d+) +(\w+)\((.*)\) += (-?\d+)`)
	traceBegun   = regexp.MustCompile(`^(\d+) +(.*) <unfinished \.\.\.>$`)
	traceResumed = regexp.MustCompile(`^(\d+) +<\.\.\. \w+ resumed>(.*)$`)
	traceString  = regexp.MustCompile(`"((?:\\x[0-9a-f]{2})*)"`)
)

func (p *traceParser) line(s string) {
	if m := traceBegun.FindStringSubmatch(s); m != nil {
		p.open[m[1]] = m[2]
		return
	}
	if m := traceResumed.FindStringSubmatch(s); m != nil {
		s = m[1] + " " + p.open[m[1]] + m[2]
	}
	m := traceLine.FindStringSubmatch(s)
	if m == nil {
		return
	}
	ret, err := strconv.Atoi(m[4])
	if err != nil || ret < 0 {
		return
	}
	var texts []string
	rest := traceString.ReplaceAllStringFunc(m[3], func(q string) string {
		b, err := hex.DecodeString(strings.ReplaceAll(strings.Trim(q, `"`), `\x`, ""))
		if err != nil {
			panic(err)
		}
		texts = append(texts, string(b))
		return "$"
	})
	p.call(m[2], strings.Split(rest, ", "), texts, ret)
}

func (p *traceParser) call(name string, args, texts []string, ret int) {
	num := func(i int) int64 { n, _ := strconv.ParseInt(args[i], 0, 64); return n }
	ino, known := 0, false
	if n, err := strconv.Atoi(args[0]); err == nil {
		ino, known = p.fds[n]
	}
	switch {
	case name == "openat":
		p.opened(texts[0], strings.Contains(args[2], "O_CREAT"), ret)
	case name == "write" && args[0] == "1":
		p.add(diskOp{call: "say", data: []byte(texts[0])})
	case name == "truncate" && p.inside(texts[0]):
		p.add(diskOp{call: "truncate", ino: p.names[texts[0]], off: num(1)})
	case (name == "renameat" || name == "renameat2") && p.inside(texts[1]):
		p.add(diskOp{call: "rename", path: texts[0], to: texts[1]})
		p.names[texts[1]] = p.names[texts[0]]
		delete(p.names, texts[0])
	case name == "linkat" && p.inside(texts[1]):
		p.add(diskOp{call: "link", path: texts[0], to: texts[1]})
		p.names[texts[1]] = p.names[texts[0]]
	case name == "unlinkat" && p.inside(texts[0]):
		p.add(diskOp{call: "unlink", path: texts[0]})
		delete(p.names, texts[0])
	case !known:
	case name == "pwrite64":
		p.add(diskOp{call: "write", ino: ino, off: num(3), data: []byte(texts[0])})
	case name == "fallocate":
		p.add(diskOp{call: "truncate", ino: ino, off: num(3), to: "grow"})
	case name == "ftruncate":
		p.add(diskOp{call: "truncate", ino: ino, off: num(1)})
	case name == "fsync" || name == "fdatasync":
		p.add(diskOp{call: "sync", ino: ino})
	}
}

func (p *traceParser) add(o diskOp) { p.ops = append(p.ops, o) }

func (p *traceParser) inside(path string) bool { return strings.HasPrefix(path, p.dir+"/") }

func (p *traceParser) opened(path string, create bool, fd int) {
	delete(p.fds, fd)
	if path == p.dir {
		p.fds[fd] = -1
		return
	}
	if !p.inside(path) {
		return
	}
	ino, ok := p.names[path]
	if !ok && create {
		p.next++
		ino = p.next
		p.names[path] = ino
		p.add(diskOp{call: "create", ino: ino, path: path})
	}
	p.fds[fd] = ino
}

// disk is what a folder looks like to the process, and what of it would survive a power cut.
type disk struct {
	dir     string
	durable map[int][]byte   // contents of files after their last sync
	pending map[int][]diskOp // writes since
	names   map[string]int   // durable
	renamed []diskOp         // changes of names since the folder was synced
}

func newDisk(dir string) *disk {
	return &disk{dir: dir, durable: make(map[int][]byte), pending: make(map[int][]diskOp), names: make(map[string]int)}
}

// do runs an operation.
func (d *disk) do(o diskOp) {
	switch {
	case o.call == "say":
	case o.call == "sync" && o.ino == -1:
		for _, r := range d.renamed {
			applyName(d.names, r)
		}
		d.renamed = nil
	case o.call == "sync":
		for _, w := range d.pending[o.ino] {
			d.durable[o.ino] = applyWrite(d.durable[o.ino], w, 0, len(w.data))
		}
		d.pending[o.ino] = nil
	case o.path != "":
		d.renamed = append(d.renamed, o)
	default:
		d.pending[o.ino] = append(d.pending[o.ino], o)
	}
}

func applyName(names map[string]int, o diskOp) {
	switch o.call {
	case "create":
		names[o.path] = o.ino
	case "rename":
		names[o.to] = names[o.path]
		delete(names, o.path)
	case "link":
		names[o.to] = names[o.path]
	case "unlink":
		delete(names, o.path)
	}
}

// applyWrite puts bytes from to to of a write into the contents.
func applyWrite(b []byte, o diskOp, from, to int) []byte {
	if o.call == "truncate" {
		if n := int(o.off); n > len(b) {
			return append(b, make([]byte, n-len(b))...)
		} else if o.to != "grow" {
			return b[:n]
		}
		return b
	}
	if end := int(o.off) + to; end > len(b) {
		b = append(b, make([]byte, end-len(b))...)
	}
	copy(b[int(o.off)+from:], o.data[from:to])
	return b
}

// cut writes to a folder what a power cut might leave. Of what was not synced, mode "none" keeps nothing, "all" keeps
// everything, "some" keeps any of the writes, one of them torn between sectors, and the first few changes of names.
func (d *disk) cut(to, mode string, r *rand.Rand) error {
	names := make(map[string]int)
	for k, v := range d.names {
		names[k] = v
	}
	keep := 0
	switch mode {
	case "all":
		keep = len(d.renamed)
	case "some":
		keep = r.IntN(len(d.renamed) + 1)
	}
	for _, o := range d.renamed[:keep] {
		applyName(names, o)
	}
	for path, ino := range names {
		b := bytes.Clone(d.durable[ino])
		for _, w := range d.pending[ino] {
			from, end := 0, len(w.data)
			switch {
			case mode == "none", mode == "some" && r.IntN(2) == 0:
				continue
			case mode == "some" && r.IntN(4) == 0 && len(w.data) > 512:
				if at := r.IntN(len(w.data)/512) * 512; r.IntN(2) == 0 {
					from = at
				} else {
					end = at
				}
			}
			b = applyWrite(b, w, from, end)
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(path)), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// powerCuts calls check for folders as power cuts at chosen moments of a run leave them, with everything that the run
// had said on its standard output by then.
func powerCuts(t *testing.T, dir string, ops []diskOp, cuts int, check func(dir, said string) error) {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d, %d operations", seed, len(ops))
	r := rand.New(rand.NewPCG(seed, 5))
	chosen := r.Perm(len(ops) + 1)
	chosen = chosen[:min(cuts, len(chosen))]
	slices.Sort(chosen)
	root := fastDir(t)
	d := newDisk(dir)
	var said strings.Builder
	for n := 0; ; n++ {
		if _, found := slices.BinarySearch(chosen, n); found {
			for _, mode := range []string{"none", "all", "some", "some"} {
				to, err := os.MkdirTemp(root, "cut")
				if err == nil {
					err = d.cut(to, mode, r)
				}
				if err != nil {
					t.Fatal(err)
				}
				if err := check(to, said.String()); err != nil {
					t.Errorf("cut before operation %d of %d (%s), keeping %s: %v", n, len(ops), describe(ops, n), mode, err)
				}
				_ = os.RemoveAll(to) // only to save space
			}
		}
		if n == len(ops) {
			return
		}
		if d.do(ops[n]); ops[n].call == "say" {
			said.Write(ops[n].data)
		}
	}
}

func describe(ops []diskOp, n int) string {
	if n == len(ops) {
		return "the end"
	}
	o := ops[n]
	return fmt.Sprintf("%s file %d %s %s at %d, %d bytes", o.call, o.ino, filepath.Base(o.path), filepath.Base(o.to), o.off, len(o.data))
}
