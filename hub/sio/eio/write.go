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
	sent := uint64(0)
	for len(out) < crew.Gather {
		start := len(out)
		msg, text, ok := s.stream.Next(append(frames.Begin(out), typeMessage))
		if !ok {
			s.srv.Metrics.MessagesOut.Add(sent)
			return msg[:start], false
		}
		form := frames.Text
		if !text { // binary data has no type
			body := start + len(frames.Begin(nil))
			msg, form = append(msg[:body], msg[body+1:]...), frames.Binary
		}
		out = frames.Finish(msg, start, form)
		sent++
	}
	s.srv.Metrics.MessagesOut.Add(sent)
	return out, true
}

// appendHello appends the open packet or the answer to a probe.
func (c *conn) appendHello(dst []byte) []byte {
	if c.hello.Load() == nil {
		return dst
	}
	start := len(dst)
	return frames.Finish(append(frames.Begin(dst), *c.hello.Swap(nil)...), start, frames.Text)
}
