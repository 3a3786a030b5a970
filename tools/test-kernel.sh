#!/bin/bash
# Builds the default kernel of `roux kernel build` and runs end-to-end tests on it: test-kernel.sh OUT.
# Takes minutes, and 2 GB in OUT/kernel-cache, which later runs find as it is.
set -u
cd "$(dirname "$0")/.." || exit 1
out=$1
export ROUX_CACHE=$PWD/$out/kernel-cache
mkdir -p "$ROUX_CACHE"
"$out/cli/roux" kernel build || exit 1
failed=()
for name in basic template images user_network named_network layers signals terminal memory; do
	echo "== $name"
	"tests/e2e/run_$name.py" "$out/cli/roux"
	case $? in 0 | 77) ;; *) failed+=("$name") ;; esac
done
[ ${#failed[@]} -eq 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
echo "all passed on $("$out/cli/roux" kernel ls | tail -1)"
