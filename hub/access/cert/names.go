package cert

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// maxAddrs bounds the certificate on a machine with hundreds of virtual interfaces.
const maxAddrs = 64

// nameSet is what a certificate shall be good for, sorted.
type nameSet struct {
	host  string // the name of the machine
	dns   []string
	addrs []netip.Addr
}

// machineNames returns the names and addresses of the machine and those that were asked for. With an error the set holds
// what could be found out.
func machineNames(opts Options) (nameSet, error) {
	set := nameSet{dns: []string{"localhost"}, addrs: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}}
	host, hostErr := opts.Hostname()
	if host = strings.ToLower(strings.TrimSuffix(host, ".")); hostErr == nil && isDNS(host) {
		label, _, _ := strings.Cut(host, ".")
		set.host = host
		set.dns = append(set.dns, host, label+".local")
	}
	for _, name := range opts.Names {
		if addr, err := netip.ParseAddr(name); err == nil {
			set.addrs = append(set.addrs, addr.Unmap())
		} else {
			set.dns = append(set.dns, strings.ToLower(name))
		}
	}
	keep := len(set.addrs) // those asked for come before those found
	found, addrErr := opts.Addrs()
	for _, a := range found {
		if prefix, ok := a.(*net.IPNet); ok {
			addr, ok := netip.AddrFromSlice(prefix.IP)
			// A link-local IPv6 address is good only together with a zone, which a certificate cannot name.
			if addr = addr.Unmap(); ok && (addr.Is4() || !addr.IsLinkLocalUnicast()) {
				set.addrs = append(set.addrs, addr)
			}
		}
	}
	slices.SortFunc(set.addrs[keep:], netip.Addr.Compare)
	set.addrs = set.addrs[:min(len(set.addrs), max(keep, maxAddrs))]
	slices.SortFunc(set.addrs, netip.Addr.Compare)
	set.addrs = slices.Compact(set.addrs)
	slices.Sort(set.dns)
	set.dns = slices.Compact(set.dns)
	if err := cmp.Or(hostErr, addrErr); err != nil {
		return set, fmt.Errorf("find out what this machine is called: %w", err)
	}
	return set, nil
}

// within reports whether the certificate has all of them.
func (n nameSet) within(leaf *x509.Certificate) bool {
	for _, name := range n.dns {
		if !slices.Contains(leaf.DNSNames, name) {
			return false
		}
	}
	for _, ip := range n.ips() {
		if !slices.ContainsFunc(leaf.IPAddresses, ip.Equal) {
			return false
		}
	}
	return true
}

func (n nameSet) ips() []net.IP {
	ips := make([]net.IP, len(n.addrs))
	for i, addr := range n.addrs {
		ips[i] = addr.AsSlice()
	}
	return ips
}

// common returns a name for people. X.509 allows 64 characters (RFC 5280 appendix A.1, ub-common-name).
func (n nameSet) common() string {
	if n.host == "" || len(n.host) > 64 {
		return "telemetry hub"
	}
	return n.host
}

func checkNames(names []string) error {
	for _, name := range names {
		if addr, err := netip.ParseAddr(name); err != nil && !isDNS(strings.ToLower(name)) || addr.Zone() != "" {
			return fmt.Errorf("certificate: %q is neither a host name nor an address", name)
		}
	}
	return nil
}

// isDNS reports whether s is a host name in lower case.
func isDNS(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-') {
				return false
			}
		}
	}
	return true
}
