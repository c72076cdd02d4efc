// Package sio brings the live feed to Socket.IO clients.
package sio
