package api

import "net/http"

// page answers with the dashboard. Its files hold nothing that is secret, so anybody may have them.
func (a *API) page(w http.ResponseWriter, r *http.Request) {
	if a.Page == nil {
		writeProblem(w, faultf(http.StatusNotFound, "This hub has no page. GET /api/openapi.json lists what there is."))
		return
	}
	a.Page.ServeHTTP(w, r)
}
