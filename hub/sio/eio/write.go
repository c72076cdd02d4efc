package eio

import (
	"telemetryhub/hub/crew"
	"telemetryhub/hub/frames"
)

// Fill appends what is to be written. It does not use the writing side of gws, whose calls make one message of many slices but
// not one write of many messages, and whose lock is held while a client does not read.
func (c *conn) Fill(dst []byte) (out []byte, more bool) {
	if out = c.AppendControl(c.appendHello(dst)); stage(c.stage.Load()) == stageAttached {
		return c.session.fillFrames(out)
	}
	return out, false
}

// fillFrames appends what is to be sent as frames, up to about crew.Gather bytes. It reports whether there may be more.
func (s *Session) fillFrames(dst []byte) (out []byte, more bool) {
	s.pull.Lock()
	defer s.pull.Unlock()
	if out = dst; s.over {
		return out, false
	}
	defer s.recovered()
	if s.takePing() {
		out = frames.Finish(append(frames.Begin(out), typePing), len(out), frames.Text)
	}
	sent, deflated := uint64(0), uint64(0)
	for len(out) < crew.Gather {
		start := len(out)
		msg, form, ok := s.stream.Next(append(frames.Begin(out), TypeMessage))
		if !ok {
			s.count(sent, deflated)
			return msg[:start], false
		}
		if form != frames.Text { // binary data has no type, and what is deflated has it within
			body := start + len(frames.Begin(nil))
			msg = append(msg[:body], msg[body+1:]...)
		}
		out = frames.Finish(msg, start, form)
		if sent++; form&frames.Deflated != 0 {
			deflated++
		}
	}
	s.count(sent, deflated)
	return out, true
}

func (s *Session) count(sent, deflated uint64) {
	s.srv.Metrics.MessagesOut.Add(sent)
	if deflated > 0 {
		s.srv.Metrics.MessagesDeflated.Add(deflated)
	}
}

// appendHello appends the open packet or the answer to a probe.
func (c *conn) appendHello(dst []byte) []byte {
	if c.hello.Load() == nil {
		return dst
	}
	start := len(dst)
	return frames.Finish(append(frames.Begin(dst), *c.hello.Swap(nil)...), start, frames.Text)
}
