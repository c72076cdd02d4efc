package api

import "embed"

// schemas describe the live feed: its frames as JSON Schema, and its channels as AsyncAPI.
//
//go:embed schema
var schemas embed.FS

func schemaFile(name string) func() ([]byte, error) {
	return func() ([]byte, error) { return schemas.ReadFile("schema/" + name) }
}
