package bolt_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// TestWrongPageCountHidesNothing turns the bits that say how many pages a node has. Pages that are then counted to another
// one hold what they held, and must be found.
func TestWrongPageCountHidesNothing(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 4))
	crashed, _ := buildLog(t, seed)
	root := fastDir(t)
	n := 0
	for _, name := range crashed.names() {
		image := crashed.files[name]
		for page := 2; page < len(image)/4096; page++ {
			b := image[page*4096:]
			if le64(b) != uint64(page) || b[8] != 1 && b[8] != 2 || b[8] == 2 && r.IntN(8) > 0 {
				continue // every branch, some leaves
			}
			for _, bit := range []int{r.IntN(3), 3 + r.IntN(3), 6 + r.IntN(26)} {
				n++
				dir := filepath.Join(root, fmt.Sprint(n))
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				crashed.write(t, dir, func(file string, b []byte) []byte {
					if file == name {
						b[page*4096+12+bit/8] ^= 1 << (bit % 8)
					}
					return b
				})
				outcome, err := crashed.try(t, dir)
				if err != nil || outcome == "groups lost and reported" {
					t.Errorf("%s, page %d of type %d, bit %d: %s, %v", name, page, b[8], bit, outcome, err)
				}
				_ = os.RemoveAll(dir) // only to save space
			}
		}
	}
	t.Logf("%d pages with a wrong count", n)
}
