#!/usr/bin/env python3
"""Images in every form, and what they say about the command.  run_images.py ROUX [TEST...]"""
import json
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(__file__))
from harness import WORK, Skip, busybox_root, complains, environ, expect, folder, main, read_until, roux, start
from oci_maker import docker_archive, layer_tar, oci_layout, pack

BUSYBOX = busybox_root() + "/bin/busybox"
FILES = {"bin": None, "bin/busybox": BUSYBOX, "bin/sh": ("link", "busybox"), "bin/cat": ("link", "busybox"),
         "etc": None, "etc/passwd": b"root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n",
         "etc/group": b"root:x:0:\napp:x:1000:\n", "old": b"old\n", "gone": b"gone\n"}
TELL = ["/bin/sh", "-c", 'busybox id -u; pwd; echo "$NAME:$0:$*"']
CONFIG = {"Entrypoint": TELL, "Cmd": ["from", "cmd"], "Env": ["PATH=/bin", "NAME=image"], "User": "app",
          "WorkingDir": "/work", "StopSignal": "SIGUSR1"}
SECOND = layer_tar({"old": b"new\n"}, whiteouts=["gone"])
EXPECTED = b"1000\n/work\nimage:from:cmd\n"


def check(image):
    expect(roux(image), 0, out=EXPECTED)
    expect(roux("-u", "root", "-w", "/", "-e", "NAME=mine", image, "--", "other"), 0, out=b"0\n/\nmine:other:\n")
    expect(roux("--entrypoint", "/bin/sh", image, "--", "-c", "cat /old; busybox test -e /gone || echo away"), 0,
           out=b"new\naway\n")


def test_layout_folder():
    check(oci_layout(folder("layout"), FILES, CONFIG, [SECOND]))


def test_layout_tar():
    check(pack(oci_layout(folder("layout-plain"), FILES, CONFIG, [SECOND], compress=False),
               os.path.join(WORK, "layout.tar")))


def test_docker_archive():
    check(docker_archive(os.path.join(WORK, "docker.tar"), FILES, CONFIG, [SECOND]))


def test_what_skopeo_and_umoci_write():
    if not shutil.which("skopeo") or not shutil.which("umoci"):
        raise Skip("no skopeo and umoci (Debian packages)")
    layout = oci_layout(folder("for-skopeo"), FILES, CONFIG, [SECOND])
    tar = os.path.join(WORK, "skopeo.tar")
    quiet = {"check": True, "env": environ(), "stdout": subprocess.DEVNULL}
    subprocess.run(["skopeo", "--insecure-policy", "copy", f"oci:{layout}", f"docker-archive:{tar}:t:1"], **quiet)
    expect(roux(tar), 0, out=EXPECTED)
    tagged = os.path.join(WORK, "tagged")
    subprocess.run(["skopeo", "--insecure-policy", "copy", f"oci:{layout}", f"oci:{tagged}:v1"], **quiet)
    subprocess.run(["umoci", "config", "--image", f"{tagged}:v1", "--config.env", "NAME=umoci"], **quiet)
    expect(roux(tagged), 0, out=EXPECTED.replace(b"image", b"umoci"))


def test_second_run_unpacks_nothing():
    image = oci_layout(folder("twice"), {**FILES, "big": os.urandom(20 << 20)}, CONFIG, [SECOND])
    first, second = (json.loads(roux("--json", image).err.splitlines()[-1])["phases_ms"] for _ in range(2))
    assert second["image"] < first["image"] / 4, (first, second)


def test_a_command_beside_the_entrypoint_is_its_arguments():
    image = oci_layout(folder("plain-cmd"), FILES, {"Cmd": ["/bin/sh", "-c", "echo default"]})
    expect(roux(image), 0, out=b"default\n")
    expect(roux(image, "--", "/bin/sh", "-c", "echo mine"), 0, out=b"mine\n")
    complains(roux(oci_layout(folder("no-cmd"), FILES, {})), 125, "no command")


def test_stop_signal_is_sent_for_term():
    # The handler of a signal nobody else sends: its status tells that it came.
    script = "trap 'exit 41' USR1; trap 'exit 42' TERM; echo go; while :; do busybox sleep 0.05; done"
    image = oci_layout(folder("stop"), FILES, {"Entrypoint": ["/bin/sh", "-c", script], "Env": ["PATH=/bin"],
                                               "StopSignal": "SIGUSR1"})
    p = start(image)
    read_until(p.stdout, b"go\n")
    p.terminate()
    assert p.wait(20) == 41, p.returncode


def broken(name, change):
    # Contents of its own: a layer that is in the cache is not read again.
    layout = oci_layout(folder(name), {**FILES, "name": name.encode()}, CONFIG,
                        [layer_tar({"old": b"new\n", "second": name.encode()}, whiteouts=["gone"])])
    change(layout)
    return layout


def blob(layout, descriptor):
    return os.path.join(layout, "blobs", descriptor["digest"].replace(":", "/"))


def manifest(layout):
    with open(layout + "/index.json") as f:
        return blob(layout, json.load(f)["manifests"][0])


def layer(layout, n):
    with open(manifest(layout)) as f:
        return blob(layout, json.load(f)["layers"][n])


def overwrite(path, data):
    with open(path, "wb") as f:
        f.write(data)


def flip(path):
    with open(path, "r+b") as f:
        f.seek(os.path.getsize(path) // 2)
        byte = f.read(1)
        f.seek(-1, 1)
        f.write(bytes([byte[0] ^ 1]))


def test_missing_and_broken_images_are_told():
    complains(roux("/no/such/image", "true"), 125, "/no/such/image")
    complains(roux("/etc/passwd", "true"), 125, "/etc/passwd")
    empty = os.path.join(WORK, "empty.tar")
    overwrite(empty, b"")
    complains(roux(empty, "true"), 125, "empty.tar")
    complains(roux(folder("nothing-in-it"), "true"), 127)
    for name, change, status in (
            ("layer-flipped", lambda la: flip(layer(la, 0)), 125),
            ("second-layer-flipped", lambda la: flip(layer(la, 1)), 125),
            ("layer-short", lambda la: os.truncate(layer(la, 0), 1000), 125),
            ("layer-missing", lambda la: os.unlink(layer(la, 0)), 125),
            ("manifest-flipped", lambda la: flip(manifest(la)), 125),
            ("index-empty", lambda la: overwrite(la + "/index.json", b""), 125),
            ("index-wrong", lambda la: overwrite(la + "/index.json", b'{"manifests": 7}'), 125)):
        r = roux(broken(name, change))
        complains(r, status)
        assert len(r.err.splitlines()) == 1, (name, r)


def test_layers_cannot_reach_outside():
    outside = os.path.join(WORK, "outside")
    os.makedirs(outside)
    overwrite(outside + "/keep", b"keep")
    for n, files in enumerate(({"../../../../../../../../../.." + outside + "/evil": b"x"},
                               {"escape": ("link", outside), "escape/evil": b"x"},
                               {"/../../.." + outside + "/evil": b"x"})):
        roux(oci_layout(folder(f"evil{n}"), {**FILES, **files}, CONFIG))
        assert os.listdir(outside) == ["keep"], (n, os.listdir(outside))
    roux(oci_layout(folder("evil-wh"), {**FILES, "escape": ("link", outside)}, CONFIG,
                    [layer_tar({}, whiteouts=["escape/keep", "../../../../../../.." + outside + "/keep"])]))
    assert os.listdir(outside) == ["keep"]


main(globals())
