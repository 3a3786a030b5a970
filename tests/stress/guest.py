"""A guest under the mixed load of tests/stress, watched from outside: memory, descriptors, code cache.

run() is one machine that does some parts (see stress.c) and is looked at whenever one begins or
ends.  What is wrong is raised as Wrong, with the seed in its message.
"""
import os
import re
import select
import shutil
import subprocess
import time

PIECES = ["fork", "pipes", "memory", "code", "files", "disk", "timers", "threads"]	# and "fill"
MEMORY_MIB = 640	# Linux has no large pages for programs below 512
CODE_MIB = 256	# of the translator's cache, mapped twice
TABLES_MIB = 700	# what goes with it: blocks, exits, arena (engine/dbt/block.c), and the rest of the process
DISK_BYTES = 64 << 20
SETTLE_S = 20	# until what the guest has given up is given up here too, if it is let run
LAST = "timers:1"	# the machine is still there when the part before it is looked at
SPARE_FDS = 8	# files that the guest opened meanwhile and goes on knowing: programs, folders


class Wrong(Exception):
    pass


def vm_process(ancestor):
    """Pid of the VM process that @ancestor, a command, has started through its monitor."""
    parents, candidates = {}, []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as f:
                name, rest = f.read().split("(", 1)[1].rsplit(")", 1)
        except OSError:
            continue
        parents[int(pid)] = int(rest.split()[1])
        if name == "roux-vm":
            candidates.append(int(pid))
    for pid in candidates:
        above = pid
        while above in parents and above != ancestor:
            above = parents[above]
        if above == ancestor:
            return pid
    raise Wrong(f"no VM process of {ancestor}")


def rss_mib(pid):
    with open(f"/proc/{pid}/status") as f:
        m = re.search(r"VmRSS:\s+(\d+) kB", f.read())
    return int(m[1]) / 1024 if m else 0	# none: it has just ended


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def check_memory(pid):
    rss, limit = rss_mib(pid), MEMORY_MIB + 2 * CODE_MIB + TABLES_MIB
    if rss > limit:
        raise Wrong(f"the VM process has {rss:.0f} MiB, more than {limit}")


def time_it_had(pid):
    """Seconds since some moment, less those in which the guest's first processor waited for one of the host's."""
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/comm") as f:
            if f.read() != "vcpu0\n":
                continue
        with open(f"/proc/{pid}/task/{task}/schedstat") as f:
            return time.monotonic() - int(f.read().split()[1]) / 1e9
    return time.monotonic()


def check_descriptors(pid, before):
    end = time_it_had(pid) + SETTLE_S
    while (now := descriptors(pid)) > before + SPARE_FDS:
        if time_it_had(pid) > end:
            raise Wrong(f"{now} descriptors, {before} when the part began")
        time.sleep(0.1)


def counters(stderr):
    """What --dbt-stats printed, at the end."""
    return {m[1]: int(m[2]) + int(m[3]) for m in re.finditer(r"^(\w+) +(\d+) +(-?\d+) +-?\d+$", stderr, re.M)}


def lines(p, seconds):
    """Lines of standard output as they come, for at most @seconds."""
    end, rest = time.monotonic() + seconds, b""
    while True:
        if not select.select([p.stdout], [], [], max(0, end - time.monotonic()))[0]:
            raise Wrong(f"nothing more came for {seconds} s")
        data = os.read(p.stdout.fileno(), 65536)
        if not data:
            return
        *whole, rest = (rest + data).split(b"\n")
        yield from (line.decode() for line in whole)


def part_seconds(part):
    return int(part.rsplit(":", 1)[1])


class Report:
    def __init__(self):
        self.rounds = {}	# piece: rounds
        self.guest_seconds = 0	# of parts that ended
        self.counters = {}


def check_process(vm, words, before):
    """What @vm has at a line of output; returns its descriptors when the part began."""
    try:
        check_memory(vm)
        if words[0] == "begin":
            return descriptors(vm)
        if words[0] == "end":
            check_descriptors(vm, before)
    except (FileNotFoundError, ProcessLookupError):
        pass	# the last part has ended, and the machine with it
    return before


def watch(p, report, limit):
    """Follows a run to its end."""
    vm = before = None
    for line in lines(p, limit):
        words = line.split()
        vm = vm or vm_process(p.pid)
        before = check_process(vm, words, before)
        if words[0] == "end":
            report.guest_seconds += part_seconds(words[1])
        elif words[0] != "begin":
            report.rounds[words[0]] = report.rounds.get(words[0], 0) + int(words[4])


def run(roux, root, program, folder, seed, parts, env):
    """One machine with 2 vCPUs does @parts; @folder, which exists and is empty, is for what it needs."""
    share, disk = os.path.join(folder, "share"), os.path.join(folder, "disk")
    limit = 120 + 4 * sum(map(part_seconds, parts))
    report = Report()
    os.mkdir(share)
    shutil.copy(program, share + "/stress")
    with open(disk, "wb") as f:
        f.truncate(DISK_BYTES)
    with open(os.path.join(folder, "errors"), "w+b") as errors:
        p = subprocess.Popen([roux, "run", "--engine", "dbt", "--cpus", "2", "--memory", f"{MEMORY_MIB}M", "--dbt-stats",
                              "-u", "0", "-v", f"{share}:/share", "--disk", disk, root, "--", "/share/stress",
                              str(seed), "/share", "/dev/vda", *parts, LAST], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=errors, env=env)
        try:
            watch(p, report, limit)
            status = p.wait(timeout=60)
            errors.seek(0)
            text = errors.read().decode(errors="replace")
            if status:
                raise Wrong(f"status {status}: {text[:2000]}")
        except (Wrong, subprocess.TimeoutExpired) as why:
            raise Wrong(f"seed {seed}, parts {' '.join(parts)}: {why}") from None
        finally:
            p.kill()
            p.wait()
            p.stdout.close()
    report.counters = counters(text)
    if not 0 < report.counters.get("code_bytes", 0) <= CODE_MIB << 20:
        raise Wrong(f"seed {seed}: no sensible code_bytes in {text[-2000:]}")
    left = [name for name in os.listdir(share) if name != "stress"]
    if left:
        raise Wrong(f"seed {seed}: left in the shared folder: {left}")
    return report
