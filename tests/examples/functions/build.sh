#!/bin/sh
# Rebuilds the functions of this directory, and SHA256SUMS. On Debian:
#   apt-get install --no-install-recommends clang-19 lld-19 libclang-rt-19-dev-wasm32 wasi-libc
# Another compiler gives other bytes, so the committed .wasm files are what tests use.
set -eu
cd "$(dirname "$0")"
for source in *.c; do
    "${CLANG:-clang-19}" --target=wasm32-wasi -std=c11 -Wall -Wextra -Werror -Os -flto \
        -Wl,--strip-all,--gc-sections,--stack-first,-z,stack-size=65536 \
        -o "${source%.c}.wasm" "$source"
done
chmod 644 ./*.wasm
sha256sum *.wasm > SHA256SUMS
ls -l *.wasm
