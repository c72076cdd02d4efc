// Package cmd_test keeps the rules of the repository: which package may import which, and a few habits that a reader
// relies on.
package cmd_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "telemetryhub"

// arrows lists for each package of the module what else of the module it may import. "x/..." stands for x and all below.
// A package that is not listed fails the test: say where it belongs.
var arrows = map[string][]string{
	"device":                      {},
	"device/wire":                 {"device"},
	"device/spool":                {"device", "device/wire"},
	"device/agent":                {"device", "device/wire", "device/spool"},
	"device/sensor":               {"device"},
	"storage":                     {"device"},
	"storage/record":              {"device", "storage"},
	"storage/chunk":               {"device", "storage"},
	"storage/history":             {"device", "storage", "storage/chunk", "storage/record"},
	"storage/mem":                 {"storage"},
	"storage/bolt":                {"storage"},
	"storage/storagetest":         {"storage"},
	"storage/storagetest/lossyfs": {},
	"hub":                         {"device", "device/wire", "storage", "storage/history", "storage/record"},
	"hub/access":                  {"device", "storage", "hub/access/..."},
	"hub/alarm":                   {},
	"hub/crew":                    {},
	"hub/deflate":                 {},
	"hub/frames":                  {"hub/crew", "hub/deflate"},
	"hub/ws":                      {"device", "device/wire", "storage", "hub", "hub/access", "hub/alarm", "hub/crew", "hub/frames"},
	"hub/broker":                  {"device", "hub", "hub/access"},
	"hub/mqtt":                    {"device", "device/wire", "storage", "hub"},
	"hub/sio":                     {"device", "device/wire", "hub", "hub/access", "hub/alarm", "hub/crew", "hub/deflate", "hub/frames"},
	"hub/api":                     {"device", "device/wire", "storage", "storage/history", "hub", "hub/access/...", "hub/alarm", "hub/crew", "hub/deflate"},
	"hub/live":                    {"device", "device/wire"},
	"firmware-sim":                {"device/...", "firmware-sim/..."},
	"firmware-sim/chip":           {},
	"firmware-sim/world":          {"firmware-sim/chip"},
	"dashboard":                   {},
	"cmd/hub":                     {"dashboard", "device/...", "storage/...", "hub/..."},
	"cmd/device":                  {"device/..."},
	"cmd/firmware-sim":            {"device/...", "firmware-sim/..."},
}

// homes lists the packages that a library is hidden in: nobody else imports it.
var homes = map[string][]string{
	"github.com/eclipse/paho.mqtt.golang": {"hub/mqtt"},
	"github.com/lxzan/gws":                {"hub/frames", "hub/live", "device/agent", "cmd/hub"},
	"go.etcd.io/bbolt":                    {"storage/bolt", "cmd/hub"},
	"github.com/danielgtaylor/huma":       {"hub/api"},
	"github.com/prometheus/client_golang": {"hub/api"},
	"github.com/mochi-mqtt/server":        {"hub/broker"},
	"github.com/spf13/cobra":              {"cmd/..."},
	"github.com/fxamacker/cbor":           {"device/wire"},
	"github.com/klauspost/compress":       {"storage/chunk", "hub/deflate", "hub/frames"},
	"github.com/hanwen/go-fuse":           {"storage/storagetest/lossyfs"},
	"periph.io/x":                         {"device/sensor"},
	"net/http":                            {"dashboard", "hub/crew", "hub/frames", "hub/ws", "hub/sio", "hub/api", "hub/live", "hub/access", "device/agent", "firmware-sim", "cmd/..."},
}

// topLevel is all that may stand in the root of the repository, besides dot files.
var topLevel = []string{
	"go.mod", "go.sum", "README.md", "Makefile", "LICENSE", "cmd", "hub", "device", "storage", "dashboard", "firmware-sim", "bin",
}

type goFile struct {
	name string // path from the root
	pkg  string // folder from the root
	test bool
	ast  *ast.File
	src  []byte
}

func files(t *testing.T) (list []goFile, fset *token.FileSet) {
	t.Helper()
	root := ".."
	fset = token.NewFileSet()
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() && name != root && (base[0] == '.' || base[0] == '_' || base == "testdata" || base == "node_modules" || base == "bin") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(base, ".go") {
			return nil
		}
		src, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(fset, name, src, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		list = append(list, goFile{rel, path.Dir(rel), strings.HasSuffix(base, "_test.go"), f, src})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list, fset
}

// within reports whether pkg is one of the patterns.
func within(pkg string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if base, ok := strings.CutSuffix(p, "/..."); ok {
			return pkg == base || strings.HasPrefix(pkg, base+"/")
		}
		return pkg == p
	})
}

// room returns the entry of arrows that a package belongs to: its own, or that of the folder it is a private part of.
func room(pkg string) (string, bool) {
	for p := pkg; p != "."; p = path.Dir(p) {
		if _, ok := arrows[p]; ok {
			return p, p == pkg || strings.Contains(p, "/") // the rooms of the second level may have chambers of their own
		}
	}
	return "", false
}

func TestImportsFollowTheArrows(t *testing.T) {
	list, _ := files(t)
	for _, f := range list {
		if f.pkg == "cmd" {
			continue
		}
		home, ok := room(f.pkg)
		if !ok {
			t.Errorf("%s: package %s has no entry in the table of arrows", f.name, f.pkg)
			continue
		}
		if f.test {
			continue // tests may reach over, the program may not
		}
		for _, spec := range f.ast.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if rel, ok := strings.CutPrefix(imp, module+"/"); ok {
				if rel != home && !strings.HasPrefix(rel, home+"/") && !within(rel, arrows[home]) {
					t.Errorf("%s must not import %s", f.name, imp)
				}
				continue
			}
			if !strings.Contains(strings.Split(imp, "/")[0], ".") && home == "device" && imp == "net/http" {
				t.Errorf("%s must not import %s", f.name, imp)
			}
			for lib, owners := range homes {
				if (imp == lib || strings.HasPrefix(imp, lib+"/")) && !within(home, owners) {
					t.Errorf("%s must not import %s: it is hidden in %v", f.name, imp, owners)
				}
			}
			if home == "device" && strings.Contains(strings.Split(imp, "/")[0], ".") {
				t.Errorf("%s must not import %s: package device depends on the standard library only", f.name, imp)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	list, _ := files(t)
	doc := map[string]bool{}
	for _, f := range list {
		if !f.test {
			doc[f.pkg] = doc[f.pkg] || f.ast.Doc != nil
		}
	}
	for pkg, ok := range doc {
		if !ok {
			t.Errorf("package %s has no package comment", pkg)
		}
	}
}

func TestNoFileDoesHiddenWork(t *testing.T) {
	list, fset := files(t)
	for _, f := range list {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: init runs behind the reader's back", fset.Position(fn.Pos()))
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := sel.X.(*ast.Ident)
			if !ok {
				return true
			}
			switch name := pkg.Name + "." + sel.Sel.Name; {
			case name == "time.Sleep" && f.test && !sleeps(f.src) && !strings.Contains(lineOf(f.src, fset.Position(call.Pos()).Line), "// back-off"):
				t.Errorf("%s: a test that sleeps is slow or flaky: wait for the event, or use testing/synctest", fset.Position(call.Pos()))
			case (name == "os.Exit" || name == "log.Fatal" || name == "log.Fatalf") && !strings.HasPrefix(f.pkg, "cmd") && !f.test:
				t.Errorf("%s: only a main function ends the process", fset.Position(call.Pos()))
			case name == "os.Getenv" && !strings.HasPrefix(f.pkg, "cmd") && !f.test:
				t.Errorf("%s: only package main reads the environment", fset.Position(call.Pos()))
			}
			return true
		})
	}
}

// sleeps reports whether a test runs under fake time, where sleeping costs nothing.
func sleeps(src []byte) bool { return strings.Contains(string(src), `"testing/synctest"`) }

func TestFilesStaySmall(t *testing.T) {
	const most, mostTest = 450, 900
	list, _ := files(t)
	for _, f := range list {
		limit := most
		if f.test {
			limit = mostTest
		}
		if n := strings.Count(string(f.src), "\n"); n > limit {
			t.Errorf("%s has %d lines, more than %d: one concept to a file", f.name, n, limit)
		}
	}
}

func TestTopLevelHoldsNothingElse(t *testing.T) {
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := e.Name(); !strings.HasPrefix(name, ".") && !slices.Contains(topLevel, name) {
			t.Errorf("%s does not belong in the root of the repository", name)
		}
	}
}

// lineOf returns line n of a source, counted from 1.
func lineOf(src []byte, n int) string { return strings.Split(string(src), "\n")[n-1] }
