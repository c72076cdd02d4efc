package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"telemetryhub/device"
	"telemetryhub/device/agent"
	"telemetryhub/device/sensor"
)

// config is device.yaml. Whatever is not understood is refused, with its line.
type config struct {
	// Hub is the address of the hub; Pin is the fingerprint of its certificate, as the hub prints it.
	Hub       string `yaml:"hub"`
	Pin       string `yaml:"pin"`
	Plaintext bool   `yaml:"plaintext"`
	// Device is the id.
	Device string `yaml:"device"`
	// Data is the folder for the spool and for the token that was fetched by enrolment.
	Data string `yaml:"data"`
	// TokenFile holds the device token. Without it the token is fetched with the enrolment token in EnrolmentFile, once.
	TokenFile     string       `yaml:"token-file"`
	EnrolmentFile string       `yaml:"enrolment-file"`
	Spool         spoolConfig  `yaml:"spool"`
	Sensors       []sensorConf `yaml:"sensors"`

	dir string // paths are relative to it
}

type spoolConfig struct {
	// MaxMiB bounds the spool; MaxAge drops what is older; Sync is how often it is made durable.
	MaxMiB int      `yaml:"max-mib"`
	MaxAge duration `yaml:"max-age"`
	Sync   duration `yaml:"sync"`
}

type sensorConf struct {
	Chip    string             `yaml:"chip"`
	Bus     string             `yaml:"bus"`
	Address uint16             `yaml:"address"`
	Prefix  string             `yaml:"prefix"`
	Every   duration           `yaml:"every"`
	Offsets map[string]float64 `yaml:"offsets"`
}

// duration is a time.Duration as people write it: 10s, 5m.
type duration time.Duration

func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is not a time: write 10s or 5m", b)
	}
	*d = duration(v)
	return nil
}

const exampleConfig = `hub: https://hub.local:8443
pin: sha256//…                      # as the hub prints it; leave it out for a certificate that is generally trusted
device: greenhouse-1
data: /var/lib/telemetry-device     # the spool, and the token
enrolment-file: enrolment           # from: hub enrol create; or token-file: from hub device add
sensors:
  - chip: bme280
    bus: I2C1
    address: 0x76
    every: 10s
    # prefix: outside/              # before the names of its metrics
    # offsets: {temperature: -0.4}  # calibration
`

// loadConfig reads and checks a configuration. The error names file and line.
func loadConfig(path string) (*config, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usagef("configuration: %v: write one like this:\n\n%s", err, exampleConfig)
	}
	if err != nil {
		return nil, usagef("configuration: %v", err)
	}
	c := &config{dir: filepath.Dir(path)}
	if err := yaml.NewDecoder(bytes.NewReader(raw), yaml.Strict(), yaml.DisallowUnknownField()).Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, usagef("configuration %s: %s", path, strings.TrimSpace(yaml.FormatError(err, false, true)))
	}
	if err := c.check(); err != nil {
		return nil, usagef("configuration %s: %v", path, err)
	}
	return c, nil
}

func (c *config) check() error {
	if _, err := device.ParseID(c.Device); err != nil {
		return fmt.Errorf("device: %w", err)
	}
	if _, err := agent.WebSocket(c.endpoint("")); err != nil {
		return err
	}
	switch {
	case c.Data == "":
		return errors.New("data: name a folder for the spool and the token")
	case c.TokenFile == "" && c.EnrolmentFile == "":
		return errors.New("name a token-file (hub device add prints a token) or an enrolment-file (hub enrol create)")
	case c.TokenFile != "" && c.EnrolmentFile != "":
		return errors.New("token-file and enrolment-file: name one of them")
	case c.Spool.MaxMiB < 0, c.Spool.MaxAge < 0, c.Spool.Sync < 0:
		return errors.New("spool: a limit is negative")
	case len(c.Sensors) == 0:
		return errors.New("sensors: name at least one; device scan shows what is there")
	}
	_, err := sensor.NewSampler(c.specs(), nil, nil, sensor.Options{})
	if err != nil {
		return fmt.Errorf("sensors: %w", err)
	}
	return nil
}

func (c *config) endpoint(token string) agent.Endpoint {
	return agent.Endpoint{URL: c.Hub, Pin: c.Pin, Plaintext: c.Plaintext, Token: token}
}

func (c *config) specs() (list []sensor.Spec) {
	for _, s := range c.Sensors {
		list = append(list, sensor.Spec{
			Model: s.Chip, Bus: s.Bus, Addr: s.Address, Prefix: s.Prefix, Every: time.Duration(s.Every), Offsets: s.Offsets,
		})
	}
	return list
}

// path returns a path of the configuration, which is relative to its folder.
func (c *config) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(c.dir, p)
}
