package api

import (
	"math"
	"strconv"
	"unicode/utf8"

	"telemetryhub/device"
)

// appendNumber writes the shortest decimal text that reads back as exactly f: without an exponent from 1e-6 up to 1e21, as
// JavaScript does. NaN and infinities, which are no readings, become null.
func appendNumber(dst []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(dst, "null"...)
	}
	abs := math.Abs(f)
	if abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		return strconv.AppendFloat(dst, f, 'e', -1, 64)
	}
	return strconv.AppendFloat(dst, f, 'f', -1, 64)
}

// appendJSON writes v as JSON. An absent value is null.
func appendJSON(dst []byte, v device.Value) []byte {
	switch v.Type {
	case device.Number:
		return appendNumber(dst, v.Float())
	case device.Bool:
		return strconv.AppendBool(dst, v.Float() != 0)
	case device.String:
		return appendJSONText(dst, v.Text())
	}
	return append(dst, "null"...)
}

const hexDigits = "0123456789abcdef"

// appendJSONText writes s as a JSON string. Besides what JSON demands it escapes <, > and &, so that no page that embeds
// the text can take it for markup, and the line separators that JavaScript once refused.
func appendJSONText(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			switch {
			case r == utf8.RuneError && n == 1:
				dst = append(dst, `\ufffd`...)
			case r == '\u2028' || r == '\u2029':
				dst = append(dst, `\u202`...)
				dst = append(dst, hexDigits[r&0xf])
			default:
				dst = append(dst, s[i:i+n]...)
			}
			i += n
			continue
		}
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c < ' ' || c == '<' || c == '>' || c == '&' || c == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
		default:
			dst = append(dst, c)
		}
		i++
	}
	return append(dst, '"')
}

// appendCSV writes v as a field of CSV (RFC 4180). An absent value is an empty field.
func appendCSV(dst []byte, v device.Value) []byte {
	switch v.Type {
	case device.Number:
		return appendNumber(dst, v.Float())
	case device.Bool:
		return strconv.AppendBool(dst, v.Float() != 0)
	case device.String:
		return appendCSVText(dst, v.Text())
	}
	return dst
}

// appendCSVText writes text as one quoted field. Spreadsheets take a cell that begins with one of = + - @ (or with a tab or
// a line break, which they skip) for a formula, also inside quotes; an apostrophe before it makes it text again.
func appendCSVText(dst []byte, s string) []byte {
	dst = append(dst, '"')
	if s != "" {
		switch s[0] {
		case '=', '+', '-', '@', '\t', '\r', '\n':
			dst = append(dst, '\'')
		}
	}
	for i := range len(s) {
		if s[i] == '"' {
			dst = append(dst, '"')
		}
		dst = append(dst, s[i])
	}
	return append(dst, '"')
}
