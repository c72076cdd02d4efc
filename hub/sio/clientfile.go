package sio

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
)

// The files of the stock client.
const (
	clientFull = "socket.io.js"
	clientMin  = "socket.io.min.js"
)

// file is one of them.
type file struct {
	body, packed []byte
	tag          string
	kind         string
}

// readClient reads the stock client. Without it there are no files.
func readClient(dist fs.FS) (map[string]file, error) {
	files := map[string]file{}
	if dist == nil {
		return files, nil
	}
	for _, name := range []string{clientFull, clientMin, clientFull + ".map", clientMin + ".map"} {
		body, err := fs.ReadFile(dist, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, fmt.Errorf("read the Socket.IO client: %w", err)
		}
		f := file{body: body, kind: "text/javascript; charset=utf-8"}
		if path.Ext(name) == ".map" {
			f.kind = "application/json"
		}
		sum := sha256.Sum256(body)
		f.tag = `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
		if f.packed, err = pack(body); err != nil {
			return nil, err
		}
		files[name] = f
	}
	for name, other := range map[string]string{clientFull: clientMin, clientMin: clientFull} {
		if _, there := files[name]; !there {
			if f, there := files[other]; there {
				files[name] = f
			}
		}
	}
	return files, nil
}

func pack(body []byte) ([]byte, error) {
	var buf bytes.Buffer
	w, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	if err == nil {
		_, err = w.Write(body)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("compress the Socket.IO client: %w", err)
	}
	return buf.Bytes(), nil
}

// clientName returns the name of the file of the client that a path asks for, "" if it asks for something else.
func clientName(p string) string {
	if name := path.Base(p); strings.HasPrefix(name, "socket.io") && strings.Contains(name, ".js") {
		return name
	}
	return ""
}

// serveClient hands out a file of the client.
func (s *Server) serveClient(w http.ResponseWriter, r *http.Request, name string) {
	f, known := s.client[name]
	h := w.Header()
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "The client is only read.", http.StatusMethodNotAllowed)
		return
	case !known:
		h.Set("Cache-Control", "no-store")
		http.Error(w, "This hub was built without the Socket.IO client: make build with Node adds it, npm has it as socket.io-client.",
			http.StatusNotFound)
		return
	}
	h.Set("Content-Type", f.kind)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache") // asked for anew each time, and answered with 304 unless the hub was updated
	h.Set("ETag", f.tag)
	h.Set("Vary", "Accept-Encoding")
	if strings.Contains(r.Header.Get("If-None-Match"), f.tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := f.body
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = f.packed
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(body) // the client has gone: nobody is left to be told
	}
}
