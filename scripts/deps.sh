#!/usr/bin/env bash
# Checks for what a build needs, installs what is missing, fetches the crates and builds RocksDB.
#
# Quick when all is there, so that every make target can begin with it. Installing needs root and
# apt-get; otherwise the command to run is printed and the script exits with 1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

have() {
  command -v "$1" >/dev/null
}

# Prints the path of libclang.so where bindgen's loader (clang-sys) looks for it, or nothing.
find_libclang() {
  local file
  for file in "${LIBCLANG_PATH:-/nowhere}"/libclang*.so* /usr/lib/llvm-*/lib/libclang*.so* \
    /usr/lib/*-linux-gnu/libclang*.so* /usr/lib64/libclang*.so* /usr/lib64/llvm*/lib/libclang*.so* \
    /usr/lib/libclang*.so* /usr/local/lib/libclang*.so*; do
    case $file in
      *libclang-cpp*) ;;
      *) if [ -e "$file" ]; then
        echo "$file"
        return
      fi ;;
    esac
  done
}

# Whether libclang has its own stddef.h and friends; without them RocksDB's header does not parse.
have_clang_headers() {
  local file
  for file in /usr/lib/llvm-*/lib/clang/*/include/stdbool.h /usr/lib*/clang/*/include/stdbool.h; do
    [ ! -e "$file" ] || return 0
  done
  return 1
}

# Prints the Debian packages of what is missing, one a line.
missing_packages() {
  have g++ || echo g++
  have make || echo make
  have flock || echo util-linux
  [ -n "$(find_libclang)" ] || echo libclang-dev
}

install_missing() {
  local missing
  mapfile -t missing < <(missing_packages)
  [ "${#missing[@]}" -gt 0 ] || return 0

  local command="apt-get install -y --no-install-recommends ${missing[*]}"
  if [ "$(id -u)" != 0 ] || ! have apt-get; then
    echo "deps: missing: ${missing[*]} (the names of Debian's packages)" >&2
    echo "deps: run as root: apt-get update && $command" >&2
    exit 1
  fi
  echo "deps: installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  $command
  mapfile -t missing < <(missing_packages)
  if [ "${#missing[@]}" -gt 0 ]; then
    echo "deps: still missing after the installation: ${missing[*]}" >&2
    exit 1
  fi
}

if ! have cargo; then
  rust_version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  echo "deps: no cargo; install Rust $rust_version or newer" >&2
  exit 1
fi
# On other systems the compilers are the user's business, and cargo says what it lacks.
if [ "$(uname -s)" = Linux ]; then
  install_missing
  have_clang_headers || export QUIPU_LIBCLANG_HEADERS=no
fi
cargo fetch --locked --quiet
bash scripts/build-rocksdb.sh
echo "deps: ready"
