package api

import (
	"embed"
	"net/http"
)

//go:embed page.html
var pages embed.FS

// page answers GET /. It has no script and loads nothing.
func (a *API) page(w http.ResponseWriter, _ *http.Request) {
	body, err := pages.ReadFile("page.html")
	if err != nil { // it is compiled in: cannot happen
		writeProblem(w, faultf(http.StatusInternalServerError, "This hub was built without its page."))
		return
	}
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	h.Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(body) // the client has gone: nobody is left to be told
}
