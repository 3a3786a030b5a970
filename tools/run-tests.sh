#!/bin/bash
# Runs every test and ends with a line that counts them.
set -u
out=$1
log=$(mktemp)
trap 'rm -f "$log"' EXIT
meson test -C "$out" --print-errorlogs --no-suite long 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
count() { sed -n "s/^$1: *\([0-9]*\).*/\1/p" "$log" | tail -1; }
ok=$(count Ok) failed=$(count Fail) skipped=$(count Skipped) timeout=$(count Timeout)
echo "${ok:-0} passed, $(( ${failed:-0} + ${timeout:-0} )) failed, ${skipped:-0} skipped"
exit "$status"
