package api

import (
	"context"
	"net/netip"

	"telemetryhub/hub/access"
)

// caller is who a request comes from. It travels in the answer, and in the request's context for handlers that see only that.
type caller struct {
	id access.Identity
	// local means that the request came over the control socket.
	local bool
	// plain means that the request came without TLS from beyond this machine, where devices are served and nobody else.
	plain bool
	// cookie is the session cookie that the identity stands on, empty for tokens.
	cookie access.Secret
	// secure means that the person at the other end sees https.
	secure bool
	// remote is the address that the request comes from, invalid for the control socket.
	remote netip.Addr
	// agent is what the browser calls itself.
	agent string
}

type callerKey struct{}

// who returns the caller that the guard has let through.
func who(ctx context.Context) caller {
	if c, ok := ctx.Value(callerKey{}).(*caller); ok {
		return *c
	}
	return caller{}
}

func withCaller(ctx context.Context, c *caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}
