package api

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"telemetryhub/hub"
)

// parsed reads the query of a poll by url.ParseQuery.
func parsed(query string) (sub hub.Subscription, wait time.Duration, err error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return sub, 0, err
	}
	for name := range values {
		if !slices.Contains(pollQuery, name) {
			return sub, 0, errors.New("unknown: " + name)
		}
	}
	wait = defaultWait
	sub.After = values.Get("after")
	for _, list := range values["devices"] {
		sub.Devices = appendList(sub.Devices, list)
	}
	for _, list := range values["metrics"] {
		sub.Metrics = appendList(sub.Metrics, list)
	}
	sub.Mode, err = hub.ParseMode(values.Get("mode"))
	if text := values.Get("tick"); err == nil && text != "" {
		sub.Tick, err = parseTick(text)
	}
	if text := values.Get("wait"); err == nil && text != "" {
		wait, err = parseWait(text)
	}
	return sub, wait, err
}

// readAsParsed fails unless a query is read as by url.ParseQuery.
func readAsParsed(t *testing.T, query string) {
	t.Helper()
	want, wantWait, wantErr := parsed(query)
	got, wait, err := parseLive(query, pollQuery)
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
	if !reflect.DeepEqual(got, want) || wait != wantWait {
		t.Fatalf("%q is %+v with %v, want %+v with %v", query, got, wait, want, wantWait)
	}
}

// odd are the pieces of queries that somebody may get wrong.
var odd = []string{
	"devices", "metrics", "mode", "after", "tick", "wait", "%64evices", "Mode", "what", "=", "=", "=", "&", "&", "&", "&&", ";", "+", "%", "%2", "%zz",
	"%26", "%3D", "%3B", "%2B", "%2C", "%00", "%c3%28", "%", "a-1", "b*", ",", ",,", "all", "latest", "0", "25s", "61", "-1", "1e3", "NaN", "Inf",
	"\x00", "\xff", "ü", "#", "?", " ", "e-1k.r.2", strings.Repeat("x", 5000),
}

func TestQueriesOfTheFeedAreReadAsOthers(t *testing.T) {
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
		readAsParsed(t, query.String())
	}
	for _, query := range []string{strings.Repeat("devices=a&", 9000), strings.Repeat("&", 9000), strings.Repeat("%61", 9000), "wait=" + strings.Repeat("0", 9000)} {
		readAsParsed(t, query)
	}
}

// FuzzLiveQuery is TestQueriesOfTheFeedAreReadAsOthers with any text.
func FuzzLiveQuery(f *testing.F) {
	for _, query := range []string{"", "devices=a%2D1&devices=&mode=all&after=e-1&tick=5&wait=0", "mode=&mode=what", "%64evices=a;b", "tick=%zz&&", "+=+"} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		if strings.Count(query, "&") < 9000 { // url.ParseQuery takes no more than 10,000
			readAsParsed(t, query)
		}
	})
}
