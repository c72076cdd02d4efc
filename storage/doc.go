// Package storage holds the contracts of the hub's store: [Log], [Chunks] and [Catalog].
//
// The log is the ordered, durable sequence of everything that devices sent. Chunks hold the history that is made from
// the log. The catalog holds everything else by key: devices, schemas, tokens, cursors, checkpoints.
//
// The contracts promise only what every backend can give, from one bbolt file to a JetStream cluster. So positions are
// ordered but neither dense nor known in advance, there is no transaction across keys and none across contracts, no
// value is aliased to memory of the backend, a group is at most [MaxGroup] bytes, and no backend drops duplicates.
//
// Every backend passes the suite in storage/storagetest.
package storage
