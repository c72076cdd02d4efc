package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// version is set when the program is linked.
var version = "dev"

func main() {
	os.Exit(run(interruptible(), os.Args[1:], world{os.LookupEnv, os.Stdout, os.Stderr}))
}

// world is what a command touches besides files, sockets and buses.
type world struct {
	env func(string) (string, bool)
	out io.Writer // results
	err io.Writer // logs, errors
}

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, w world) int {
	root := newRoot(w)
	root.SetArgs(args)
	return report(w.err, root.ExecuteContext(ctx))
}

// interruptible returns a context that ends with the first SIGINT or SIGTERM. The second one ends the process at once.
func interruptible() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() { // for as long as the process lives
		<-signals
		cancel()
		<-signals
		os.Exit(exitInterrupted)
	}()
	return ctx
}
