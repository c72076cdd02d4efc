// Package bolt keeps the hub's log, catalog and chunks in bbolt files. FORMAT.md has every byte of them.
//
// bbolt gives atomic commits and snapshots. What it does not give is made here, in the file layer that log, catalog and
// chunks share: creation that survives a power cut, a check of every page by an own reader before bbolt touches a file,
// checksums over everything that is stored, errors instead of crashes when the disk cannot be read, a plain answer to
// whether a failed commit may be on disk, and rescue of what is intact in a damaged file.
//
// No bbolt type appears in what the package exports.
package bolt
