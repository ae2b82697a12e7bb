# Hookline. `make` lists what there is.
SHELL := bash
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
BINARY  := bin/hookline

.PHONY: help run build test check lint generate verify tidy bench up down images

help: ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build ## build and start everything in one process, with embedded Kafka, Redis and SQLite
	$(BINARY) dev

build: ## build bin/hookline, a static binary
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $(BINARY) ./services/hookline

test: ## run every test; TESTFLAGS go to go test
	scripts/test $(TESTFLAGS)

check: ## vet, lint, the rules of the tree, and each module without the workspace
	scripts/check

lint: ## only the linters
	scripts/lint

generate: ## make the generated files anew
	scripts/generate

verify: ## fail if a generated file or a go.mod is not what it would be made now
	scripts/verify

tidy: ## go mod tidy in every module, gofmt everywhere
	scripts/tidy

bench: build ## measure the pipeline against a bare loop on the same machine
	scripts/servers with go run ./tests/bench

up: ## start the whole system in containers
	scripts/compose up

down: ## stop it and remove its data
	scripts/compose down

images: ## build every container image without pulling one
	scripts/images
