"""Cold boots: `roux run --no-template FOLDER -- echo`, with Debian's kernel and with one that was built."""
import json
import os
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tools"))
import rootfs
from results import median, spread

SYNOPSIS = "roux run --no-template --network none FOLDER -- echo"


def caches(work):
    """A cache for each kernel, with nothing in it but that kernel as the default."""
    kernels = pathlib.Path(rootfs.cache_folder()) / "kernels"
    found = {"packaged": "debian-cloud-amd64"}
    try:
        found["built"] = (kernels / "built").read_text()
    except FileNotFoundError:
        print("bench: no kernel was built: 'roux kernel build' makes one", file=sys.stderr)
    made = {}
    for name, folder in found.items():
        made[name] = work / f"cold-{name}"
        (made[name] / "kernels").mkdir(parents=True)
        (made[name] / "kernels" / folder).symlink_to(kernels / folder)
        if name == "built":
            (made[name] / "kernels" / "built").write_text(folder)
    return made


def boot(roux, cache, root):
    """Milliseconds from the start of the process to the command's first output, and of its phases."""
    begin = time.monotonic()
    p = subprocess.Popen([str(roux), "run", "--engine", "dbt", "--no-template", "--network", "none", "--json", str(root), "--",
                          "/bin/busybox", "echo", "hello"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, env=dict(os.environ, ROUX_CACHE=str(cache)))
    if p.stdout.read(1) != "h":
        sys.exit(f"bench: roux run failed:\n{p.communicate()[1]}")
    ms = (time.monotonic() - begin) * 1000
    _, errors = p.communicate()
    return ms, json.loads(next(line for line in errors.splitlines() if line.startswith("{")))["phases_ms"]


def part(res, roux, root, work, runs):
    peers = caches(work)
    names = []
    for cache in peers.values():
        boot(roux, cache, root)	# unpacks the kernel, makes the initramfs
    for _ in range(runs):
        for name, cache in peers.items():
            ms, phases = boot(roux, cache, root)
            res.add(f"cold/{name}/output", "ms", ms)
            for phase, value in phases.items():
                res.add(f"cold/{name}/{phase}", "ms", value)
                names += [phase] if phase not in names else []
    res.say(f"### Cold boot\n\n`{SYNOPSIS}`, process start to the command's output, and the phases in it, {runs} runs in turns.\n")
    rows = []
    for name in ["output", *names]:
        row = [name]
        for peer in peers:
            row += [median(res[f"cold/{peer}/{name}"]), spread(res[f"cold/{peer}/{name}"])]
        rows.append(row)
    res.table(["ms, median"] + [h for peer in peers for h in (f"{peer} kernel", "lowest..highest")], rows)
