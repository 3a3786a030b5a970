"""Many machines from one template: how soon they run, what they hold while they do nothing, how soon they answer."""
import concurrent.futures
import os
import pathlib
import random
import subprocess
import sys
import time

from results import median, short, spread
from start import NONE_WAITS, SETTLE, percentile

SLEEP = ["/bin/busybox", "sleep", "100000"]
PAGE = os.sysconf("SC_PAGESIZE")


class Fleet:
    """Machines in the background, in a store of their own."""

    def __init__(self, roux, rootfs, work, *options):
        self.roux, self.rootfs, self.options = str(roux), str(rootfs), options
        self.env = {**os.environ, "ROUX_STORE": str(work / "store"), "ROUX_STATE": str(work / "state")}
        self.names = []

    def call(self, *args):
        out = subprocess.run([self.roux, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=self.env,
                             timeout=120)
        if out.returncode:
            sys.exit(f"bench: roux {' '.join(args)} failed:\n{out.stderr}")
        return out.stdout

    def start(self, name):
        """Returns when its command runs."""
        self.call("run", "-d", "--name", name, "--engine", "dbt", "--network", "none", *self.options, self.rootfs, "--", *SLEEP)

    def grow(self, count, at_once):
        names = [f"clone{len(self.names) + i}" for i in range(count)]
        begin = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            list(pool.map(self.start, names))
        self.names += names
        return time.perf_counter() - begin

    def end(self):
        for i in range(0, len(self.names), 50):
            self.call("rm", "-f", *self.names[i:i + 50])
        self.names = []

    def processes(self):
        """Process ids by their names: roux-vm and roux-monitor."""
        found = {}
        for at in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                name = (at / "comm").read_text().strip()
                if name.startswith("roux-") and self.env["ROUX_STATE"].encode() in (at / "environ").read_bytes():
                    found.setdefault(name, []).append(int(at.name))
            except OSError:
                pass
        return found


def private_kib(pid):
    """Memory that a process shares with nobody, and its part of what it shares among its own mappings."""
    fields = dict(line.split(":", 1) for line in open(f"/proc/{pid}/smaps_rollup").read().splitlines()[1:])
    return sum(int(fields[f].split()[0]) for f in ("Private_Dirty", "Private_Clean"))


def available_kib():
    for line in open("/proc/meminfo"):
        if line.startswith("MemAvailable"):
            return int(line.split()[1])


def cpu_seconds(pids):
    ticks = 0
    for pid in pids:
        fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def first_byte(roux, rootfs, env=None):
    begin = time.perf_counter()
    p = subprocess.Popen([str(roux), "run", "--rm", "--engine", "dbt", "--network", "none", str(rootfs), "--", "/bin/busybox",
                          "echo", "x"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=env)
    p.stdout.read(1)
    took = (time.perf_counter() - begin) * 1e3
    p.communicate()
    return took


# Kinds of snapshots, how they are made, and what they are on top of.
SNAPSHOTS = (("whole", (), None), ("on top of another", (), "whole"), ("compressed", ("--compress",), None),
             ("both", ("--compress",), "whole"))


def restore(res, fleet, work, rounds):
    """A guest of 256 MiB, saved and restored in each way, in turns: until its agent has run another command."""
    fleet.options = ("--memory", "256M")
    fleet.grow(1, 1)
    time.sleep(2)
    for _ in range(rounds):
        for kind, options, base in SNAPSHOTS:
            path = str(work / f"snapshot {kind}")
            name = "clones" if kind == "whole" else f"clones/{kind}"
            on = ("--base", str(work / f"snapshot {base}")) if base else ()
            begin = time.perf_counter()
            fleet.call("checkpoint", *options, *on, fleet.names[0], path)
            res.add(f"{name}/checkpoint", "ms", (time.perf_counter() - begin) * 1e3)
            res.add(f"{name}/snapshot-bytes", "MB", os.stat(path).st_blocks * 512 / 1e6)
            begin = time.perf_counter()
            fleet.call("restore", "-d", "--name", "restored", path)
            res.add(f"{name}/restore", "ms", (time.perf_counter() - begin) * 1e3)
            fleet.call("exec", "restored", "/bin/busybox", "true")
            res.add(f"{name}/restore-exec", "ms", (time.perf_counter() - begin) * 1e3)
            fleet.call("rm", "-f", "restored")
    fleet.end()


def snapshot_table(res):
    rows = []
    for kind, _, _ in SNAPSHOTS:
        name = "clones" if kind == "whole" else f"clones/{kind}"
        rows.append([kind, median(res[f"{name}/snapshot-bytes"])] + [
            cell for what in ("checkpoint", "restore", "restore-exec")
            for cell in (median(res[f"{name}/{what}"]), percentile(res[f"{name}/{what}"], .99))])
    res.say("Snapshots of an idle guest of 256 MiB in the page cache, in turns: bytes of disk; until `roux checkpoint` has written it; "
            "until `roux restore -d` returns, and until a `roux exec true` after it has.\n")
    res.table(["snapshot", "MB", "checkpoint, ms", "p99", "restored, ms", "p99", "and an exec, ms", "p99"], rows)


def idle(res, fleet, label, seconds):
    """What all of them hold and do while their guests have nothing to do, and how soon one answers."""
    fleet.call("template", "stop", "--all")	# the one that waits is none of them
    time.sleep(5)
    found = fleet.processes()
    vms, monitors = found["roux-vm"], found["roux-monitor"]
    if len(vms) != len(fleet.names):
        sys.exit(f"bench: {len(vms)} of {len(fleet.names)} machines are alive")
    for pid in random.sample(vms, min(20, len(vms))):
        res.add(f"clones/{label}/vm-private", "KiB", private_kib(pid))
    for pid in random.sample(monitors, min(20, len(monitors))):
        res.add(f"clones/{label}/monitor-private", "KiB", private_kib(pid))
    before, begin = cpu_seconds(vms + monitors), time.perf_counter()
    time.sleep(seconds)
    res.add(f"clones/{label}/cpu", "percent", (cpu_seconds(vms + monitors) - before) / (time.perf_counter() - begin) * 100)
    for name in random.sample(fleet.names, min(50, len(fleet.names))):
        begin = time.perf_counter()
        fleet.call("exec", name, "/bin/busybox", "true")
        res.add(f"clones/{label}/exec", "ms", (time.perf_counter() - begin) * 1e3)


def part(res, roux, rootfs, work, rounds, counts, seconds):
    fleet = Fleet(roux, rootfs, work)
    for _ in range(3):	# the template, and what its first machines translate
        first_byte(roux, rootfs)
        fleet.grow(1, 1)
        fleet.end()
    for _ in range(rounds):
        res.add("clones/first-byte-disk", "ms", first_byte(roux, rootfs, NONE_WAITS))
    first_byte(roux, rootfs)
    for _ in range(rounds):
        time.sleep(SETTLE)
        res.add("clones/first-byte", "ms", first_byte(roux, rootfs))
    for _ in range(3):
        for label, at_once in (("one-after-another", 1), ("at-once", 100)):
            res.add(f"clones/100-{label}", "s", fleet.grow(100, at_once))
            fleet.end()
    rows = []
    for count in counts:
        free = available_kib()
        res.add(f"clones/{count}/start", "s", fleet.grow(count, 8))
        time.sleep(2)
        res.add(f"clones/{count}/system", "KiB", (free - available_kib()) / count)
        idle(res, fleet, count, seconds)
        fleet.end()
        rows.append([str(count), res[f"clones/{count}/start"][-1], median(res[f"clones/{count}/vm-private"]),
                     median(res[f"clones/{count}/monitor-private"]), res[f"clones/{count}/system"][-1],
                     res[f"clones/{count}/cpu"][-1], median(res[f"clones/{count}/exec"]),
                     percentile(res[f"clones/{count}/exec"], .99)])
    restore(res, fleet, work, max(3, rounds // 5))
    res.say(f"### Many machines\n\nFrom one template, network none, 512 MiB of memory each. First byte: of `echo` on standard output, {rounds} "
            "rounds. 100 machines: until all of their commands run, started one after another, and all at once.\n")
    res.table(["", "median", "p99", "lowest..highest", "unit"],
              [[title, median(res[name]), percentile(res[name], .99), spread(res[name]), unit] for title, name, unit in (
                  ("first byte, live template", "clones/first-byte", "ms"),
                  ("first byte, template from disk", "clones/first-byte-disk", "ms"),
                  ("100 machines, one after another", "clones/100-one-after-another", "s"),
                  ("100 machines, at once", "clones/100-at-once", "s"))])
    snapshot_table(res)
    res.say(f"Idle machines: private memory of the VM's process and of its monitor, medians of 20; what the whole system has less, for each; "
            f"processor time of all of them over {short(seconds)} s; `roux exec true` in 50 of them.\n")
    res.table(["machines", "started in s", "VM, KiB", "monitor, KiB", "system, KiB", "% of a core", "exec, ms", "p99, ms"], rows)
