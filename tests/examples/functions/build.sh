#!/usr/bin/env bash
# Builds the example functions beside this script, then SHA256SUMS.
#   build.sh [NAME...]          all of them, or those named
#   build.sh --check [NAME...]  into a temporary directory, and says what differs from the
#                               committed files; runs cases.toml on them if wasmtime is there
# What this machine cannot build is skipped, with the command that would help. Other compiler
# versions give other bytes, so tests use the committed files. Downloads are kept in
# ${XDG_CACHE_HOME:-~/.cache}/dlambda. CLANG and WASM_LD choose a compiler and a linker.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/dlambda
out=$here
check=false
built=()
skipped=0
cd "$here"

skip() { # what, what would help
    echo "skipped $1: $2" >&2
    skipped=$((skipped + 1))
}

install_wasm() { # file, name
    local paths=(-e "$here" -e "$cache")
    [ "$HOME" = / ] || paths+=(-e "$HOME/")
    # A path of the machine that built a function has no place in it.
    if grep -qaF "${paths[@]}" "$1"; then
        echo "$2: has a path of this machine in it" >&2
        return 1
    fi
    install -m 644 "$1" "$out/$2.wasm"
    built+=("$2")
    echo "built $2.wasm, $(stat -c %s "$1") bytes"
}

# C: clang with WASI's C library.

find_clang() {
    local clang
    for clang in ${CLANG:-clang $(compgen -c clang- | grep -E '^clang-[0-9]+$' | sort -Vru)}; do
        command -v "$clang" >/dev/null || continue
        if "$clang" --target=wasm32-wasi -x c -o "$tmp/probe.wasm" - <<<'int main(void) { return 0; }' 2>/dev/null; then
            echo "$clang"
            return
        fi
    done
    return 1
}

build_c() { # name
    if [ -z "${clang:=$(find_clang)}" ]; then
        skip "$1 (C)" "sudo apt-get install --no-install-recommends clang-19 lld-19 libclang-rt-19-dev-wasm32 wasi-libc"
        return
    fi
    "$clang" --target=wasm32-wasi -std=c11 -Wall -Wextra -Werror -Os -flto \
        -Wl,--strip-all,--gc-sections,--stack-first,-z,stack-size=65536 \
        -o "$tmp/$1.wasm" "$1.c"
    install_wasm "$tmp/$1.wasm" "$1"
}

# Rust: the standard library for WebAssembly is rustup's, or else built from Debian's sources
# by the compiler of the same packages, which are unpacked, not installed.

has_targets() {
    local target libs
    for target in wasm32-wasip1 wasm32-wasip2; do
        libs=("$(rustc --print target-libdir --target "$target" 2>/dev/null)"/libstd-*.rlib)
        [ -e "${libs[0]}" ] || return
    done
}

first_file() { # candidates; prints the first that exists
    local file
    for file; do
        [ -f "$file" ] && echo "$file" && return
    done
    return 1
}

depends() { # package, pattern of the dependency whose name is sought
    apt-cache depends "$1" 2>/dev/null | sed -n "s/^ *Depends: \($2\)$/\1/p"
}

unpack_debian() { # fills $web; no root is needed
    local std llvm deb
    [ -e "$web/complete" ] && return
    command -v apt-get dpkg-deb >/dev/null || return
    std=$(depends libstd-rust-web-dev 'libstd-rust-web-[0-9.]*')
    llvm=$(depends "$std" 'libllvm[0-9.]*')
    rm -rf "$web"
    mkdir -p "$web/deb"
    (cd "$web/deb" && apt-get -qq download rustc-web rust-web-src libstd-rust-web-dev "$std" "$llvm" wasi-libc 2>/dev/null) || return
    for deb in "$web"/deb/*.deb; do
        dpkg-deb -x "$deb" "$web" || return
    done
    rm -r "$web/deb"
    touch "$web/complete"
}

prepare_debian() { # sets the environment that -Zbuild-std needs, or a better $help
    local bin libs debian_ld
    web=$cache/rust-web
    unpack_debian || return
    libs=$(first_file "$web"/usr/lib/*/libLLVM*.so*) || return
    export LD_LIBRARY_PATH=${libs%/*}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export RUSTC=$web/usr/bin/rustc RUSTC_BOOTSTRAP=1
    if ! "$RUSTC" -vV >/dev/null; then # what LLVM itself needs was not unpacked
        help="sudo apt-get install --no-install-recommends $(basename "$libs" | sed -E 's/libLLVM[-.]*(so\.)?([0-9]+).*/libllvm\2/')"
        return 1
    fi
    # The linkers come with rustup's compiler; Debian has one of them. rustc and the component
    # linker do not agree on how to call the other, hence two names for it.
    bin=$(rustc --print sysroot 2>/dev/null)/lib/rustlib/$host/bin
    debian_ld=$(first_file "${WASM_LD:-}" "$(command -v wasm-ld)" /usr/bin/wasm-ld-*) || debian_ld=
    rust_ld=$(first_file "$bin/rust-lld" "$debian_ld") || rust_ld=
    wasm_ld=$(first_file "$bin/gcc-ld/wasm-ld" "$debian_ld") || wasm_ld=
    if [ -z "$rust_ld" ] || [ -z "$wasm_ld" ]; then
        help='sudo apt-get install --no-install-recommends lld'
        return 1
    fi
    component_ld=$(first_file "$bin/wasm-component-ld" "$(command -v wasm-component-ld)") || component_ld=
    libc=$(first_file "$web/usr/lib/wasm32-wasi/crt1-command.o") && libc=${libc%/*}
}

prepare_rust() { # sets $route, and $help where there is none
    [ -z "${route:-}" ] || return 0
    host=$(rustc -vV 2>/dev/null | sed -n 's/^host: //p') || host=
    help='rustup target add wasm32-wasip1 wasm32-wasip2'
    if ! command -v cargo >/dev/null; then
        route=none help='install Rust with rustup, or: sudo apt-get install cargo-web'
    elif has_targets; then
        route=rustup
    elif prepare_debian; then
        route=debian
    else
        route=none
    fi
}

build_rust() { # name target artefact crt
    local name=$1 target=$2 artefact=$3 crt=$4 flags=() options=() link=() src
    prepare_rust
    if [ "$route" = none ]; then
        skip "$name (Rust)" "$help"
        return
    elif [ "$route" = debian ] && [ "$target" = wasm32-wasip2 ] && [ -z "$component_ld" ]; then
        skip "$name (Rust)" "cargo install --locked wasm-component-ld"
        return
    fi
    flags=("--remap-path-prefix=$here/rust=/functions")
    # Not only the home of cargo: the directory of the registry has a name of its own.
    cargo fetch --quiet --locked --manifest-path rust/Cargo.toml
    for src in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
        flags+=("--remap-path-prefix=$src=/crates")
    done
    if [ "$route" = debian ]; then
        for src in "$web"/usr/lib/rustlib/src/rust "$web"/usr/src/rustc-*; do
            flags+=("--remap-path-prefix=$src=/rustc")
        done
        flags+=(-C link-self-contained=no -L "native=$libc")
        if [ "$target" = wasm32-wasip2 ]; then
            flags+=(-C "linker=$component_ld" -C "link-arg=--wasm-ld-path=$wasm_ld")
        else
            flags+=(-C "linker=$rust_ld" -C linker-flavor=wasm-ld)
        fi
        options=('-Zbuild-std=std,panic_abort')
        # Not among the flags, for those are the standard library's too: it is built once.
        link=(-C "link-arg=$libc/$crt")
    fi
    CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && echo "${flags[*]}") cargo rustc --quiet --locked --release \
        --manifest-path rust/Cargo.toml -p "$name" --target "$target" --target-dir "$cache/functions-target" \
        "${options[@]}" -- "${link[@]}"
    install_wasm "$cache/functions-target/$target/release/$artefact.wasm" "$name"
}

# AssemblyScript: its compiler is a package of npm.

build_assemblyscript() { # name
    local version=0.28.20 asc=$cache/assemblyscript
    if ! command -v npm >/dev/null; then
        skip "$1 (AssemblyScript)" "sudo apt-get install nodejs npm"
        return
    fi
    if ! grep -qs "\"version\": \"$version\"" "$asc/node_modules/assemblyscript/package.json"; then
        npm install --silent --no-audit --no-fund --no-save --prefix "$asc" "assemblyscript@$version"
    fi
    (cd assemblyscript && "$asc/node_modules/.bin/asc" "$1.ts" -o "$tmp/$1.wasm" \
        -Osize --noAssert --runtime stub --use "abort=$1/wasi_abort")
    install_wasm "$tmp/$1.wasm" "$1"
}

build() { # name
    case $1 in
        args-echo | sha256 | upper | wordfreq) build_c "$1" ;;
        digits | json-query | primes | thumbnail) build_rust "$1" wasm32-wasip1 "$1" crt1-command.o ;;
        wordcount) build_rust "$1" wasm32-wasip2 "$1" crt1-command.o ;;
        hello-http) build_rust "$1" wasm32-wasip2 hello_http crt1-reactor.o ;;
        rot13) build_assemblyscript "$1" ;;
        *) echo "$1: no such function" >&2 && exit 2 ;;
    esac
}

report() { # what differs between the committed functions and those just built
    local name old new
    [ ${#built[@]} -gt 0 ] || return 0
    for name in "${built[@]}"; do
        old=$here/$name.wasm new=$out/$name.wasm
        if [ ! -e "$old" ]; then
            echo "$name: not committed"
        elif cmp -s "$old" "$new"; then
            echo "$name: the same bytes"
        else
            echo "$name: differs: $(stat -c %s "$old") bytes committed, $(stat -c %s "$new") built;" \
                "sha256 $(sha256sum "$old" | cut -c1-12), $(sha256sum "$new" | cut -c1-12)"
        fi
    done
    echo "Bytes differ between compiler versions; what counts is that the cases pass."
    if command -v wasmtime >/dev/null; then
        python3 cases.py --functions "$out" "${built[@]}"
    else
        echo "No wasmtime in PATH, so no case was run."
    fi
}

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
if [ "${1:-}" = --check ]; then
    check=true out=$tmp/out
    mkdir "$out"
    shift
fi
[ $# -gt 0 ] || set -- args-echo digits hello-http json-query primes rot13 sha256 thumbnail upper wordcount wordfreq
for name; do
    build "$name"
done
if $check; then
    report
else
    sha256sum -- *.wasm >SHA256SUMS
fi
[ "$skipped" -eq 0 ] || echo "$skipped skipped" >&2
