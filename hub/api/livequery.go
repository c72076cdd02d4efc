package api

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"telemetryhub/hub"
)

// pollQuery are the parameters that a poll takes, and eventQuery those of an event stream.
var (
	pollQuery  = []string{"devices", "metrics", "mode", "after", "tick", "wait"}
	eventQuery = pollQuery[:5]
)

// parseLive reads a query of these parameters, and how long to wait. That takes no map: polls come all the time.
func parseLive(query string, known []string) (sub hub.Subscription, wait time.Duration, err error) {
	wait = defaultWait
	var seen [8]bool // there are fewer
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if pair == "" {
			continue
		}
		name, value, err := unescape(pair)
		if err != nil {
			return sub, 0, err
		}
		at := slices.Index(known, name)
		if at < 0 {
			return sub, 0, faultf(http.StatusUnprocessableEntity,
				"Unknown parameter %.40q. This address takes %s.", name, strings.Join(known, ", "))
		}
		first := !seen[at] // of two values the first counts, but lists are put together
		seen[at] = true
		switch {
		case name == "devices":
			sub.Devices = appendList(sub.Devices, value)
		case name == "metrics":
			sub.Metrics = appendList(sub.Metrics, value)
		case !first || value == "":
		case name == "mode":
			sub.Mode, err = hub.ParseMode(value)
		case name == "after":
			sub.After = value
		case name == "tick":
			sub.Tick, err = parseTick(value)
		case name == "wait":
			wait, err = parseWait(value)
		}
		if err != nil {
			return sub, 0, err
		}
	}
	return sub, wait, nil
}

// unescape returns the name and the value of a pair as url.ParseQuery reads it.
func unescape(pair string) (name, value string, err error) {
	name, value, _ = strings.Cut(pair, "=")
	if strings.Contains(pair, ";") {
		err = errQuery
	} else if name, err = url.QueryUnescape(name); err == nil {
		value, err = url.QueryUnescape(value)
	}
	if err != nil {
		return "", "", errQuery
	}
	return name, value, nil
}

var errQuery = faultf(http.StatusUnprocessableEntity, "The query of the address is malformed.")

// parseTick reads a number of milliseconds.
func parseTick(text string) (time.Duration, error) {
	ms, err := strconv.ParseFloat(text, 64)
	if err != nil || ms != ms {
		return 0, faultf(http.StatusUnprocessableEntity, "The tick %.40q is not a number of milliseconds.", text)
	}
	return hub.TickOf(ms), nil
}

// parseWait reads how long to wait: a duration, or a number of seconds.
func parseWait(text string) (time.Duration, error) {
	wait, err := time.ParseDuration(text)
	if err != nil {
		wait, err = time.ParseDuration(text + "s")
	}
	if err != nil || wait < 0 || wait > maxWait {
		return 0, faultf(http.StatusUnprocessableEntity, "The wait %.40q is not understood: use 0 to %s, as 25s.", text, maxWait)
	}
	return wait, nil
}

// appendList appends the items of a list separated by commas.
func appendList(dst []string, list string) []string {
	for item := range strings.SplitSeq(list, ",") {
		if item != "" {
			dst = append(dst, item)
		}
	}
	return dst
}
