#!/usr/bin/env bash
# Runs all tests of the workspace (make test) and ends with one line that sums them up.
#
# The binaries are built first, in the same profile and with the same features: tests that start
# quipud or quipu as a process must find the ones of this source.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly TARGET_DIR=${CARGO_TARGET_DIR:-target}
readonly LOG=$TARGET_DIR/test.log

cargo build --locked --workspace --bins --tests

started=$SECONDS
status=0
cargo test --locked --workspace --no-fail-fast 2>&1 | tee "$LOG" || status=$?
awk -v seconds=$((SECONDS - started)) '
  /^test result:/ { passed += $4; failed += $6; ignored += $8; suites += 1 }
  /^    (.+) --- FAILED$|^test .* FAILED$/ { print "failed: " $2 }
  END {
    printf "tests: %d passed, %d failed, %d ignored in %d suites, %d s\n",
      passed, failed, ignored, suites, seconds
  }
' "$LOG"
if [ "$status" != 0 ]; then
  echo "tests: FAILED, the whole output is in $LOG"
fi
exit "$status"
