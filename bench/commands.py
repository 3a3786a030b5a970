"""Part `commands`: programs of a Debian user space, each in a machine or container of its own, from start to exit."""
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tools"))
import rootfs
from results import median, ratios, spread
from start import SETTLE, bundle, percentile, runs_here, timed

IMAGE = "bench-debian"
COMMANDS = {"true": ["/bin/true"], "ls": ["/bin/ls", "/usr"], "sqlite3": ["/usr/bin/sqlite3", ":memory:", "select 1"],
            "python3": ["/usr/bin/python3", "-c", "None"]}
TITLES = {"image": "roux run, image", "folder": "roux run, folder", "runc": "runc run"}


def plans(roux, root, work, name, command):
    run = [str(roux), "run", "--rm", "--engine", "dbt", "--network", "none"]
    found = {"image": lambda i: [*run, IMAGE, "--", *command], "folder": lambda i: [*run, str(root), "--", *command]}
    if runs_here("runc"):
        at = bundle("runc", root, work, name, command)
        argv = lambda i: ["runc", "run", "--bundle", str(at), f"roux-bench-{name}-{i}"]
        if subprocess.run(argv("probe"), stdin=subprocess.DEVNULL, capture_output=True).returncode == 0:
            found["runc"] = argv
    return found


def part(res, roux, work, rounds, lessons):
    """@lessons: machines that end before it counts; what they translate and read their template has then."""
    try:
        root = rootfs.debian_root()
    except rootfs.Unavailable as why:
        res.say(f"### Commands\n\nSkipped: {why}\n")
        return
    env = {**os.environ, "ROUX_STORE": str(work / "commands-store"), "ROUX_STATE": str(work / "commands-state")}
    subprocess.run([str(roux), "import", str(root), IMAGE], check=True, env=env, stdout=subprocess.DEVNULL)
    rows = []
    for name, command in COMMANDS.items():
        peers = plans(roux, root, work, name, command)
        for i in range(-lessons, rounds):
            for peer, argv in peers.items():
                took = timed(argv(i), env)
                if i >= 0:
                    res.add(f"commands/{name}/{peer}", "ms", took)
                if peer != "runc":
                    time.sleep(SETTLE if i >= 0 else 10 * SETTLE)
        for peer in peers:
            samples = res[f"commands/{name}/{peer}"]
            rows.append([f"{name}, {TITLES[peer]}", median(ratios(samples, res[f"commands/{name}/image"])), median(samples),
                         percentile(samples, .99), spread(samples)])
    subprocess.run([str(roux), "template", "stop", "--all"], env=env, stdout=subprocess.DEVNULL)
    res.say(f"### Commands\n\nPrograms of Debian {rootfs.DEBIAN_RELEASE} ({', '.join(' '.join(c) for c in COMMANDS.values())}), process "
            f"start to exit, a new machine or container each, {rounds} rounds after {lessons} that are not counted.\n")
    res.table(["", "time / image", "median ms", "p99 ms", "lowest..highest"], rows)
