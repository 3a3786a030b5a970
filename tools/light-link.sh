#!/bin/sh
# light-link.sh OUTPUT OBJECT...: joins objects that run while guest vector
# registers are live, and gives them copies of memcpy and memset of their own:
# compilers call these by themselves, and libc's use vector registers.
set -eu
out=$1
shift
ld -r -o "$out" "$@"
objcopy --redefine-sym memcpy=dbt_memcpy --redefine-sym memset=dbt_memset \
	--redefine-sym memmove=dbt_memmove "$out"
