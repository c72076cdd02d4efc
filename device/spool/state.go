package spool

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

const (
	stateName = "state"
	// maxState is far above what the spool writes: about 40 bytes a stream.
	maxState = 8 << 20
)

// state is the small file. FORMAT.md explains the fields.
type state struct {
	V       int      `json:"v"`
	Head    uint64   `json:"head"`
	Sent    uint64   `json:"sent"`
	Next    uint64   `json:"next"`
	Clean   bool     `json:"clean"`
	Streams []stream `json:"streams"`
	Known   []span   `json:"known,omitempty"`
}

// stream is a name that the hub knows a run of positions by.
type stream struct {
	ID    string `json:"id"`
	First uint64 `json:"first"`
}

// span is a run of missing positions.
type span [2]uint64

var errStateDamaged = errors.New("both copies of the spool state are damaged")

// readState returns the state, or nil if there is no such file, or an error that wraps ErrNewerFormat or errStateDamaged.
func readState(fs filesystem, names []string) (*state, error) {
	found := false
	for _, name := range names {
		found = found || name == stateName
	}
	if !found {
		return nil, nil
	}
	f, err := fs.Open(stateName, false)
	if err != nil {
		return nil, fmt.Errorf("open spool state: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("read spool state: %w", err)
	}
	data, err := io.ReadAll(io.NewSectionReader(f, 0, min(size, maxState)))
	for off := 0; off < len(data); off += pageSize { // whatever could be read
		s := parseState(data[off:])
		if s == nil {
			continue
		}
		if s.V > version {
			return nil, fmt.Errorf("spool state version %d: %w", s.V, ErrNewerFormat)
		}
		return s, s.check()
	}
	return nil, errors.Join(errStateDamaged, err)
}

// parseState returns the state whose line begins at the start of data, or nil.
func parseState(data []byte) *state {
	line, _, ok := bytes.Cut(data, []byte("\n"))
	if !ok || len(line) < 10 || line[8] != ' ' {
		return nil
	}
	body := line[9:]
	if fmt.Sprintf("%08x", crc32.Checksum(body, castagnoli)) != string(line[:8]) {
		return nil
	}
	s := new(state)
	if err := json.Unmarshal(body, s); err != nil {
		return nil
	}
	return s
}

// check guards against a file that is whole but not ours.
func (s *state) check() error {
	ok := s.V >= 1 && len(s.Streams) > 0 && s.Head >= 1 && s.Next >= 1 && max(s.Head, s.Sent, s.Next) < maxPosition
	for i, st := range s.Streams {
		ok = ok && st.ID != "" && st.First >= 1 && st.First < maxPosition && (i == 0 || st.First > s.Streams[i-1].First)
	}
	if !ok || s.Streams[0].First > s.Head {
		return fmt.Errorf("spool state contradicts itself: %w", errStateDamaged)
	}
	return nil
}

// write replaces the file. When it returns nil the new state is durable.
func (s *state) write(fs filesystem) error {
	s.V = version
	body, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode spool state: %w", err)
	}
	line := fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(body, castagnoli), body)
	second := (len(line) + pageSize - 1) / pageSize * pageSize
	data := make([]byte, second+len(line))
	copy(data, line)
	copy(data[second:], line)
	if err := replaceFile(fs, stateName, data); err != nil {
		return fmt.Errorf("write spool state: %w", err)
	}
	return nil
}

func replaceFile(fs filesystem, name string, data []byte) error {
	f, err := fs.Create(name + tempSuffix)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, fs.Remove(name+tempSuffix))
	}
	if err := fs.Rename(name+tempSuffix, name); err != nil {
		return err
	}
	return fs.SyncDir()
}
