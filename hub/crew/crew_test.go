package crew_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"telemetryhub/hub/crew"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// source is a Source by functions. Those that are nil have nothing.
type source struct {
	crew.Outlet
	fill func(dst []byte) ([]byte, bool)
	last string
	once sync.Once // of stop
}

// stop is Stop for tests that may have stopped it already.
func (s *source) stop() { s.once.Do(s.Stop) }

func (s *source) Fill(dst []byte) ([]byte, bool) {
	if s.fill == nil {
		return dst, false
	}
	return s.fill(dst)
}

func (s *source) Last(dst []byte) []byte { return append(dst, s.last...) }

// rules are those of a crew with the times of package ws.
func rules() *crew.Rules {
	return &crew.Rules{Crew: crew.New(), WriteTimeout: 10 * time.Second, CloseTimeout: 2 * time.Second, Written: new(atomic.Uint64)}
}

// plug gives the source one end of a connection and returns the other one. The test ends with the source.
func plug(t testing.TB, r *crew.Rules, s *source, ours, theirs net.Conn) net.Conn {
	t.Helper()
	s.Init(r, s)
	s.Raw = ours
	t.Cleanup(func() {
		_ = theirs.Close()
		s.Kill()
		s.stop()
	})
	return theirs
}

// connect is plug over TCP.
func connect(t testing.TB, r *crew.Rules, s *source) net.Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	theirs, err := net.DialTimeout("tcp", ln.Addr().String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	if err := theirs.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	ours, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return plug(t, r, s, ours, theirs)
}

func want(t testing.TB, from io.Reader, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if n, err := io.ReadFull(from, got); err != nil || string(got) != text {
		t.Fatalf("got %.80q, %v, want %.80q", got[:n], err, text)
	}
}

// queue is a fill that takes from a list that grows.
type queue struct {
	mu   sync.Mutex
	list []string
}

func (q *queue) put(s string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(q.list, s)
}

func (q *queue) fill(dst []byte) ([]byte, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) == 0 {
		return dst, false
	}
	dst = append(dst, q.list[0]...)
	q.list = q.list[1:]
	return dst, len(q.list) > 0
}

func TestNoWakeUpIsLost(t *testing.T) {
	r := rules()
	var running sync.WaitGroup
	all := make([]*source, 20)
	for i := range all {
		var q queue
		s := &source{fill: q.fill}
		all[i] = s
		theirs := connect(t, r, s)
		s.Release()
		running.Go(func() {
			for n := range 1000 {
				q.put("x")
				if n%3 > 0 {
					s.Wake()
				} else {
					s.Flush()
				}
			}
		})
		running.Go(func() { want(t, theirs, strings.Repeat("x", 1000)) })
	}
	running.Wait()
	for _, s := range all {
		s.stop()
	}
	if n := r.Written.Load(); n != 20_000 {
		t.Errorf("%d bytes were counted", n)
	}
}

// TestFlushWritesAtOnce has a crew whose hands are all held up, which whoever flushes need not wait for.
func TestFlushWritesAtOnce(t *testing.T) {
	r := rules()
	hold := make(chan struct{})
	defer close(hold)
	for range runtime.GOMAXPROCS(0) {
		busy := &source{fill: func(dst []byte) ([]byte, bool) { <-hold; return dst, false }}
		connect(t, r, busy)
		busy.Wake()
		busy.Release()
	}
	var q queue
	s := &source{fill: q.fill}
	theirs := connect(t, r, s)
	s.Release()
	for range 3 {
		q.put("now")
		s.Flush()
		want(t, theirs, "now")
	}
	s.stop()
	q.put("never")
	s.Flush()
	if n := r.Written.Load(); n != 9 {
		t.Errorf("%d bytes were written", n)
	}
}

func TestNothingIsWrittenBeforeRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := false
		s := &source{fill: func(dst []byte) ([]byte, bool) {
			defer func() { asked = true }()
			if asked {
				return dst, false
			}
			return append(dst, "first"...), false
		}}
		ours, theirs := net.Pipe()
		plug(t, rules(), s, ours, theirs)
		s.Wake()
		go func() { _, _ = s.Answer([]byte("answer ")) }()
		want(t, theirs, "answer ")
		synctest.Wait()
		if asked {
			t.Error("the source was asked before it was complete")
		}
		s.Release()
		want(t, theirs, "first")
	})
}

// flood is a fill that always has more, of so many bytes a time.
func flood(size int) func([]byte) ([]byte, bool) {
	body := strings.Repeat("x", size)
	return func(dst []byte) ([]byte, bool) { return append(dst, body...), true }
}

// TestPeersThatDoNotReadHoldUpNobody has more of them than there are processors, each with more to write than a socket takes.
func TestPeersThatDoNotReadHoldUpNobody(t *testing.T) {
	r := rules()
	for range 3*runtime.GOMAXPROCS(0) + 1 {
		stuck := &source{fill: flood(1 << 20)}
		connect(t, r, stuck)
		stuck.Wake()
		stuck.Release()
	}
	var q queue
	good := &source{fill: q.fill}
	theirs := connect(t, r, good)
	good.Release()
	for range 1000 {
		q.put("good")
		good.Wake()
		want(t, theirs, "good")
	}
}

// TestUrgentOutletsComeFirstButNotAlone has as many of both kinds, which are woken while the only hand is at work.
func TestUrgentOutletsComeFirstButNotAlone(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const each = 100
	plain := rules()
	urgent := *plain
	urgent.Urgent = true
	var all []*source
	order := make(chan byte, 4*each) // with room for all to be asked once more when they are stopped
	for i := range 2 * each {
		r, kind := plain, byte('o')
		if i >= each {
			r, kind = &urgent, 'u'
		}
		s := &source{fill: func(dst []byte) ([]byte, bool) {
			order <- kind
			return dst, false
		}}
		connect(t, r, s)
		s.Release()
		all = append(all, s)
	}
	wakeAll := sync.OnceFunc(func() {
		for _, s := range all {
			s.Wake()
		}
	})
	first := &source{fill: func(dst []byte) ([]byte, bool) {
		wakeAll()
		return dst, false
	}}
	connect(t, plain, first)
	first.Wake()
	first.Release()
	var got strings.Builder
	for range 2 * each {
		select {
		case kind := <-order:
			got.WriteByte(kind)
		case <-time.After(patience):
			t.Fatalf("after %s nobody has a turn", got.String())
		}
	}
	row := strings.Repeat("u", 32) + "o"
	if want := strings.Repeat(row, 3) + "uuuu" + strings.Repeat("o", each-3); got.String() != want {
		t.Errorf("the turns were %s", got.String())
	}
}

// TestPeerThatAlwaysHasMoreLetsOthersHaveTheirTurn has a peer whose socket takes all.
func TestPeerThatAlwaysHasMoreLetsOthersHaveTheirTurn(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	r := rules()
	var written atomic.Int64 // a hand that must wait leaves the other to the next hand, and goes on beside it
	before := make(chan int64, 1)
	good := &source{fill: func(dst []byte) ([]byte, bool) {
		select {
		case before <- written.Load():
		default:
		}
		return dst, false
	}}
	more := flood(10_000)
	flooded := &source{fill: func(dst []byte) ([]byte, bool) {
		if written.Load() == 0 {
			good.Wake()
		}
		dst, _ = more(dst)
		return dst, written.Add(10_000) < 100<<20
	}}
	connect(t, r, good)
	good.Release()
	theirs := connect(t, r, flooded)
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	flooded.Wake()
	flooded.Release()
	select {
	case n := <-before:
		if n > 512<<10 {
			t.Errorf("%d bytes were written to one before the other had its turn", n)
		}
	case <-time.After(patience):
		t.Error("the other never had its turn")
	}
}

// work takes a fifth of a millisecond, as compression may.
func work() {
	for began := time.Now(); time.Since(began) < time.Millisecond/5; {
	}
}

// TestWorkBehindFewBytesLetsOthersHaveTheirTurn has a source that always has more, and takes its time for each byte.
func TestWorkBehindFewBytesLetsOthersHaveTheirTurn(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	r := rules()
	filled := 0 // by the only hand, which never waits for so little
	before := make(chan int, 1)
	good := &source{fill: func(dst []byte) ([]byte, bool) {
		select {
		case before <- filled:
		default:
		}
		return dst, false
	}}
	busy := &source{fill: func(dst []byte) ([]byte, bool) {
		if filled++; filled == 1 {
			good.Wake()
		}
		work()
		return append(dst, 'x'), filled < 1000
	}}
	connect(t, r, good)
	good.Release()
	connect(t, r, busy)
	busy.Wake()
	busy.Release()
	select {
	case n := <-before:
		if n > 20 {
			t.Errorf("%d pieces were made for one before the other had its turn", n)
		}
	case <-time.After(patience):
		t.Error("the other never had its turn")
	}
}

func TestPeerThatDoesNotReadIsCutInTime(t *testing.T) {
	for name, end := range map[string]bool{"write": false, "close": true} {
		synctest.Test(t, func(t *testing.T) {
			s := &source{fill: flood(100), last: "last"}
			ours, theirs := net.Pipe()
			plug(t, rules(), s, ours, theirs)
			began, limit := time.Now(), 10*time.Second
			s.Wake()
			s.Release()
			if end {
				synctest.Wait()
				<-time.After(time.Second)
				s.End()
				s.Hurry()
				limit = 3 * time.Second
			}
			_, err := ours.Read(make([]byte, 1))
			if end && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: the reader was not woken: %v", name, err)
			}
			s.stop()
			if took := time.Since(began); took != limit {
				t.Errorf("%s: cut after %s, want %s", name, took, limit)
			}
		})
	}
}

func TestPeerThatWasSlowOnceIsNotCutLater(t *testing.T) {
	r := rules()
	r.WriteTimeout = time.Second // for the reader below too, on a machine that is busy
	const size = 8 << 20
	var q queue
	q.put(strings.Repeat("x", size))
	s := &source{fill: q.fill}
	theirs := connect(t, r, s)
	s.Wake()
	s.Release()
	<-time.After(50 * time.Millisecond) // the writer waits
	want(t, theirs, strings.Repeat("x", size))
	<-time.After(r.WriteTimeout + 50*time.Millisecond) // longer than the deadline that it had
	q.put("later")
	s.Wake()
	want(t, theirs, "later")
}

// TestNoDeadlineStaysBehindAWriter writes as TLS does by itself, long after the writer, when the peer asks for new keys. If that
// fails, so does all that is read and written later.
func TestNoDeadlineStaysBehindAWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rules()
		var q queue
		s := &source{fill: q.fill}
		ours, theirs := net.Pipe()
		plug(t, r, s, ours, theirs)
		s.Release()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		for range 3 {
			q.put("message")
			s.Wake()
			<-time.After(2 * r.WriteTimeout)
			if _, err := ours.Write([]byte("keys")); err != nil {
				t.Fatalf("after a quiet time: %v", err)
			}
		}
	})
}

func TestWhatIsReadyComesBeforeTheLast(t *testing.T) {
	var q queue
	for range 100 {
		q.put("word ")
	}
	s := &source{fill: q.fill, last: "last"}
	theirs := connect(t, rules(), s)
	s.End()
	s.Hurry()
	s.Release()
	want(t, theirs, strings.Repeat("word ", 100)+"last")
	s.Wake()
	go func() {
		s.stop()
		s.Linger()
		s.Kill()
	}()
	if n, err := io.Copy(io.Discard, theirs); n > 0 || err != nil {
		t.Errorf("%d bytes and %v follow the last", n, err)
	}
}

// TestTheLastIsWrittenThoughTheReaderWasFaster has the reader stop the outlet before whoever ends it has come to Hurry.
func TestTheLastIsWrittenThoughTheReaderWasFaster(t *testing.T) {
	var q queue
	s := &source{fill: q.fill, last: "last"}
	theirs := connect(t, rules(), s)
	s.Release()
	q.put("word ")
	s.End()
	s.stop()
	s.Hurry()
	want(t, theirs, "word last")
}

func TestLastWordsAreBounded(t *testing.T) {
	more := flood(1000)
	slowly := func(dst []byte) ([]byte, bool) {
		work()
		return more(dst)
	}
	for name, fill := range map[string]func([]byte) ([]byte, bool){"fast": more, "slow": slowly} {
		s := &source{fill: fill, last: "last"}
		theirs := connect(t, rules(), s)
		s.End()
		s.Hurry()
		s.Release()
		got := make([]byte, 0, 8<<20)
		for !strings.HasSuffix(string(got[max(0, len(got)-len(s.last)):]), s.last) {
			n, err := theirs.Read(got[len(got):cap(got)])
			if got = got[:len(got)+n]; err != nil || n == 0 {
				t.Fatalf("%s: %v after %d bytes", name, err, len(got))
			}
		}
		if len(got) > 128<<10 {
			t.Errorf("%s: %d bytes came before the last", name, len(got))
		}
	}
}

// front is a connection with another one below, as package door has them.
type front struct{ net.Conn }

func (f front) Release() (net.Conn, []byte) { return f.Conn, []byte("later") }

// hijacker is the side of net/http.
type hijacker struct {
	http.ResponseWriter
	conn net.Conn
	in   *bufio.Reader
}

func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(h.in, nil), nil
}

func TestWhatCameEarlyIsNotLost(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	in := bufio.NewReader(strings.NewReader("early "))
	if _, err := in.Peek(1); err != nil {
		t.Fatal(err)
	}
	raw, early, err := crew.Hijack(hijacker{httptest.NewRecorder(), front{ours}, in})
	if err != nil || raw != ours || string(early) != "early later" {
		t.Errorf("got %v, %q, %v", raw, early, err)
	}
	if _, _, err := crew.Hijack(httptest.NewRecorder()); err == nil {
		t.Error("there is no connection to take")
	}
}
