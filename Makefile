# Everything a newcomer or a machine needs. Every target uses one set of
# build artefacts: always the whole workspace with all targets, because a
# smaller selection would compile the dependencies again with other features.

CARGO ?= cargo
BUILD := $(CARGO) build --locked --workspace --all-targets
TARGET_DIR = $(or $(CARGO_TARGET_DIR),target)
BIN = $(TARGET_DIR)/debug
# The Nym helper and the private mixnet have a lockfile and artefacts of their own.
NYM := privacy/nym
IN_NYM = cd $(NYM) && CARGO_TARGET_DIR=$(abspath $(TARGET_DIR))/nym
# tor or nym
TRANSPORT ?= tor

.PHONY: help demo test build nym bench check fmt clippy doc deny functions tools

help:
	@echo "make demo       three anonymous calls on a private Tor network, start to end"
	@echo "make demo TRANSPORT=nym   the same on a private mixnet"
	@echo "make nym        the helper program that calls over Nym take, and the private mixnet"
	@echo "make test       every test, the private networks included"
	@echo "make bench      figures, each against a baseline of the same run: calls over"
	@echo "                Tor and Nym, contracts and tokens, the executor"
	@echo "make check      what CI checks beside the tests: format, clippy, docs, licences"
	@echo "make functions  rebuild the example functions, as far as there are compilers"

demo: $(if $(filter nym,$(TRANSPORT)),nym,tools/tor) build
	$(BIN)/dlambda-demo --transport $(TRANSPORT)

test: tools/tor tools/nextest build nym
	$(CARGO) test --locked --workspace --doc
	$(IN_NYM) $(CARGO) nextest run --locked --workspace $(NEXTEST_ARGS)
	$(CARGO) nextest run --locked --workspace $(NEXTEST_ARGS)

bench: tools/tor tools/nginx tools/wrk build nym
	$(BIN)/dlambda-bench calls
	$(BIN)/dlambda-bench contracts
	scripts/install-wasmtime $(TARGET_DIR)/bench
	tests/programs/fetch $(TARGET_DIR)/bench quickjs resvg
	$(BIN)/dlambda-bench executor --wasmtime $(TARGET_DIR)/bench/wasmtime --programs $(TARGET_DIR)/bench

build:
	$(BUILD)

nym:
	$(IN_NYM) $(CARGO) build --locked --workspace --all-targets
	mkdir -p $(BIN)
	install $(TARGET_DIR)/nym/debug/dlambda-nym $(TARGET_DIR)/nym/debug/dlambda-mixnet $(BIN)/

check: fmt clippy doc deny

fmt:
	$(CARGO) fmt --all --check
	cd $(NYM) && $(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(IN_NYM) $(CARGO) clippy --locked --workspace --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps
	$(IN_NYM) RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps

deny: tools/deny
	$(CARGO) deny --locked check bans licenses sources
	cd $(NYM) && $(CARGO) deny --locked --config deny.toml check bans licenses sources

functions:
	tests/examples/functions/build.sh

# What is missing is installed; what is there is left alone.
tools/%:
	@scripts/install-tool $*
