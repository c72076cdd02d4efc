package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"
)

// clientSettings are what every command besides serve needs.
type clientSettings struct {
	data string
	json bool
}

func loadClientSettings(c *cobra.Command, w world) (clientSettings, error) {
	if _, err := resolve(c, w); err != nil {
		return clientSettings{}, err
	}
	data, err := c.Flags().GetString("data")
	if err != nil {
		return clientSettings{}, err
	}
	output, err := c.Flags().GetString("output")
	if err != nil {
		return clientSettings{}, err
	}
	if output != "table" && output != "json" {
		return clientSettings{}, usagef("--output %s: use table or json", output)
	}
	return clientSettings{data: data, json: output == "json"}, nil
}

// show writes a result: v as JSON, or the table that fill makes.
func (s clientSettings) show(w world, v any, fill func(*table)) error {
	if s.json {
		return writeJSON(w.out, v)
	}
	t := newTable(w.out)
	fill(t)
	return t.flush()
}

// writeJSON writes v indented. Raw messages keep the order of their fields.
func writeJSON(w io.Writer, v any) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	if _, err := w.Write(buf.Bytes()); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// table writes aligned columns.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer) *table { return &table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)} }

// row adds a row. Names that people gave may hold anything, so what a terminal could act on is left out.
func (t *table) row(cells ...any) {
	texts := make([]string, len(cells))
	for i, c := range cells {
		texts[i] = strings.Map(func(r rune) rune {
			if !unicode.IsPrint(r) {
				return '\uFFFD'
			}
			return r
		}, fmt.Sprint(c))
		if texts[i] == "" {
			texts[i] = "-"
		}
	}
	fmt.Fprintln(t.w, strings.Join(texts, "\t")) // tabwriter keeps the error for Flush
}

func (t *table) flush() error {
	if err := t.w.Flush(); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// moment writes Unix milliseconds in the local zone; zero is nothing.
func moment(ms int64) string {
	if ms == 0 {
		return ""
	}
	return time.UnixMilli(ms).Format("2006-01-02 15:04:05")
}
