// Package record is the format of the log: a group is a header and a sequence of records, a record is one batch or
// one gap of one device. FORMAT.md has every byte.
//
// Each record carries a checksum of its own, so that the rest of a damaged group stays readable, and all that is needed
// to find duplicates stands in its header, so that recovery can skip the rows.
package record
