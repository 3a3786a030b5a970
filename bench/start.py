"""Process start to exit of one small command: roux from a template and booted, container runtimes on the same folder."""
import json
import os
import shutil
import subprocess
import sys
import time

from results import median, ratios, short, spread

COMMAND = ["/bin/busybox", "true"]
NONE_WAITS = {**os.environ, "ROUX_STANDBY": "0"}
SETTLE = 0.1	# s after a run of roux, for the next machine to be made: it is nobody else's time


def runs_here(runtime):
    """Whether an OCI runtime is there, and may make containers."""
    return os.geteuid() == 0 and shutil.which(runtime)


def bundle(runtime, rootfs, work, name, command):
    """What an OCI runtime starts from: its own default specification with our folder and command."""
    at = work / f"bundle-{runtime}-{name}"
    at.mkdir()
    subprocess.run([runtime, "spec"], cwd=at, check=True)
    spec = json.loads((at / "config.json").read_text())
    spec["process"]["args"] = command
    spec["process"]["terminal"] = False
    spec["root"] = {"path": str(rootfs), "readonly": True}
    (at / "config.json").write_text(json.dumps(spec))
    return at


def peers(roux, rootfs, work):
    run = [str(roux), "run", "--rm", "--engine", "dbt"]
    found = {"roux": lambda i: [*run, str(rootfs), "--", *COMMAND],
             "disk": lambda i: [*run, str(rootfs), "--", *COMMAND],
             "boot": lambda i: [*run, "--no-template", str(rootfs), "--", *COMMAND]}
    for runtime in ("runc", "crun"):
        if not runs_here(runtime):
            continue
        at = bundle(runtime, rootfs, work, "start", COMMAND)
        found[runtime] = lambda i, r=runtime, b=at: [r, "run", "--bundle", str(b), f"roux-bench-{r}-{i}"]
    return found


def timed(command, env=None):
    begin = time.perf_counter()
    out = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=env, timeout=60)
    took = time.perf_counter() - begin
    if out.returncode:
        sys.exit(f"bench: {command[0]} failed:\n{out.stderr}")
    return took * 1e3


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def part(res, roux, rootfs, work, rounds):
    plans = peers(roux, rootfs, work)
    for name, command in list(plans.items()):
        out = subprocess.run(command("warm"), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        if out.returncode and name in ("runc", "crun"):
            print(f"bench: {name} is left out, it does not run here: {out.stderr.strip()}", file=sys.stderr)
            del plans[name]
        elif out.returncode:
            sys.exit(f"bench: {command('warm')[0]} failed:\n{out.stderr}")
    for i in range(rounds):
        for name, command in plans.items():
            if name != "boot" or i % 10 == 0:
                res.add(f"start/{name}", "ms", timed(command(i), NONE_WAITS if name in ("disk", "boot") else None))
            if name == "roux":
                time.sleep(SETTLE)
    titles = {"roux": "roux run, live template", "disk": "roux run, template from disk", "boot": "roux run --no-template", "runc": "runc run", "crun": "crun run"}
    res.say(f"### Start\n\nProcess start to exit of `true` in the same folder, warm, {rounds} rounds (a tenth of them for booting).\n")
    res.table(["", "time / roux", "median ms", "p99 ms", "lowest..highest"],
              [[titles[n], median(ratios(res[f"start/{n}"], res["start/roux"])) if n != "boot" else
                short(median(res["start/boot"]) / median(res["start/roux"])), median(res[f"start/{n}"]),
                percentile(res[f"start/{n}"], .99), spread(res[f"start/{n}"])] for n in plans])
