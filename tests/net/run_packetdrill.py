#!/usr/bin/env python3
"""Runs the conformance scripts with packetdrill: run_packetdrill.py [--kernel] PACKETDRILL LIBRARY [SCRIPT...]

Through the shared object LIBRARY, in simulated time, each script with IPv4 and IPv6 (or the one that
it names).  A script that packetdrill cannot say has a line "// Not for packetdrill: why" and is left
out.  With --kernel against Linux instead (as root; each run in a network namespace of its own, in
real time): what differs there on purpose has a line "// Linux: how", and is then expected to differ.
Prints a line for each run and a count.  Returns 1 when something is not as expected.
"""
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
PATIENCE = 20  # seconds that a run may take longer, beside late timers
EXACT = ["--tolerance_percent=0", "--tcp_ts_tick_usecs=1000", "--strict_segments"]
# Timers of Linux are late by up to an eighth.  IPv6 has 20 bytes less for payload.
REAL = ["--tolerance_usecs=20000", "--tolerance_percent=25", "--strict_segments"]
MTU = {"ipv4": [], "ipv6": ["--mtu=1520"]}
# Linux as net/ is: CUBIC, or Reno where a namespace may not choose it; our windows and limits;
# RFC 6675 for losses; no reports of duplicates.  What a kernel does not have is left out.
KERNEL = [
    "tcp_congestion_control=reno", "tcp_congestion_control=cubic", "tcp_rmem=4096 1048576 6291456",
    "tcp_wmem=4096 1048576 6291456", "tcp_rto_max_ms=60000", "route.min_pmtu=576", "tcp_dsack=0",
    "tcp_early_retrans=0", "tcp_recovery=0", "tcp_invalid_ratelimit=0", "tcp_syn_linear_timeouts=0",
    "tcp_no_metrics_save=1",
]
# One segment in each frame, as soon as packetdrill has made its device (long before it uses it).
NO_GSO = "for i in $(seq 200); do ip link set tun0 gso_max_segs 1 && break; sleep 0.01; done 2>/dev/null &"


def names():
    """--define for each option of ours, as packetdrill.h numbers them."""
    text = (HERE / "packetdrill.h").read_text()
    found = re.findall(r"(ROUX_\w+) = (\d+),", text) + re.findall(r"#define (SOL_ROUX) (\d+)", text)
    return [f"--define={name}={value}" for name, value in found]


def line_of(text, label):
    found = re.search(rf"^// {label}: (.*)$", text, re.M)
    return found.group(1) if found else None


def seconds(text):
    """How long a script is."""
    length = 0
    for relative, time in re.findall(r"^(\+?)([\d.]+) ", text, re.M):
        length = (length if relative else 0) + float(time)
    return length


def command(args, kernel, version, script):
    if not kernel:
        return [args[0], f"--ip_version={version}", f"--so_filename={args[1]}", *EXACT, *names(), script]
    settings = "; ".join(f"sysctl -qw net.ipv4.'{setting}' 2>/dev/null" for setting in KERNEL)
    return ["unshare", "--net", "sh", "-c", f'ip link set lo up; {settings}; {NO_GSO} exec "$0" "$@"', args[0],
            f"--ip_version={version}", *REAL, *MTU[version], *names(), script]


def run(args, kernel, version, script):
    """Empty when all was as the script says, else what packetdrill says."""
    limit = 1.25 * seconds(pathlib.Path(script).read_text()) + PATIENCE
    try:
        done = subprocess.run(command(args, kernel, version, script), capture_output=True, text=True,
                              timeout=limit)
    except subprocess.TimeoutExpired:
        return "it waits for what never comes"
    said = (done.stderr + done.stdout).strip()
    return "" if not done.returncode else said or f"exit status {done.returncode}"


def main():
    kernel = "--kernel" in sys.argv
    args = [arg for arg in sys.argv[1:] if arg != "--kernel"]
    if not shutil.which(args[0]):
        sys.exit(f"{args[0]} is not there: PACKETDRILL=PATH names it (https://github.com/google/packetdrill)")
    scripts = args[2:] or sorted(str(path) for path in (HERE / "scripts").glob("*.pkt"))
    good, differ, left_out, bad = 0, 0, [], 0
    for script in scripts:
        text = pathlib.Path(script).read_text()
        name = pathlib.Path(script).stem
        why = line_of(text, "Not for packetdrill")
        if why:
            print(f"{name}: left out: {why}")
            left_out.append(name)
            continue
        known = line_of(text, "Linux") if kernel else None
        only = re.search(r"^--ip_version=(\w+)", text, re.M)
        for version in [only.group(1)] if only else ["ipv4", "ipv6"]:
            said = run(args, kernel, version, script)
            if not said:
                print(f"{name} {version}: passed" + (" (was expected to differ)" if known else ""))
                good += 1
            elif known:
                print(f"{name} {version}: differs: {known}")
                differ += 1
            else:
                print(f"{name} {version}: FAILED\n{said}")
                bad += 1
            sys.stdout.flush()
    print(f"{len(scripts)} scripts: {good} runs passed, {differ} differ as they say, {bad} failed; "
          f"{len(left_out)} scripts left out: {' '.join(left_out)}")
    return 1 if bad else 0


sys.exit(main())
