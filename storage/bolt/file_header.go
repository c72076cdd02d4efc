package bolt

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"telemetryhub/storage"
)

// castagnoli is the polynomial of every checksum in the files: CRC32C, which processors compute.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// The bucket and key that say what a file is.
const (
	headerBucket = "header"
	formatKey    = "format"
)

// encodeHeader returns the value of the format key: length of the name, name, version, CRC32C of what comes before.
func encodeHeader(format string, version uint32) []byte {
	b := append([]byte{byte(len(format))}, format...)
	b = binary.BigEndian.AppendUint32(b, version)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeHeader(b []byte) (format string, version uint32, err error) {
	if len(b) < 9 || len(b) != int(b[0])+9 {
		return "", 0, corruptf("the header has %d bytes", len(b))
	}
	body := b[:len(b)-4]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(b[len(b)-4:]) {
		return "", 0, corruptf("the checksum of the header is wrong")
	}
	n := int(b[0])
	return string(body[1 : 1+n]), binary.BigEndian.Uint32(body[1+n:]), nil
}

// header returns a value of the header bucket, nil if it is not there. It is valid until the next read of a page.
func (p *pages) header(key string) ([]byte, error) {
	root, _, n, ok, err := p.bucket(headerBucket)
	for range maxDepth {
		if err != nil || !ok {
			return nil, err
		}
		if root != 0 {
			if n, err = p.node(root); err != nil {
				return nil, err
			}
		}
		i, found := n.find([]byte(key))
		switch {
		case !n.leaf:
			root = n.child(i)
		case !found:
			return nil, nil
		default:
			return n.value(i), nil
		}
	}
	return nil, corruptf("the tree of the header is too deep")
}

// checkHeader returns nil if the file has the format, in a version up to the given one. A file without a header is
// reported as damaged: one bit can hide it. Salvage finds out whether anything in the file is ours.
func (p *pages) checkHeader(format string, version uint32) error {
	b, err := p.header(formatKey)
	if err != nil {
		return err
	}
	if b == nil {
		return corruptf("the header is missing")
	}
	gotFormat, gotVersion, err := decodeHeader(b)
	switch {
	case err != nil:
		return err
	case gotFormat != format:
		return fmt.Errorf("%w of this kind: it is a %q file, not a %q file", errNotBolt, gotFormat, format)
	case gotVersion > version:
		return fmt.Errorf("%w: format %d, this program knows up to %d", storage.ErrNewerFormat, gotVersion, version)
	}
	return nil
}
