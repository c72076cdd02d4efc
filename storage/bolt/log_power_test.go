package bolt_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"telemetryhub/storage"
	"telemetryhub/storage/bolt"
)

// childVar names what a test binary does instead of testing, when a test runs it as a child.
const childVar = "STORAGE_CHILD"

// children are what test binaries can do as children, in the folder that CHILD_DIR names.
var children = map[string]func(dir string) error{
	"append": appendChild,
	"trim":   trimChild,
	"stores": storesChild,
}

func TestMain(m *testing.M) {
	if child := os.Getenv(childVar); child != "" {
		if err := children[child](os.Getenv("CHILD_DIR")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// childGroup is the group that the child appends as number n.
func childGroup(n int) []byte {
	r := rand.New(rand.NewPCG(uint64(n), 6))
	group := make([]byte, []int{100, 300, 3000, 30_000}[n%4]+r.IntN(100))
	for i := range group {
		group[i] = byte(r.Uint32())
	}
	return group
}

const childGroups = 48

// appendChild appends groups, trims, and opens the log again in between. It says what it sends, what is acknowledged and
// what it trims. On a full log it tries again; any other error ends it, after it has seen that the log takes no more.
func appendChild(dir string) error {
	fmt.Println("ready")
	o := bolt.LogOptions{SegmentBytes: 100 << 10, FreeBytes: -1}
	var l *bolt.Log
	var err error
	for n := 1; n <= childGroups; n++ {
		if l == nil {
			if l, err = bolt.OpenLog(dir, o); err != nil {
				fmt.Println("ended", err)
				return nil
			}
		}
		fmt.Println("sent", n, l.Last())
		p, err := l.Append(context.Background(), childGroup(n), l.Last())
		for tries := 0; errors.Is(err, storage.ErrFull) && tries < 10; tries++ {
			p, err = l.Append(context.Background(), childGroup(n), l.Last())
		}
		if err != nil {
			fmt.Println("ended", err)
			if !errors.Is(err, storage.ErrUnknown) && !errors.Is(err, storage.ErrReadOnly) {
				return fmt.Errorf("unexpected: %w", err)
			}
			if _, again := l.Append(context.Background(), []byte("more"), l.Last()); !errors.Is(again, storage.ErrUnknown) && !errors.Is(again, storage.ErrReadOnly) {
				return fmt.Errorf("the log went on after %w with %w", err, again)
			}
			_ = l.Close() // may fail too
			return nil
		}
		fmt.Println("acked", n, p)
		if n == 30 {
			fmt.Println("trimmed", p-12)
			if err := l.Trim(context.Background(), p-12); err != nil {
				fmt.Println("ended", err)
				return nil
			}
		}
		if n == 16 || n == 40 {
			if err := l.Close(); err != nil {
				fmt.Println("ended", err)
				return nil
			}
			l = nil
		}
	}
	if err := l.Close(); err != nil {
		fmt.Println("ended", err)
	}
	return nil
}

// trimChild trims a log to its last segment. If that fails because a folder could not be synced, nothing may be
// acknowledged any more.
func trimChild(dir string) error {
	runtime.LockOSThread() // strace counts the calls of each thread
	fmt.Println("ready")
	l, err := bolt.OpenLog(dir, bolt.LogOptions{SegmentBytes: 64 << 10, FreeBytes: -1})
	if err != nil {
		return nil
	}
	defer l.Close() // may fail too
	for n := range 20 {
		if _, err := l.Append(context.Background(), childGroup(n), l.Last()); err != nil {
			return nil
		}
	}
	err = l.Trim(context.Background(), l.Last())
	var path *os.PathError
	if !errors.As(err, &path) || path.Op != "sync" {
		return nil
	}
	fmt.Println("not synced", err)
	if _, again := l.Append(context.Background(), []byte("more"), l.Last()); !errors.Is(err, storage.ErrUnknown) || !errors.Is(again, storage.ErrUnknown) {
		return fmt.Errorf("the log went on after %w with %w", err, again)
	}
	return nil
}

// checkChild opens what the child left and compares it with what it said: acked ⊆ stored ⊆ sent, in order, each once.
func checkChild(t testing.TB, dir, said string) error {
	t.Helper()
	sent, acked := make(map[storage.Position]int), make(map[storage.Position]int)
	var trimmed storage.Position
	for line := range strings.Lines(said) {
		var n int
		var p storage.Position
		if _, err := fmt.Sscanf(line, "sent %d %d", &n, &p); err == nil {
			sent[p+1] = n
		} else if _, err := fmt.Sscanf(line, "acked %d %d", &n, &p); err == nil {
			acked[p] = n
		} else if _, err := fmt.Sscanf(line, "trimmed %d", &p); err == nil {
			trimmed = p
		}
	}
	l, err := bolt.OpenLog(dir, bolt.LogOptions{SegmentBytes: 100 << 10, FreeBytes: -1})
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	if ds := l.Damage(); len(ds) > 0 {
		return fmt.Errorf("damage: %v", ds)
	}
	if l.First() > trimmed {
		return fmt.Errorf("First() = %d, trimmed was %d", l.First(), trimmed)
	}
	at := l.First()
	stored := make(map[storage.Position]bool)
	err = l.Read(t.Context(), at, func(e storage.Entry) bool {
		n, ok := sent[e.Position]
		if e.Damaged || e.Position != at+1 || !ok || string(e.Group) != string(childGroup(n)) {
			err = fmt.Errorf("position %d after %d: damaged %v, sent %v, %d bytes", e.Position, at, e.Damaged, ok, len(e.Group))
			return false
		}
		at = e.Position
		stored[at] = true
		return true
	})
	if err != nil {
		return err
	}
	for p := range acked {
		if p > l.First() && !stored[p] {
			return fmt.Errorf("group %d was acknowledged and is gone", p)
		}
	}
	_, err = l.Append(t.Context(), []byte("life goes on"), l.Last())
	return err
}

func TestLogSurvivesPowerCuts(t *testing.T) {
	notUnderRace(t)
	dir := filepath.Join(fastDir(t), "log")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ops := trace(t, dir, "append")
	acks := 0
	for _, o := range ops {
		if strings.HasPrefix(string(o.data), "acked") {
			acks++
		}
	}
	if acks != childGroups {
		t.Fatalf("the trace has %d acks", acks)
	}
	powerCuts(t, dir, ops, max(flipCount(t)/5, 20), func(dir, said string) error { return checkChild(t, dir, said) })
}

// TestLogSurvivesFailingCalls lets the n-th call of a kind fail, for each n until none fails any more.
func TestLogSurvivesFailingCalls(t *testing.T) {
	notUnderRace(t)
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("calls are made to fail by strace: install it")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range []string{
		"fdatasync:error=EIO", "pwrite64:error=EIO", "pwrite64:error=ENOSPC", "fsync:error=EIO", "fallocate:error=ENOSPC",
		"fallocate:error=EOPNOTSUPP", "renameat2:error=EIO", "renameat2:error=EINVAL", "pread64:error=EIO", "unlinkat:error=EIO",
		"openat:error=EMFILE",
	} {
		t.Run(strings.ReplaceAll(fault, ":", " "), func(t *testing.T) {
			step := 1
			for n := 1; n < 2000; n += step {
				dir := filepath.Join(fastDir(t), "log")
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				log := filepath.Join(t.TempDir(), "trace")
				name, _, _ := strings.Cut(fault, ":")
				cmd := exec.CommandContext(t.Context(), strace, "-f", "-o", log, "-e", "trace="+name, "-e", "signal=none",
					"-e", fmt.Sprintf("inject=%s:when=%d", fault, n), exe)
				cmd.Env = append(os.Environ(), childVar+"=append", "CHILD_DIR="+dir, "GOMAXPROCS=1")
				out, err := cmd.CombinedOutput()
				if err != nil && !strings.Contains(string(out), "ready\n") {
					continue // the call belonged to the loader or to the runtime
				}
				if err != nil {
					t.Fatalf("child: %v\n%s", err, out)
				}
				calls, err := os.ReadFile(log)
				if err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(string(calls), "(INJECTED)") {
					t.Logf("%d calls, every %d. failed", n, step)
					return
				}
				if strings.Count(string(calls), "(INJECTED)") > 1 {
					// strace counts for each thread. Two calls that fail may cost a group its copy, which is told.
					continue
				}
				if err := checkChild(t, dir, string(out)); err != nil {
					t.Errorf("call %d fails: %v\n%s", n, err, out)
				}
				if n > 12 && flipCount(t) <= 500 {
					step = 41
				}
			}
		})
	}
}

// TestTrimThatIsNotDurableStopsTheLog lets the n-th fsync fail, for each n until none fails any more. strace counts for each thread:
// if the calls were spread so that the one of the trim was never it, all is done again.
func TestTrimThatIsNotDurableStopsTheLog(t *testing.T) {
	notUnderRace(t)
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("calls are made to fail by strace: install it")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	met, round := 0, 1
	for n := 1; ; n++ {
		dir, log := filepath.Join(t.TempDir(), "log"), filepath.Join(t.TempDir(), "trace")
		cmd := exec.CommandContext(t.Context(), strace, "-f", "-o", log, "-e", "trace=fsync", "-e", "signal=none",
			"-e", fmt.Sprintf("inject=fsync:error=EIO:when=%d", n), exe)
		cmd.Env = append(os.Environ(), childVar+"=trim", "CHILD_DIR="+dir, "GOMAXPROCS=1")
		out, err := cmd.CombinedOutput()
		if err != nil && !strings.Contains(string(out), "ready\n") && strings.Contains(string(out), "ptrace") {
			t.Skipf("strace may not trace here: %s", out)
		}
		if err != nil {
			t.Fatalf("fsync %d fails: child: %v\n%s", n, err, out)
		}
		if strings.Contains(string(out), "not synced") {
			met++
		}
		calls, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(calls), "(INJECTED)") {
			t.Logf("%d calls", n)
			if met > 0 || round == 10 {
				break
			}
			n, round = 0, round+1
		}
	}
	if met == 0 {
		t.Error("no failure met the trim")
	}
}
