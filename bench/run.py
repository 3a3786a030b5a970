#!/usr/bin/env python3
"""Runs the benchmarks and prints their tables; started by run.sh, which says how.

Everything compared is run in turns, a round of all peers after the other, so
that a busy minute of a shared machine touches all of them.  Ratios are made
within a round and their median is what counts; absolute numbers tell little.
"""
import contextlib
import glob
import itertools
import json
import math
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

QUICK = bool(os.environ.get("BENCH_QUICK"))
BOOTS, SUITES, IOS, STARTS = (3, 1, 1, 3) if QUICK else (15, 3, 3, 10)
IO_MIB, IO_SECONDS = (64, 1) if QUICK else (256, 3)
MEMORY_MIB = 512
MARK = b"roux-bench: init"
# As libroux's command line; QEMU gets the same, so that neither searches for what is not there.
CMDLINE = ("console=ttyS0 quiet panic=-1 nokaslr tsc=reliable no_timer_check random.trust_cpu=on mitigations=off "
           "cryptomgr.notests pci=off 8250.nr_uarts=1 rdinit=/init")
INIT = f"""#!/bin/busybox sh
echo {MARK.decode()}
case $BENCH in
cpu) /cpu_suite; echo bench-done ;;
idle) /bin/busybox sleep 600 ;;
esac
/bin/busybox poweroff -f
"""


# ---------------------------------------------------------------- results

class Results:
    """Samples by name in order of arrival, and the tables made of them."""

    def __init__(self, folder):
        self.folder, self.samples, self.text = folder, {}, []
        self.file = open(folder / "samples.txt", "w")

    def add(self, name, unit, value):
        self.samples.setdefault(name, []).append(value)
        self.file.write(f"{name} {unit} {value:.6g}\n")
        self.file.flush()

    def __getitem__(self, name):
        return self.samples[name]

    def say(self, text=""):
        print(text, flush=True)
        self.text.append(text)

    def table(self, head, rows):
        rows = [head] + [[c if isinstance(c, str) else short(c) for c in row] for row in rows]
        width = [max(len(row[i]) for row in rows) for i in range(len(head))]
        line = lambda row: "| " + " | ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in
                                             enumerate(zip(row, width))) + " |"
        self.say(line(rows[0]))
        self.say("|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(width)) + "|")
        for row in rows[1:]:
            self.say(line(row))
        self.say()

    def finish(self):
        (self.folder / "summary.md").write_text("\n".join(self.text) + "\n")
        self.file.close()


def short(value):
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def spread(values):
    """Lowest to highest, as text."""
    return f"{short(min(values))}..{short(max(values))}"


def ratios(a, b):
    return [x / y for x, y in zip(a, b)]


def geomean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


median = statistics.median


# ------------------------------------------------------------------ guests

inodes = itertools.count(1)


def cpio_entry(name, mode, data=b"", rdev=(0, 0)):
    """One member of a newc archive."""
    fields = (next(inodes), mode, 0, 0, 1, 0, len(data), 0, 0, *rdev, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % f for f in fields) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


def make_initramfs(path, suite):
    busybox = pathlib.Path(shutil.which("busybox")).read_bytes()
    path.write_bytes(
        cpio_entry("dev", 0o40755) + cpio_entry("dev/console", 0o20600, rdev=(5, 1)) + cpio_entry("bin", 0o40755) +
        cpio_entry("bin/busybox", 0o100755, busybox) + cpio_entry("cpu_suite", 0o100755, suite.read_bytes()) +
        cpio_entry("init", 0o100755, INIT.encode()) + cpio_entry("TRAILER!!!", 0))


class Guests:
    """The peers: the same kernel, initramfs, memory and command line."""

    def __init__(self, out, work):
        self.program = out / "bench" / "boot"
        self.work = work
        self.kernel = self.ask("--kernel")
        khz = int(self.ask("--tsc"))
        # Debian's kernels tick at 250 Hz.
        self.calibrated = f"lpj={khz * 4} tsc_early_khz={khz}"
        self.initramfs = work / "initramfs.cpio"
        make_initramfs(self.initramfs, out / "bench" / "cpu_suite")

    def ask(self, option):
        return subprocess.run([self.program, option], check=True, capture_output=True, text=True).stdout.strip()

    def roux(self, append):
        spec = self.work / "spec.toml"
        spec.write_text(f'engine = "dbt"\ncpus = 1\nmemory = {MEMORY_MIB << 20}\nkernel = "{self.kernel}"\n'
                        f'cmdline = "{CMDLINE} {append}"\ninitrd = ["{self.initramfs}"]\n')
        return [self.program, spec]

    def tcg(self, append, kernel=None):
        return ["qemu-system-x86_64", "-M", "microvm", "-accel", "tcg", "-cpu", "max", "-m", str(MEMORY_MIB),
                "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio", "-kernel",
                kernel or self.kernel, "-initrd", self.initramfs, "-append", f"{CMDLINE} {self.calibrated} {append}"]

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


def until_init(args, seconds=60):
    """Seconds from starting @args to init's first line on its console; the guest then ends by itself."""
    begin = time.monotonic()
    with started(args) as p:
        os.set_blocking(p.stdout.fileno(), True)
        seen = b""
        while MARK not in seen:
            data = os.read(p.stdout.fileno(), 65536)
            if not data or time.monotonic() - begin > seconds:
                sys.exit(f"bench: {args[0]} did not reach init:\n{seen.decode(errors='replace')}"
                         f"{p.stderr.read().decode(errors='replace') if not data else ''}")
            seen += data
        took = time.monotonic() - begin
        p.communicate(timeout=seconds)
        return took


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


def memory_kinds(pid):
    """KiB of proportional set size of a process, by what it is; guest memory, told by its size, apart."""
    kinds = (("translated code", "memfd:roux-code"), ("vCPU", "memfd:roux-vcpu"),
             ("heap", "[heap]"), ("stack", "[stack"), ("program and libraries", "/"))
    sizes, kind = {}, None
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        head = re.match(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \d+ *(.*)", line)
        if head:
            name = head[3]
            kind = next((k for k, part in kinds if (part in name if part != "/" else name.startswith("/"))),
                        "anonymous")
            if int(head[2], 16) - int(head[1], 16) == MEMORY_MIB << 20:
                kind = "guest RAM"
        elif line.startswith("Pss:"):
            sizes[kind] = sizes.get(kind, 0) + int(line.split()[1])
    return sizes


def part_memory(res, guests):
    plans = {"roux": guests.roux("BENCH=idle"), "tcg": guests.tcg("BENCH=idle")}
    for peer, plan in plans.items():
        with started(plan) as p:
            seen = b""
            while MARK not in seen:
                data = os.read(p.stdout.fileno(), 65536)
                if not data:
                    sys.exit(f"bench: {peer} ended before init:\n{p.stderr.read().decode(errors='replace')}")
                seen += data
            time.sleep(2)  # idle by now
            sizes = memory_kinds(p.pid)
        for kind, kib in sizes.items():
            res.add(f"memory/{kind.replace(' ', '-')}/{peer}", "KiB", kib)
        res.add(f"memory/beyond-guest-ram/{peer}", "KiB", sum(v for k, v in sizes.items() if k != "guest RAM"))
    kinds = ["beyond-guest-ram", "translated-code", "vCPU", "heap", "stack", "anonymous", "program-and-libraries",
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
        out = subprocess.run([str(roux), "run", "--engine", "dbt", "--json", str(rootfs), "--", "/bin/busybox", "true"],
                             stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        line = next((l for l in out.stderr.splitlines() if l.startswith("{")), None)
        if out.returncode or not line:
            sys.exit(f"bench: roux run failed:\n{out.stderr}")
        answer = json.loads(line)
        for name, ms in {**answer["phases_ms"], "total": answer["total_ms"]}.items():
            res.add(f"phases/{name}", "ms", ms)
            names += [name] if name not in names else []
    res.say(f"### Phases of roux run\n\n`roux run --json ROOTFS -- true`, {STARTS} runs.\n")
    res.table(["phase", "median ms", "lowest..highest"],
              [[n, median(res[f"phases/{n}"]), spread(res[f"phases/{n}"])] for n in names])


def targets(res):
    """What was promised, beside what was measured in this run."""
    got = res.samples
    rows = []
    if "boot/tcg" in got:
        rows.append(["boot to init, speed over TCG", "> 1", median(ratios(got["boot/tcg"], got["boot/roux"]))])
    if "cpu/geomean/roux-over-tcg" in got:
        rows.append(["processor, geometric mean over TCG", ">= 2", got["cpu/geomean/roux-over-tcg"][0]])
        rows.append(["processor, matmul-f64 over TCG", ">= 20",
                     median(ratios(got["cpu/matmul-f64/roux"], got["cpu/matmul-f64/tcg"]))])
    if rows:
        res.say("### Targets\n")
        res.table(["", "target", "measured"], rows)


# -------------------------------------------------------------------- main

def machine_line():
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    qemu = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True).stdout.split()[3]
    return (f"{model[1] if model else 'x86-64'}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} at the start; "
            f"QEMU {qemu}; {time.strftime('%Y-%m-%d')}{'; short run' if QUICK else ''}")


def main():
    out = pathlib.Path(sys.argv[1]).resolve()
    parts = sys.argv[2:] or ["boot", "cpu", "io", "memory", "phases"]
    folder = out / "bench"
    roux = out / "cli" / "roux"
    res = Results(folder)
    # Not in /tmp, which may be memory: files and disks are measured here.
    with tempfile.TemporaryDirectory(dir=folder, prefix="work-") as work:
        work = pathlib.Path(work)
        make_rootfs(work / "rootfs", out)
        guests = Guests(out, work)
        res.say(f"Measured on {machine_line()}.\n")
        if "boot" in parts:
            part_boot(res, guests)
        if "cpu" in parts:
            part_cpu(res, guests, out / "bench" / "cpu_suite")
        if "io" in parts:
            part_io(res, roux, work / "rootfs", work)
        if "memory" in parts:
            part_memory(res, guests)
        if "phases" in parts:
            part_phases(res, roux, work / "rootfs")
        targets(res)
    res.finish()


main()
