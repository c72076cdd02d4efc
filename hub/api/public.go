package api

import (
	"io"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

// public answers GET /public/…: the files of the owner of the hub, for whoever can reach it. They are pages of the hub's
// origin, so that they may use it with the login of whoever looks at them, and may do everything that a page may. Files
// and folders whose name begins with a dot do not exist, and folders are not listed. At /public/socket.io/ there is what
// is at /socket.io/, so that a page that stood at the root of another server finds it.
func (a *API) public(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("path")
	if client, ok := strings.CutPrefix(name, "socket.io/"); ok && a.socketIO != nil && client != "" {
		there := r.Clone(r.Context())
		there.URL.Path = "/socket.io/" + client
		a.socketIO.ServeHTTP(w, there)
		return
	}
	if a.Public == nil {
		writeProblem(w, faultf(http.StatusNotFound, "This hub serves no files of its owner: hub serve --public DIR does."))
		return
	}
	if name == "" || strings.HasSuffix(name, "/") {
		name += "index.html"
	}
	if !a.serveFile(w, r, name) {
		writeProblem(w, faultf(http.StatusNotFound, "There is no such file in the folder that the hub serves at /public/."))
	}
}

// serveFile reports whether there is such a file.
func (a *API) serveFile(w http.ResponseWriter, r *http.Request, name string) bool {
	if !fs.ValidPath(name) || strings.HasPrefix(name, ".") || strings.Contains(name, "/.") {
		return false
	}
	f, err := a.Public.Open(name)
	if err != nil {
		return false
	}
	defer f.Close() // it was only read
	info, err := f.Stat()
	if err != nil {
		return false
	}
	content, ok := f.(io.ReadSeeker)
	switch {
	case info.IsDir():
		w.Header().Set("Location", path.Base(name)+"/") // relative, as a proxy may have put something before the path
		w.WriteHeader(http.StatusFound)
		return true
	case !ok || !info.Mode().IsRegular():
		return false
	}
	h := w.Header()
	h.Del("Content-Security-Policy") // it is for the owner of the file to say what it may do
	h.Set("Cache-Control", "no-cache")
	http.ServeContent(&patient{w, http.NewResponseController(w), a.WriteTimeout}, r, name, info.ModTime(), content)
	return true
}

// patient gives every write its own deadline, so that a large file takes as long as the client goes on reading.
type patient struct {
	http.ResponseWriter
	ctl     *http.ResponseController
	timeout time.Duration
}

func (p *patient) Write(b []byte) (int, error) {
	_ = p.ctl.SetWriteDeadline(time.Now().Add(p.timeout)) // connections without deadlines, as in tests, need none
	return p.ResponseWriter.Write(b)
}
