// Package mem keeps a [Log], [Chunks] and a [Catalog] in memory. They follow the contracts of package storage to the
// letter, except that everything is lost with the process. Tests and demonstrations use them.
//
// Each type has a Reopen method that plays a restart: the new value has the content of the old one.
package mem
