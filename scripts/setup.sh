#!/usr/bin/env bash
# Installs what is missing. For the build: a C++ compiler, make, libclang (for RocksDB's bindings), ccache. For the tests and the
# comparison (`setup.sh tests`) also psql and pgbench. As root it installs; otherwise it prints the exact command and fails.
set -euo pipefail

missing=()
if [ "${1:-build}" = tests ]; then
  command -v psql >/dev/null || missing+=(postgresql-client)
  command -v pgbench >/dev/null || missing+=(postgresql)
fi
command -v g++ >/dev/null || missing+=(g++)
command -v make >/dev/null || missing+=(make)
command -v ccache >/dev/null || missing+=(ccache)
has_libclang() {
  ldconfig -p 2>/dev/null | grep -q 'libclang[-.0-9]*\.so' && return 0
  compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' | grep -qv 'libclang-cpp'
}
has_libclang || missing+=(libclang-dev)

if ! command -v cargo >/dev/null; then
  echo "Meridian needs a Rust toolchain, 1.95 or newer: https://rustup.rs" >&2
  exit 1
fi
[ ${#missing[@]} -eq 0 ] && exit 0

command="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
  echo "Installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
else
  echo "Missing: ${missing[*]}. Run this as root, then again what you wanted:" >&2
  echo "    $command" >&2
  exit 1
fi
