#!/bin/sh
# check-light.sh OBJECT...: code that runs while guest vector registers are live
# must not touch them, itself or through libc.
set -eu
bad=0
for o in "$@"; do
	if objdump -d --no-show-raw-insn "$o" | grep -q '%[xyz]mm'; then
		echo "$o uses vector registers"
		bad=1
	fi
	libc=$(nm -u "$o" | awk '{ print $2 }' | grep -xE 'mem(cpy|set|move|cmp)|str.*|pthread_.*|.*printf|malloc' || true)
	if [ -n "$libc" ]; then
		echo "$o calls libc:" $libc
		bad=1
	fi
done
[ $bad -eq 0 ] && echo "no vector registers in $# objects"
exit $bad
