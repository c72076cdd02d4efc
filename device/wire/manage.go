package wire

import "encoding/hex"

// Cfg gives a device a new configuration.
type Cfg struct {
	Revision uint64 `json:"rev"`
	// SHA256 is the lower-case hexadecimal SHA-256 of the bytes of Doc.
	SHA256 string `json:"sha"`
	// Doc is the whole document, at most MaxConfig bytes. It is a string so that its hash means the same everywhere.
	Doc string `json:"doc"`
}

// AppendCfg appends c to dst.
func AppendCfg(dst []byte, f Format, c *Cfg) []byte { return appendControl(dst, f, TypeCfg, c) }

// DecodeCfg decodes and checks a configuration. It does not compare the hash.
func DecodeCfg(f Format, frame []byte) (Cfg, error) { return decodeAs[Cfg](f, frame, TypeCfg) }

func (c *Cfg) check() error {
	switch {
	case c.Revision == 0 || c.Revision > MaxSeq:
		return protocolError("cfg: rev is not between 1 and 2^53-1")
	case len(c.Doc) > MaxConfig:
		return protocolError("cfg: the document is longer than %d bytes", MaxConfig)
	}
	return checkHash("sha", c.SHA256)
}

func checkHash(what, s string) error {
	if b, err := hex.DecodeString(s); err != nil || len(b) != 32 {
		return protocolError("%s is not a SHA-256 in hexadecimal", what)
	}
	return nil
}

// What became of a configuration.
const (
	ConfigApplied  = "applied"
	ConfigRejected = "rejected"
	ConfigReverted = "reverted" // it was applied and then taken back, because the hub could not be reached with it
)

// CfgResult is what became of a configuration.
type CfgResult struct {
	Revision uint64 `json:"rev"`
	State    string `json:"st"`
	Err      string `json:"err,omitempty"`
}

// AppendCfgResult appends r to dst. Err is cut to MaxText bytes.
func AppendCfgResult(dst []byte, f Format, r *CfgResult) []byte {
	c := *r
	c.Err = clean(c.Err)
	return appendControl(dst, f, TypeCfgr, &c)
}

// DecodeCfgResult decodes and checks a cfgr.
func DecodeCfgResult(f Format, frame []byte) (CfgResult, error) {
	return decodeAs[CfgResult](f, frame, TypeCfgr)
}

func (r *CfgResult) check() error {
	switch r.State {
	case ConfigApplied, ConfigRejected, ConfigReverted:
	default:
		return protocolError("cfgr: unknown state %q", r.State)
	}
	if r.Revision == 0 || r.Revision > MaxSeq {
		return protocolError("cfgr: rev is not between 1 and 2^53-1")
	}
	return checkText("err", r.Err)
}

// OTA offers a device a new program. The device answers with a [Result].
type OTA struct {
	ID      string `json:"id"`
	Version string `json:"ver"`
	URL     string `json:"url"`
	Size    uint64 `json:"size"`
	// SHA256 is the lower-case hexadecimal SHA-256 of the file, Signature its signature as text.
	SHA256    string `json:"sha256"`
	Signature string `json:"sig,omitempty"`
	// Hours are the local hours of the day between which the update may be installed: [2 5] is from 2:00 to 5:00. None
	// means at any time.
	Hours []int `json:"hours,omitempty"`
}

// AppendOTA appends o to dst.
func AppendOTA(dst []byte, f Format, o *OTA) []byte { return appendControl(dst, f, TypeOTA, o) }

// DecodeOTA decodes and checks an ota.
func DecodeOTA(f Format, frame []byte) (OTA, error) { return decodeAs[OTA](f, frame, TypeOTA) }

func (o *OTA) check() error {
	if n := len(o.Hours); n != 0 && (n != 2 || !hour(o.Hours[0]) || !hour(o.Hours[1])) {
		return protocolError("ota: hours are two hours of the day")
	}
	if o.Size > MaxSeq || len(o.URL) > MaxURL || o.URL == "" {
		return protocolError("ota: size or url is missing or out of range")
	}
	return firstError(checkOpaque("id", o.ID, MaxWord), checkOpaque("ver", o.Version, MaxWord),
		checkHash("sha256", o.SHA256), checkPrintable("url", o.URL, MaxURL), checkPrintable("sig", o.Signature, MaxText))
}

func hour(h int) bool { return h >= 0 && h <= 24 }
