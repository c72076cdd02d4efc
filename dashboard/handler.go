package dashboard

import (
	"bytes"
	"compress/gzip"
	"embed"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
)

//go:embed dist
var built embed.FS

const (
	index       = "index.html"
	placeholder = "placeholder.html"
	assets      = "assets/"
	welcome     = "welcome/"
)

// policy is the Content-Security-Policy of the pages. 'self' covers the WebSocket of the live feed too (CSP 3, section
// 6.7.2.8). Svelte makes its templates by one Trusted Types policy, and nobody else may turn text into markup.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'none'; " +
	"require-trusted-types-for 'script'; trusted-types svelte-trusted-html"

// types is every kind of file that may be served. What is not in it does not exist.
var types = map[string]string{
	".html":  "text/html; charset=utf-8",
	".js":    "text/javascript; charset=utf-8",
	".css":   "text/css; charset=utf-8",
	".svg":   "image/svg+xml",
	".png":   "image/png",
	".woff2": "font/woff2",
}

// asset is a file of the build.
type asset struct {
	kind   string
	body   []byte
	packed func() []byte // body in gzip, nil if that is not worth it
}

// Handler serves the page at "/", the one for Socket.IO at "/welcome/", and their assets at "/assets/…". Everything else does not
// exist. It is safe for concurrent use.
type Handler struct {
	pages map[string]asset // by path, without the slash in front
	files map[string]asset // likewise
}

// New returns the handler of the build that is compiled in, or of the placeholder.
func New() (*Handler, error) {
	dist, err := fs.Sub(built, "dist")
	if err != nil {
		return nil, fmt.Errorf("open the page that is compiled in: %w", err)
	}
	return newHandler(dist)
}

// SocketIO returns the stock client of Socket.IO as npm has it in dist, or nil if this program was built without Node.
func SocketIO() fs.FS {
	client, err := fs.Sub(built, "dist/socket.io")
	if err != nil {
		return nil
	}
	if list, err := fs.ReadDir(client, "."); err != nil || len(list) == 0 {
		return nil
	}
	return client
}

func newHandler(dist fs.FS) (*Handler, error) {
	h := &Handler{pages: map[string]asset{}, files: map[string]asset{}}
	body, err := fs.ReadFile(dist, index)
	if err != nil {
		if body, err = fs.ReadFile(dist, placeholder); err != nil {
			return nil, fmt.Errorf("read the page: %w", err)
		}
	}
	h.pages[""] = newAsset(types[".html"], body)
	if body, err := fs.ReadFile(dist, welcome+index); err == nil {
		h.pages[welcome] = newAsset(types[".html"], body)
	}
	err = fs.WalkDir(dist, ".", func(name string, d fs.DirEntry, err error) error {
		kind := types[path.Ext(name)]
		if err != nil || d.IsDir() || kind == "" || !strings.HasPrefix(name, assets) {
			return err
		}
		body, err := fs.ReadFile(dist, name)
		h.files[name] = newAsset(kind, body)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the files of the page: %w", err)
	}
	return h, nil
}

func newAsset(kind string, body []byte) asset {
	return asset{kind, body, sync.OnceValue(func() []byte { return pack(body) })}
}

// pack returns body in gzip, or nil if it would not become smaller.
func pack(body []byte) []byte {
	var buf bytes.Buffer
	w, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	if err == nil {
		_, err = w.Write(body)
	}
	if err != nil || w.Close() != nil || buf.Len() >= len(body) {
		return nil
	}
	return buf.Bytes()
}

// ServeHTTP answers GET and HEAD.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "The page is only read.", http.StatusMethodNotAllowed)
		return
	}
	name := strings.TrimPrefix(r.URL.Path, "/")
	if name+"/" == welcome {
		w.Header().Set("Location", welcome) // relative: a proxy may serve the hub below a prefix
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusFound)
		return
	}
	file, known := h.files[name]
	caching := "public, max-age=31536000, immutable" // the name changes with the content
	if page, ok := h.pages[name]; ok {
		file, known, caching = page, true, "no-store"
	}
	if !known {
		w.Header().Set("Cache-Control", "no-store")
		advice := "There is no such file. After an update of the hub, load the page again."
		if name == welcome {
			advice = "This hub was built without its pages: install Node 20 or newer and run make build."
		}
		http.Error(w, advice, http.StatusNotFound)
		return
	}
	header := w.Header()
	header.Set("Content-Type", file.kind)
	header.Set("Cache-Control", caching)
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Add("Vary", "Accept-Encoding")
	body := file.body
	if packed := file.packed(); packed != nil && takesGzip(r.Header.Get("Accept-Encoding")) {
		header.Set("Content-Encoding", "gzip")
		body = packed
	}
	header.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(body) // the client has gone: nobody is left to be told
	}
}

// takesGzip reports whether an Accept-Encoding names gzip (RFC 9110 section 12.5.3).
func takesGzip(accept string) bool {
	for item := range strings.SplitSeq(accept, ",") {
		coding, weight, _ := strings.Cut(strings.TrimSpace(item), ";")
		if strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			q := strings.TrimPrefix(strings.ReplaceAll(weight, " ", ""), "q=")
			return strings.Trim(q, "0.") != "" || q == ""
		}
	}
	return false
}
