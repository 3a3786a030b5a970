#!/bin/bash
# What takes too long for CI: run-nightly.sh OUT [FUZZ_MINUTES [STRESS_HOURS]], by default 10 minutes
# for each fuzz target and 2 hours of guest time.  All of it runs, whatever fails; the last line says what did.
set -u
cd "$(dirname "$0")/.." || exit 1
out=$1 minutes=${2:-10} hours=${3:-2}
failed=()

meson test -C "$out" --print-errorlogs diff_long || failed+=("differential tests")
tools/run-fuzz.sh "$minutes" || failed+=("fuzz targets")
tests/stress/long.py --more "$hours" "$out/cli/roux" "$out/tests/stress/stress" "$out/stress" || failed+=(stress)
if [ ${#failed[@]} -eq 0 ]; then
	echo "nightly: all passed"
else
	(IFS=,; echo "nightly: failed: ${failed[*]}")
	exit 1
fi
