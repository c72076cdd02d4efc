package eio_test

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"telemetryhub/hub/sio/eio"
	"telemetryhub/hub/sio/siotest"
)

func TestUpgrade(t *testing.T) {
	r := serve(t, eio.Options{})
	p := r.Poll()
	c := p.Upgrade()
	c.Say("2probe")
	c.Want("3probe")
	p.Want("6")
	c.Say("5", "4hello", "4transport")
	c.Want("4hello", "4websocket")
	if status, _ := p.Get(); status != http.StatusBadRequest {
		t.Errorf("a poll after the upgrade was answered %d", status)
	}
	if status := p.Post("4x"); status != http.StatusBadRequest {
		t.Errorf("a POST after the upgrade was answered %d", status)
	}
	p.Upgrade().WantClose(1008)
	c.Say("4again")
	c.Want("4again")
	if n := r.metrics.Upgraded.Load(); n != 1 {
		t.Errorf("counted %d upgrades", n)
	}
}

func TestAPollThatWaitsIsSentHome(t *testing.T) {
	r := serve(t, eio.Options{})
	p := r.Poll()
	got := make(chan string, 1)
	r.waitsIn(t, p, got)
	c := p.Upgrade()
	c.Say("2probe")
	c.Want("3probe")
	if answer := <-got; answer != "6" {
		t.Errorf("the poll was answered %q", answer)
	}
}

// A client that polls beside the upgrade gets nothing that belongs to the WebSocket.
func TestAPollThatCrossesTheUpgradeIsRefused(t *testing.T) {
	r, refused := serve(t, eio.Options{}), 0
	for range 20 {
		p := r.Poll()
		c := p.Upgrade()
		c.Say("2probe")
		c.Want("3probe")
		got := make(chan string, 1)
		r.waitsIn(t, p, got)
		c.Put(siotest.Frame(siotest.Fin|siotest.OpText, "5"), siotest.Frame(siotest.Fin|siotest.OpText, "4hello"))
		c.Want("4hello")
		switch answer := <-got; {
		case strings.Contains(answer, `"code":3`):
			refused++
		case answer != "6": // it had waited for too long
			t.Errorf("the poll was answered %q", answer)
		}
	}
	if refused == 0 {
		t.Error("no poll has waited for the end of the upgrade")
	}
}

func TestAFailedProbeLeavesPollingAlone(t *testing.T) {
	for _, say := range []string{"4hello", "2", "5", "1", "x", ""} {
		var o eio.Options
		if say == "" {
			o.UpgradeTimeout = 50 * time.Millisecond
		}
		p := serve(t, o).Poll()
		c := p.Upgrade()
		if say != "" {
			c.Say(say)
			c.WantClose(1008)
		} else {
			c.WantClose(4001) // nothing came in time
		}
		// The place of the WebSocket is free again as soon as it has hung up, which takes a moment.
		siotest.Until(t, "the end of the WebSocket", func() bool {
			next := p.Upgrade()
			defer func() { _ = next.Close() }()
			next.Say("2probe")
			b0, _, err := next.Read()
			return err == nil && b0 == siotest.Fin|siotest.OpText
		})
		siotest.Until(t, "the end of the probe", func() bool {
			p.Send("4still here")
			_, got := p.Get()
			return got == "4still here"
		})
	}
}

// Messages that go out while the transport changes are neither lost nor reordered, wherever they are just then.
func TestNothingIsLostOrReorderedByAnUpgrade(t *testing.T) {
	r := serve(t, eio.Options{})
	for round := range 20 {
		p := r.Poll()
		e := r.stream(t)
		e.Admit()
		over, total := make(chan struct{}), make(chan int, 1)
		stop := sync.OnceFunc(func() { close(over) })
		defer stop()
		go func() {
			for n := 0; ; n++ {
				select {
				case <-over:
					total <- n
					return
				default:
					e.send(message{true, fmt.Sprint(n)})
					runtime.Gosched()
				}
			}
		}()
		var got []string
		take := func(payload string) {
			for one := range strings.SplitSeq(payload, "\x1e") {
				if n, ok := strings.CutPrefix(one, "4"); ok {
					got = append(got, n)
				}
			}
		}
		for range round % 4 {
			_, payload := p.Get()
			take(payload)
		}
		probed := make(chan *siotest.Socket, 1)
		go func() {
			defer close(probed) // also when what follows fails
			c := p.Upgrade()
			c.Say("2probe")
			c.Want("3probe")
			probed <- c
		}()
		var c *siotest.Socket
		for c == nil { // as clients do: the last poll is read to its end before the upgrade is finished
			status, payload := p.Get()
			if status != http.StatusOK {
				t.Fatalf("round %d: polled %d %s", round, status, payload)
			}
			take(payload)
			select {
			case c = <-probed:
				if c == nil {
					t.FailNow()
				}
			default:
			}
		}
		c.Say("5")
		take(c.Text())
		stop()
		for n := <-total; len(got) < n; {
			take(c.Text())
		}
		for i, n := range got {
			if n != fmt.Sprint(i) {
				t.Fatalf("round %d: message %d is %s", round, i, n)
			}
		}
		_ = c.Close()
	}
}

// What a client sends over polling before an upgrade comes before what it sends over the WebSocket afterwards.
func TestWhatAClientSendsKeepsItsOrder(t *testing.T) {
	r := serve(t, eio.Options{})
	for range 20 {
		p := r.Poll()
		c := p.Upgrade()
		c.Say("2probe")
		c.Want("3probe")
		p.Send("41\x1e42\x1e43")
		c.Say("5", "44", "45")
		c.Want("41", "42", "43", "44", "45")
		_ = c.Close()
	}
}
