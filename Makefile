# What one does with this repository, by name. Each target first makes sure, in under two seconds
# when nothing is missing, that the build has what it needs (scripts/deps.sh).

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help deps build demo test test-upgrade sim zoo bench microbench fmt lint verify

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile
	@echo 'arguments: make sim ARGS="--seed 42", make demo ARGS="--help"'

deps: ## check and install what a build needs, build RocksDB once
	@bash scripts/deps.sh

build: deps ## release binaries: quipud (node) and quipu (command line)
	cargo build --locked --release --package node --package cluster --bins

demo: build ## start a local cluster, append, kill a node, read all back
	$(TARGET_DIR)/release/quipu demo $(ARGS)

test: deps ## all tests: unit, integration, documentation, short simulation
	@bash scripts/test.sh

# Dev builds: the same that `make test` has made already. Quipu 0.1 is built from its commit, once.
# Another build to come from: make test-upgrade ARGS="--from OTHER/target/debug/quipud".
test-upgrade: BUILT = --from "$$(bash scripts/old-release.sh 0.1)"
test-upgrade: deps ## 0.1 to 0.2 node by node under load, back, forward, finalize
	cargo build --locked --package node --package cluster --package jepsen-style-tests --bins
	$(TARGET_DIR)/debug/quipu-live upgrade $(if $(findstring --from,$(ARGS)),,$(BUILT)) $(ARGS)

sim: deps ## simulate a cluster under faults; ARGS go to quipu-sim
	cargo sim $(ARGS)

# Only our own crates are compiled anew, by a wrapper whose work cargo keeps apart in the build
# directory that all share. The binaries have a directory of their own: nothing that has a bug on
# purpose ever lies where quipud is looked for. The quick half leaves real processes out.
ZOO_BIN = target-zoo/debug
zoo: export RUSTC_WORKSPACE_WRAPPER := $(CURDIR)/scripts/zoo-rustc.sh
zoo: export CARGO_BUILD_BUILD_DIR := $(abspath $(TARGET_DIR))
zoo: export CARGO_TARGET_DIR := target-zoo
zoo: deps ## plant bugs in nodes and see that the simulator catches each
	cargo sim zoo run $(ARGS)
ifeq ($(findstring --quick,$(ARGS)),)
	cargo build --locked --package node --package cluster --bins
	! QUIPU_ZOO=ack-before-quorum $(ZOO_BIN)/quipu demo --quipud $(ZOO_BIN)/quipud
endif

# Each bench starts its own nodes and takes them away. What the figures mean: docs/benchmarks.md.
QUIPU_BENCH = $(TARGET_DIR)/release/quipu bench
bench: build ## measure a local cluster and its disk, about five minutes
	$(QUIPU_BENCH) disk $(ARGS)
	$(QUIPU_BENCH) append --seconds 40 --warmup 5 $(ARGS)
	$(QUIPU_BENCH) append --record-bytes 100 --seconds 20 --warmup 5 $(ARGS)
	$(QUIPU_BENCH) append --record-bytes 100 --rate 2000 --seconds 20 --warmup 5 $(ARGS)
	$(QUIPU_BENCH) latency --seconds 15 $(ARGS)
	$(QUIPU_BENCH) read --record-bytes 100 $(ARGS)
	$(QUIPU_BENCH) read --mode tail --readers 10 $(ARGS)
	$(QUIPU_BENCH) read --mode ends --level linearizable --readers 16 $(ARGS)
	$(QUIPU_BENCH) failover --rounds 5 $(ARGS)
	$(QUIPU_BENCH) idle --partitions 300 --seconds 10 $(ARGS)

microbench: deps ## micro-benchmarks of single functions
	cargo bench --locked --workspace --bench '*' $(ARGS)

fmt: deps ## format all sources
	cargo fmt --all

lint: deps ## clippy on everything, warnings are errors
	cargo clippy --locked --workspace --all-targets -- -D warnings

verify: lint ## the quick checks, nothing is written: format, clippy, tidy, shell syntax
	cargo fmt --all --check
	cargo test --locked --package cluster --test tidy
	for script in scripts/*.sh .ci/run; do bash -n "$$script"; done
