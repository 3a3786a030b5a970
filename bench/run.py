#!/usr/bin/env python3
"""Runs the benchmarks and prints their tables; started by run.sh, which says how.

Everything compared is run in turns, a round of all peers after the other, so
that a busy minute of a shared machine touches all of them.  Ratios are made
within a round and their median is what counts; absolute numbers tell little.
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import chart
import clones
import cold
import commands
import network
import programs
import start
from guests import MEMORY_MIB, Guests, output, started, until_init, wait_init
from results import Results, geomean, median, ratios, spread

QUICK = bool(os.environ.get("BENCH_QUICK"))
BOOTS, COLDS, SUITES, IOS, STARTS, RUNS = (3, 3, 1, 1, 3, 10) if QUICK else (15, 20, 9, 3, 10, 100)
IO_MIB, IO_SECONDS = (64, 1) if QUICK else (256, 3)
COMMANDS, LESSONS = (2, 1) if QUICK else (30, 4)
PROGRAMS, SPEED_SECONDS = (1, 1) if QUICK else (3, 2)
NETWORKS, NETWORK_SECONDS = (1, 2) if QUICK else (3, 5)
SMPS, SMP_TIMES, IDLES, IDLE_SECONDS = (1, 2, 1, 5) if QUICK else (3, 2, 3, 5)
CLONES = (10,) if QUICK else (1, 10, 100, 300, 1000)


# ------------------------------------------------------------------- parts

def part_boot(res, guests):
    plans = {"roux": guests.roux(""), "tcg": guests.tcg("")}
    until_init(plans["roux"])  # unpacks the kernel into the cache
    elf = guests.unpacked()
    if elf:
        plans["tcg-elf"] = guests.tcg("", elf)
    for _ in range(BOOTS):
        for name, plan in plans.items():
            res.add(f"boot/{name}", "ms", until_init(plan) * 1e3)
    titles = {"roux": "roux dbt", "tcg": "QEMU TCG", "tcg-elf": "QEMU TCG, kernel unpacked beforehand"}
    res.say(f"### Boot to init\n\nProcess start to init's first line, {BOOTS} rounds.\n")
    res.table(["", "time / roux", "median ms", "lowest..highest"],
              [[titles[n], median(ratios(res[f"boot/{n}"], res["boot/roux"])), median(res[f"boot/{n}"]),
                spread(res[f"boot/{n}"])] for n in plans])


def run_suite(res, peer, args):
    out = subprocess.run([str(a) for a in args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                         timeout=300)
    found = re.findall(r"^([a-z0-9+-]+) ([0-9.]+) (\S+)\s*$", out.stdout, re.M)
    if len(found) != 9:
        sys.exit(f"bench: the suite on {peer} did not finish:\n{out.stdout}{out.stderr}")
    for name, value, unit in found:
        res.add(f"cpu/{name}/{peer}", unit, float(value))
    return {name: unit for name, _, unit in found}


def part_cpu(res, guests, suite):
    peers = {"native": [suite], "roux": guests.roux("BENCH=cpu"), "tcg": guests.tcg("BENCH=cpu")}
    for _ in range(SUITES):
        for peer, args in peers.items():
            units = run_suite(res, peer, args)

    def times_faster(name, other):
        """Of roux over @other, by round; more is better, whatever the unit."""
        r = ratios(res[f"cpu/{name}/roux"], res[f"cpu/{name}/{other}"])
        return [1 / x for x in r] if units[name] == "us" else r

    rows, all_tcg, all_native = [], [], []
    for name, unit in units.items():
        tcg, native = times_faster(name, "tcg"), times_faster(name, "native")
        all_tcg.append(median(tcg))
        all_native.append(median(native))
        rows.append([name, all_tcg[-1], spread(tcg), all_native[-1],
                     *(median(res[f"cpu/{name}/{p}"]) for p in ("roux", "tcg", "native")), unit])
    rows.append(["geometric mean", geomean(all_tcg), "", geomean(all_native), "", "", "", ""])
    res.add("cpu/geomean/roux-over-tcg", "ratio", geomean(all_tcg))
    res.add("cpu/geomean/roux-over-native", "ratio", geomean(all_native))
    res.say(f"### Processor\n\nSpeed of roux dbt divided by that of the other (for times: inverted), {SUITES} rounds.\n")
    res.table(["program", "roux/TCG", "lowest..highest", "roux/native", "roux", "TCG", "native", "unit"], rows)


def run_io(res, label, args):
    out = subprocess.run([str(a) for a in args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    found = re.findall(r"^(\S+) ([0-9.]+) (\S+)\s*$", out.stdout, re.M)
    if len(found) != 4:
        sys.exit(f"bench: io on {label} failed:\n{out.stdout}{out.stderr}")
    for name, value, unit in found:
        res.add(f"io/{name}/{label}", unit, float(value))
    return [(name, unit) for name, _, unit in found]


def make_rootfs(path, out):
    (path / "bin").mkdir(parents=True)
    (path / "share").mkdir()
    shutil.copy(out / "bench" / "io", path / "bin" / "io")
    shutil.copy(shutil.which("busybox"), path / "bin" / "busybox")
    os.symlink("busybox", path / "bin" / "sh")


def part_io(res, roux, rootfs, work):
    share, disk, host = work / "share", work / "disk.img", work / "host"
    share.mkdir()
    with open(disk, "wb") as f:
        f.truncate(IO_MIB << 20)
    run = [roux, "run", "--engine", "dbt", "--memory", f"{MEMORY_MIB}M"]
    size = [str(IO_MIB), str(IO_SECONDS)]
    names = []
    for _ in range(IOS):
        for kind in ("direct", "buffered"):
            found = run_io(res, "host", [rootfs / "bin/io", host, *size, kind, "warm"])
            run_io(res, "fs", [*run, "-v", f"{share}:/share", rootfs, "--", "/bin/io", "/share/file", *size, kind])
            run_io(res, "blk", [*run, "--disk", disk, rootfs, "--", "/bin/io", "/dev/vda", *size, kind])
            names += [n for n in found if n not in names]
    rows = [[name, *(median(ratios(res[f"io/{name}/{p}"], res[f"io/{name}/host"])) for p in ("fs", "blk")),
             *(median(res[f"io/{name}/{p}"]) for p in ("fs", "blk", "host")), unit] for name, unit in names]
    res.say(f"### Files and disks\n\n1 MiB requests in order and 4 KiB ones at random, one at a time, {IO_MIB} MiB; "
            f"the same program in the guest (roux dbt) and on the host, {IOS} rounds. Writes count until fsync "
            f"returned. Both devices keep the host's page cache, so direct reads in a guest can be faster than direct "
            f"reads on the host; before buffered reads the guest's cache is dropped, the host's is not.\n")
    res.table(["", "virtio-fs/host", "virtio-blk/host", "virtio-fs", "virtio-blk", "host", "unit"], rows)


def mappings(pid):
    """(first byte, byte behind, name, KiB of proportional set size) of each."""
    found = []
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        head = re.match(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \d+ *(.*)", line)
        if head:
            found.append([int(head[1], 16), int(head[2], 16), head[3], 0])
        elif line.startswith("Pss:"):
            found[-1][3] = int(line.split()[1])
    return found


def memory_kinds(pid):
    """KiB of proportional set size of a process, by what it is; guest memory, told by its size, apart."""
    kinds = (("translated code", "/memfd:roux-code"), ("vCPU", "/memfd:roux-vcpu"),
             ("heap", "[heap]"), ("stack", "[stack"), ("program and libraries", "/"))
    sizes, areas = {}, []
    for first, behind, name, kib in mappings(pid):
        kind = next((k for k, start in kinds if name.startswith(start)), "anonymous")
        if behind - first == MEMORY_MIB << 20:
            kind = "guest RAM"
        if not areas or areas[-1][0] != first:
            areas.append([behind, {}])
        areas[-1][0] = behind
        areas[-1][1][kind] = areas[-1][1].get(kind, 0) + kib
    for _, area in areas:
        if "translated code" in area:	# in one piece with the tables that lead to it
            area["translated code"] += area.pop("anonymous", 0)
        for kind, kib in area.items():
            sizes[kind] = sizes.get(kind, 0) + kib
    return sizes


def part_memory(res, guests):
    plans = {"roux": guests.roux("BENCH=idle"), "tcg": guests.tcg("BENCH=idle")}
    for peer, plan in plans.items():
        with started(plan) as p:
            wait_init(p)
            time.sleep(2)  # idle by now
            sizes = memory_kinds(p.pid)
        for kind, kib in sizes.items():
            res.add(f"memory/{kind.replace(' ', '-')}/{peer}", "KiB", kib)
        res.add(f"memory/beyond-guest-ram/{peer}", "KiB", sum(v for k, v in sizes.items() if k != "guest RAM"))
        res.add(f"memory/beyond-that-and-code/{peer}", "KiB",
                sum(v for k, v in sizes.items() if k not in ("guest RAM", "translated code")))
    kinds = ["beyond-guest-ram", "beyond-that-and-code", "translated-code", "vCPU", "heap", "stack", "anonymous", "program-and-libraries",
             "guest-RAM"]
    rows = []
    for kind in kinds:
        mib = [res.samples.get(f"memory/{kind}/{peer}", [0])[0] / 1024 for peer in plans]
        rows.append([kind.replace("-", " "), mib[0] / mib[1] if mib[1] else "", *mib])
    res.say(f"### Memory\n\nMiB resident (proportional set size), guest of {MEMORY_MIB} MiB idle after boot.\n")
    res.table(["", "roux/TCG", "roux dbt", "QEMU TCG"], rows)


def part_phases(res, roux, rootfs):
    names = []
    for _ in range(STARTS):
        out = subprocess.run([str(roux), "run", "--engine", "dbt", "--no-template", "--json", str(rootfs), "--", "/bin/busybox", "true"],
                             stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        line = next((l for l in out.stderr.splitlines() if l.startswith("{")), None)
        if out.returncode or not line:
            sys.exit(f"bench: roux run failed:\n{out.stderr}")
        answer = json.loads(line)
        for name, ms in {**answer["phases_ms"], "total": answer["total_ms"]}.items():
            res.add(f"phases/{name}", "ms", ms)
            names += [name] if name not in names else []
    res.say(f"### Phases of roux run\n\n`roux run --no-template --json ROOTFS -- true`, {STARTS} runs.\n")
    res.table(["phase", "median ms", "lowest..highest"],
              [[n, median(res[f"phases/{n}"]), spread(res[f"phases/{n}"])] for n in names])


def run_smp(res, peer, args):
    """One round of a peer; medians of a few repetitions in it."""
    found = re.findall(r"^(one|two) ([0-9.]+) s\s*$", output(args, 300), re.M)
    if len(found) != 2 * SMP_TIMES:
        sys.exit(f"bench: smp on {peer} did not finish: {found}")
    one, two = (median([float(s) for n, s in found if n == name]) for name in ("one", "two"))
    res.add(f"smp/one/{peer}", "s", one)
    res.add(f"smp/two/{peer}", "s", two)
    res.add(f"smp/throughput/{peer}", "ratio", 2 * one / two)


def part_smp(res, guests, program):
    append = f"BENCH=smp TIMES={SMP_TIMES}"
    plans = {"roux": guests.roux(append, cpus=2), "tcg": guests.tcg(append, cpus=2),
             "native": [program, SMP_TIMES]}
    for _ in range(SMPS):
        for peer, args in plans.items():
            run_smp(res, peer, args)
    for peer in ("roux", "tcg"):
        res.add(f"smp/{peer}-over-native", "ratio",
                median(ratios(res[f"smp/throughput/{peer}"], res["smp/throughput/native"])))
    titles = {"roux": "roux dbt, 2 vCPUs", "tcg": "QEMU TCG, 2 vCPUs", "native": "native"}
    res.say(f"### Two processors\n\nThroughput of two computing processes at once over that of one; what this host, "
            f"with {os.cpu_count()} CPUs, gives two of its own processes in the same rounds is the most there is to "
            f"have. Rounds: {SMPS}.\n")
    res.table(["", "two / one", "lowest..highest", "of native", "one, s", "two, s"],
              [[titles[p], median(res[f"smp/throughput/{p}"]), spread(res[f"smp/throughput/{p}"]),
                median(ratios(res[f"smp/throughput/{p}"], res["smp/throughput/native"])),
                median(res[f"smp/one/{p}"]), median(res[f"smp/two/{p}"])] for p in plans])


def processor_seconds(pid):
    """Processor time that all threads of a process have used: Linux's clock id of it is made from ~pid."""
    return time.clock_gettime((~pid << 3) | 2)


def part_idle(res, guests):
    plans = {"roux": guests.roux("BENCH=idle"), "tcg": guests.tcg("BENCH=idle")}
    for _ in range(IDLES):
        for peer, plan in plans.items():
            with started(plan) as p:
                wait_init(p)
                time.sleep(2)  # idle by now
                used, begin = processor_seconds(p.pid), time.monotonic()
                time.sleep(IDLE_SECONDS)
                used = processor_seconds(p.pid) - used
                res.add(f"idle/{peer}", "%", used / (time.monotonic() - begin) * 100)
    res.say(f"### Idle\n\nProcessor time of the VM's process over {IDLE_SECONDS} s in which its guest, of one vCPU, has "
            f"nothing to do. Rounds: {IDLES}.\n")
    res.table(["", "% of a core", "lowest..highest"],
              [[{"roux": "roux dbt", "tcg": "QEMU TCG"}[p], median(res[f"idle/{p}"]), spread(res[f"idle/{p}"])]
               for p in plans])


TIMES_IN_SUITE = ("fork+wait", "pipe-pingpong", "pagefault")	# less is better; the others are rates


def targets(res):
    """What was promised, beside what was measured in this run."""
    got, rows = res.samples, []

    def row(title, least, value, most=None):
        met = "" if value is None else "yes" if (value >= least if most is None else value < most) else "no"
        rows.append([title, f">= {least}" if most is None else f"< {most}", "not run" if value is None else value, met])

    def suite(name, other):
        if f"cpu/{name}/roux" not in got:
            return None
        peers = ("roux", other) if name not in TIMES_IN_SUITE else (other, "roux")
        return median(ratios(*(got[f"cpu/{name}/{p}"] for p in peers)))

    def single(name):
        return got[name][0] if name in got else None

    row("processor suite, geometric mean over TCG", 5, single("cpu/geomean/roux-over-tcg"))
    row("processor suite, geometric mean over native", 0.35, single("cpu/geomean/roux-over-native"))
    row("matmul-f64 over TCG", 20, suite("matmul-f64", "tcg"))
    for names, least, other in ((("matmul-f64", "memcpy", "xorshift"), 0.8, "native"),
                                (("qsort", "ptrchase"), 0.4, "native"),
                                (("syscall", *TIMES_IN_SUITE), 4, "tcg")):
        for name in names:
            row(f"{name} over {'TCG' if other == 'tcg' else other}", least, suite(name, other))
    for title, name, most, share in (("start to exit from a live template, median, ms", "start/roux", 15, .5),
                                     ("the same, p99, ms", "start/roux", 30, .99),
                                     ("first byte from a live template, median, ms", "clones/first-byte", 8, .5),
                                     ("100 machines one after another, s", "clones/100-one-after-another", 0.8, .5),
                                     ("100 machines at once, s", "clones/100-at-once", 0.5, .5),
                                     ("private memory of an idle clone, KiB", "clones/100/vm-private", 1024, .5),
                                     ("memory beyond guest RAM and translated code, KiB", "memory/beyond-that-and-code/roux", 3072, .5),
                                     ("1,000 idle machines, % of a core", "clones/1000/cpu", 10, .5),
                                     ("exec in one of 1,000, p99, ms", "clones/1000/exec", 50, .99),
                                     ("restored to first exec, 256 MiB, ms", "clones/restore-exec", 25, .5)):
        row(title, None, start.percentile(got[name], share) if name in got else None, most)
    row("boot to init, speed over TCG", 2.5,
        median(ratios(got["boot/tcg"], got["boot/roux"])) if "boot/tcg" in got else None)
    for name in programs.NAMES:
        row(f"program {name} over TCG", 4, single(f"programs/{name}/roux-over-tcg"))
    for name, least in (("tcp-send", 3), ("tcp-receive", 3), ("ping", 2), ("tcp-roundtrip", 2)):
        row(f"network {name} over libslirp", least, single(f"network/{name}/roux-over-slirp"))
    row("connections at once", network.CONNECTIONS, median(got["network/held/roux"]) if "network/held/roux" in got else None)
    row("two processes on 2 vCPUs over one", 1.8, median(got["smp/throughput/roux"]) if "smp/throughput/roux" in got else None)
    row("cold boot with a kernel that was built, ms", None, median(got["cold/built/output"]) if "cold/built/output" in got else None,
        most=200)
    row("idle guest, % of a core", None, median(got["idle/roux"]) if "idle/roux" in got else None, most=1)
    res.say("### Targets\n")
    res.table(["", "target", "measured", "met"], rows)


# -------------------------------------------------------------------- main

def machine_line():
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    qemu = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True).stdout.split()[3]
    return (f"{model[1] if model else 'x86-64'}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} at the start; "
            f"QEMU {qemu}; {time.strftime('%Y-%m-%d')}{'; short run' if QUICK else ''}")


PARTS = ("boot", "cold", "commands", "cpu", "io", "memory", "network", "phases", "programs", "smp", "start", "clones", "idle")


def run_part(name, res, guests, out, work):
    roux, suites = out / "cli" / "roux", out / "bench"
    {"boot": lambda: part_boot(res, guests),
     "cold": lambda: cold.part(res, roux, work / "rootfs", work, COLDS),
     "commands": lambda: commands.part(res, roux, work, COMMANDS, LESSONS),
     "cpu": lambda: part_cpu(res, guests, suites / "cpu_suite"),
     "io": lambda: part_io(res, roux, work / "rootfs", work),
     "memory": lambda: part_memory(res, guests),
     "network": lambda: network.part(res, guests, out, work, NETWORKS, NETWORK_SECONDS),
     "phases": lambda: part_phases(res, roux, work / "rootfs"),
     "programs": lambda: programs.part(res, guests, out, work, PROGRAMS, SPEED_SECONDS),
     "smp": lambda: part_smp(res, guests, suites / "smp"),
     "start": lambda: start.part(res, roux, work / "rootfs", work, RUNS),
     "clones": lambda: clones.part(res, roux, work / "rootfs", work, RUNS, CLONES, IDLE_SECONDS),
     "idle": lambda: part_idle(res, guests)}[name]()


def main():
    if sys.argv[1:] == ["--parts"]:
        print(*PARTS)
        return
    out = pathlib.Path(sys.argv[1]).resolve()
    parts = sys.argv[2:] or PARTS
    unknown = [p for p in parts if p not in PARTS]
    if unknown:
        sys.exit(f"bench: no part {unknown[0]}; there are: {' '.join(PARTS)}")
    folder = out / "bench"
    res = Results(folder)
    # Not in /tmp, which may be memory: files and disks are measured here.
    with tempfile.TemporaryDirectory(dir=folder, prefix="work-") as work:
        work = pathlib.Path(work)
        make_rootfs(work / "rootfs", out)
        guests = Guests(out, work)
        res.say(f"Measured on {machine_line()}.\n")
        for name in PARTS:
            if name in parts:
                begin = time.monotonic()
                print(f"bench: part {name}...", file=sys.stderr, flush=True)
                run_part(name, res, guests, out, work)
                print(f"bench: part {name} took {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
        targets(res)
    chart.draw(res, folder)
    res.finish()


if __name__ == "__main__":
    main()
