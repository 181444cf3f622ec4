# Everything a newcomer or a machine needs. All targets share one set of build
# artefacts: one profile, one feature set (scripts/unify-features) and one target
# directory for both lockfiles, so that no dependency is compiled twice.

CARGO ?= cargo
CARGO_TARGET_DIR ?= target
export CARGO_TARGET_DIR := $(abspath $(CARGO_TARGET_DIR))
BIN = $(CARGO_TARGET_DIR)/debug
# The Nym helper and the private mixnet have a lockfile of their own.
IN_NYM = cd privacy/nym &&
ALL = --locked --workspace --all-targets
# What a newcomer uses: no tests, no benches.
PROGRAMS = dlambda dlambda-provider dlambda-executor dlambda-testnet dlambda-demo
# tor or nym
TRANSPORT ?= tor

.PHONY: help demo test test-quick test-long build programs nym nym-programs bench check fmt clippy doc deny shear \
	features functions

help:
	@echo "make demo       three anonymous calls on a private Tor network, start to end"
	@echo "make demo TRANSPORT=nym   the same on a private mixnet"
	@echo "make programs   the programs that the demo and a user need; make nym-programs for calls over Nym"
	@echo "make test       every test, the private networks included"
	@echo "make test-quick the tests that need no network and no real programs, while you work"
	@echo "make test-long  the tests that take long: every program a hundred times, starved workers"
	@echo "make bench      figures, each against a baseline of the same run: calls over"
	@echo "                Tor and Nym, contracts and tokens, floods, finding and choosing"
	@echo "                providers (charts: target/bench/*.svg), the executor"
	@echo "make check      what CI checks beside the tests: format, clippy, docs, licences, dependencies"
	@echo "make functions  rebuild the example functions, as far as there are compilers"

demo: $(if $(filter nym,$(TRANSPORT)),nym-programs,tools/tor) programs
	$(BIN)/dlambda-demo --transport $(TRANSPORT)

programs:
	$(CARGO) build --locked --workspace $(addprefix --bin ,$(PROGRAMS))

nym-programs:
	$(IN_NYM) $(CARGO) build --locked --workspace --bins

build:
	$(CARGO) build $(ALL)

nym:
	$(IN_NYM) $(CARGO) build $(ALL)

test: tools/tor tools/nextest build nym
	$(CARGO) test --locked --workspace --doc
	scripts/test $(CARGO) $(NEXTEST_ARGS)

test-quick: tools/nextest build
	$(CARGO) nextest run --locked --workspace --profile quick $(NEXTEST_ARGS)

test-long: tools/nextest build
	DLAMBDA_TEST_LONG=1 $(CARGO) nextest run --locked --workspace --profile long --run-ignored all $(NEXTEST_ARGS)

bench: tools/tor tools/nginx tools/wrk build nym
	$(BIN)/dlambda-bench calls
	$(BIN)/dlambda-bench contracts
	$(BIN)/dlambda-bench floods
	mkdir -p $(CARGO_TARGET_DIR)/bench
	$(BIN)/dlambda-bench overlay --svg $(CARGO_TARGET_DIR)/bench/overlay.svg
	$(BIN)/dlambda-bench selection --svg $(CARGO_TARGET_DIR)/bench/selection.svg
	scripts/install-wasmtime $(CARGO_TARGET_DIR)/bench
	tests/programs/fetch $(CARGO_TARGET_DIR)/bench quickjs resvg
	$(BIN)/dlambda-bench executor --wasmtime $(CARGO_TARGET_DIR)/bench/wasmtime --programs $(CARGO_TARGET_DIR)/bench

check: fmt shear features clippy doc deny

# rustfmt holds code to 100 columns, and leaves comments alone.
fmt:
	$(CARGO) fmt --all --check
	$(IN_NYM) $(CARGO) fmt --all --check
	@! git grep -nE '^.{101,}$$' -- '*.rs' | grep -E '^[^:]*:[0-9]+: *//' || \
		{ echo "comments have at most 100 columns"; exit 1; }

clippy:
	$(CARGO) clippy $(ALL) -- -D warnings
	$(IN_NYM) $(CARGO) clippy $(ALL) -- -D warnings

# Shares what clippy has checked.
doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps
	$(IN_NYM) RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps

deny: tools/deny
	$(CARGO) deny --locked check bans licenses sources
	$(IN_NYM) $(CARGO) deny --locked --config deny.toml check bans licenses sources

# No dependency that nothing uses. (In Nym's lockfile optional ones hold versions: that is a warning.)
shear: tools/shear
	$(CARGO) shear --locked --deny-warnings --check-test-targets --exclude workspace-hack
	$(IN_NYM) $(CARGO) shear --locked

# One feature set for every selection of crates.
features:
	scripts/unify-features --check

functions:
	tests/examples/functions/build.sh

# What is missing is installed; what is there is left alone.
tools/%:
	@scripts/install-tool $*
