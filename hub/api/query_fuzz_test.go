package api

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"telemetryhub/hub"
	"telemetryhub/hub/access"
)

// sameAsStream fails unless a poll reads a query as an event stream does, whose query goes through url.ParseQuery.
func sameAsStream(t *testing.T, query string) {
	t.Helper()
	r := &http.Request{URL: &url.URL{RawQuery: query}}
	want, values, wantErr := newSubscription(r, access.Identity{}, pollQuery[:])
	wantWait := defaultWait
	if text := values.Get("wait"); wantErr == nil && text != "" {
		wantWait, wantErr = parseWait(text)
	}
	got, wait, err := parsePoll(query)
	if (err != nil) != (wantErr != nil) {
		t.Fatalf("%q: %v, want %v", query, err, wantErr)
	}
	if err != nil {
		var a API // outward needs nothing of it for errors that a client makes
		if f := a.outward(t.Context(), err); f.status != http.StatusUnprocessableEntity {
			t.Fatalf("%q is answered %d", query, f.status)
		}
		var bad *hub.BadInput
		var f *fault
		if !errors.As(err, &bad) && !errors.As(err, &f) {
			t.Fatalf("%q: %v is neither", query, err)
		}
		return
	}
	if want.Scope, got.Scope = nil, nil; !reflect.DeepEqual(got, want) || wait != wantWait {
		t.Fatalf("%q is %+v with %v, want %+v with %v", query, got, wait, want, wantWait)
	}
}

// odd are the pieces of queries that somebody may get wrong.
var odd = []string{
	"devices", "metrics", "mode", "after", "tick", "wait", "%64evices", "Mode", "what", "=", "=", "=", "&", "&", "&", "&&", ";", "+", "%", "%2", "%zz",
	"%26", "%3D", "%3B", "%2B", "%2C", "%00", "%c3%28", "%", "a-1", "b*", ",", ",,", "all", "latest", "0", "25s", "61", "-1", "1e3", "NaN", "Inf",
	"\x00", "\xff", "ü", "#", "?", " ", "e-1k.r.2", strings.Repeat("x", 5000),
}

func TestPollReadsQueriesAsStreamsDo(t *testing.T) {
	const seed = 1
	random := rand.New(rand.NewPCG(seed, 0))
	for range 50_000 {
		var query strings.Builder
		for range random.IntN(12) {
			query.WriteString(odd[random.IntN(len(odd))])
			if random.IntN(3) == 0 { // so that many are good
				query.WriteString("&" + []string{"devices=", "metrics=h*,", "mode=all&mode=", "after=", "wait=", "tick=5&tick=", "mode=&mode="}[random.IntN(7)])
			}
		}
		sameAsStream(t, query.String())
	}
	for _, query := range []string{strings.Repeat("devices=a&", 9000), strings.Repeat("&", 9000), strings.Repeat("%61", 9000), "wait=" + strings.Repeat("0", 9000)} {
		sameAsStream(t, query)
	}
}

// FuzzPollQuery is TestPollReadsQueriesAsStreamsDo with any text.
func FuzzPollQuery(f *testing.F) {
	for _, query := range []string{"", "devices=a%2D1&devices=&mode=all&after=e-1&tick=5&wait=0", "mode=&mode=what", "%64evices=a;b", "tick=%zz&&", "+=+"} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		if strings.Count(query, "&") < 9000 { // url.ParseQuery takes no more than 10,000
			sameAsStream(t, query)
		}
	})
}
