# `make` prints the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO_DENY_VERSION := 0.20.2
CLUSTER := dev/cluster/cluster
CRDS := charts/pgrekey-crds/templates

include dev/cluster.mk

.PHONY: help
help: ## Print the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the program for development
	cargo build --locked

.PHONY: generate
generate: ## Write the files that are generated from the code
	cargo run --locked --quiet -- crds --output $(CRDS)

.PHONY: test
test: lint test-unit test-cluster ## Run every check, and all set-up that they need

.PHONY: lint
lint: $(HOME)/.cargo/bin/cargo-deny ## Check format, lints, licences and sources of dependencies
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --test cluster -- -D warnings
	cargo deny check --hide-inclusion-graph bans licenses sources

.PHONY: test-unit
test-unit: ## Run the tests that need no cluster
	cargo test --locked

# Skips, with the reason, where no cluster can be had; fails instead when PGREKEY_REQUIRE_CLUSTER=1.
.PHONY: test-cluster
test-cluster: ## Run the tests that need a Kubernetes, on the dev cluster
	@if $(CLUSTER) up; then \
		eval "$$($(CLUSTER) env)"; \
		PGREKEY_KUBECONFIG="$$KUBECONFIG" PGREKEY_HOST_IP="$$HOST_IP" PATH="$$BIN:$$PATH" cargo test --locked --test cluster; \
	elif [ "$${PGREKEY_REQUIRE_CLUSTER:-}" = 1 ]; then \
		echo "the cluster suite cannot run: the dev cluster did not come up, see above" >&2; exit 1; \
	else \
		echo "skipped: the cluster suite, because the dev cluster did not come up, see above"; \
	fi

# cargo-deny is a program of its own; the version is pinned here so that every machine judges alike.
$(HOME)/.cargo/bin/cargo-deny: Makefile
	@if ! cargo deny --version 2>/dev/null | grep -qx 'cargo-deny $(CARGO_DENY_VERSION)'; then \
		cargo install --locked cargo-deny --version $(CARGO_DENY_VERSION); \
	fi
	@touch $@
