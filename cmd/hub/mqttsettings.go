package main

import (
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

const (
	defaultMQTT  = "127.0.0.1:1883"
	defaultMQTTS = ":8883"
	// noAddress says that there is to be no listener.
	noAddress = "off"
)

// mqttSettings is how a hub was asked to speak MQTT.
type mqttSettings struct {
	addr, tlsAddr string
	plaintext     []string
	chosen        map[kind]bool // where not, and somebody else has the address, the hub goes on without
	bridge        bridgeSettings
	outbox        int64 // zero means by the size of the disk
}

// bridgeSettings name the broker elsewhere to which the hub publishes.
type bridgeSettings struct {
	url, user, passwordFile string
	plaintext               bool
}

func addMQTTFlags(f *pflag.FlagSet) {
	f.String("mqtt", defaultMQTT, "address of the MQTT broker for programs on this machine, without TLS, or "+noAddress)
	f.String("mqtts", "", "address of the MQTT broker with TLS; "+defaultMQTTS+" with --lan or --tls-cert, or "+noAddress)
	f.StringArray("mqtt-plaintext", nil, "address where MQTT is served to other machines WITHOUT encryption; may be repeated")
	f.String("mqtt-bridge", "", "publish to a broker elsewhere too (tcp://127.0.0.1:1884, tls://broker.example.org:8883)")
	f.String("mqtt-bridge-user", "", "user name at that broker")
	f.String("mqtt-bridge-password-file", "", "file with the password at that broker, readable by nobody else")
	f.Bool("mqtt-bridge-plaintext", false, "allow a broker on another machine WITHOUT encryption: everybody between can read all of it")
	f.String("outbox", "auto", "how much of the log is kept for MQTT while a broker is away, as 500MB; auto is 1GB, or a tenth of the disk if that is less")
}

// setMQTT decides where MQTT is served.
func (s *serveSettings) setMQTT(addr, tlsAddr string, plaintext []string, given bool) error {
	m := &s.mqtt
	m.addr, m.tlsAddr, m.plaintext = addr, tlsAddr, plaintext
	m.chosen = map[kind]bool{kindMQTT: given, kindMQTTS: tlsAddr != "", kindMQTTPlain: true}
	secure := s.lan || s.tlsCert != ""
	if m.addr == noAddress {
		m.addr = ""
	} else if !loopback(m.addr) {
		return usagef("--mqtt %s would serve other machines without encryption, tokens included. Use --lan, which serves them with TLS "+
			"at %s, or --mqtts with --tls-cert. For devices that cannot do TLS there is --mqtt-plaintext ADDRESS", m.addr, defaultMQTTS)
	}
	switch {
	case m.tlsAddr == noAddress:
		m.tlsAddr = ""
	case m.tlsAddr != "" && !secure:
		return usagef("--mqtts needs a certificate: --lan makes one, --tls-cert and --tls-key name your own")
	case m.tlsAddr == "" && secure:
		m.tlsAddr = defaultMQTTS
	}
	return nil
}

// setBridge checks what is said about the broker elsewhere as far as it does not depend on that broker.
func (s *serveSettings) setBridge(b bridgeSettings) error {
	if b.url == "" {
		for flag, set := range map[string]bool{
			"mqtt-bridge-user": b.user != "", "mqtt-bridge-password-file": b.passwordFile != "", "mqtt-bridge-plaintext": b.plaintext,
		} {
			if set {
				return usagef("--%s is about a broker that is not named: add --mqtt-bridge tls://HOST:PORT", flag)
			}
		}
		return nil
	}
	if b.passwordFile != "" {
		info, err := os.Stat(b.passwordFile)
		if err != nil {
			return usagef("--mqtt-bridge-password-file: %v", err)
		}
		if mode := info.Mode().Perm(); mode&0o077 != 0 {
			return usagef("--mqtt-bridge-password-file %s: others can read it (mode %o): chmod 600 it", b.passwordFile, mode)
		}
	}
	s.mqtt.bridge = b
	return nil
}

// password reads the password at the broker elsewhere, the first line of its file.
func (b *bridgeSettings) password() (string, error) {
	if b.passwordFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(b.passwordFile)
	if err != nil {
		return "", usagef("--mqtt-bridge-password-file: %v", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSuffix(line, "\r"), nil
}

// setOutbox reads a size.
func (s *serveSettings) setOutbox(text string) error {
	if text == "auto" {
		return nil
	}
	n, ok := parseSize(text)
	if !ok {
		return usagef("--outbox %s: write a size, as 500MB or 2GiB, 0 for none, or auto", text)
	}
	if s.mqtt.outbox = n; n == 0 {
		s.mqtt.outbox = -1 // of which zero means something else
	}
	return nil
}

// sizeUnits are what a size may end with, the longer ones first.
var sizeUnits = []struct {
	name  string
	bytes float64
}{
	{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40}, {"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12}, {"b", 1},
}

// parseSize reads a number of bytes, with a unit or without.
func parseSize(text string) (int64, bool) {
	number, unit := strings.ToLower(strings.TrimSpace(text)), 1.0
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(number, u.name); ok {
			number, unit = rest, u.bytes
			break
		}
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if n *= unit; err != nil || !(n >= 0) || n > math.MaxInt64/2 {
		return 0, false
	}
	return int64(n), true
}
