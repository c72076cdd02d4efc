// Package api is the hub's HTTP side: administration, readings in and out, the live feed as server-sent events, health
// and metrics.
//
// A request passes the same stations whatever its route: limits and security headers, the route table, the identity
// (bearer token or session cookie), the Origin rule, the rule of the route, and then the handler. Every error leaves as
// a problem document (RFC 9457) whose detail says what happened and what to do. The OpenAPI document is made from the
// same Go types that read the requests.
//
// Answers about history are streamed: they take the memory of a few chunks however long they are, and end when the
// client goes away. An event stream leaves net/http once it is found good, and is written to as the sockets are, by package crew.
package api
