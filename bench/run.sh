#!/bin/bash
# Runs every benchmark of the build in folder OUT and prints the tables.
#   bench/run.sh OUT [PART...]     parts: boot cold commands cpu io memory network phases programs smp start clones idle (default: all)
# BENCH_QUICK=1: fewer and shorter runs, for a smoke test.
# Parts commands and programs need root and, once, Debian's mirror (tools/rootfs.py); they are skipped without.
# Samples go to OUT/bench/samples.txt (`name unit value`), tables to OUT/bench/summary.md.
set -eu
for tool in python3 qemu-system-x86_64 busybox; do
	command -v "$tool" >/dev/null || { echo "skipped: no $tool"; exit 77; }
done
exec python3 "$(dirname "$0")/run.py" "$@"
