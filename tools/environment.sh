# Sourced by tools/setup, tools/demo and tools/test: where what is built lies, so that it is compiled once.
# shellcheck shell=bash

# Build output and the Python environment lie outside the clone and survive it.
FERROSTEM_CACHE="${FERROSTEM_CACHE:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/ferrostem}"

if [[ -z "${CARGO_TARGET_DIR:-}" ]]; then
    if mkdir -p "$FERROSTEM_CACHE/target" 2>/dev/null; then
        CARGO_TARGET_DIR="$FERROSTEM_CACHE/target"
    else
        CARGO_TARGET_DIR="$repository/target"
    fi
    export CARGO_TARGET_DIR
fi

# The first install of Rust puts cargo where a shell that was open before does not look.
if ! command -v cargo >/dev/null && [[ -x "${CARGO_HOME:-${HOME:-}/.cargo}/bin/cargo" ]]; then
    export PATH="${CARGO_HOME:-${HOME:-}/.cargo}/bin:$PATH"
fi

# Whether a C compiler can use the linker that .cargo/config.toml asks for. gcc before 12.1 cannot; clang can.
links_with_mold() { "$1" -fuse-ld=mold -Wl,--version >/dev/null 2>&1; }

if ! links_with_mold cc && links_with_mold clang; then
    export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER=clang
fi
