package sio_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir, ok := os.LookupEnv(hubEnv); ok {
		if err := runHub(dir); err != nil {
			fmt.Fprintln(os.Stderr, "hub:", err)
			os.Exit(1)
		}
		return
	}
	if args, ok := os.LookupEnv(loadEnv); ok {
		if err := generate(args); err != nil {
			fmt.Fprintln(os.Stderr, "load generator:", err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}
