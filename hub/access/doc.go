// Package access knows who may use the hub: devices, integrations and people.
//
// A credential is something that a caller shows: a device token, an API token, an enrolment token, the cookie of a
// session, a one-time link. [Registry] keeps them in a [storage.Catalog] (FORMAT.md has every value) and answers from
// memory. What a credential proves is an [Identity], and what an identity may do stands in one table of [Action]s,
// asked through [Identity.Can] and [Identity.CanOn]. Whatever is not in that table is denied.
//
// Secrets are random, shown once and stored only as SHA-256; passwords are stored as argon2id. A revoked credential
// fails from the next call on, and whoever holds a connection for it is told through [Registry.Watch].
//
// A registry is the only writer of its keys. It holds no lock during catalog operations: changes are made one after
// the other behind a semaphore that honours the context, and every change is a compare-and-set, so that a second
// registry on the same catalog cannot spend a link twice either.
package access
