package spool_test

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
)

// newerState is the state file of a version that does not exist yet.
var newerState = func() []byte {
	js := `{"v":2,"head":1,"sent":1,"next":1,"clean":true,"streams":[{"id":"x","first":1}]}`
	return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum([]byte(js), crc32.MakeTable(crc32.Castagnoli)), js)
}()

// newerSegment gives the segment of d the header of a version that does not exist yet.
func newerSegment(d *disk) {
	for name, n := range d.names {
		if strings.HasSuffix(name, ".seg") {
			binary.LittleEndian.PutUint32(n.data[8:], 2)
			binary.LittleEndian.PutUint32(n.data[28:], crc32.Checksum(n.data[:28], crc32.MakeTable(crc32.Castagnoli)))
		}
	}
}
