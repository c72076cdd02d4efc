package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// notInFile are flags that a configuration file cannot set.
var notInFile = map[string]bool{"config": true, "help": true, "output": true, "version": true}

// everywhere are the flags that all commands have.
var everywhere = map[string]bool{"data": true, "output": true}

// envName is the environment variable that stands for a flag.
func envName(flag string) string { return "HUB_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_")) }

// origins says where flags that were not given got their values from, by name: "hub.yaml:3" for a line of a file.
type origins map[string]string

// blamed finds the flags that an error begins with.
var blamed = regexp.MustCompile(`^--([a-z-]+)(?: and --([a-z-]+))?`)

// explain puts before a usage error where the flag that it is about got its value from.
func (o origins) explain(err error) error {
	var usage *usageError
	if !errors.As(err, &usage) {
		return err
	}
	for _, name := range blamed.FindStringSubmatch(usage.text) {
		if from, ok := o[name]; ok {
			return usagef("%s: %s", from, usage.text)
		}
	}
	return err
}

// resolve completes the flags of hub serve that were not given: by the environment, else by the configuration file, else they
// keep their defaults. So flags are the only table of settings. Of other commands only the flags that all have are completed.
func resolve(c *cobra.Command, w world) (origins, error) {
	flags, from := c.Flags(), origins{}
	given := map[string]bool{}
	flags.Visit(func(f *pflag.Flag) { given[f.Name] = true })
	var err error
	flags.VisitAll(func(f *pflag.Flag) {
		v, ok := w.env(envName(f.Name))
		if err != nil || given[f.Name] || !ok || f.Name == "help" || flags.Lookup("config") == nil && !everywhere[f.Name] {
			return
		}
		given[f.Name] = true
		from[f.Name] = "environment variable " + envName(f.Name)
		if setErr := set(flags, f, splitEnv(f, v)); setErr != nil {
			err = usagef("%s: %v", from[f.Name], setErr)
		}
	})
	if err != nil {
		return nil, err
	}
	file := flags.Lookup("config")
	if file == nil || file.Value.String() == "" {
		return from, nil
	}
	return from, readFile(flags, file.Value.String(), given, from)
}

// splitEnv returns the values of a variable: lists are separated by commas, and may end with one.
func splitEnv(f *pflag.Flag, v string) []string {
	if strings.HasSuffix(f.Value.Type(), "Array") {
		return slices.DeleteFunc(strings.Split(v, ","), func(item string) bool { return item == "" })
	}
	return []string{v}
}

func set(flags *pflag.FlagSet, f *pflag.Flag, values []string) error {
	for _, v := range values {
		if err := flags.Set(f.Name, v); err != nil {
			if f.Value.Type() == "bool" {
				return fmt.Errorf("%q: write true or false", v)
			}
			return err
		}
	}
	return nil
}

// readFile takes settings from a YAML file: a mapping from the names of flags to their values. Whatever is not understood is
// refused, with its line.
func readFile(flags *pflag.FlagSet, path string, given map[string]bool, from origins) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return usagef("configuration: %v", err)
	}
	parsed, err := parser.ParseBytes(raw, 0)
	if err != nil {
		return usagef("configuration %s: %v", path, err)
	}
	seen := map[string]bool{}
	for _, doc := range parsed.Docs {
		if doc.Body == nil {
			continue
		}
		entries, err := mapping(doc.Body)
		if err != nil {
			return usagef("%s:%d: %v", path, line(doc.Body), err)
		}
		for _, e := range entries {
			name := e.Key.String()
			if text, ok := e.Key.(*ast.StringNode); ok {
				name = text.Value // without quotes
			}
			f := flags.Lookup(name)
			switch {
			case f == nil || notInFile[name]:
				return usagef("%s:%d: unknown setting %q: see hub serve --help", path, line(e.Key), name)
			case seen[name]:
				return usagef("%s:%d: %s is set twice", path, line(e.Key), name)
			}
			seen[name] = true
			values, err := scalars(e.Value, strings.HasSuffix(f.Value.Type(), "Array"))
			if err == nil && !given[name] {
				from[name] = fmt.Sprintf("%s:%d", path, line(e.Key))
				err = set(flags, f, values)
			}
			if err != nil {
				return usagef("%s:%d: %s: %v", path, line(e.Value), name, err)
			}
		}
	}
	return nil
}

func line(n ast.Node) int {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}

func mapping(n ast.Node) ([]*ast.MappingValueNode, error) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, nil
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, nil
	case *ast.NullNode, *ast.CommentGroupNode:
		return nil, nil
	}
	return nil, fmt.Errorf("expected settings, as http: 127.0.0.1:8080")
}

// scalars returns the value of a setting, or its values if it takes a list.
func scalars(n ast.Node, list bool) ([]string, error) {
	if seq, ok := n.(*ast.SequenceNode); ok && list {
		var values []string
		for _, item := range seq.Values {
			v, err := scalars(item, false)
			if err != nil {
				return nil, err
			}
			values = append(values, v...)
		}
		return values, nil
	}
	switch n := n.(type) {
	case *ast.StringNode:
		return []string{n.Value}, nil
	case *ast.LiteralNode:
		return []string{n.Value.Value}, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return []string{n.GetToken().Value}, nil
	}
	if list {
		return nil, fmt.Errorf("expected a value or a list of values")
	}
	return nil, fmt.Errorf("expected one value")
}
