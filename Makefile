# make help lists the targets. Only Go, git and make are needed; Node and npm only for the dashboard.

GO       ?= go
BIN      := bin
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.version=$(VERSION)
PROGRAMS := hub device firmware-sim
GO_MINOR := 26

export CGO_ENABLED ?= 0

.DEFAULT_GOAL := build
.PHONY: deps build run dev test bench torture lint clean help tools cross race

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

tools:
	@command -v $(GO) >/dev/null || { echo "Go is missing: install Go 1.$(GO_MINOR) or newer from https://go.dev/dl"; exit 1; }
	@v=$$($(GO) env GOVERSION | sed 's/^go1\.\([0-9]*\).*/\1/'); [ "$$v" -ge $(GO_MINOR) ] || { \
		echo "Go 1.$$v is too old: install Go 1.$(GO_MINOR) or newer from https://go.dev/dl"; exit 1; }

build: tools ## build hub and firmware-sim into bin/
	@mkdir -p $(BIN)
	@for p in $(PROGRAMS); do echo "build $(BIN)/$$p"; $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/$$p ./cmd/$$p || exit 1; done

run: build ## start a hub, simulated Raspberry Pis and a few rooms, data in .run/
	@$(BIN)/firmware-sim demo --hub-binary $(BIN)/hub --device-binary $(BIN)/device --data .run

dev: tools ## the same, rebuilt and restarted when a Go file changes
	@./.ci/watch $(MAKE) --no-print-directory run

test: deps lint race cross ## everything that the gate checks

deps: tools
	@./.ci/deps

# Flipping bits and failing system calls is run without the race detector, which makes it ten times as slow.
race: deps
	CGO_ENABLED=1 TORTURE_FLIPS=40 $(GO) test -race -shuffle=on -timeout 10m ./...
	$(GO) test -shuffle=on -timeout 5m ./storage/bolt

lint: tools ## gofmt, vet, staticcheck, known vulnerabilities
	@bad=$$(gofmt -l cmd device firmware-sim hub storage); [ -z "$$bad" ] || { echo "gofmt these files:"; echo "$$bad"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	@./.ci/vulncheck

cross: ## the programs for the machines that hubs and devices run on
	@for t in linux/amd64/ linux/arm64/ linux/arm/6; do \
		os=$${t%%/*}; rest=$${t#*/}; arch=$${rest%%/*}; arm=$${rest#*/}; echo "build for $$os/$$arch $$arm"; \
		CGO_ENABLED=0 GOOS=$$os GOARCH=$$arch GOARM=$$arm $(GO) build -o /dev/null ./cmd/... || exit 1; done

bench: build ## measure ingest against its floor, and the parts
	$(BIN)/hub bench ingest
	$(BIN)/hub bench idle
	$(GO) test -run '^$$' -bench . -benchtime 0.3s ./...

torture: deps ## the fault tests at full length (about an hour)
	TORTURE=1 TORTURE_FLIPS=10000 $(GO) test -shuffle=on -timeout 3h ./cmd ./storage/...
	TORTURE=1 CGO_ENABLED=1 $(GO) test -race -shuffle=on -timeout 1h ./device/... ./firmware-sim ./hub/...

clean: ## remove what was built and the data of make run
	rm -rf $(BIN) .run
