package frames

import (
	"net/http"
	"strings"
)

// deflateAnswer is how an offer of permessage-deflate is answered: no message refers to one before, so that what is sent is
// the same for everybody, and neither side keeps a window.
const deflateAnswer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"

// AnswerDeflate returns how the offers of a request to compress messages (RFC 7692) are answered, for Upgrader.Open: "" if there
// is none that fits. One that asks for a window of less than 32 KiB does not, nor one that is not as the RFC has it.
func AnswerDeflate(r *http.Request) string {
	for _, offers := range r.Header.Values(headerExtensions) {
		for more := true; more; {
			var offer string
			offer, offers, more = cutUnquoted(offers, ',')
			if answer := answerOffer(offer); answer != "" {
				return answer
			}
		}
	}
	return ""
}

// answerOffer answers one offer, RFC 7692 section 7.1.
func answerOffer(offer string) string {
	name, rest, more := cutUnquoted(offer, ';')
	if !strings.EqualFold(trim(name), "permessage-deflate") {
		return ""
	}
	answer := deflateAnswer
	seen := map[string]bool{}
	for more {
		var param string
		param, rest, more = cutUnquoted(rest, ';')
		name, value, valued := strings.Cut(param, "=")
		name, value = strings.ToLower(trim(name)), trim(value)
		if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
			value = value[1 : n-1]
		}
		good := !seen[name]
		seen[name] = true
		switch name {
		case "server_no_context_takeover", "client_no_context_takeover":
			good = good && !valued
		case "client_max_window_bits": // we read all
			good = good && (!valued || isWindow(value))
		case "server_max_window_bits":
			good = good && value == "15"
			answer += "; server_max_window_bits=15" // to be answered if it is asked for
		default:
			good = false
		}
		if !good {
			return ""
		}
	}
	return answer
}

// isWindow reports whether a value is a number from 8 to 15.
func isWindow(s string) bool {
	return len(s) == 1 && (s == "8" || s == "9") || len(s) == 2 && s >= "10" && s <= "15" && s[1] >= '0' && s[1] <= '9'
}

// cutUnquoted cuts s at the first separator that is not within quotes.
func cutUnquoted(s string, separator byte) (before, after string, found bool) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == separator && !quoted:
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

func trim(s string) string { return strings.Trim(s, " \t") }
