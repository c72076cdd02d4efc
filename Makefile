# make help lists the targets. Only Go, git and make are needed; Node and npm only for the page.

GO       ?= go
BIN      := bin
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.version=$(VERSION)
PROGRAMS := hub device firmware-sim
GO_MINOR := 26

export CGO_ENABLED ?= 0

.DEFAULT_GOAL := build
# The page: sources, and what Vite makes of them. The placeholder beside it stands in where there is no Node.
WEB       := dashboard/web
PAGE      := dashboard/dist/index.html
PAGE_SRC  := $(shell find $(WEB)/src -type f ! -name '*.test.ts') $(addprefix $(WEB)/,index.html welcome/index.html package-lock.json svelte.config.js tsconfig.json vite.config.ts)
NODE_OLD  := 20
MODULES   := $(WEB)/node_modules/.package-lock.json

.PHONY: deps build run dev test bench torture lint clean help tools cross race page page-test

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

tools:
	@command -v $(GO) >/dev/null || { echo "Go is missing: install Go 1.$(GO_MINOR) or newer from https://go.dev/dl"; exit 1; }
	@v=$$($(GO) env GOVERSION | sed 's/^go1\.\([0-9]*\).*/\1/'); [ "$$v" -ge $(GO_MINOR) ] || { \
		echo "Go 1.$$v is too old: install Go 1.$(GO_MINOR) or newer from https://go.dev/dl"; exit 1; }

build: tools page ## build the page, and hub, device and firmware-sim into bin/
	@mkdir -p $(BIN)
	@for p in $(PROGRAMS); do echo "build $(BIN)/$$p"; $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/$$p ./cmd/$$p || exit 1; done

page:
	@if v=$$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null) && [ "$$v" -ge $(NODE_OLD) ] && command -v npm >/dev/null; then \
		$(MAKE) -s --no-print-directory $(PAGE); \
	else \
		echo "The page is not built: it needs Node $(NODE_OLD) or newer with npm, from https://nodejs.org."; \
		echo "The hub works without it and says so in the browser; install Node and run make build again."; \
		[ -z "$${CI:-}" ]; \
	fi

$(MODULES): $(WEB)/package-lock.json
	@echo "install what builds the page"; npm --prefix $(WEB) ci --no-audit --no-fund --loglevel=error && touch $@

$(PAGE): $(MODULES) $(PAGE_SRC)
	@echo "build the page"; npm --prefix $(WEB) run --silent build -- --logLevel warn

run: build ## start a hub, simulated Raspberry Pis and a few rooms, data in .run/
	@$(BIN)/firmware-sim demo --hub-binary $(BIN)/hub --device-binary $(BIN)/device --data .run

dev: tools ## the same, rebuilt, restarted and reloaded in the browser when a source changes
	@./.ci/watch $(MAKE) --no-print-directory run

test: deps build lint race cross page-test ## everything that the gate checks

deps: tools
	@./.ci/deps

# Flipping bits and failing system calls is run without the race detector, which makes it ten times as slow.
race: deps
	CGO_ENABLED=1 TORTURE_FLIPS=40 $(GO) test -race -shuffle=on -timeout 10m ./...
	$(GO) test -shuffle=on -timeout 5m ./storage/bolt

# Without Node or Chromium .ci/deps has said what is skipped; under CI it has failed.
page-test: build
	@[ -f $(PAGE) ] || exit 0; cd $(WEB) && npm run --silent lint && npm run --silent check && npm run --silent test && npm run --silent browser

lint: tools ## gofmt, vet, staticcheck, known vulnerabilities
	@bad=$$(gofmt -l cmd dashboard/*.go device firmware-sim hub storage); [ -z "$$bad" ] || { echo "gofmt these files:"; echo "$$bad"; exit 1; }
	$(GO) vet ./... ./hub/sio/testdata/suite
	$(GO) tool staticcheck ./...
	@./.ci/vulncheck

cross: ## the programs for the machines that hubs and devices run on
	@for t in linux/amd64/ linux/arm64/ linux/arm/6; do \
		os=$${t%%/*}; rest=$${t#*/}; arch=$${rest%%/*}; arm=$${rest#*/}; echo "build for $$os/$$arch $$arm"; \
		CGO_ENABLED=0 GOOS=$$os GOARCH=$$arch GOARM=$$arm $(GO) build -o /dev/null ./cmd/... || exit 1; done

bench: build ## measure ingest and the live feed against their floors, and the parts
	$(BIN)/hub bench ingest
	$(BIN)/hub bench idle
	$(BIN)/hub bench transports
	$(GO) test -run '^$$' -bench . -benchtime 0.3s ./...

torture: deps ## the fault tests at full length (about a quarter of an hour)
	TORTURE=1 TORTURE_FLIPS=10000 $(GO) test -shuffle=on -timeout 3h ./cmd ./storage/...
	TORTURE=1 CGO_ENABLED=1 $(GO) test -race -shuffle=on -timeout 1h ./device/... ./firmware-sim ./hub/...

clean: ## remove what was built and the data of make run
	rm -rf $(BIN) .run $(WEB)/node_modules $(WEB)/.svelte-check dashboard/dist/assets dashboard/dist/welcome dashboard/dist/socket.io $(PAGE)
