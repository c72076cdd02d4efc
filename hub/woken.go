package hub

import "time"

const (
	// portion viewers at least are woken together, and the next ones wakeStep later.
	portion  = 16
	wakeStep = time.Millisecond
)

// woken are viewers that there is something for.
type woken struct {
	viewers []*Viewer
	within  time.Duration
}

func (u *woken) add(more woken) {
	u.viewers, u.within = append(u.viewers, more.viewers...), max(u.within, more.within)
}

// wake wakes them, many of them in portions within the time that they have: to write to hundreds at one moment takes
// milliseconds, for which everybody else would wait, devices for their acks too.
func (u woken) wake() {
	size := len(u.viewers)
	if steps := int(u.within / wakeStep); steps > 1 {
		size = max(portion, (size+steps-1)/steps)
	}
	wakePortions(u.viewers, size)
}

func wakePortions(viewers []*Viewer, size int) {
	now := viewers[:min(size, len(viewers))]
	for _, v := range now {
		v.peer.Wake()
	}
	if rest := viewers[len(now):]; len(rest) > 0 {
		time.AfterFunc(wakeStep, func() { wakePortions(rest, size) })
	}
}
