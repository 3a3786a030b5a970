#!/usr/bin/env python3
"""Registries that fail and lie: one clear line, and a store as it was.  run_liar.py ROUX [TEST...]"""
import gzip
import json
import lzma
import os
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from harness import WORK, busybox_root, complains, expect, main, roux, verb
from oci_maker import image_config, layer_tar
from registries import Liar, sha256

BUSYBOX = busybox_root() + "/bin/busybox"
TAR = layer_tar({"bin": None, "bin/busybox": BUSYBOX, "noise": os.urandom(1 << 20)})
LAYER = gzip.compress(TAR, 1)
CONFIG = image_config([TAR], {"Cmd": ["/bin/busybox", "echo", "whole"]})
BLOBS = {sha256(CONFIG): CONFIG, sha256(LAYER): LAYER}


def manifest(layer_size=len(LAYER), layer=None):
    return json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                       "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(CONFIG),
                                  "size": len(CONFIG)},
                       "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer or sha256(LAYER),
                                   "size": layer_size}]}).encode()


MANIFEST = manifest()


def fresh():
    fresh.count = getattr(fresh, "count", 0) + 1
    return {"ROUX_STORE": os.path.join(WORK, f"store{fresh.count}")}


def unharmed(env):
    """Nothing has a name, nothing is damaged, and nothing stays once it is collected."""
    assert json.loads(verb("images", "--json", env=env).out) == []
    expect(verb("store", "verify", env=env))
    expect(verb("store", "gc", "--all", env=env))
    left = json.loads(verb("store", "df", "--json", env=env).out)
    assert left["objects"] == left["partial"] == 0, left


def pulls(liar, env, name="x:1"):
    expect(verb("pull", f"{liar.host}/{name}", env=env))
    expect(verb("store", "verify", env=env))
    expect(roux("--pull", "never", f"{liar.host}/{name}", env=env), 0, out=b"whole\n")


def refused(liar, env, *words, name="x:1"):
    r = complains(verb("pull", f"{liar.host}/{name}", env=env), 1, *words)
    assert len(r.err.decode().strip().splitlines()) <= 3, r
    unharmed(env)


def is_layer(path):
    return path.endswith(sha256(LAYER))


def test_wrong_bytes_are_refused():
    flipped = LAYER[:5000] + bytes([LAYER[5000] ^ 1]) + LAYER[5001:]
    with Liar(MANIFEST, BLOBS, lambda h, path, t: (200, {}, flipped) if is_layer(path) else None) as liar:
        refused(liar, fresh(), "wrong bytes", sha256(LAYER)[:15])


def test_more_bytes_than_announced_are_refused():
    with Liar(MANIFEST, BLOBS, lambda h, path, t: (200, {}, LAYER + b"x" * 100000) if is_layer(path) else None) as liar:
        refused(liar, fresh(), "more than")


def test_less_bytes_than_announced_are_refused_in_the_end():
    with Liar(MANIFEST, BLOBS, lambda h, path, t: (200, {}, LAYER[:1000]) if is_layer(path) else None) as liar:
        refused(liar, fresh(), "bytes of", "try again")


def test_a_manifest_other_than_the_digest_is_refused():
    with Liar(MANIFEST, BLOBS) as liar:
        refused(liar, fresh(), "wrong digest", name="x@" + sha256(b"something else"))
        pulls(liar, fresh(), name="x@" + sha256(MANIFEST))


def test_broken_connections_are_resumed_where_they_broke():
    env, calls = fresh(), []

    def cut_each(h, path, truth):
        if not is_layer(path):
            return None
        start = int((h.headers.get("Range") or "bytes=0-").split("=")[1].split("-")[0])
        calls.append(start)
        if len(calls) > 6:
            return None
        return (206 if start else 200, {"Content-Range": f"bytes {start}-{len(LAYER) - 1}/{len(LAYER)}"}, LAYER[start:], 200000)

    with Liar(MANIFEST, BLOBS, cut_each) as liar:
        pulls(liar, env)
    assert calls == sorted(set(calls)) and len(calls) == 7, calls


def test_a_registry_that_ignores_ranges_starts_again():
    env, calls = fresh(), []

    def behave(h, path, truth):
        if not is_layer(path):
            return None
        calls.append(h.headers.get("Range"))
        return (200, {}, LAYER, 300000) if len(calls) == 1 else (200, {}, LAYER)

    with Liar(MANIFEST, BLOBS, behave) as liar:
        pulls(liar, env)
    assert len(calls) == 2 and calls[1], calls


def test_another_range_than_asked_for_is_refused():
    def behave(h, path, truth):
        if not is_layer(path):
            return None
        if not h.headers.get("Range"):
            return (200, {}, LAYER, 300000)
        return (206, {"Content-Range": f"bytes 7-{len(LAYER) - 1}/{len(LAYER)}"}, LAYER[7:])

    with Liar(MANIFEST, BLOBS, behave) as liar:
        refused(liar, fresh(), "another range")


def test_a_pull_that_was_cut_off_is_taken_up_by_the_next():
    env = fresh()
    with Liar(MANIFEST, BLOBS, lambda h, path, t: (200, {}, LAYER, 700000) if is_layer(path) and not h.headers.get("Range")
              else (500, {}, b"") if is_layer(path) else None) as liar:
        complains(verb("pull", f"{liar.host}/x:1", env=env), 1)
        assert json.loads(verb("store", "df", "--json", env=env).out)["partial"] == 1
        liar.behave = lambda h, path, t: None
        before = len(liar.requests)
        pulls(liar, env)
        ranges = [r for path, r, _ in liar.requests[before:] if is_layer(path)]
        assert ranges == ["bytes=700000-"], ranges


def test_bytes_kept_from_a_liar_do_not_spoil_the_truth():
    env, bad = fresh(), b"\0" * len(LAYER)
    with Liar(MANIFEST, BLOBS, lambda h, path, t: (200, {}, bad, 500000) if is_layer(path) and not h.headers.get("Range")
              else (500, {}, b"") if is_layer(path) else None) as liar:
        complains(verb("pull", f"{liar.host}/x:1", env=env), 1)
        liar.behave = lambda h, path, t: None
        pulls(liar, env)


def test_busy_registries_are_asked_again():
    for status, headers in ((429, {"Retry-After": "1"}), (503, {}), (500, {})):
        env, counts = fresh(), {}

        def behave(h, path, truth):
            counts[path] = counts.get(path, 0) + 1
            return (status, headers, b"") if counts[path] <= 2 and path != "/v2/" else None

        begin = time.monotonic()
        with Liar(MANIFEST, BLOBS, behave) as liar:
            pulls(liar, env)
        assert not headers or time.monotonic() - begin > 2, "Retry-After counts"
    with Liar(MANIFEST, BLOBS, lambda h, path, t: (503, {}, b"") if is_layer(path) else None) as liar:
        refused(liar, fresh(), "status 503")


def test_blobs_elsewhere_are_followed_without_the_password():
    with Liar(MANIFEST, BLOBS) as other:
        def behave(h, path, truth):
            if not h.headers.get("Authorization"):
                return (401, {"WWW-Authenticate": f'Bearer realm="http://{h.headers["Host"]}/token",service="s"'}, b"") \
                    if path != "/token" else (200, {}, b'{"token": "tok"}')
            if "/blobs/" in path:
                return (307, {"Location": f"http://127.0.0.1:{other.server.server_address[1]}/elsewhere/" + path.rsplit("/", 1)[1]}, b"")
            return None

        with Liar(MANIFEST, BLOBS, behave) as liar:
            pulls(liar, fresh())
            tokens = [path for path, _, _ in liar.requests if path.startswith("/token")]
        assert tokens and "scope=repository%3Ax%3Apull" in tokens[-1], tokens
        assert other.requests and all(a is None for _, _, a in other.requests), other.requests


def test_uploads_elsewhere_go_without_the_password():
    env = fresh()
    with Liar(MANIFEST, BLOBS, lambda h, path, t: (201, {}, b"")) as other:
        def behave(h, path, truth):
            if not h.headers.get("Authorization"):
                return (401, {"WWW-Authenticate": f'Bearer realm="http://{h.headers["Host"]}/token",service="s"'}, b"") \
                    if path != "/token" else (200, {}, b'{"token": "tok"}')
            return {"HEAD": (404, {}, b""), "POST": (202, {"Location": f"http://{other.host}/elsewhere?a=b"}, b""),
                    "PUT": (201, {}, b"")}.get(h.command)

        with Liar(MANIFEST, BLOBS, behave) as liar:
            pulls(liar, env)
            expect(verb("push", f"{liar.host}/x:1", env=env))
            assert liar.requests[-1][0] == "/v2/x/manifests/1" and liar.requests[-1][2], liar.requests[-1]
        assert len(other.requests) == len(BLOBS) and all(a is None for _, _, a in other.requests), other.requests


def test_redirects_in_a_circle_end():
    with Liar(MANIFEST, BLOBS, lambda h, path, t: (307, {"Location": path}, b"") if is_layer(path) else None) as liar:
        refused(liar, fresh(), "redirects")


def test_manifests_that_are_none_are_refused():
    for text in (b"", b"{", b"[]", b"null", b'{"manifests": []}', b"x" * (5 << 20), MANIFEST[:-2],
                 manifest(layer="sha512:" + "0" * 128), manifest(layer="sha256:../../../etc/passwd"), manifest(layer_size=-1),
                 manifest(layer_size=1 << 60)):
        with Liar(text, BLOBS) as liar:
            refused(liar, fresh())


def test_two_pulls_at_once_fetch_a_layer_once():
    import subprocess
    from harness import ROUX, environ
    env = fresh()

    def slowly(h, path, truth):
        if is_layer(path):
            time.sleep(0.5)

    with Liar(MANIFEST, BLOBS, slowly) as liar:
        both = [subprocess.Popen([ROUX, "pull", "-q", f"{liar.host}/x:1"], env=environ(**env), stdout=subprocess.DEVNULL)
                for _ in range(3)]
        assert [p.wait(60) for p in both] == [0, 0, 0]
        assert len(liar.fetched(sha256(LAYER))) == 1, liar.requests
    expect(verb("store", "verify", env=env))


def test_a_mirror_whose_index_is_none_is_refused():
    index = lzma.compress(b"Nothing: here\n\n")
    release = f"SHA256:\n {sha256(index)[7:]} {len(index)} main/binary-amd64/Packages.xz\n".encode()
    # Nothing can check signatures, so that the index is believed and read.
    env = {**fresh(), "PATH": "/nonexistent", "ROUX_CACHE": os.path.join(WORK, "mirrored")}

    def behave(h, path, truth):
        return (200, {}, release if path.endswith("/InRelease") else index)

    with Liar(MANIFEST, BLOBS, behave) as liar:
        complains(verb("import", "debian:bookworm", "--mirror", f"http://{liar.host}", env=env), 1, "no packages in the index")
    unharmed(env)


main(globals())
