package cmd_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
)

// onlooker follows the event stream of a hub and remembers what it was told about the presence of devices.
type onlooker struct {
	mu   sync.Mutex // guards the fields below
	seen map[string][]string
}

// look begins to follow. It ends with the test.
func look(t *testing.T, s *server) *onlooker {
	t.Helper()
	o := &onlooker{seen: map[string][]string{}}
	body := s.get(s.token("viewer"), "/api/v1/live/sse")
	var done sync.WaitGroup
	t.Cleanup(func() {
		_ = body.Close() // which ends the reader
		done.Wait()
	})
	done.Go(func() {
		lines := bufio.NewScanner(body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			var frame struct {
				Devices []struct{ ID, Presence string }
			}
			if !ok || json.Unmarshal([]byte(data), &frame) != nil {
				continue
			}
			o.mu.Lock()
			for _, d := range frame.Devices {
				o.seen[d.ID] = append(o.seen[d.ID], d.Presence)
			}
			o.mu.Unlock()
		}
	})
	return o
}

// told returns what was told of each device since the last call.
func (o *onlooker) told() map[string][]string {
	o.mu.Lock()
	defer o.mu.Unlock()
	seen := o.seen
	o.seen = map[string][]string{}
	return seen
}

// post sends readings without a socket, one after the other, until stop is closed.
func post(s *server, token, id string, stop <-chan struct{}, fail func(string, ...any)) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		case <-time.After(200 * time.Millisecond):
		}
		req, err := http.NewRequest(http.MethodPost, "http://"+s.addr+"/api/v1/devices/"+id+"/readings", strings.NewReader(fmt.Sprintf(`{"n":%d}`, n)))
		if err != nil {
			fail("%v", err)
			return
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			fail("%s: reading %d: %v", id, n, err)
			return
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNoContent {
			fail("%s: reading %d: %s", id, n, resp.Status)
		}
	}
}

// TestHubThatWasStoppedForAMinuteGoesOn stops the process of a hub for a minute, as a hypervisor or an operator may. Nobody
// was silent in that time but the hub: no connection is closed, no device is shown as gone, and nothing is taken twice.
func TestHubThatWasStoppedForAMinuteGoesOn(t *testing.T) {
	if os.Getenv("TORTURE") == "" {
		t.Skip("takes more than a minute: set TORTURE=1")
	}
	const (
		stopped = 60 * time.Second
		after   = 8 * time.Second // in which every device is heard many times
		posters = 5
	)
	s := newServer(t)
	f := startFleet(t, s, 10)
	// Some devices are connected and have nothing to say: they answer pings.
	quiet := make([]*probe, 5)
	silent := make([]*sensor, len(quiet))
	for i := range quiet {
		silent[i] = newSensor(t, s, fmt.Sprint("quiet-", i))
		var err error
		if quiet[i], _, err = dial(s.addr, silent[i].token, wire.Hello{Stream: "oracle", Clock: device.ClockNTP, Have: 1, Next: 2}); err != nil {
			t.Fatal(err)
		}
		if err := quiet[i].send(silent[i], 1, 1); err != nil {
			t.Fatal(err)
		}
		if err := quiet[i].acked(1); err != nil {
			t.Fatal(err)
		}
		defer quiet[i].close()
	}
	// Others have no connection.
	var posting sync.WaitGroup
	end := make(chan struct{})
	for i := range posters {
		id := fmt.Sprint("poster-", i)
		token := s.add(id)
		posting.Go(func() { post(s, token, id, end, t.Errorf) })
	}
	watch := look(t, s)
	waitForAcks(t, f, 2000)
	<-time.After(6 * time.Second) // longer than the least time after which a device can be overdue
	before := watch.told()
	for i := range posters {
		if states := before[fmt.Sprint("poster-", i)]; len(states) == 0 || states[len(states)-1] != "live" {
			t.Fatalf("before the stop poster-%d was %v", i, states)
		}
	}
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	<-time.After(stopped)
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitForAcks(t, f, f.acked()+1000)
	<-time.After(after)
	close(end)
	posting.Wait()
	for id, states := range watch.told() {
		for _, state := range states {
			if state != "live" && !strings.HasPrefix(id, "quiet-") || state == "offline" {
				t.Errorf("%s was shown as %s after the hub went on: %v", id, state, states)
				break
			}
		}
	}
	for i, p := range quiet {
		if err := p.send(silent[i], 2, 2); err != nil {
			t.Errorf("quiet-%d was cut off: %v", i, err)
		} else if err := p.acked(2); err != nil {
			t.Errorf("quiet-%d was cut off: %v", i, err)
		}
	}
	st := s.status(s.token("viewer"))
	if st.Counts.Duplicates != 0 || st.Counts.Replaced != 0 || st.Counts.Gaps != 0 {
		t.Errorf("%d duplicates, %d connections replaced, %d gaps: want none", st.Counts.Duplicates, st.Counts.Replaced, st.Counts.Gaps)
	}
	f.stop()
	f.check(t, s)
	s.stop()
	f.checkLog(t, s.dir)
}
