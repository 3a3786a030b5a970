#!/usr/bin/env python3
"""Ways of an image to the guest, compared: its layers as a disk, or unpacked to a folder.

Usage: layers.py ROUX IMAGE [RUNS [NAME...]].  IMAGE needs sh, tar, python3 and gcc, and
should have several layers.  Prints one sample a line, "name unit value"; ways take turns.
The cache ($ROUX_CACHE) must have a kernel; its images are made anew.
"""
import os
import shutil
import signal
import subprocess
import sys
import time

WAYS = {"disk": [], "folder": ["--unpack"]}
# Each in a fresh machine, whose caches are empty; the host's are full.
GUEST = {
    "read_all": "cd / && tar cf - usr | cat >/dev/null",
    "find_all": "find / -xdev -newer /etc/passwd >/dev/null",
    "python": "python3 -c 'import json, asyncio'",
    "python_again": "python3 -c 'import json, asyncio'",
    "gcc": "printf '#include <stdio.h>\\nint main(void) { return puts(\"x\") < 0; }\\n' >/tmp/x.c && gcc -O2 -o /tmp/x /tmp/x.c",
}
SCRIPT = "t() { a=$(date +%s%N); eval \"$2\"; b=$(date +%s%N); echo $1 $(( (b - a) / 1000 )); }; "


def say(name, way, unit, value):
    print(f"{name}_{way} {unit} {value}", flush=True)


def run(roux, way, image, *args, memory="2G"):
    begin = time.monotonic()
    done = subprocess.run([roux, "run", "--memory", memory, *WAYS[way], image, "--", *args], check=True,
                          capture_output=True, text=True)
    return time.monotonic() - begin, done.stdout


def forget(way):
    for name in ("disks-v1",) if way == "disk" else ("images",):
        shutil.rmtree(os.path.join(os.environ["ROUX_CACHE"], name), ignore_errors=True)


def first_start(roux, image, runs):
    for _ in range(runs):
        for way in WAYS:
            forget(way)
            say("first_start", way, "ms", round(run(roux, way, image, "true")[0] * 1000))


def start(roux, image, runs):
    for _ in range(runs):
        for way in WAYS:
            say("start", way, "ms", round(run(roux, way, image, "true", memory="512M")[0] * 1000))


def guest(roux, image, runs):
    for _ in range(runs):
        for way in WAYS:
            for group in (["read_all"], ["find_all"], ["python", "python_again"], ["gcc"]):
                script = SCRIPT + "; ".join(f't {name} "${name}"' for name in group)
                env = [a for name in group for a in ("-e", f"{name}={GUEST[name]}")]
                done = subprocess.run([roux, "run", "--memory", "2G", *env, *WAYS[way], image, "--", "sh", "-c", script],
                                      check=True, capture_output=True, text=True)
                for line in done.stdout.splitlines():
                    name, us = line.split()
                    say(name, way, "ms", round(int(us) / 1000, 1))


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        return [int(c) for c in f.read().split()]


def pss(pid):
    """KiB of @pid, shared pages divided among those who share them; files' pages apart."""
    with open(f"/proc/{pid}/smaps_rollup") as f:
        lines = dict(line.split(":", 1) for line in f if ":" in line)
    return int(lines["Pss"].split()[0])


def cached():
    with open("/proc/meminfo") as f:
        return int(next(line for line in f if line.startswith("Cached:")).split()[1])


def memory(roux, image, runs):
    work = "python3 -c 'import json, asyncio'; gcc --version >/dev/null; echo up; exec sleep 1000"
    for _ in range(runs):
        for way in WAYS:
            for count in (1, 8):
                vms = [subprocess.Popen([roux, "run", "--memory", "512M", *WAYS[way], image, "--", "sh", "-c", work],
                                        stdout=subprocess.PIPE) for _ in range(count)]
                for vm in vms:
                    assert vm.stdout.readline() == b"up\n"
                time.sleep(1)
                total = sum(pss(c) for vm in vms for c in children(vm.pid))
                say(f"pss_of_{count}", way, "MiB", round(total / 1024, 1))
                for vm in vms:
                    vm.send_signal(signal.SIGKILL)
                    vm.wait()


def main(roux, image, runs="10", *names):
    parts = {"start": start, "guest": guest, "memory": memory, "first_start": first_start}
    for way in WAYS:
        run(roux, way, image, "true")
    for name in names or parts:
        parts[name](roux, image, int(runs))


if __name__ == "__main__":
    main(*sys.argv[1:])
