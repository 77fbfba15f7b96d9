# Meridian. `make demo` and `make test` do everything on a fresh machine, set-up included; `make help` lists the rest.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# Outside of the clone, so that it outlives it: RocksDB is built once.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/meridian/target
# Where Debian's ccache keeps its compilers; cargo sees the same environment with or without it.
export PATH := /usr/lib/ccache:$(PATH)
export CARGO_TERM_COLOR ?= auto
MERIDIAN := $(CARGO_TARGET_DIR)/release/meridian
DEV_MERIDIAN := $(CARGO_TARGET_DIR)/debug/meridian

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

.PHONY: setup
setup: ## install what the build needs (as root), or print the command that would
	@scripts/setup.sh

.PHONY: setup-tests
setup-tests:
	@scripts/setup.sh tests

.PHONY: build
build: setup ## the release binary
	@scripts/say-cold-build.sh release
	cargo build --locked --release -p cli

.PHONY: demo
demo: build ## three regions with realistic latencies, and a SQL shell on them
	$(MERIDIAN) demo

.PHONY: test
test: setup-tests ## every check that .ci/run makes
	@scripts/say-cold-build.sh debug
	scripts/test.sh

.PHONY: loom
loom: ## all interleavings of the hybrid logical clock's atomic loop
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/loom cargo test --locked -p clock --release --lib

# Each of these runs three real processes. With SECONDS=20 a load lasts as long as the README says.
SECONDS ?= 20
PROVE = MERIDIAN_TEST_SECONDS=$(SECONDS) cargo test --locked -q --workspace --test processes -- --nocapture

.PHONY: prove-pgbench
prove-pgbench: setup-tests ## pgbench, all scripts and modes, none failed, totals agree
	$(PROVE) pgbench

.PHONY: prove-partition
prove-partition: setup-tests ## a region cut off and healed, on both kinds of table
	$(PROVE) a_region_cut_off

.PHONY: prove-kill
prove-kill: setup-tests ## kill -9 of each process under the bank
	$(PROVE) kill_9

CRASHES ?= 50
.PHONY: prove-crashes
prove-crashes: setup-tests ## kill -9 of all processes at once, 50 times, under bank and list-append
	MERIDIAN_TEST_CRASHES=$(CRASHES) $(PROVE) all_processes_at_once

.PHONY: prove-skew
prove-skew: setup-tests ## a clock 300 ms off, under load
	$(PROVE) a_clock_300_ms_off

.PHONY: sim
sim: setup ## 200 seeds of the simulated world
	cargo run --locked --release -p cli -- sim --seeds 200

MINUTES ?= 60
SOAK_STATE ?= $(CARGO_TARGET_DIR)/soak.txt
.PHONY: soak
soak: build ## fresh seeds for MINUTES=60, going on where the last soak stopped (SOAK_STATE)
	$(MERIDIAN) sim --minutes $(MINUTES) --state $(SOAK_STATE)

.PHONY: bench
bench: setup-tests build ## pgbench against Meridian and PostgreSQL with synchronous replicas, side by side
	scripts/bench.sh $(MERIDIAN)

.PHONY: lint
lint: ## formatting and clippy
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets
