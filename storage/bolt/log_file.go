package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
)

// segmentFileOptions are those of a segment that is written to.
func segmentFileOptions(o LogOptions, stop *latch) fileOptions {
	n := o.fileBytes()
	return fileOptions{
		format: logFormat, version: logVersion, buckets: []string{logBucket}, reserve: n, latch: stop,
		// Twice the size, so that the file is never mapped anew.
		mapBytes: int(2 * n),
	}
}

// buildSegment makes a file that can become a segment.
func buildSegment(temp string, o LogOptions, stop *latch) (*file, error) {
	return buildFile(temp, segmentFileOptions(o, stop), putFiller)
}

func putFiller(f *file) error {
	return f.update(func(tx *bolt.Tx) error {
		var key [logKeySize]byte
		return tx.Bucket([]byte(logBucket)).Put(logKey(&key, 0, 0), make([]byte, fillerSize))
	})
}

// replace puts a new file with what was rescued in the place of a damaged one, and opens it.
func (o *opening) replace(c *oldSegment, f segmentFindings) error {
	if !f.ours {
		return fmt.Errorf("%s: %w of this program: %w; move it away", c.path, errNotBolt, c.bad)
	}
	opts := segmentFileOptions(o.l.opts, o.l.latch)
	opts.reserve = 0
	file, err := buildFile(c.path+tempSuffix, opts, func(out *file) error {
		if err := putFiller(out); err != nil {
			return err
		}
		return f.writeTo(out, c.fd)
	})
	if err != nil {
		return fmt.Errorf("rescue %s: %w", c.path, err)
	}
	d := damagedFile{path: c.path, os: c.fd, p: c.p}
	aside, err := d.swapIn(file)
	if err = errors.Join(err, file.close()); err != nil {
		return fmt.Errorf("rescue %s: %w", c.path, err)
	}
	why := c.bad
	err = c.fd.Close()
	*c = oldSegment{first: c.first, path: c.path}
	if err = errors.Join(err, c.open(false)); err == nil && c.bad == nil {
		c.read = true
		c.v, c.bad = verifySegment(c.p, c.first)
	}
	if err = errors.Join(err, c.bad); err != nil {
		return fmt.Errorf("rescue %s: %w", c.path, err)
	}
	o.l.report(Damage{File: c.path, What: why.Error(), Action: fmt.Sprintf("%d groups were put into a new file, the damaged one is kept as %s",
		c.v.groups, filepath.Base(aside))})
	return nil
}

// writeTo stores what was rescued, damaged groups as they are.
func (f *segmentFindings) writeTo(out *file, from *os.File) error {
	for i := 0; i < len(f.groups); {
		err := out.update(func(tx *bolt.Tx) error {
			b := tx.Bucket([]byte(logBucket))
			b.FillPercent = 1
			var key [logKeySize]byte
			for bytes := 0; i < len(f.groups) && bytes < 1<<20; i++ {
				g := &f.groups[i]
				for k, part := range g.parts {
					piece := make([]byte, part.n)
					if _, err := from.ReadAt(piece, part.off); err != nil {
						continue // the group stays damaged, which its seal tells
					}
					if err := b.Put(logKey(&key, g.pos, g.pieces[k]), piece); err != nil {
						return err
					}
					if err := b.SetSequence(uint64(g.pos)); err != nil {
						return err
					}
					bytes += part.n
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
