package main

import (
	"fmt"
	"net/http"

	"github.com/spf13/cobra"
)

// statusAnswer is what the API says about the hub, as far as the table shows it.
type statusAnswer struct {
	Version     string   `json:"version"`
	Started     int64    `json:"started"`
	Ready       bool     `json:"ready"`
	Reason      string   `json:"reason"`
	Fingerprint string   `json:"fingerprint"`
	Plaintext   []string `json:"plaintext"`
	Watermarks  struct {
		Durable    uint64 `json:"durable"`
		Historic   uint64 `json:"historic"`
		LagBytes   int64  `json:"lag_bytes"`
		LagSeconds int64  `json:"lag_seconds"`
	} `json:"watermarks"`
	Disk struct {
		LogBytes     int64 `json:"log_bytes"`
		HistoryBytes int64 `json:"history_bytes"`
	} `json:"disk"`
	Counts struct {
		Readings   uint64 `json:"readings"`
		Duplicates uint64 `json:"duplicates"`
		Gaps       uint64 `json:"gaps"`
		Refused    uint64 `json:"refused"`
		Lost       uint64 `json:"lost"`
	} `json:"counts"`
	Devices  int `json:"devices"`
	Sessions int `json:"sessions"`
	Viewers  int `json:"viewers"`
}

func newStatus(w world) *cobra.Command {
	return &cobra.Command{Use: "status", Short: "How the hub is doing", Args: cobra.NoArgs, RunE: remote(w, func(j *job) error {
		v, raw, err := get[statusAnswer](j.ctx(), j.client, "/api/v1/status")
		if err != nil {
			return err
		}
		return j.show(j.w, raw, func(t *table) {
			ready := "yes"
			if !v.Ready {
				ready = "no: " + v.Reason
			}
			t.row("version", v.Version)
			t.row("started", moment(v.Started))
			t.row("acknowledging", ready)
			for _, addr := range v.Plaintext {
				t.row("WARNING", "devices may connect without TLS at "+addr)
			}
			if v.Fingerprint != "" {
				t.row("certificate", v.Fingerprint)
			}
			t.row("devices", fmt.Sprintf("%d, %d connected", v.Devices, v.Sessions))
			t.row("viewers", v.Viewers)
			t.row("readings", fmt.Sprintf("%d since the start, %d duplicate batches, %d refused", v.Counts.Readings, v.Counts.Duplicates, v.Counts.Refused))
			t.row("gaps", fmt.Sprintf("%d recorded, %d records damaged", v.Counts.Gaps, v.Counts.Lost))
			t.row("log", fmt.Sprintf("%d bytes on disk, durable up to %d", v.Disk.LogBytes, v.Watermarks.Durable))
			t.row("history", fmt.Sprintf("%d bytes on disk, up to %d; %d bytes and %d s behind", v.Disk.HistoryBytes, v.Watermarks.Historic,
				v.Watermarks.LagBytes, v.Watermarks.LagSeconds))
		})
	})}
}

func newFlush(w world) *cobra.Command {
	return &cobra.Command{Use: "flush", Short: "Move everything acknowledged into history files now", Args: cobra.NoArgs,
		Long: "Move everything acknowledged into history files now. Nothing depends on it: the hub does so by itself.",
		RunE: remote(w, func(j *job) error {
			_, err := j.call(j.ctx(), http.MethodPost, "/api/v1/flush", nil)
			return err
		})}
}
