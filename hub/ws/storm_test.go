package ws_test

import (
	"bufio"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"telemetryhub/hub/ws"
)

// After a restart of the hub all devices come at once, and each comes again when the hub has told it to, as the agent does.
func TestEverybodyIsBackSoonAfterARestart(t *testing.T) {
	const devices = 2000
	synctest.Test(t, func(t *testing.T) {
		m := new(ws.Metrics)
		d, err := ws.NewDevices(newFakeHub().Connect, newFakeAuth(), ws.Options{
			Metrics: m, Connects: ws.Rate{PerSecond: 100, Burst: 200}, FirstFrame: time.Hour,
		})
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		var all sync.WaitGroup
		var mu sync.Mutex
		var last, longest time.Duration // until the last one was in, and between two tries
		tries := 0
		pipes := make([]net.Conn, devices)
		for i := range devices {
			all.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(i), 1))
				for {
					r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(request("dev:" + strconv.Itoa(i)))))
					if err != nil {
						t.Error(err)
						return
					}
					answer := httptest.NewRecorder()
					ours, theirs := net.Pipe()
					upgraded := make(chan bool, 1)
					go func() {
						resp, err := http.ReadResponse(bufio.NewReader(theirs), r)
						upgraded <- err == nil && resp.StatusCode == http.StatusSwitchingProtocols
					}()
					d.ServeHTTP(hijacker{ResponseWriter: answer, conn: ours}, r)
					after, _ := strconv.Atoi(answer.Header().Get("Retry-After"))
					wait := time.Duration(after)*time.Second + time.Duration(rng.Float64()*float64(time.Second))
					mu.Lock()
					tries++
					if after == 0 {
						last = max(last, time.Since(began))
					} else {
						longest = max(longest, wait)
					}
					mu.Unlock()
					if after == 0 {
						if pipes[i] = theirs; !<-upgraded {
							t.Errorf("device %d was neither upgraded nor told when to come again: %d", i, answer.Code)
						}
						return
					}
					if answer.Code != http.StatusServiceUnavailable {
						t.Errorf("refused with %d", answer.Code)
					}
					_ = theirs.Close()
					<-upgraded
					time.Sleep(wait)
				}
			})
		}
		all.Wait()
		if n := m.Open.Load(); n != devices {
			t.Errorf("%d are connected, want %d", n, devices)
		}
		// 100 a second need 18 s for those who did not get in at once.
		if last > 40*time.Second || longest > 12*time.Second || tries > 5*devices {
			t.Errorf("the last one was in after %v and %d tries, a wait was %v", last, tries, longest)
		}
		for _, p := range pipes {
			_ = p.Close()
		}
		if err := d.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
