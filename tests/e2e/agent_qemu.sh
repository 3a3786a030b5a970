#!/bin/sh
# Boots the agent under QEMU; see agent_qemu.py.  77: cannot run here.
set -eu
for tool in qemu-system-x86_64 mke2fs busybox apt-get; do
	PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null || { echo "skipped: no $tool"; exit 77; }
done
PATH=$PATH:/usr/sbin:/sbin exec python3 "$(dirname "$0")/agent_qemu.py" "$1"
