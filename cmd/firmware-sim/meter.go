package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/term"

	"telemetryhub/firmware-sim"
)

// meter shows progress: a bar that is drawn over on a terminal, now and then a line elsewhere.
type meter struct {
	w     io.Writer
	tty   bool
	every time.Duration

	last   firmwaresim.Progress
	rate   float64 // readings a second, smoothed
	lineAt time.Duration
}

// lineEvery is the time between two lines where the output is no terminal.
const lineEvery = 5 * time.Second

func newMeter(w io.Writer) *meter {
	m := &meter{w: w, every: time.Second}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		m.tty, m.every = true, 200*time.Millisecond
	}
	return m
}

// show is called by one goroutine.
func (m *meter) show(p firmwaresim.Progress) {
	if d := (p.Elapsed - m.last.Elapsed).Seconds(); d > 0 {
		now := float64(p.Acked-m.last.Acked) / d
		if m.last.Elapsed == 0 {
			m.rate = now
		}
		m.rate += (now - m.rate) * min(1, d/2) // over about two seconds
	}
	m.last = p
	switch {
	case m.tty:
		fmt.Fprintf(m.w, "\r\x1b[K%s", m.line(p, true))
		if p.Done {
			fmt.Fprintln(m.w)
		}
	case p.Done || p.Elapsed-m.lineAt >= lineEvery:
		m.lineAt = p.Elapsed
		fmt.Fprintln(m.w, m.line(p, false))
	}
}

func (m *meter) line(p firmwaresim.Progress, bar bool) string {
	var b strings.Builder
	rate := m.rate
	if p.Done && p.Elapsed > 0 {
		rate = float64(p.Acked) / p.Elapsed.Seconds()
	}
	if p.Total > 0 {
		done := min(float64(p.Acked)/float64(p.Total), 1)
		if bar {
			const width = 24
			n := int(done * width)
			fmt.Fprintf(&b, "[%s%s] ", strings.Repeat("=", n), strings.Repeat(" ", width-n))
		}
		fmt.Fprintf(&b, "%3.0f %%  %s of %s readings acked", done*100, grouped(p.Acked), grouped(uint64(p.Total)))
	} else {
		fmt.Fprintf(&b, "%s readings acked", grouped(p.Acked))
	}
	fmt.Fprintf(&b, ", %s sent, %s/s", grouped(p.Sent), grouped(uint64(rate)))
	if p.Done {
		return b.String()
	}
	fmt.Fprintf(&b, ", %d of %d devices connected", p.Connected, p.Devices)
	if p.Err != nil && p.Connected < p.Devices {
		text := p.Err.Error()
		if len(text) > 60 {
			text = text[:57] + "..."
		}
		fmt.Fprintf(&b, " (%s)", strings.ReplaceAll(text, "\n", " "))
	}
	return b.String()
}

// grouped writes n with a comma between thousands.
func grouped(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
