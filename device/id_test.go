package device_test

import (
	"errors"
	"strings"
	"testing"

	"telemetryhub/device"
)

func TestParseID(t *testing.T) {
	for _, s := range []string{"a", "0", "greenhouse-1", "a.b_c-d", strings.Repeat("x", device.MaxIDLen)} {
		if id, err := device.ParseID(s); err != nil || string(id) != s {
			t.Errorf("ParseID(%q) = %q, %v", s, id, err)
		}
	}
	for _, s := range []string{"", "-a", ".a", "_a", "A", "a b", "a/b", "ä", "a\x00", strings.Repeat("x", device.MaxIDLen+1)} {
		if id, err := device.ParseID(s); !errors.Is(err, device.ErrID) {
			t.Errorf("ParseID(%q) = %q, %v, want ErrID", s, id, err)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, s := range []string{"temperature", "env/temperature", "a:b.c_d-e", "1", "T", "statusx", "a/status", strings.Repeat("x", 64)} {
		if err := device.CheckName(s); err != nil {
			t.Errorf("CheckName(%q) = %v", s, err)
		}
	}
	for _, s := range []string{"", "/a", "-a", "a b", "a\u202eb", "a#", "a+", "status", "status/x", "cmd", "cmd/x", "gap", strings.Repeat("x", 65)} {
		if err := device.CheckName(s); !errors.Is(err, device.ErrName) {
			t.Errorf("CheckName(%q) = %v, want ErrName", s, err)
		}
	}
}
