#!/bin/sh
# Compiles one of our own crates with the bugs of the zoo in it (RUSTC_WORKSPACE_WRAPPER).
#
# Cargo keeps what a wrapper made apart from what it made without, and wraps only the workspace's
# crates, so all others are compiled once for both.
exec "$@" --cfg quipu_zoo
