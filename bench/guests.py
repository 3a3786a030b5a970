"""The machines compared: roux's translator and QEMU's TCG, with the same kernel, initramfs and command line."""
import contextlib
import glob
import itertools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

MEMORY_MIB = 512
MARK = b"roux-bench: init"
# As libroux's command line; QEMU gets the same, so that neither searches for what is not there.
CMDLINE = ("console=ttyS0 quiet panic=-1 nokaslr tsc=reliable no_timer_check random.trust_cpu=on mitigations=off "
           "cryptomgr.notests pci=off 8250.nr_uarts=1 rdinit=/init")
# What BENCH=... on the command line says is done; programs: bench/programs.c in the first disk's root.
INIT = f"""#!/bin/busybox sh
echo {MARK.decode()}
case $BENCH in
cpu) /cpu_suite; echo bench-done ;;
smp) /smp $TIMES ;;
idle) /bin/busybox sleep 600 ;;
programs)
	while read module; do /bin/busybox insmod /modules/$module; done </modules/order
	/bin/busybox mount -t devtmpfs dev /dev
	/bin/busybox mkdir /disk
	/bin/busybox mount -t ext4 -o ro /dev/vda /disk
	/bin/busybox mount -t ext4 /dev/vdb /disk/mnt
	/bin/busybox mount -t devtmpfs dev /disk/dev
	/bin/busybox mount -t proc proc /disk/proc
	/bin/busybox mount -t tmpfs tmp /disk/tmp
	/bin/busybox chroot /disk /mnt/programs /mnt $SECONDS_EACH
	;;
network)
	while read module; do /bin/busybox insmod /modules/$module; done </modules/order
	/bin/busybox mount -t devtmpfs dev /dev
	/bin/busybox mkdir /disk
	/bin/busybox mount -t ext4 -o ro /dev/vda /disk
	/bin/busybox mount -t ext4 /dev/vdb /disk/mnt
	/bin/busybox mount -t devtmpfs dev /disk/dev
	/bin/busybox mount -t proc proc /disk/proc
	/bin/busybox mount -t tmpfs tmp /disk/tmp
	/bin/busybox ip link set lo up
	/bin/busybox ip link set eth0 up
	/bin/busybox ip addr add $GUEST/24 dev eth0
	/bin/busybox ip route add default via $GATEWAY
	ulimit -n 20000
	/bin/busybox chroot /disk sh /mnt/run $GATEWAY $(echo $ARGUMENTS | /bin/busybox tr , ' ')
	;;
esac
/bin/busybox poweroff -f
"""

inodes = itertools.count(1)


def cpio_entry(name, mode, data=b"", rdev=(0, 0)):
    """One member of a newc archive."""
    fields = (next(inodes), mode, 0, 0, 1, 0, len(data), 0, 0, *rdev, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % f for f in fields) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def make_initramfs(path, programs, before=b""):
    busybox = pathlib.Path(shutil.which("busybox")).read_bytes()
    path.write_bytes(
        before + cpio_entry("dev", 0o40755) + cpio_entry("dev/console", 0o20600, rdev=(5, 1)) +
        cpio_entry("bin", 0o40755) + cpio_entry("bin/busybox", 0o100755, busybox) +
        b"".join(cpio_entry(p.name, 0o100755, p.read_bytes()) for p in programs) +
        cpio_entry("init", 0o100755, INIT.encode()) + cpio_entry("TRAILER!!!", 0))


class Guests:
    """The peers.  roux() and tcg() give the command line that starts one, both of the same machine."""

    def __init__(self, out, work):
        self.program = out / "bench" / "boot"
        self.work = work
        self.numbers = itertools.count(1)
        self.kernel = self.ask("--kernel")
        khz = int(self.ask("--tsc"))
        # Debian's kernels tick at 250 Hz.
        self.calibrated = f"lpj={khz * 4} tsc_early_khz={khz}"
        self.initramfs = work / "initramfs.cpio"
        make_initramfs(self.initramfs, [out / "bench" / "cpu_suite", out / "bench" / "smp"])
        # With disks come the modules for them; the kernel unpacks one archive after the other.
        self.initramfs_disks = work / "initramfs-disks.cpio"
        make_initramfs(self.initramfs_disks, [], pathlib.Path(self.ask("--initramfs")).read_bytes())

    def ask(self, option):
        return subprocess.run([self.program, option], check=True, capture_output=True, text=True).stdout.strip()

    def roux(self, append, cpus=1, memory_mib=MEMORY_MIB, disks=(), network=None):
        """@network: addresses of the guest and of its gateway, which is the host's loopback too."""
        spec = self.work / f"spec-{next(self.numbers)}.toml"
        spec.write_text(f'engine = "dbt"\ncpus = {cpus}\nmemory = {memory_mib << 20}\nkernel = "{self.kernel}"\n'
                        f'cmdline = "{CMDLINE} {append}"\n'
                        f'initrd = ["{self.initramfs_disks if disks else self.initramfs}"]\n' +
                        "".join(f'[[disk]]\npath = "{disk}"\noverlay = true\n' for disk in disks) +
                        (f'[[net]]\nkind = "user"\nmac = "02:00:00:00:00:15"\nguest = ["{network[0]}/24"]\n'
                         f'gateway = ["{network[1]}"]\ndns = ["{network[1].rsplit(".", 1)[0]}.3"]\nhost_loopback = true\n' if network else ""))
        return [self.program, spec]

    def tcg(self, append, kernel=None, cpus=1, memory_mib=MEMORY_MIB, disks=()):
        drives = [arg for i, disk in enumerate(disks) for arg in (
            "-drive", f"id=disk{i},file={disk},if=none,format=raw,snapshot=on",
            "-device", f"virtio-blk-device,drive=disk{i}")]
        return ["qemu-system-x86_64", "-M", "microvm", "-accel", "tcg", "-cpu", "max", "-smp", str(cpus), "-m",
                str(memory_mib), "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
                "-kernel", kernel or self.kernel, "-initrd", self.initramfs_disks if disks else self.initramfs,
                "-append", f"{CMDLINE} {self.calibrated} {append}", *drives]

    def unpacked(self):
        """The kernel as an ELF file, unpacked by roux at its first boot; None when it is not to be told apart."""
        found = glob.glob(os.path.join(os.path.dirname(self.kernel), "../../*.elf"))
        return os.path.realpath(found[0]) if len(found) == 1 else None


@contextlib.contextmanager
def started(args):
    p = subprocess.Popen([str(a) for a in args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE)
    try:
        yield p
    finally:
        p.kill()
        p.wait()
        p.stdout.close()
        p.stderr.close()


def wait_init(p, seconds=60):
    """Returns when @p, from started(), has printed init's first line; ends the run when it does not."""
    begin, seen = time.monotonic(), b""
    while MARK not in seen:
        data = os.read(p.stdout.fileno(), 65536)
        if not data or time.monotonic() - begin > seconds:
            sys.exit(f"bench: {p.args[0]} did not reach init:\n{seen.decode(errors='replace')}"
                     f"{p.stderr.read().decode(errors='replace') if not data else ''}")
        seen += data


def until_init(args, seconds=60):
    """Seconds from starting @args to init's first line on its console; the guest then ends by itself."""
    begin = time.monotonic()
    with started(args) as p:
        wait_init(p, seconds)
        took = time.monotonic() - begin
        p.communicate(timeout=seconds)
        return took


def output(args, seconds):
    """What @args, a guest or a program here, prints until it ends, which it must do within @seconds."""
    try:
        p = subprocess.run([str(a) for a in args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                           errors="replace", timeout=seconds)
    except subprocess.TimeoutExpired as e:
        sys.exit(f"bench: {args[0]} was not done after {seconds} s:\n{(e.stdout or b'').decode(errors='replace')}")
    return p.stdout + p.stderr
