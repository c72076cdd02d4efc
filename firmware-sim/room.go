package firmwaresim

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
)

// Rooms describes made-up recordings of rooms for demonstrations: a temperature that follows heater and window, the
// humidity that goes with it, light and people. The same options give the same bytes.
type Rooms struct {
	// Devices are the names of the rooms.
	Devices []string
	// StepMS is the time between two rows of one room, in milliseconds; Steps is how many rows each has.
	StepMS int64
	Steps  int
	Seed   uint64
}

// Write writes a recording in the form that Inspect reads. Its values come back to where they began, so that it can be
// played in a loop without a jump.
func (r Rooms) Write(w io.Writer) error {
	const start = 1_700_000_000_000
	buf := bufio.NewWriter(w)
	fmt.Fprintln(buf, "time_ms,device,temperature,humidity,light,occupants,window")
	noise := rand.New(rand.NewPCG(r.Seed, 1))
	for step := range r.Steps {
		for i, id := range r.Devices {
			turn := 2*math.Pi*float64(step)/float64(r.Steps) + float64(i)
			window := 0
			if math.Sin(3*turn) > 0.9 {
				window = 1
			}
			occupants := int(1.5 + 1.5*math.Sin(2*turn))
			temperature := 20.5 + 1.2*math.Sin(turn) - 1.5*float64(window) + 0.3*float64(occupants) + 0.03*noise.NormFloat64()
			humidity := 45 - 3*math.Sin(turn) + 1.5*float64(occupants) + 0.1*noise.NormFloat64()
			light := max(0, 250+240*math.Sin(turn)+4*noise.NormFloat64())
			at := start + int64(step)*r.StepMS + int64(i)*r.StepMS/int64(len(r.Devices))
			fmt.Fprintf(buf, "%d,%s,%.2f,%.2f,%.1f,%d,%d\n", at, id, temperature, humidity, light, occupants, window)
		}
	}
	return buf.Flush() // it remembers the first error
}
