package main

import (
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"telemetryhub/hub"
	"telemetryhub/hub/access"
	"telemetryhub/hub/api"
	"telemetryhub/hub/ws/door"
)

const (
	defaultHTTP  = "127.0.0.1:8080"
	defaultHTTPS = ":8443"
	// cardInterval is the commit interval for SD cards, whose cells wear out by the number of writes.
	cardInterval = time.Second
)

// serveSettings is how a hub was asked to run.
type serveSettings struct {
	data         string
	http, https  string
	lan          bool
	lanPlaintext []string
	tlsCert      string
	tlsKey       string
	publicURL    *url.URL
	public       string
	allowOrigins []string
	proxies      []netip.Prefix
	mqtt         mqttSettings
	commit       time.Duration
	level        slog.Level
	logJSON      bool
	from         origins
}

func addServeFlags(f *pflag.FlagSet) {
	f.String("http", defaultHTTP, "address for programs and browsers on this machine, without TLS")
	f.String("https", "", "address with TLS; "+defaultHTTPS+" with --lan or --tls-cert")
	f.Bool("lan", false, "serve other machines too, with TLS and a certificate that the hub makes and renews itself")
	f.StringArray("lan-plaintext", nil, "address where devices are served WITHOUT encryption (192.168.1.5:8081); may be repeated")
	f.String("tls-cert", "", "certificate chain to serve instead of a self-made one (PEM)")
	f.String("tls-key", "", "its private key (PEM), readable by nobody else")
	addMQTTFlags(f)
	f.String("public-url", "", "how people reach the hub when a proxy stands before it (https://hub.example.org)")
	f.String("public", "", "folder whose files the hub serves at /public/ to whoever reaches it, as pages of its own")
	f.StringArray("allow-origin", nil, "origin of pages elsewhere that may use the hub with a login; may be repeated")
	f.StringArray("trusted-proxy", nil, "address or network of a proxy whose X-Forwarded-For is believed; may be repeated")
	f.String("commit-interval", "2ms", "least time between two writes to disk, or card: 1s, which spares SD cards")
	f.String("log-level", "info", "debug, info, warn or error")
	f.String("log-format", "text", "text or json")
	f.String("config", "", "YAML file with settings")
}

// loadServeSettings reads and checks all settings.
func loadServeSettings(c *cobra.Command, w world) (*serveSettings, error) {
	f := c.Flags()
	explicit := f.Changed("http")
	from, err := resolve(c, w)
	if err != nil {
		return nil, err
	}
	str := func(name string) string { v, _ := f.GetString(name); return v } // the flags exist
	list := func(name string) []string { v, _ := f.GetStringArray(name); return v }
	s := &serveSettings{
		data: str("data"), http: str("http"), https: str("https"), lanPlaintext: list("lan-plaintext"),
		tlsCert: str("tls-cert"), tlsKey: str("tls-key"), allowOrigins: list("allow-origin"), public: str("public"), from: from,
	}
	s.lan, _ = f.GetBool("lan")
	bridge := bridgeSettings{url: str("mqtt-bridge"), user: str("mqtt-bridge-user"), passwordFile: str("mqtt-bridge-password-file")}
	bridge.plaintext, _ = f.GetBool("mqtt-bridge-plaintext")
	if s.data == "" {
		return nil, usagef("where does the hub keep its data? Name a folder with --data DIR or HUB_DATA")
	}
	if err := s.setPort(w, explicit); err != nil {
		return nil, from.explain(err)
	}
	for _, check := range []error{
		s.setMQTT(str("mqtt"), str("mqtts"), list("mqtt-plaintext"), f.Changed("mqtt")), s.setBridge(bridge), s.setOutbox(str("outbox")),
		s.setTLS(), s.setPublicURL(str("public-url")), s.setProxies(list("trusted-proxy")), s.setCommit(str("commit-interval")),
		s.setLog(str("log-level"), str("log-format")), s.checkOrigins(),
	} {
		if check != nil {
			return nil, from.explain(check)
		}
	}
	return s, nil
}

// setPort applies PORT, as platforms give it: below the flag and HUB_HTTP, above the file and the default.
func (s *serveSettings) setPort(w world, explicit bool) error {
	port, ok := w.env("PORT")
	if _, hubHTTP := w.env(envName("http")); !ok || port == "" || explicit || hubHTTP {
		return nil
	}
	host, _, err := net.SplitHostPort(s.http)
	if err != nil {
		return usagef("--http %s: %v", s.http, err)
	}
	s.http = net.JoinHostPort(host, port)
	s.from["http"] = "environment variable PORT"
	return nil
}

// setTLS decides what is served with TLS, and refuses plain text beyond this machine that was not asked for by name.
func (s *serveSettings) setTLS() error {
	if (s.tlsCert == "") != (s.tlsKey == "") {
		return usagef("--tls-cert and --tls-key belong together: name both files")
	}
	secure := s.lan || s.tlsCert != ""
	switch {
	case s.https != "" && !secure:
		return usagef("--https needs a certificate: --lan makes one, --tls-cert and --tls-key name your own")
	case secure && s.https == "" && loopback(s.http):
		s.https = defaultHTTPS
	case secure && s.https == "":
		s.http, s.https = "", s.http
	}
	if s.http != "" && !loopback(s.http) {
		return usagef("--http %s would serve other machines without encryption, passwords and tokens included. Use --lan, which "+
			"serves them with TLS, or --tls-cert with a certificate of your own, or a proxy with TLS on this machine and --public-url. "+
			"For devices that cannot do TLS there is --lan-plaintext ADDRESS", s.http)
	}
	for _, a := range s.addresses() {
		_, port, err := net.SplitHostPort(a.addr)
		if err == nil {
			_, err = net.LookupPort("tcp", port) // a name is found in a file of this machine
		}
		if err != nil {
			return usagef("--%s %s: %v: write host:port", a.flag, a.addr, err)
		}
	}
	return nil
}

// loopback reports whether only this machine can reach an address.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return true // refused later, as what it is
	}
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.Unmap().IsLoopback()
}

func (s *serveSettings) setPublicURL(text string) error {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || strings.Trim(u.Path, "/") != "" || u.User != nil ||
		u.RawQuery != "" || u.Fragment != "" {
		return usagef("--public-url %s: write scheme and host, as https://hub.example.org", text)
	}
	u.Path = ""
	s.publicURL = u
	return nil
}

func (s *serveSettings) checkOrigins() error {
	if _, err := access.ParseOrigins("", s.allowOrigins); err != nil {
		return usagef("--allow-origin: %v", err)
	}
	return nil
}

func (s *serveSettings) setProxies(list []string) error {
	for _, text := range list {
		prefix, err := netip.ParsePrefix(text)
		if addr, addrErr := netip.ParseAddr(text); addrErr == nil {
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			return usagef("--trusted-proxy %s: write an address or a network, as 127.0.0.1 or 10.0.0.0/8", text)
		}
		s.proxies = append(s.proxies, prefix)
	}
	return nil
}

func (s *serveSettings) setCommit(text string) (err error) {
	if text == "card" {
		s.commit = cardInterval
		return nil
	}
	if s.commit, err = time.ParseDuration(text); err != nil || s.commit <= 0 || s.commit > time.Minute {
		return usagef("--commit-interval %s: use a duration up to 1m, as 2ms, or card", text)
	}
	return nil
}

func (s *serveSettings) setLog(level, format string) error {
	if err := s.level.UnmarshalText([]byte(level)); err != nil {
		return usagef("--log-level %s: use debug, info, warn or error", level)
	}
	if format != "text" && format != "json" {
		return usagef("--log-format %s: use text or json", format)
	}
	s.logJSON = format == "json"
	return nil
}

func (s *serveSettings) logger(w io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: s.level}
	if s.logJSON {
		return slog.New(newCalmHandler(slog.NewJSONHandler(w, o)))
	}
	return slog.New(newCalmHandler(slog.NewTextHandler(w, o)))
}

// address is something to listen at.
type address struct {
	flag, addr string
	kind       kind
}

func (s *serveSettings) addresses() []address {
	var list []address
	if s.http != "" {
		list = append(list, address{"http", s.http, kindLoopback})
	}
	if s.https != "" {
		list = append(list, address{"https", s.https, kindTLS})
	}
	for _, a := range s.lanPlaintext {
		list = append(list, address{"lan-plaintext", a, kindPlain})
	}
	if s.mqtt.addr != "" {
		list = append(list, address{"mqtt", s.mqtt.addr, kindMQTT})
	}
	if s.mqtt.tlsAddr != "" {
		list = append(list, address{"mqtts", s.mqtt.tlsAddr, kindMQTTS})
	}
	for _, a := range s.mqtt.plaintext {
		list = append(list, address{"mqtt-plaintext", a, kindMQTTPlain})
	}
	return list
}

// openPublic opens the folder of --public, which nothing in it leads out of. Without one there is no file system.
func (s *serveSettings) openPublic() (fs.FS, func() error, error) {
	if s.public == "" {
		return nil, func() error { return nil }, nil
	}
	root, err := os.OpenRoot(s.public)
	if err != nil {
		return nil, nil, s.from.explain(usagef("--public %s: %v", s.public, err))
	}
	return root.FS(), root.Close, nil
}

// names are what a self-made certificate must have besides the names of the machine.
func (s *serveSettings) names() []string {
	if s.publicURL == nil {
		return nil
	}
	return []string{s.publicURL.Hostname()}
}

func (s *serveSettings) apiOptions(core *hub.Hub, people *access.Registry, st *stores, b *bindings, c *counts, page http.Handler,
	public fs.FS, log *slog.Logger) api.Options {
	o := api.Options{
		Hub: core, Access: people, Version: version(), PublicURL: s.publicURL, LinkBase: b.base(s), AllowOrigins: s.allowOrigins,
		Proxies: s.proxies, HSTS: s.tlsCert != "" || s.publicURL != nil, Damage: st.found, Figures: c.figures(),
		Page: page, Public: public, Admit: door.Admit, Return: door.Return, Logger: log,
	}
	if b.cert != nil {
		o.Fingerprint = b.cert.Pin()
	}
	for _, l := range b.listeners {
		if l.kind == kindPlain || l.kind == kindMQTTPlain {
			o.Plaintext = append(o.Plaintext, fmt.Sprint(l.Addr()))
		}
	}
	return o
}
