package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"

	"telemetryhub/hub/access"
	"telemetryhub/hub/api"
)

// base returns the address of the hub that links begin with. Who makes a link and who opens it may sit at two machines, so it is
// one that works from the most places: of the names of a certificate that which needs no name server.
func (b *bindings) base(s *serveSettings) string {
	if s.publicURL != nil {
		return s.publicURL.String()
	}
	best, points := "", -1
	for _, u := range b.urls() {
		parsed, err := url.Parse(u)
		n := 0
		switch {
		case err != nil || parsed.Scheme != "https":
		case strings.HasSuffix(parsed.Hostname(), ".local"):
			n = 2
		default:
			n = 1
		}
		if n > points {
			best, points = u, n
		}
	}
	return best
}

// urls returns the addresses for browsers, the one that works from the fewest places first.
func (b *bindings) urls() []string {
	var list []string
	for _, l := range b.listeners {
		switch l.kind {
		case kindLoopback:
			list = append(list, "http://"+l.Addr().String())
		case kindTLS:
			list = append(list, b.tlsURLs(l, "https://")...)
		}
	}
	return list
}

// tlsURLs returns an address for every name of the certificate if the listener takes all interfaces.
func (b *bindings) tlsURLs(l *listener, scheme string) []string {
	host, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return nil
	}
	if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() {
		return []string{scheme + net.JoinHostPort(host, port)}
	}
	var list []string
	for _, name := range b.cert.Names() {
		if ip := net.ParseIP(name); strings.HasPrefix(name, "*") || name == "localhost" || ip != nil && (ip.IsLoopback() || ip.IsLinkLocalUnicast()) {
			continue
		}
		list = append(list, scheme+net.JoinHostPort(name, port))
	}
	return list
}

// announceMQTT says where the broker is, and which other one gets everything too.
func (b *bindings) announceMQTT(s *serveSettings, line func(name, value string)) {
	name := "mqtt"
	for _, l := range b.listeners {
		switch l.kind {
		case kindMQTT:
			line(name, "mqtt://"+l.Addr().String()+"  (the password is a token)")
			name = ""
		case kindMQTTS:
			for _, u := range b.tlsURLs(l, "mqtts://") {
				line(name, u)
				name = ""
			}
		case kindMQTTPlain:
			line("WARNING", "MQTT at "+l.Addr().String()+" is served WITHOUT encryption: everybody on that network can read it, tokens included")
		}
	}
	if s.mqtt.bridge.url != "" {
		line("mqtt bridge", s.mqtt.bridge.url)
	}
}

// announce prints the one block that a person needs who has just started the hub.
func announce(ctx context.Context, w io.Writer, s *serveSettings, b *bindings, people *access.Registry) error {
	var text strings.Builder
	line := func(name, value string) { fmt.Fprintf(&text, "  %-12s%s\n", name, value) }
	fmt.Fprintf(&text, "\nTelemetry hub %s\n\n", version())
	for i, u := range b.urls() {
		line([]string{"address", ""}[min(i, 1)], u)
	}
	if s.publicURL != nil {
		line("public", s.publicURL.String())
	}
	if b.cert != nil {
		line("pin", b.cert.Pin()+"  (what devices check the certificate by)")
	}
	b.announceMQTT(s, line)
	line("data", s.data)
	for _, l := range b.listeners {
		if l.kind == kindPlain {
			line("WARNING", "devices at "+l.Addr().String()+" are served WITHOUT encryption: everybody on that network can read and act as them")
		}
	}
	link, err := people.SetupLink(ctx)
	switch {
	case errors.Is(err, access.ErrClaimed):
	case err != nil:
		line("set up", err.Error())
	default:
		line("set up", api.LinkURL(b.base(s), link))
		if here := b.urls(); len(here) > 0 && s.publicURL == nil && here[0] != b.base(s) && strings.HasPrefix(here[0], "http://") {
			line("or here", api.LinkURL(here[0], link))
		}
		line("", "for the first administrator, once, until "+link.Expires.Format("15:04")+"; a restart gives a new one")
	}
	text.WriteByte('\n')
	if _, err := io.WriteString(w, text.String()); err != nil {
		return fmt.Errorf("print the addresses: %w", err)
	}
	return nil
}
