package wire

import (
	"math"
	"strconv"

	"telemetryhub/device"
)

func appendJSONValue(dst []byte, v device.Value) []byte {
	switch v.Type {
	case device.Number:
		return appendJSONFloat(dst, v.Float())
	case device.Bool:
		return strconv.AppendBool(dst, v.Float() != 0)
	case device.String:
		return appendJSONString(dst, v.Text())
	}
	return append(dst, "null"...)
}

// appendJSONFloat writes the shortest decimal that reads back as v, in the manner of JavaScript. v must be finite.
func appendJSONFloat(dst []byte, v float64) []byte {
	format := byte('f')
	if a := math.Abs(v); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, v, format, -1, 64)
}

// appendJSONString writes s, which must be UTF-8. Only what RFC 8259 section 7 asks for is escaped.
func appendJSONString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}
