#!/bin/bash
# Runs every test that fits in CI and ends with a line that counts them: run-tests.sh OUT.
#   OUT          style, unit, net, guest, diff, e2e
#   out-asan     unit, net and guest again, under AddressSanitizer and UBSan
#   out-fuzz     each fuzz target for a few seconds (clang)
# ROUX_TEST_FLAVOURS chooses among "plain asan fuzz"; all by default.
set -u
cd "$(dirname "$0")/.." || exit 1
out=$1
flavours=" ${ROUX_TEST_FLAVOURS:-plain asan fuzz} "
passed=0 failed=0 skipped=0 broken=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# suites OUT MESON_TEST_ARGS...: runs them and adds to the totals.
suites() {
	local dir=$1 status
	shift
	meson test -C "$dir" --print-errorlogs "$@" 2>&1 | tee "$log"
	status=${PIPESTATUS[0]}
	count() { sed -n "s/^$1: *\([0-9]*\).*/\1/p" "$log" | tail -1; }
	local ok fail timeout skip xfail xpass
	ok=$(count Ok) fail=$(count Fail) timeout=$(count Timeout) skip=$(count Skipped)
	xfail=$(count 'Expected Fail') xpass=$(count 'Unexpected Pass')
	passed=$((passed + ${ok:-0} + ${xfail:-0}))
	failed=$((failed + ${fail:-0} + ${timeout:-0} + ${xpass:-0}))
	skipped=$((skipped + ${skip:-0}))
	# Neither failures nor a count: it did not get as far as the tests (it did not build).
	if [ "$status" -ne 0 ] && [ $((${fail:-0} + ${timeout:-0} + ${xpass:-0})) -eq 0 ]; then
		echo "run-tests: the tests of $dir did not run" >&2
		broken=1
	fi
}

# configured OUT MESON_SETUP_ARGS...: makes a build folder once.
configured() {
	local dir=$1
	shift
	[ -f "$dir/build.ninja" ] || meson setup "$dir" "$@" >/dev/null || { broken=1; return 1; }
}

if [[ $flavours == *" plain "* ]]; then
	suites "$out" --no-suite long --no-suite fuzz
fi
if [[ $flavours == *" asan "* ]] && configured out-asan -Db_sanitize=address,undefined -Db_lundef=false; then
	suites out-asan --suite unit --suite net --suite guest
fi
if [[ $flavours == *" fuzz "* ]] && CC=clang configured out-fuzz -Dfuzz=true -Db_lundef=false; then
	suites out-fuzz --suite fuzz
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $((failed + broken)) -eq 0 ]
