#!/usr/bin/env bash
# Builds the node of an earlier release from its recorded commit, and prints where its binary is.
#
# Upgrades are tested from what that release really did, so its source is taken as it was. The
# binary lies in the user's cache directory, outside of every clone, and is built once: minutes
# the first time, nothing afterwards. With --cached nothing is built: it prints nothing instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly RELEASE=${1:-} MODE=${2:-}
readonly CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/quipu/releases

fail() {
  echo "old-release: $*" >&2
  exit 1
}

# docs/compatibility.md says the same.
case $RELEASE in
  0.1) commit=cf7e042 ;;
  *) fail "no release '$RELEASE' is recorded; there is 0.1" ;;
esac

readonly commit
directory=$CACHE/$RELEASE-$commit-$(uname -m)
readonly directory binary=$directory/quipud

# Builds in a draft directory; a finished one appears by rename, so what exists is whole.
build() {
  local draft started=$SECONDS
  git cat-file -e "$commit^{commit}" 2>/dev/null ||
    fail "this clone does not have commit $commit of release $RELEASE: git fetch --unshallow"
  mkdir -p "$CACHE"
  draft=$(mktemp -d "$CACHE/draft-XXXXXX")
  # shellcheck disable=SC2064 # the draft of now
  trap "rm -rf '$draft'" EXIT
  mkdir "$draft/source" "$draft/done"
  git archive "$commit" | tar -x -C "$draft/source"
  (
    cd "$draft/source"
    # Flags of the environment would replace those of its .cargo/config.toml.
    unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS CARGO_TARGET_DIR
    bash scripts/deps.sh
    # Nobody debugs it, and without line tables it is a tenth of the size and quicker to build.
    CARGO_PROFILE_DEV_DEBUG=false cargo build --locked --package node --bin quipud
    cp target/debug/quipud "$draft/done/"
  ) >&2
  rm -rf "$directory"
  mv -T "$draft/done" "$directory"
  echo "old-release: built quipud of $RELEASE in $((SECONDS - started)) s" >&2
}

case $MODE in
  '') [ -x "$binary" ] || build ;;
  --cached) [ -x "$binary" ] || exit 0 ;;
  *) fail "unknown option $MODE" ;;
esac
echo "$binary"
