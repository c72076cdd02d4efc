package access

import (
	"net/http"
	"net/netip"
)

// Subscriber returns what stands for one subscriber where limits count by source: an IPv4 address, or the /64 of an IPv6
// address. A loopback address stays as it is.
func Subscriber(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if !addr.Is6() || addr.IsLoopback() {
		return addr
	}
	p, _ := addr.Prefix(64) // cannot fail: an IPv6 address has 64 bits
	return p.Addr()
}

// ConnSource returns the address of the peer of the connection that a request came over, invalid if that is none of IP.
func ConnSource(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr()
}
