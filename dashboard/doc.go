// Package dashboard is the page: the files that Vite builds from web, compiled in, and how they are served.
//
// The page is one HTML file and assets with a hash of their content in their name. All addresses in it are relative, so it
// works under any prefix that a proxy puts before the hub. It asks nobody but the hub, and its Content-Security-Policy
// lets it do nothing else. A second page of the same kind, at /welcome/, shows what a program with the stock client of
// Socket.IO gets.
//
// The build is not in the repository. Without it a placeholder is served that says how to make it, so that the module
// compiles with Go alone.
package dashboard
