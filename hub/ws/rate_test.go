package ws_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"testing"

	"telemetryhub/hub/ws"
)

// upgrades tries n upgrades and returns how many got through.
func upgrades(t *testing.T, s *site, n int, token string, headers ...string) (passed int) {
	t.Helper()
	for range n {
		c, resp := open(t, s.addr, request(token, headers...))
		switch resp.StatusCode {
		case http.StatusSwitchingProtocols:
			passed++
		case http.StatusServiceUnavailable:
			if after, err := strconv.Atoi(resp.Header.Get("Retry-After")); err != nil || after < 1 || after > 60 {
				t.Errorf("Retry-After is %q", resp.Header.Get("Retry-After"))
			}
		}
		_ = c.Close()
	}
	return passed
}

// source makes the header X the address that a request comes from.
func source(r *http.Request) netip.Addr {
	addr, _ := netip.ParseAddr(r.Header.Get("X"))
	return addr
}

var seldom = ws.Rate{PerSecond: 1e-6, Burst: 3}

func TestUpgradesOfOneAddressAreLimited(t *testing.T) {
	s, _ := devices(t, newFakeHub(), ws.Options{Source: source, SourceConnects: seldom})
	for _, c := range []struct {
		from string
		want int
	}{
		{"192.0.2.1", 3}, {"192.0.2.2", 3}, {"::ffff:192.0.2.2", 0}, {"192.0.2.1", 0},
		{"2001:db8::1", 3}, {"2001:db8::2", 0}, {"2001:db8:0:1::1", 3}, {"fe80::1%eth0", 3}, {"fe80::1%eth1", 0},
		{"127.0.0.1", 5}, {"::1", 5}, {"nonsense", 5},
	} {
		if got := upgrades(t, s, 5, "dev:a", "X: "+c.from); got != c.want {
			t.Errorf("%s: %d of 5 upgrades got through, want %d", c.from, got, c.want)
		}
	}
}

func TestUpgradesOfAllAreLimitedTogether(t *testing.T) {
	s, _ := devices(t, newFakeHub(), ws.Options{Connects: seldom})
	if got := upgrades(t, s, 20, "bad"); got != 0 { // does not count
		t.Errorf("%d upgrades without a good token", got)
	}
	if got := upgrades(t, s, 5, "dev:a"); got != 3 {
		t.Errorf("%d upgrades got through, want 3", got)
	}
}

func TestGuessersCannotTakeTheRateOfOthers(t *testing.T) {
	s, _ := devices(t, newFakeHub(), ws.Options{Source: source, SourceConnects: seldom, Connects: seldom})
	for i := range 5000 / 50 { // more addresses than are remembered would take long; the bound is tested below the network
		upgrades(t, s, 4, "bad", fmt.Sprintf("X: 192.0.2.%d", i))
	}
	if got := upgrades(t, s, 1, "dev:a", "X: 198.51.100.1"); got != 1 {
		t.Error("a good device was refused")
	}
}

func TestMemoryOfAddressesIsBounded(t *testing.T) {
	l := ws.NewLimiter(ws.Rate{PerSecond: -1}, seldom)
	for i := range 20_000 {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		if !l.Allow(addr) {
			t.Fatalf("address %d was refused the first time", i)
		}
	}
	if n := l.Sources(); n > 4096 {
		t.Errorf("%d addresses are remembered", n)
	}
}

func TestNegativeRateMeansNoLimit(t *testing.T) {
	none := ws.Rate{PerSecond: -1}
	s, _ := devices(t, newFakeHub(), ws.Options{Source: source, SourceConnects: none, Connects: none})
	if got := upgrades(t, s, 50, "dev:a", "X: 192.0.2.1"); got != 50 {
		t.Errorf("%d of 50 upgrades got through", got)
	}
}

func TestBadOptionsAreRefused(t *testing.T) {
	for name, o := range map[string]ws.Options{
		"ping": {Ping: -1}, "first frame": {FirstFrame: -1}, "write timeout": {WriteTimeout: -1},
		"close timeout": {CloseTimeout: -1}, "connections": {MaxConns: -1},
	} {
		if _, err := ws.NewDevices(newFakeHub().Connect, newFakeAuth(), o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
