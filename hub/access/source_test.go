package access_test

import (
	"net/http"
	"net/netip"
	"testing"

	"telemetryhub/hub/access"
)

func TestSubscriberIsAnAddressOrAPrefix(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7": "192.0.2.7", "::1": "::1", "127.0.0.1": "127.0.0.1",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::", "fe80::1%eth0": "fe80::",
	} {
		if got := access.Subscriber(netip.MustParseAddr(addr)); got != netip.MustParseAddr(want) {
			t.Errorf("%s stands for %s, want %s", addr, got, want)
		}
	}
	if got := access.Subscriber(netip.Addr{}); got.IsValid() {
		t.Errorf("no address stands for %s", got)
	}
}

func TestConnSource(t *testing.T) {
	for remote, want := range map[string]netip.Addr{"192.0.2.7:80": netip.MustParseAddr("192.0.2.7"), "@": {}} {
		if got := access.ConnSource(&http.Request{RemoteAddr: remote}); got != want {
			t.Errorf("%s is %s, want %s", remote, got, want)
		}
	}
}
