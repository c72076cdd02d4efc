package access

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"strings"
)

// prefix tells what a secret is for, so that people and secret scanners recognise it.
type prefix string

// The prefixes. They are part of every secret and of its hash: never change them.
const (
	devicePrefix    prefix = "thd_"
	apiPrefix       prefix = "tha_"
	enrolmentPrefix prefix = "the_"
	sessionPrefix   prefix = "ths_"
	linkPrefix      prefix = "thl_"
)

// A secret is a prefix of 4 bytes and 32 digits, which stand for 128 random bits and a CRC-32C over prefix and bits.
// The CRC finds every single wrong digit and every swap of neighbours.
const (
	prefixLen = 4
	randomLen = 16
	digits    = (randomLen + 4) * 8 / 5
	textLen   = prefixLen + digits
)

// Crockford's base 32, lower case. Reading it takes upper case too, O for 0, and I and L for 1.
const (
	alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	letters  = "\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x01\x12\x13\x01\x14\x15\x00\x16\x17\x18\x19\x1a\xff\x1b\x1c\x1d\x1e\x1f"
)

// digest is what is stored of a secret: its SHA-256. Secrets have 128 random bits, so nothing slower is needed, and
// looking a digest up in a map tells a timing attacker nothing about the secrets that would hash to it.
type digest [sha256.Size]byte

// mint returns a new random secret and its digest.
func mint(p prefix) (Secret, digest) {
	var raw [prefixLen + randomLen + 4]byte
	copy(raw[:], p)
	_, _ = rand.Read(raw[prefixLen : prefixLen+randomLen]) // never fails: it ends the program instead
	head := raw[:prefixLen+randomLen]
	binary.BigEndian.PutUint32(raw[len(head):], checksum(head))
	return NewSecret(string(p) + encode(raw[prefixLen:])), sha256.Sum256(head)
}

// parse returns the prefix and the digest of a secret, or ErrNotToken. It does not allocate.
func parse(text string) (prefix, digest, error) {
	if len(text) != textLen {
		return "", digest{}, ErrNotToken
	}
	p := prefix(text[:prefixLen])
	switch p {
	case devicePrefix, apiPrefix, enrolmentPrefix, sessionPrefix, linkPrefix:
	default:
		return "", digest{}, ErrNotToken
	}
	var raw [prefixLen + randomLen + 4]byte
	copy(raw[:], p)
	if !decode(raw[prefixLen:], text[prefixLen:]) {
		return "", digest{}, ErrNotToken
	}
	head := raw[:prefixLen+randomLen]
	if binary.BigEndian.Uint32(raw[len(head):]) != checksum(head) {
		return "", digest{}, ErrNotToken
	}
	return p, sha256.Sum256(head), nil
}

// checksum is CRC-32C. crc32.Checksum gives the same, but moves what it reads to the heap.
func checksum(p []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	crc := ^uint32(0)
	for _, b := range p {
		crc = table[byte(crc)^b] ^ crc>>8
	}
	return ^crc
}

// encode writes 5 bits of p in every digit. The length of p must be a multiple of 5.
func encode(p []byte) string {
	var b strings.Builder
	b.Grow(len(p) / 5 * 8)
	for ; len(p) >= 5; p = p[5:] {
		bits := uint64(binary.BigEndian.Uint32(p))<<8 | uint64(p[4])
		for shift := 35; shift >= 0; shift -= 5 {
			b.WriteByte(alphabet[bits>>shift&31])
		}
	}
	return b.String()
}

// decode fills dst from text, which must have 8 digits for every 5 bytes, and reports whether all are digits.
func decode(dst []byte, text string) bool {
	for ; len(dst) >= 5; dst, text = dst[5:], text[8:] {
		var bits uint64
		for i := range 8 {
			d := digit(text[i])
			if d > 31 {
				return false
			}
			bits = bits<<5 | uint64(d)
		}
		binary.BigEndian.PutUint32(dst, uint32(bits>>8))
		dst[4] = byte(bits)
	}
	return true
}

// digit returns the value of a base 32 digit, or 255.
func digit(c byte) byte {
	switch lower := c | 0x20; {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= lower && lower <= 'z':
		return letters[lower-'a']
	}
	return 255
}

// newID returns a public name for a token, user or session: 80 random bits, so that none is ever given twice.
func newID() string {
	var raw [10]byte
	_, _ = rand.Read(raw[:]) // never fails: it ends the program instead
	return encode(raw[:])
}
