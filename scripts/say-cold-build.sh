#!/usr/bin/env bash
# Says beforehand that the first build takes long, when it will.
set -eu
profile=$1
if ! compgen -G "$CARGO_TARGET_DIR/$profile/build/librocksdb-sys-*/out/librocksdb.a" >/dev/null; then
  echo "First build of the $profile profile: RocksDB is about 12 minutes of C++ on two cores (seconds if ccache knows it). Later builds do not repeat it."
fi
