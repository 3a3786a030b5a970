#!/bin/bash
# Fuzzes each target in turn: run-fuzz.sh [MINUTES [TARGET...]], default 10 minutes and all.
# What is found stays: inputs that reach new code in out-fuzz/corpus/TARGET, crashing ones
# in out-fuzz/crashes.
set -eu
cd "$(dirname "$0")/.."
minutes=${1:-10}
[ $# -eq 0 ] || shift
[ -f out-fuzz/build.ninja ] || CC=clang meson setup out-fuzz -Dfuzz=true -Db_lundef=false >/dev/null
ninja -C out-fuzz --quiet
[ $# -gt 0 ] || set -- $(cd tests/fuzz && ls fuzz_*.c | sed 's/^fuzz_//; s/\.c$//')
mkdir -p out-fuzz/crashes
found=0
for target; do
	mkdir -p "out-fuzz/corpus/$target"
	echo "fuzz $target: $minutes min"
	dict=()
	[ ! -f "tests/fuzz/$target.dict" ] || dict=("-dict=tests/fuzz/$target.dict")
	if ! "out-fuzz/tests/fuzz/fuzz_$target" -max_total_time=$((minutes * 60)) -timeout=20 -print_final_stats=1 \
		-artifact_prefix="out-fuzz/crashes/$target-" -verbosity=0 "${dict[@]}" \
		"out-fuzz/corpus/$target" "tests/fuzz/corpus/$target"; then
		echo "fuzz $target: FAILED, see out-fuzz/crashes"
		found=1
	fi
done
exit "$found"
