#!/usr/bin/env bash
# Every check, cheapest first. Each step says what it is and how long it took.
set -euo pipefail
cd "$(dirname "$0")/.."

step() {
  local name=$1
  shift
  local start=$SECONDS
  echo "== $name"
  "$@"
  echo "== $name: ok in $((SECONDS - start)) s"
}

step "formatting" cargo fmt --all --check
step "clock: all interleavings (loom)" make --no-print-directory loom
step "tests of all crates" cargo test --locked -q --workspace
