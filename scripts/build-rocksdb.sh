#!/usr/bin/env bash
# Builds librocksdb.a once for every cargo profile and writes .cargo/rocksdb.toml, which makes cargo
# link it. The reasons are in docs/adr/0006-building-rocksdb.md.
#
# The sources are those of the locked librocksdb-sys crate, so that the library always fits the
# bindings. They are compiled as a few unity units (RocksDB supports that), optimised, with the
# processor's CRC instructions. The archive lies in the user's cache directory under a key of all
# that it depends on; a finished directory appears by rename, so what exists is whole.
#
# Called by scripts/deps.sh. Changes nothing when the archive and the file are there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# More units use more processors and parse the same headers more often.
readonly UNIT_COUNT=6
readonly CONFIG_FILE=.cargo/rocksdb.toml
readonly CXX=${CXX:-g++}

fail() {
  echo "build-rocksdb: $*" >&2
  exit 1
}

# Prints the directory of the locked librocksdb-sys crate. Cargo prints metadata on one line.
crate_directory() {
  local manifests
  manifests=$(cargo metadata --format-version 1 --locked |
    grep -o '"manifest_path":"[^"]*/librocksdb-sys-[^"/]*/Cargo.toml"' | cut -d '"' -f 4 | sort -u)
  [ "$(wc -l <<<"$manifests")" = 1 ] && [ -n "$manifests" ] ||
    fail "cargo metadata names not exactly one librocksdb-sys: ${manifests:-none}"
  dirname "$manifests"
}

# Prints the features that this workspace turns on in librocksdb-sys, with commas.
crate_features() {
  cargo tree --locked --package librocksdb-sys --depth 0 --edges normal --format '{f}' | sort -u
}

# Prints the compiler flags, one a line. They follow the build script of the crate, and add the
# CRC instructions that cargo's build leaves out.
compiler_flags() {
  local crate=$1
  printf '%s\n' -std=c++20 -O2 -w -fPIC -ffunction-sections -fdata-sections -include cstdint \
    -DNDEBUG=1 -DHAVE_ALIGNED_NEW -DHAVE_UINT128_EXTENSION -DOS_LINUX -DROCKSDB_PLATFORM_POSIX \
    -DROCKSDB_LIB_IO_POSIX -DROCKSDB_SCHED_GETCPU_PRESENT -DROCKSDB_AUXV_GETAUXVAL_PRESENT \
    -DROCKSDB_FALLOCATE_PRESENT -DROCKSDB_RANGESYNC_PRESENT \
    "-I$crate/rocksdb" "-I$crate/rocksdb/include" "-I$crate"
  case $(uname -m) in
    x86_64) printf '%s\n' -msse4.2 -mpclmul ;;
    aarch64) printf '%s\n' -march=armv8-a+crc+crypto ;;
  esac
}

# Compiles everything into $2/librocksdb.a. Any unit that fails fails the script.
build_archive() {
  local crate=$1 directory=$2 started=$SECONDS
  shift 2
  (
    cd "$directory"
    grep -v -e '^[[:space:]]*$' -e '^util/build_version.cc' "$crate/rocksdb_lib_sources.txt" |
      sed 's/.*/#include "&"/' >sources
    [ "$(wc -l <sources)" -gt 100 ] || fail "only $(wc -l <sources) sources listed in $crate"
    split --number="l/$UNIT_COUNT" --numeric-suffixes --additional-suffix=.cc sources unit-
    cp "$crate/build_version.cc" unit-version.cc
    printf '%s\0' unit-*.cc | xargs -0 -P "$(nproc)" -I UNIT bash -c '
      unit=$1; shift; started=$SECONDS
      "$@" -c "$unit" -o "${unit%.cc}.o" || { echo "build-rocksdb: $unit failed" >&2; exit 1; }
      echo "build-rocksdb: ${unit%.cc} $((SECONDS - started)) s"
    ' unit UNIT "$CXX" "$@"
    ar crs librocksdb.a unit-*.o
    rm -f unit-* sources
    # A crash must not leave the final name on an empty file.
    sync librocksdb.a
  )
  echo "build-rocksdb: built in $((SECONDS - started)) s"
}

# Writes what cargo and the build script of librocksdb-sys read. An unchanged file keeps its time.
write_config() {
  local library=$1 headers
  {
    echo '# Written by scripts/build-rocksdb.sh (make deps). Delete it to let cargo build RocksDB.'
    echo '[env]'
    echo "ROCKSDB_LIB_DIR = '$library'"
    echo "ROCKSDB_STATIC = '1'"
    # libclang without its own headers (Debian's libclang1-*): the C compiler's serve as well.
    if [ "${QUIPU_LIBCLANG_HEADERS:-yes}" = no ]; then
      headers=$("$CXX" -print-file-name=include)
      echo "BINDGEN_EXTRA_CLANG_ARGS = '-I$headers'"
    fi
  } >"$CONFIG_FILE.$$"
  if cmp -s "$CONFIG_FILE.$$" "$CONFIG_FILE"; then
    rm "$CONFIG_FILE.$$"
  else
    mv "$CONFIG_FILE.$$" "$CONFIG_FILE"
    echo "build-rocksdb: wrote $CONFIG_FILE"
  fi
}

main() {
  if [ "$(uname -s)" != Linux ]; then
    echo "build-rocksdb: prebuilt only on Linux; cargo builds RocksDB itself here"
    return
  fi

  local crate features cache key directory building
  crate=$(crate_directory)
  features=$(crate_features)
  # `static` concerns libraries that are off here. Any other feature would need a define and a
  # library that this script does not add.
  case $features in
    bindgen-runtime | bindgen-runtime,static) ;;
    *) fail "librocksdb-sys has the features '$features', not only bindgen-runtime and static" ;;
  esac

  local flags
  mapfile -t flags < <(compiler_flags "$crate")
  key=$(
    {
      basename "$crate"
      echo "$features"
      # The place of the registry does not change what is compiled.
      printf '%s\n' "${flags[@]//"$crate"/crate}"
      "$CXX" -dumpmachine
      "$CXX" --version
      cat scripts/build-rocksdb.sh
    } | sha256sum | cut -c 1-16
  )
  cache=${XDG_CACHE_HOME:-$HOME/.cache}/quipu
  # The crate's version stands in the name, so that a test can see a library of another version.
  directory=$cache/rocksdb-$(basename "$crate" | sed 's/^librocksdb-sys-//')-$key

  if [ ! -s "$directory/librocksdb.a" ]; then
    mkdir -p "$cache"
    exec 9>"$cache/rocksdb.lock"
    flock --nonblock 9 || {
      echo "build-rocksdb: another build holds $cache/rocksdb.lock, waiting"
      flock 9
    }
    if [ ! -s "$directory/librocksdb.a" ]; then
      # Under the lock, so whatever is left here belongs to a build that died.
      rm -rf "$cache"/building-rocksdb.* "$directory"
      building=$(mktemp -d "$cache/building-rocksdb.XXXXXX")
      echo "build-rocksdb: building $(basename "$directory") with $(nproc) jobs, some minutes"
      build_archive "$crate" "$building" "${flags[@]}"
      mv "$building" "$directory"
    fi
    flock --unlock 9
  fi
  write_config "$directory"
}

main "$@"
