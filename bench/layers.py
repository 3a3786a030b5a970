#!/usr/bin/env python3
"""The layers of an image as a disk, compared with the same files as a shared folder.

Usage: layers.py ROUX FOLDER [RUNS [PART...]].  Makes images of a Debian user space with 1, 5
and 20 layers in FOLDER, and a cache beside them, so that nobody else's is touched; kernels and
the user space come from $ROUX_CACHE.  The ways take turns.  Writes samples.txt and summary.md.
Making a disk (first_start) is compared with tar unpacking the layers, and a start from the folder.
"""
import gzip
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tools"))
import results
import rootfs

WAYS = ("disk", "folder")
LAYERS = (1, 5, 20)
# Each group in a fresh machine, whose caches are empty; the host's are full.
GROUPS = [["read_all"], ["find_all"], ["python", "python_again"], ["gcc"]]
COMMANDS = {
    "read_all": "cd / && tar cf - usr | cat >/dev/null",
    "find_all": "find / -xdev -newer /etc/passwd >/dev/null",
    "python": "python3 -c 'import json, asyncio'",
    "python_again": "python3 -c 'import json, asyncio'",
    "gcc": "printf '#include <stdio.h>\\nint main(void) { return puts(\"x\") < 0; }\\n' >/tmp/x.c && "
           "gcc -O2 -o /tmp/x /tmp/x.c",
}
SCRIPT = "t() { a=$(date +%s%N); eval \"$2\"; b=$(date +%s%N); echo $1 $(( (b - a) / 1000 )); }; "


# ---------------------------------------------------------------- images

def split(root, count):
    """Names below @root for each of @count layers: folders and links in the first, files dealt out."""
    parts = [[] for _ in range(count)]
    for base, dirs, files in os.walk(root):
        for name in dirs + files:
            path = os.path.join(base, name)
            plain = name in files and not os.path.islink(path) and os.stat(path).st_nlink == 1
            name = os.path.relpath(path, root)
            parts[int(hashlib.sha256(name.encode()).hexdigest(), 16) % count if plain else 0].append(name)
    return parts


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def make_image(root, path, count):
    blobs = path / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(data, kind):
        (blobs / sha256(data)).write_bytes(data)
        return {"mediaType": "application/vnd.oci.image." + kind, "digest": "sha256:" + sha256(data), "size": len(data)}

    diff_ids, layers = [], []
    for names in split(root, count):
        tar = subprocess.run(["tar", "-C", root, "--no-recursion", "--null", "-T", "-", "-cf", "-"], check=True,
                             input="\0".join(sorted(names)).encode(), stdout=subprocess.PIPE).stdout
        diff_ids.append("sha256:" + sha256(tar))
        layers.append(blob(gzip.compress(tar, 6), "layer.v1.tar+gzip"))
    config = blob(json.dumps({"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/usr/bin:/usr/sbin"]},
                              "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode(), "config.v1+json")
    manifest = blob(json.dumps({"schemaVersion": 2, "config": config, "layers": layers}).encode(), "manifest.v1+json")
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


# ---------------------------------------------------------------- measuring

class Bench:
    def __init__(self, roux, folder):
        self.roux, self.folder = os.path.abspath(roux), folder
        self.cache = folder / "cache"
        self.results = results.Results(folder)
        self.root = rootfs.debian_root()
        for name in ("kernels", "initramfs"):
            if not (self.cache / name).exists():
                shutil.copytree(os.path.join(rootfs.cache_folder(), name), self.cache / name, symlinks=True)
        for count in LAYERS:
            if not self.image(count).exists():
                make_image(self.root, self.image(count), count)

    def image(self, count):
        return self.folder / f"image-{count}"

    def command(self, way, count, memory, *args):
        image = self.root if way == "folder" else str(self.image(count))
        return [self.roux, "run", "--memory", memory, image, "--", *args]

    def run(self, way, count, *args, memory="2G"):
        """Seconds and output."""
        begin = time.monotonic()
        done = subprocess.run(self.command(way, count, memory, *args), check=True, stdout=subprocess.PIPE, text=True,
                              env=dict(os.environ, ROUX_CACHE=str(self.cache)))
        return time.monotonic() - begin, done.stdout

    def add(self, name, count, way, unit, value):
        self.results.add(f"{name}_{count}_{way}", unit, value)

    def unpack(self, count):
        """Seconds and MiB."""
        with tempfile.TemporaryDirectory(dir=self.folder) as to:
            begin = time.monotonic()
            index = json.loads((self.image(count) / "index.json").read_text())
            manifest = json.loads(self.blob(count, index["manifests"][0]).read_text())
            for layer in manifest["layers"]:
                subprocess.run(["tar", "-C", to, "-xzf", self.blob(count, layer)], check=True)
            os.sync()
            return time.monotonic() - begin, size(to)

    def blob(self, count, descriptor):
        return self.image(count) / "blobs" / descriptor["digest"].replace(":", "/")

    def first_start(self, runs):
        """Also makes what the others use."""
        for count in LAYERS:
            for _ in range(runs):
                shutil.rmtree(self.cache / "disks-v1", ignore_errors=True)
                self.add("first_start", count, "disk", "s", self.run("disk", count, "true")[0])
                self.add("size", count, "disk", "MiB", size(self.cache / "disks-v1"))
                seconds, mib = self.unpack(count)
                self.add("first_start", count, "folder", "s", seconds + self.run("folder", count, "true")[0])
                self.add("size", count, "folder", "MiB", mib)

    def start(self, runs):
        for _ in range(runs):
            for count in LAYERS:
                for way in WAYS:
                    self.add("start", count, way, "ms", self.run(way, count, "true", memory="512M")[0] * 1000)

    def guest(self, runs):
        for _ in range(runs):
            for count in LAYERS[1:2]:
                for group in GROUPS:
                    script = SCRIPT + "; ".join(f"t {name} {shell_quote(COMMANDS[name])}" for name in group)
                    for way in WAYS:
                        for line in self.run(way, count, "sh", "-c", script)[1].splitlines():
                            name, us = line.split()
                            self.add(name, count, way, "ms", int(us) / 1000)

    def memory(self, runs):
        """What the processes of machines have, pages that several have divided among them."""
        work = "python3 -c 'import json, asyncio'; gcc --version >/dev/null; echo up; exec sleep 1000"
        for _ in range(runs):
            for machines in (1, 4):
                for way in WAYS:
                    vms = [subprocess.Popen(self.command(way, LAYERS[1], "512M", "sh", "-c", work),
                                            stdout=subprocess.PIPE, env=dict(os.environ, ROUX_CACHE=str(self.cache)))
                           for _ in range(machines)]
                    for vm in vms:
                        assert vm.stdout.readline() == b"up\n"
                    time.sleep(1)
                    total = sum(pss(c) for vm in vms for c in children(vm.pid))
                    self.add(f"memory_of_{machines}", LAYERS[1], way, "MiB", total / 1024 / machines)
                    for vm in vms:
                        vm.kill()
                        vm.wait()

    def summary(self):
        rows = []
        names = dict.fromkeys(name.rsplit("_", 1)[0] for name in self.results.samples)
        for name in names:
            disk, folder = (self.results[f"{name}_{way}"] for way in WAYS)
            what, layers = name.rsplit("_", 1)
            rows.append([what, layers, results.median(disk), results.spread(disk), results.median(folder),
                         results.spread(folder), results.median(results.ratios(folder, disk)), str(len(disk))])
        self.results.table(["", "layers", "disk", "range", "folder", "range", "folder/disk", "runs"], rows)
        self.results.finish()


def size(folder):
    """MiB on the disk."""
    done = subprocess.run(["du", "-sk", folder], check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout.split()[0]) / 1024


def shell_quote(text):
    return "'" + text.replace("'", "'\\''") + "'"


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as f:
        return [int(c) for c in f.read().split()]


def pss(pid):
    """KiB."""
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("Pss:"))


def main(roux, folder, runs="10", *parts):
    folder = pathlib.Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(roux, folder)
    for part in parts or ("first_start", "start", "guest", "memory"):
        if part != "first_start":
            for count in LAYERS:
                for way in WAYS:
                    bench.run(way, count, "true")
        getattr(bench, part)(max(2, int(runs) // 3) if part == "first_start" else int(runs))
    bench.summary()


if __name__ == "__main__":
    main(*sys.argv[1:])
