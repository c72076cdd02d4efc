package lossyfs

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
)

// shell makes a Disk handy: it panics where a test does not expect an error.
type shell struct{ *Disk }

func must(errno syscall.Errno) {
	if errno != 0 {
		panic(errno)
	}
}

func (s shell) make(name string) uint64 {
	e, errno := s.create(rootID, name, 0o600)
	must(errno)
	return e.id
}

func (s shell) text(name string) string {
	e, errno := s.lookup(rootID, name)
	if errno != 0 {
		return errno.Error()
	}
	b := make([]byte, e.size)
	n, errno := s.read(e.id, 0, b)
	must(errno)
	return string(b[:n])
}

func TestCutKeepsWhatWasSyncedAndNothingElse(t *testing.T) {
	for _, mode := range Modes {
		for seed := range uint64(50) {
			s := shell{New()}
			a := s.make("a")
			must(s.write(a, 0, []byte("one")))
			must(s.sync(a))
			must(s.sync(rootID))
			must(s.write(a, 0, []byte("two")))
			b := s.make("b")
			must(s.write(b, 0, []byte("new")))
			must(s.sync(b))
			must(s.rename(rootID, "b", rootID, "c", true))
			if _, err := s.Cut(mode, rand.New(rand.NewPCG(seed, 1))); err != nil {
				t.Fatal(err)
			}
			if got := s.text("a"); got != "one" && (mode == None || got != "two") {
				t.Errorf("%s, seed %d: a is %q", mode, seed, got)
			}
			_, isB := s.lookup(rootID, "b")
			_, isC := s.lookup(rootID, "c")
			if isB == 0 && isC == 0 || mode == None && (isB == 0 || isC == 0) {
				t.Errorf("%s, seed %d: b %v, c %v", mode, seed, isB, isC)
			}
			if isC == 0 && s.text("c") != "new" {
				t.Errorf("%s, seed %d: c is %q", mode, seed, s.text("c"))
			}
		}
	}
}

func TestBlocksSurviveInAnyOrderButPrefixKeepsTheirs(t *testing.T) {
	outcomes := map[Mode]map[string]int{}
	for _, mode := range Modes {
		outcomes[mode] = map[string]int{}
		for seed := range uint64(200) {
			s := shell{New()}
			a := s.make("a")
			must(s.write(a, 0, bytes.Repeat([]byte("-"), 2*blockSize)))
			must(s.sync(a))
			must(s.sync(rootID))
			must(s.write(a, 0, bytes.Repeat([]byte("1"), blockSize)))
			must(s.write(a, blockSize, bytes.Repeat([]byte("2"), blockSize)))
			if n, err := s.Cut(mode, rand.New(rand.NewPCG(seed, 1))); n != 2 || err != nil {
				t.Fatal(n, err)
			}
			got := s.text("a")
			what := got[:1] + got[blockSize:blockSize+1]
			for i := range got {
				if got[i] != got[i/blockSize*blockSize] {
					what = "torn"
				}
				if got[i] != got[i/sector*sector] {
					t.Fatalf("%s, seed %d: sector %d is torn", mode, seed, i/sector)
				}
			}
			outcomes[mode][what]++
		}
	}
	for mode, want := range map[Mode][]string{None: {"--"}, Prefix: {"--", "1-", "12"}, Subset: {"--", "1-", "-2", "12"}, Torn: {"--", "1-", "-2", "12", "torn"}} {
		if len(outcomes[mode]) != len(want) {
			t.Errorf("%s: %v, want %v", mode, outcomes[mode], want)
		}
		for _, w := range want {
			if outcomes[mode][w] == 0 {
				t.Errorf("%s never left %s: %v", mode, w, outcomes[mode])
			}
		}
	}
}

func TestSizesAndContentsAreDurableEachOnTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(200) {
		s := shell{New()}
		a := s.make("a")
		must(s.sync(rootID))
		must(s.write(a, 0, []byte("abc")))
		must(s.truncate(a, 2))
		must(s.truncate(a, 4))
		if _, err := s.Cut(Subset, rand.New(rand.NewPCG(seed, 1))); err != nil {
			t.Fatal(err)
		}
		seen[s.text("a")] = true
	}
	for _, want := range []string{"", "\x00\x00\x00\x00", "abc", "ab", "ab\x00\x00", "\x00\x00"} {
		if !seen[want] {
			t.Errorf("never left %q: %v", want, seen)
		}
	}
}

func TestPowerFailsAfterSoManyChanges(t *testing.T) {
	s := shell{New()}
	a := s.make("a")
	s.FailAfter(2)
	must(s.write(a, 0, []byte("1")))
	must(s.sync(a))
	if s.Dead() {
		t.Error("dead too early")
	}
	for _, errno := range []syscall.Errno{s.write(a, 1, []byte("2")), s.sync(a), s.truncate(a, 0), s.remove(rootID, "a", false)} {
		if errno != syscall.EIO {
			t.Errorf("without power: %v, want EIO", errno)
		}
	}
	if !s.Dead() {
		t.Error("not dead")
	}
}

func TestFailedSyncLosesOrKeepsAsAsked(t *testing.T) {
	for _, lost := range []bool{false, true} {
		s := shell{New()}
		a := s.make("x.bolt")
		must(s.sync(rootID))
		must(s.write(a, 0, bytes.Repeat([]byte("m"), 2*blockSize)))
		must(s.sync(a))
		if err := s.Fail(Fault{Op: SyncData, File: "*.bolt", Skip: 1, Times: 1, Lost: lost}); err != nil {
			t.Fatal(err)
		}
		var got []syscall.Errno
		for i := range int64(4) {
			must(s.write(a, 2*blockSize+i, []byte{'0' + byte(i)}))
			got = append(got, s.sync(a))
		}
		must(s.write(a, 0, []byte("M")))
		must(s.sync(a)) // one of meta pages, which the fault is not about
		if want := []syscall.Errno{0, syscall.EIO, 0, 0}; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("syncs: %v, want %v", got, want)
		}
		if s.Hits() != 1 || s.Heal() != 1 {
			t.Error("the fault was not counted")
		}
		want := map[bool]string{false: "0123", true: "0\x0023"}[lost]
		if text := s.text("x.bolt"); text[2*blockSize:] != want {
			t.Errorf("lost %v: %q, want %q", lost, text[2*blockSize:], want)
		}
	}
}

func TestNamesAreAsFilesHaveThem(t *testing.T) {
	s := shell{New()}
	a := s.make("a")
	dir, errno := s.create(rootID, "dir", syscall.S_IFDIR|0o700)
	must(errno)
	if _, errno = s.link(a, dir.id, "b"); errno != 0 {
		t.Fatal(errno)
	}
	for what, errno := range map[string]syscall.Errno{
		"remove a folder that is not empty": s.remove(rootID, "dir", true) - syscall.ENOTEMPTY,
		"remove a folder as a file":         s.remove(rootID, "dir", false) - syscall.EISDIR,
		"rename to a name that is taken":    s.rename(rootID, "a", dir.id, "b", true) - syscall.EEXIST,
		"rename nothing":                    s.rename(rootID, "z", dir.id, "b", false) - syscall.ENOENT,
		"write to a folder":                 s.write(dir.id, 0, []byte("x")) - syscall.EISDIR,
	} {
		if errno != 0 {
			t.Errorf("%s: wrong error", what)
		}
	}
	names, _, errno := s.list(dir.id)
	if errno != 0 || fmt.Sprint(names) != "[b]" {
		t.Errorf("list: %v %v", names, errno)
	}
	must(s.remove(rootID, "a", false))
	if e, errno := s.stat(a); errno != 0 || e.links != 1 {
		t.Errorf("after one of two names was removed: %+v, %v", e, errno)
	}
}
