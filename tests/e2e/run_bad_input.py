#!/usr/bin/env python3
"""What is missing, broken or hostile: one clear line, the right status, nothing left.  run_bad_input.py ROUX"""
import contextlib
import glob
import os
import shutil
import signal
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from harness import (CACHE, WORK, Skip, busybox_root, cache_files, check_nothing_left, complains, copy_cache,
                     expect, folder, main, marked_processes, mounts, read_until, roux, start, tmpfs, wait_until)
from oci_maker import docker_archive

ROOT = busybox_root()
BOOT = ("--timeout", "30")


def path(name, data=b""):
    p = os.path.join(WORK, name)
    with open(p, "wb") as f:
        f.write(data)
    return p


def one_line(r, status, *words):
    complains(r, status, *words)
    assert len(r.err.splitlines()) == 1, r
    return r


def kernel():
    expect(roux(ROOT, "true"), 0)	# the cache has one afterwards
    found = [p for p in glob.glob(CACHE + "/kernels/**/*", recursive=True)
             if os.path.isfile(p) and os.path.basename(p).startswith("vmlinuz")]
    if not found:
        raise Skip("no bzImage in the cache")
    return found[0]


def fake_apt(name, script):
    """PATH on which apt does what @script says."""
    d = folder(name)
    for tool in ("apt-get", "apt-cache"):
        with open(f"{d}/{tool}", "w") as f:
            f.write("#!/bin/sh\n" + script)
        os.chmod(f"{d}/{tool}", 0o755)
    return f"{d}:{os.environ['PATH']}"


def elf(name, code):
    """A kernel whose only segment is @code, entered in 64-bit mode."""
    at = 0x1000000
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, at, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    head += struct.pack("<IIQQQQQQ", 1, 5, 0x1000, at, at, len(code), len(code), 0x1000)
    return path(name, head.ljust(0x1000, b"\0") + code)


def test_missing_and_corrupt_kernels():
    one_line(roux("--kernel", "/no/such/kernel", ROOT, "true"), 125, "/no/such/kernel")
    one_line(roux("--kernel", WORK, ROOT, "true"), 125, "kernel")
    one_line(roux("--kernel", path("empty"), ROOT, "true"), 125, "empty")
    one_line(roux("--kernel", path("text", b"#!/bin/sh\n" * 1000), ROOT, "true"), 125, "text")
    with open(kernel(), "rb") as f:
        image = f.read()
    for name, data in (("short-header", image[:600]), ("half", image[:len(image) // 2]),
                       ("scribbled", image[:2 << 20] + bytes(1 << 20) + image[3 << 20:]),
                       ("elf-header-only", b"\x7fELF\x02\x01\x01" + bytes(9) + image[16:64])):
        one_line(roux(*BOOT, "--kernel", path(name, data), ROOT, "true"), 125, name)
    left = [p for p in glob.glob(CACHE + "/kernels/**/*", recursive=True) if ".new" in p]
    assert not left, left


def test_a_kernel_without_what_guests_need_is_told():
    # Debian's own: its file systems are modules, which only come with the default kernel.
    one_line(roux(*BOOT, "--kernel", kernel(), ROOT, "--", "true"), 125, "cannot mount the root")


def test_what_is_damaged_in_the_cache_is_made_anew():
    kernel()
    cache = copy_cache("damaged")
    env = {"ROUX_CACHE": cache, "PATH": fake_apt("apt-down", "echo E: Failed to fetch http://x: no route >&2; exit 100\n")}
    expect(roux(ROOT, "true", env=env), 0)
    for pattern in ("kernels/*.elf", "initramfs/*"):
        for damage in (lambda f: os.truncate(f, 0), lambda f: os.truncate(f, 30000), scribble, os.unlink):
            for f in glob.glob(f"{cache}/{pattern}"):
                os.chmod(f, 0o644)
                damage(f)
            expect(roux(*BOOT, ROOT, "echo", "fine", env=env), 0, out=b"fine\n")
    # The package itself must be fetched again.
    for damage in (lambda f: os.truncate(f, 5000000), os.unlink):
        damage(glob.glob(f"{cache}/kernels/*/*/vmlinuz")[0])
        one_line(roux(ROOT, "true", env=env), 125, "network", "--kernel")


def scribble(name):
    with open(name, "r+b") as f:
        f.seek(20000)
        f.write(os.urandom(200000))


def test_a_kernel_that_cannot_be_fetched_is_told():
    d = folder("no-apt")
    one_line(roux(ROOT, "true", env={"ROUX_CACHE": folder("new1"), "PATH": d}), 125, "apt-", "--kernel")
    offline = fake_apt("apt-offline", "echo 'E: Failed to fetch http://x: Could not resolve' >&2; exit 100\n")
    cache = folder("new2")
    one_line(roux(ROOT, "true", env={"ROUX_CACHE": cache, "PATH": offline}), 125, "Could not resolve", "--kernel")
    left = [f for f in cache_files(cache) if os.path.isfile(f)]
    assert [os.path.basename(f) for f in left] == ["lock"], left


def test_control_c_while_the_kernel_is_fetched_ends_it():
    slow = fake_apt("apt-slow", "touch $ROUX_CACHE/fetching-now; exec sleep 100\n")
    for n, (group, sig) in enumerate(((True, signal.SIGINT), (False, signal.SIGINT), (False, signal.SIGTERM))):
        cache, mounted = folder(f"new-int{n}"), mounts()
        p = start(ROOT, "true", env={"ROUX_CACHE": cache, "PATH": slow}, start_new_session=True)
        wait_until("apt to run", lambda: os.path.exists(cache + "/fetching-now"))
        (os.killpg if group else os.kill)(p.pid, sig)
        out, err = p.communicate(timeout=10)
        assert (p.returncode, out, err) == (128 + sig, b"", b""), (p.returncode, out, err)
        check_nothing_left(mounted)
        left = [os.path.basename(f) for f in cache_files(cache) if os.path.isfile(f)]
        assert sorted(left) == ["fetching-now", "lock"], left
    r = roux("--timeout", "1", ROOT, "true", env={"ROUX_CACHE": folder("new-late"), "PATH": slow})
    one_line(r, 124, "1 s")
    assert r.seconds < 4, r


def test_a_kernel_that_falls_or_loops_is_told():
    # lidt with a limit of 0, then ud2: the exception has no gate, nor has the double fault.
    one_line(roux(*BOOT, "--kernel", elf("triple", bytes.fromhex("0f011d020000000f0b") + bytes(10)), ROOT, "true"),
             125, "triple fault")
    for name, code in (("spins", "faebfe"), ("halts", "faf4ebfd")):	# cli; jmp . and cli; hlt
        r = roux("--timeout", "3", "--kernel", elf(name, bytes.fromhex(code)), ROOT, "true")
        one_line(r, 124, "3 s")
        assert r.seconds < 6, r


def test_a_panic_is_told_with_its_last_words():
    r = roux(*BOOT, "--append", "rdinit=/no/such/init", ROOT, "--", "true")
    complains(r, 125, "panic")
    assert len(r.err.splitlines()) == 1, r
    r = roux(*BOOT, "-u", "root", ROOT, "--", "sh", "-c",
             "mount -t proc proc /proc 2>/dev/null; echo c > /proc/sysrq-trigger; sleep 20")
    complains(r, 125, "panic")


def test_reset_and_power_off_by_the_guest_end_it():
    r = roux(*BOOT, ROOT, "--", "sh", "-c", "echo b > /proc/sysrq-trigger; sleep 20")
    complains(r, 125, "reset")
    r = roux(*BOOT, ROOT, "--", "sh", "-c", "echo o > /proc/sysrq-trigger; sleep 20")
    complains(r, 125)
    assert r.seconds < 15, r


def test_memory_exhaustion_kills_the_command_only():
    r = roux(*BOOT, "--memory", "128M", ROOT, "--", "sh", "-c", "x=x; while :; do x=$x$x; done")
    assert r.status in (137, 2), r	# killed, or told so by its allocator
    r = roux(*BOOT, "--memory", "128M", ROOT, "--", "sh", "-c", "cat /dev/zero > /dev/shm/fill; echo $?")
    assert r.status in (0, 137, 1), r


def test_too_little_memory_is_told():
    r = roux(*BOOT, "--memory", "32M", ROOT, "--", "true")
    if r.status != 0:
        complains(r, 125)
        assert r.seconds < 20, r


def test_more_memory_than_the_host_has_is_told_or_lazily_given():
    r = roux(*BOOT, "--memory", "900G", ROOT, "--", "true")
    if r.status != 0:
        one_line(r, 125, "memory")


def test_a_fork_bomb_meets_its_timeout():
    begin = time.monotonic()
    r = roux("--timeout", "6", ROOT, "--", "sh", "-c", "b() { b | b & }; b; sleep 100")
    complains(r, 124)
    assert time.monotonic() - begin < 9, r


def test_cache_that_cannot_be_used():
    one_line(roux(ROOT, "true", env={"ROUX_CACHE": "/proc/no/cache"}), 125, "/proc/no")
    one_line(roux(ROOT, "true", env={"ROUX_CACHE": path("file-as-cache")}), 125, "file-as-cache")


def test_cache_that_nobody_may_write():
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    if os.geteuid() != 0:
        raise Skip("becoming another user needs root")
    d = folder("not-ours")
    os.chmod(d, 0o755)
    os.chmod(WORK, 0o711)
    root = os.path.join(WORK, "root-of-nobody")	# the usual one may lie in a folder that only its owner may enter
    shutil.copytree(ROOT, root, symlinks=True)
    one_line(roux(root, "true", env={"ROUX_STORE": d}, prefix=nobody), 125, "Permission denied", "ROUX_STORE")
    theirs = folder("of-nobody")
    os.chown(theirs, 65534, 65534)
    env = {"ROUX_STORE": theirs + "/store", "ROUX_STATE": d}
    one_line(roux(root, "true", env=env, prefix=nobody), 125, "Permission denied", "ROUX_STATE")
    env = {"ROUX_STORE": theirs + "/store", "ROUX_STATE": theirs + "/state", "ROUX_CACHE": d}
    one_line(roux(root, "true", env=env, prefix=nobody), 125, "Permission denied", "ROUX_CACHE")
    with tmpfs("read-only", "size=600m") as at:
        one = ("mount", "-o", "remount,ro", at)
        subprocess.run(one, check=True)
        one_line(roux(root, "true", env={"ROUX_CACHE": at}), 125, "Read-only file system", "ROUX_CACHE")
        # With everything in it, a cache need not be written.
        subprocess.run(["mount", "-o", "remount,rw", at], check=True)
        kernel()
        shutil.copytree(copy_cache("filled"), at + "/c", symlinks=True)
        expect(roux(root, "true", env={"ROUX_CACHE": at + "/c"}), 0)
        wait_until("the template", lambda: glob.glob(at + "/c/templates/*.snap"), 20)
        wait_until("its writer to end", lambda: not marked_processes(), 5)
        subprocess.run(one, check=True)
        expect(roux(root, "echo", "hi", env={"ROUX_CACHE": at + "/c"}), 0, out=b"hi\n")


def test_full_disk_is_told_and_leaves_no_part():
    with tmpfs("small", "size=2m") as small:
        image = docker_archive(os.path.join(WORK, "3M.tar"), {"big": os.urandom(3 << 20)}, {"Cmd": ["true"]})
        one_line(roux(image, env={"ROUX_CACHE": small}), 125, "o space left", "ROUX_CACHE")
        fill(small)
        one_line(roux("--kernel", kernel(), ROOT, "true", env={"ROUX_CACHE": small}), 125, "o space left", "ROUX_CACHE")
        names = [f for _, _, fs in os.walk(small) for f in fs if ".new" in f]
        assert not names, names


def fill(folder_):
    with contextlib.suppress(OSError), open(folder_ + "/fill", "wb") as f:
        while f.write(bytes(4096)):
            f.flush()


def test_a_full_disk_under_a_share_is_the_guests_error():
    with tmpfs("small-share", "size=1m") as small:
        r = roux(*BOOT, "-v", f"{small}:/data", ROOT, "--", "sh", "-c",
                 "dd if=/dev/zero of=/data/big bs=64k count=64 conv=fsync && exit 9; rm /data/big; echo ok > /data/x; cat /data/x")
        expect(r, 0, out=b"ok\n", err=b"No space left on device")


def test_limits_of_the_host_are_told_with_what_to_do():
    one_line(roux(*BOOT, ROOT, "true", prefix=("prlimit", "--as=900000000")), 125, "memory", "ulimit -v")
    one_line(roux(*BOOT, ROOT, "true", prefix=("prlimit", "--nofile=12")), 125, "ulimit -n")


@contextlib.contextmanager
def memory_cgroup(name, limit):
    """Prefix of commands that may use @limit bytes, as version 1 or 2 of cgroups has it."""
    for base, key in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        at = f"{base}/{name}.{os.getpid()}"
        with contextlib.suppress(OSError):
            os.mkdir(at)
            break
    else:
        raise Skip("no memory cgroup can be made here")
    try:
        try:
            with open(f"{at}/{key}", "w") as f:
                f.write(str(limit))
        except OSError as e:
            raise Skip("no memory cgroup can be limited here") from e
        yield ("sh", "-c", f'echo $$ > {at}/cgroup.procs && exec "$@"', "sh")
    finally:
        wait_until("the memory cgroup to empty", lambda: not open(f"{at}/cgroup.procs").read(), 10)
        os.rmdir(at)


def test_a_host_out_of_memory_is_told():
    with memory_cgroup("roux-test", 150 << 20) as inside:
        r = roux(*BOOT, ROOT, "--", "sh", "-c", "cat /dev/zero > /dev/shm/fill", prefix=inside)
        one_line(r, 125, "signal 9", "--memory")


def test_folders_that_cannot_be_shared():
    one_line(roux("-v", "/etc/passwd:/x", ROOT, "true"), 125, "/etc/passwd")
    one_line(roux("-v", f"{WORK}:x", ROOT, "true"), 125, "-v")
    one_line(roux("--disk", "/no/such/disk", ROOT, "true"), 125, "/no/such/disk")


def test_a_shared_folder_removed_meanwhile_gives_errors_not_hangs():
    d = folder("vanishing")
    path("vanishing/file", b"x")
    p = start(*BOOT, "-v", f"{d}:/data", ROOT, "--", "sh", "-c",
              "echo go; sleep 1; cat /data/file; ls /data; touch /data/new && echo made")
    read_until(p.stdout, b"go\n")
    shutil.rmtree(d)
    out, err = p.communicate(timeout=30)
    assert b"made" not in out and p.returncode != 124, (p.returncode, out, err)


main(globals())
