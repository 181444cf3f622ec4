# Everything a newcomer or a machine needs. Every target uses one set of
# build artefacts: always the whole workspace with all targets, because a
# smaller selection would compile the dependencies again with other features.

CARGO ?= cargo
BUILD := $(CARGO) build --locked --workspace --all-targets
TARGET_DIR = $(or $(CARGO_TARGET_DIR),target)
BIN = $(TARGET_DIR)/debug

.PHONY: help demo test build bench check fmt clippy doc deny functions tools

help:
	@echo "make demo       three anonymous calls on a private Tor network, start to end"
	@echo "make test       every test, the private Tor network included"
	@echo "make bench      figures, each against a baseline of the same run: calls"
	@echo "                against C tor, the executor against wasmtime"
	@echo "make check      what CI checks beside the tests: format, clippy, docs, licences"
	@echo "make functions  rebuild the example functions, as far as there are compilers"

demo: tools/tor build
	$(BIN)/dlambda-demo

test: tools/tor tools/nextest build
	$(CARGO) test --locked --workspace --doc
	$(CARGO) nextest run --locked --workspace $(NEXTEST_ARGS)

bench: tools/tor tools/nginx tools/wrk build
	$(BIN)/dlambda-bench
	scripts/install-wasmtime $(TARGET_DIR)/bench
	tests/programs/fetch $(TARGET_DIR)/bench quickjs resvg
	$(BIN)/dlambda-bench-executor --wasmtime $(TARGET_DIR)/bench/wasmtime --programs $(TARGET_DIR)/bench

build:
	$(BUILD)

check: fmt clippy doc deny

fmt:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps

deny: tools/deny
	$(CARGO) deny --locked check bans licenses sources

functions:
	tests/examples/functions/build.sh

# What is missing is installed; what is there is left alone.
tools/%:
	@scripts/install-tool $*
