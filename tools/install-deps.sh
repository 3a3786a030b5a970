#!/bin/bash
# Installs the Debian packages that building, testing and benchmarking need.
# Quiet and quick when nothing is missing; needs root (or sudo) only otherwise.
set -eu
packages=(
	gcc clang musl-tools meson ninja-build pkg-config python3 libc6-dev
	libcmocka-dev libzydis-dev libclang-rt-14-dev
	libarchive-dev libzstd-dev liblz4-dev liblzma-dev zlib1g-dev libbz2-dev libxxhash-dev libcjson-dev libcurl4-openssl-dev busybox-static cpio curl debootstrap iperf3 iproute2 iputils-ping nginx-light passt wrk runc crun qemu-system-x86 e2fsprogs erofs-utils gdb strace xz-utils flex bison bc libelf-dev make
	docker-registry skopeo umoci apache2-utils openssl gpgv debian-archive-keyring
)
missing=()
for p in "${packages[@]}"; do
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0
echo "installing Debian packages: ${missing[*]}"
as_root=
if [ "$(id -u)" -ne 0 ]; then
	as_root=$(command -v sudo) || { echo "error: install these as root: ${missing[*]}" >&2; exit 1; }
fi
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq
$as_root apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
