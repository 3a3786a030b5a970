#!/usr/bin/env python3
"""What is missing, broken or hostile: one clear line, the right status, nothing left.  run_bad_input.py ROUX"""
import contextlib
import glob
import os
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from harness import CACHE, WORK, Skip, busybox_root, complains, expect, folder, main, read_until, roux, start
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


def kernel():
    expect(roux(ROOT, "true"), 0)	# the cache has one afterwards
    found = [p for p in glob.glob(CACHE + "/kernels/**/*", recursive=True)
             if os.path.isfile(p) and os.path.basename(p).startswith("vmlinuz")]
    if not found:
        raise Skip("no bzImage in the cache")
    return found[0]


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
    left = [p for p in glob.glob(CACHE + "/kernels/**/*", recursive=True) if ".tmp" in p]
    assert not left, left


def test_a_kernel_without_what_guests_need_is_told():
    # Debian's own: its file systems are modules, which only come with the default kernel.
    one_line(roux(*BOOT, "--kernel", kernel(), ROOT, "--", "true"), 125, "cannot mount the root")


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


def test_full_disk_is_told_and_leaves_no_part():
    small = folder("small")
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", small]).returncode:
        raise Skip("mounting a small tmpfs needs root")
    try:
        image = docker_archive(os.path.join(WORK, "3M.tar"), {"big": os.urandom(3 << 20)}, {"Cmd": ["true"]})
        one_line(roux(image, env={"ROUX_CACHE": small}), 125, "o space left")
        with contextlib.suppress(OSError), open(small + "/fill", "wb") as f:
            while f.write(bytes(4096)):
                f.flush()
        one_line(roux("--kernel", kernel(), ROOT, "true", env={"ROUX_CACHE": small}), 125, "o space left")
        names = [f for _, _, fs in os.walk(small) for f in fs if "tmp" in f]
        assert not names, names
    finally:
        subprocess.run(["umount", small], check=True)


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
