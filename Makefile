# `make` prints the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO_DENY_VERSION := 0.20.2
CLUSTER := dev/cluster/cluster
CRDS := charts/pgrekey-crds/templates
CARGO_DENY := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin/cargo-deny
PROMTOOL := $(or $(shell command -v promtool),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/pgrekey/promtool)

include dev/cluster.mk

.PHONY: help
help: ## Print the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the program for development
	cargo build --locked

.PHONY: demo
demo: ## Perform the TLS tutorial on a real cluster while clients run (PGREKEY_DEMO=external: on the current context)
	@dev/demo/demo

.PHONY: run
run: ## Run the operator on this machine against the dev cluster, webhooks included (FLAGS: those of pgrekey run)
	@$(CLUSTER) up >/dev/null
	@eval "$$($(CLUSTER) env)"; export KUBECONFIG BIN; certs-dev/run "$$HOST_IP" $(FLAGS)

.PHONY: generate
generate: ## Write the files that are generated from the code
	cargo run --locked --quiet -- crds --output $(CRDS)
	cargo run --locked --quiet -- rules --output docs/rules.md
	PGREKEY_GENERATE=1 cargo test --locked --quiet --test chart the_table_of_values

# Every kind of case, on a sample of the long tables, loops and repetitions.
PARTS := lint test-unit fuzz cluster-up test-cluster
.PHONY: test
test: unoccupied ## Run every check, and all set-up that they need
	@dev/tests/parts $(PARTS)

# All of them. The report has a line for each test: seconds, result, name.
REPORT = $${CARGO_TARGET_DIR:-$(CURDIR)/target}/test-all.txt
.PHONY: test-all
test-all: unoccupied ## The same with all tables, loops and repetitions, and a report: target/test-all.txt
	@PGREKEY_TEST_ALL=1 PGREKEY_TEST_REPORT=$(REPORT) PROPTEST_CASES=2048 FUZZ_SECONDS=600 dev/tests/parts $(PARTS)

# The suite installs pgrekey itself: what the demo has left there is found now, and not in a quarter of an hour.
.PHONY: unoccupied
unoccupied:
	@if $(CLUSTER) status >/dev/null 2>&1; then \
		eval "$$($(CLUSTER) env)"; \
		if [ -n "$$("$$BIN/kubectl" --kubeconfig "$$KUBECONFIG" -n pgrekey get deployment pgrekey --ignore-not-found -o name)" ]; then \
			echo "the dev cluster holds the demo, and the suite needs it for itself: make cluster-down PURGE=1" >&2; exit 1; \
		fi; \
	fi

.PHONY: bench
bench: ## Measure what one review costs
	cargo bench --locked --bench review

.PHONY: bench-webhook
bench-webhook: ## Load the HTTPS server on loopback for half a minute
	cargo bench --locked --bench webhook

# libFuzzer without cargo-fuzz: the instrumentation is a pass of LLVM's, which the stable compiler has.
# Shared by the targets; each has its seeds in fuzz/seeds/.
FUZZ_SECONDS ?= 60
FUZZ_TARGETS := review greeting conf

.PHONY: fuzz
fuzz: ## Throw mutated input of strangers at what reads it, for FUZZ_SECONDS in all
	@command -v c++ >/dev/null || { echo "installing g++: libFuzzer is C++"; apt-get -qq update && apt-get -qq install --yes g++; }
	cd fuzz && export RUSTC_WRAPPER=$$PWD/instrument CARGO_INCREMENTAL=0 CARGO_TARGET_DIR="$${CARGO_TARGET_DIR:-$(CURDIR)/target}"; \
	for target in $(FUZZ_TARGETS); do \
		mkdir -p corpus/$$target artifacts; \
		cargo run --locked --quiet --bin $$target -- \
			corpus/$$target seeds/$$target -max_total_time=$$(($(FUZZ_SECONDS) / $(words $(FUZZ_TARGETS)))) -max_len=65536 \
			-timeout=5 -rss_limit_mb=2048 -artifact_prefix=artifacts/$$target- -print_final_stats=1 -verbosity=0; \
	done

# There are no examples in Rust: with them asked for, dependencies have the features that tests need, and are those that
# clippy has checked just now.
.PHONY: lint
lint: $(CARGO_DENY) ## Check format, lints, links of the docs, licences and sources of dependencies
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --test cluster --test least_rights -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet --lib --bins --examples
	cargo deny check --hide-inclusion-graph bans licenses sources

# What reads settings is held against PostgreSQL's own reading. No server is made of it.
.PHONY: postgresql
postgresql:
	@ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || { \
		echo "installing PostgreSQL"; export DEBIAN_FRONTEND=noninteractive; apt-get -qq update; \
		apt-get -qq install --yes --no-install-recommends postgresql-common >/dev/null; \
		sed -i 's/^#*create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf; \
		apt-get -qq install --yes --no-install-recommends postgresql >/dev/null; \
	}

# Helm comes with the dev cluster, and promtool with its suite: the tests of the chart that need them run there.
.PHONY: test-unit
test-unit: postgresql ## Run the tests that need no cluster
	env -u PGREKEY_REQUIRE_CLUSTER $(if $(PGREKEY_TEST_ALL),dev/tests/timed --lib --bins --tests,cargo test) --locked
	$(if $(PGREKEY_TEST_ALL),cargo test --locked --doc)

# The program as the tests run it, also in the cluster.
PROGRAM = $${CARGO_TARGET_DIR:-target}/debug/pgrekey
# Whether it must come up is for test-cluster to say.
.PHONY: cluster-up
cluster-up:
	@$(CLUSTER) up || [ "$${PGREKEY_REQUIRE_CLUSTER:-}" != 1 ]

# Skips, with the reason, where no cluster can be had; fails instead when PGREKEY_REQUIRE_CLUSTER=1. The program is the one that
# was built for the tests: one that is built alone has dependencies with fewer features, so all of them once more. Tests wait
# for each other themselves (tests/cluster/harness/turns.rs), so all of them are started.
.PHONY: test-cluster
test-cluster: $(PROMTOOL) ## Run the tests that need a Kubernetes, on the dev cluster
	@if $(CLUSTER) up; then \
		eval "$$($(CLUSTER) env)"; \
		cargo test --locked --no-run --test cluster --test chart --test least_rights; \
		PGREKEY_PROGRAM=$(PROGRAM) dev/images/build pgrekey; \
		$(CLUSTER) import; \
		export PGREKEY_KUBECONFIG="$$KUBECONFIG" PGREKEY_HOST_IP="$$HOST_IP" PGREKEY_AUDIT_LOG="$$AUDIT_LOG" PATH="$$BIN:$$PATH" PROMTOOL=$(PROMTOOL); \
		export PGREKEY_SUITE_BEGAN=$$(date -u +%FT%TZ); \
		export PGREKEY_TEST_TIMES="$${PGREKEY_TEST_REPORT:-}"; \
		cargo test --locked --test cluster --test chart -- --show-output --test-threads=64; \
		cargo test --locked --test least_rights -- --show-output; \
	elif [ "$${PGREKEY_REQUIRE_CLUSTER:-}" = 1 ]; then \
		echo "the cluster suite cannot run: the dev cluster did not come up, see above" >&2; exit 1; \
	else \
		echo "skipped: the cluster suite, because the dev cluster did not come up, see above"; \
	fi

# cargo-deny is a program of its own; the version is pinned here so that every machine judges alike. It runs for a second, so it
# need not be optimised for minutes.
$(CARGO_DENY): Makefile
	@if ! cargo deny --version 2>/dev/null | grep -qx 'cargo-deny $(CARGO_DENY_VERSION)'; then \
		cargo install --locked --debug cargo-deny --version $(CARGO_DENY_VERSION); \
	fi
	@mkdir -p $(@D) && touch $@

# promtool, which tries the alerts, out of Debian's package. Where it cannot be had, that test says so.
$(PROMTOOL):
	@echo "fetching promtool"
	@mkdir -p $@.part && cd $@.part && apt-get -qq update && \
		apt-get -qq -o APT::Sandbox::User=root download prometheus && \
		dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool && mv usr/bin/promtool $@; rm -r $@.part
