#!/usr/bin/env python3
"""
Many roux at once on one store, killed at random points: nothing that has a name is ever
damaged or incomplete, and nothing is left that cannot be collected.  run_torture.py ROUX

ROUX_TORTURE_SECONDS sets how long (default 20); ROUX_TORTURE_SEED repeats a run's choices.
"""
import gzip
import json
import os
import random
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from harness import ROUX, WORK, environ, expect, folder, main, verb
from oci_maker import image_config, layer_tar, oci_layout, pack
from registries import Liar, sha256

SECONDS = int(os.environ.get("ROUX_TORTURE_SECONDS", "20"))
SEED = int(os.environ.get("ROUX_TORTURE_SEED", str(time.time_ns() % 1000000)))
ENV = {"ROUX_STORE": os.path.join(WORK, "tortured")}


def images():
    """Three images that share a layer: manifests by tag, and all blobs."""
    shared, blobs, tags = layer_tar({"shared": os.urandom(3 << 20)}), {}, {}
    for n in range(3):
        layers = [shared, layer_tar({f"own{n}": os.urandom(500000 + n)})]
        packed = [gzip.compress(la, 1) for la in layers]
        config = image_config(layers, {"Cmd": ["x"]})
        for data in (config, *packed):
            blobs[sha256(data)] = data
        tags[str(n)] = json.dumps({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(config), "size": len(config)},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": sha256(p), "size": len(p)}
                       for p in packed]}).encode()
    return tags, blobs


def check():
    r = expect(verb("store", "verify", "--json", env=ENV))
    facts = json.loads(r.out)
    assert facts["damaged"] == 0 and facts["incomplete_images"] == 0, r


def test_kill_at_random_points():
    rng = random.Random(SEED)
    tags, blobs = images()
    place = folder("plain")
    with open(place + "/file", "wb") as f:
        f.write(os.urandom(2 << 20))
    tar = pack(oci_layout(folder("layout"), {"a": os.urandom(1 << 20)}, {}), os.path.join(WORK, "layout.tar"))

    def behave(h, path, truth):
        if "/manifests/" in path:
            return (200, {"Content-Type": "application/vnd.oci.image.manifest.v1+json"}, tags[path.rsplit("/", 1)[1]])
        if "/blobs/" in path:
            time.sleep(rng.random() * 0.05)	# so that a kill finds something going on
        return None

    def command(host):
        n = str(rng.randrange(3))
        return rng.choice([
            ["pull", "-q", f"{host}/x:{n}"], ["pull", "-q", f"{host}/x:{n}"], ["pull", "-q", f"{host}/x:{n}"],
            ["import", "-q", place, f"imported:{n}"], ["load", "-q", "-i", tar, f"loaded:{n}"],
            ["tag", f"{host}/x:{n}", f"tagged:{rng.randrange(3)}"], ["rmi", f"{host}/x:{n}"], ["rmi", f"tagged:{n}"],
            ["rmi", f"imported:{n}"], ["store", "gc"], ["store", "gc", "--all"], ["images"], ["store", "df"],
            ["save", "-o", os.path.join(WORK, f"out{n}.tar"), f"{host}/x:{n}"]])

    print(f"seed {SEED}")
    kills = runs = 0
    statuses = {}
    end = time.monotonic() + SECONDS
    with Liar(b"", blobs, behave) as liar:
        while time.monotonic() < end:
            batch = []
            for _ in range(4):
                what = command(liar.host)
                batch.append((what, subprocess.Popen([ROUX, *what], env=environ(**ENV), stdin=subprocess.DEVNULL,
                                                     stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)))
            time.sleep(rng.random() * 0.25)
            for what, p in batch:
                if rng.random() < 0.6 and p.poll() is None:
                    p.kill()
                    kills += 1
                runs += 1
                errors = p.communicate(timeout=60)[1]
                statuses[p.returncode] = statuses.get(p.returncode, 0) + 1
                assert p.returncode in (0, 1, -9), (what, p.returncode, errors)
                # What another one removed in between is gone: that is the only excuse.
                assert p.returncode != 1 or b"there is no image" in errors or b"is incomplete" in errors, (what, errors)
            if runs % 40 == 0:
                check()
        check()
        for n in tags:
            expect(verb("pull", "-q", f"{liar.host}/x:{n}", env=ENV))
        check()
        names = json.loads(verb("images", "--json", env=ENV).out)
        expect(verb("rmi", "--no-prune", *[i["name"] for i in names], env=ENV))
        expect(verb("store", "gc", "--all", env=ENV))
    left = [os.path.join(base, f) for base, _, files in os.walk(ENV["ROUX_STORE"]) for f in files]
    left = [f for f in left if not f.endswith(("/lock", "/format"))]
    assert not left, left
    print(f"{runs} runs, {kills} killed, statuses {statuses}")
    assert kills > 10, "the test does not test"


main(globals())
