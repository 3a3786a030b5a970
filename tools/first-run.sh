#!/bin/bash
# Shows a newcomer a first micro-VM: first-run.sh ROUX.
# Makes a root file system of a few files from Debian's busybox, kept in roux's cache.
set -eu
roux=$1
cache=${ROUX_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/roux}
rootfs=$cache/first-run/rootfs

# Complete or absent: made under another name, then renamed.
make_rootfs() {
	local busybox
	busybox=$(command -v busybox) || { echo "first-run: busybox is missing; 'make deps' installs it" >&2; exit 1; }
	mkdir -p "$cache/first-run"
	new=$(mktemp -d "$cache/first-run/new.XXXXXX")
	trap 'rm -rf "$new"' EXIT
	mkdir "$new/bin" "$new/etc" "$new/tmp" "$new/root"
	chmod 755 "$new"
	chmod 1777 "$new/tmp"
	cp "$busybox" "$new/bin/busybox"
	for applet in $("$busybox" --list); do
		[ "$applet" = busybox ] || ln -s busybox "$new/bin/$applet"
	done
	echo 'root:x:0:0:root:/root:/bin/sh' >"$new/etc/passwd"
	echo 'root:x:0:' >"$new/etc/group"
	rm -rf "$rootfs"
	mv "$new" "$rootfs"
	trap - EXIT
}

echo "1. A root file system: $rootfs"
[ -x "$rootfs/bin/sh" ] || make_rootfs
echo "   (busybox and nothing else; any folder, OCI image layout or docker-archive tar will do)"
echo
echo "2. A micro-VM. The first time, roux fetches Debian's cloud kernel into its cache."
command='uname -a; id; exit 7'
echo
echo "   \$ $roux run $rootfs -- sh -c '$command'"
start=$(date +%s%N)
status=0
"$roux" run "$rootfs" -- sh -c "$command" || status=$?
end=$(date +%s%N)
echo
if [ "$status" -ne 7 ]; then
	echo "That did not work: status $status instead of the command's 7. What roux finds on this host:"
	"$roux" doctor || true
	exit 1
fi
echo "3. Its own kernel booted, ran the command, and is gone again: $(( (end - start) / 1000000 )) ms in all."
echo "   The command's exit status, 7, came back as roux's."
echo
echo "Next:  $roux run -it $rootfs -- sh      a shell in a VM (exit or Ctrl-D ends it)"
echo "       $roux run --help                 shares, users, memory, CPUs, time limits"
echo "       $roux doctor                     what this host offers"
