#!/usr/bin/env python3
"""Templates that have in memory what their machines read.  run_read_ahead.py ROUX [TEST...]"""
import contextlib
import glob
import json
import os
import shutil
import sys

os.environ["ROUX_STANDBY"] = "30"
sys.path.insert(0, os.path.dirname(__file__))
from harness import WORK, busybox_root, copy_cache, expect, folder, main, marked_processes, roux, seal, standby_sockets, verb, wait_until

CACHE = copy_cache("cache")
STORE = os.path.join(WORK, "read-ahead-store")
ENV = {"ROUX_CACHE": CACHE, "ROUX_STORE": STORE}
LARGE = 3 << 20	# bytes of the file that the image has for its machines


def image(name, size=LARGE):
    """A folder that is one: busybox, and files of which its machines read one."""
    root = folder(name)
    shutil.copytree(busybox_root(), root, symlinks=True, dirs_exist_ok=True)
    os.makedirs(root + "/data/deep", exist_ok=True)
    for path, first in ("data/deep/large", 1), ("data/other", 2):
        with open(f"{root}/{path}", "wb") as f:
            f.write(bytes(range(first, first + 250)) * (size // 250))
    return root


def snapshots():
    """Templates, as files that may take each other's place."""
    return {os.stat(p).st_ino for p in glob.glob(CACHE + "/templates/*.snap")}


def code_files():
    return {(os.stat(p).st_ino, os.stat(p).st_size) for p in glob.glob(CACHE + "/templates/*.code")}


def lists():
    return glob.glob(CACHE + "/templates/*.reads")


def stop_waiting():
    expect(verb("template", "stop", "--all", env=ENV), 0)


@contextlib.contextmanager
def machine(root, env=None):
    """A machine in the background: the process id of its VM."""
    others = set(marked_processes())
    expect(roux("-d", "--name", "one", "--network", "none", root, "--", "sleep", "1000", env={**ENV, **(env or {})}), 0)
    try:
        yield json.loads(expect(verb("inspect", "one", env=ENV), 0).out)[0]["State"]["Pid"]
    finally:
        expect(verb("rm", "-f", "one", env=ENV), 0)
        wait_until("the machine to be gone", lambda: not set(marked_processes()) - others, 10)


def read_by(pid):
    """Bytes that a VM's process has read."""
    with open(f"/proc/{pid}/io") as f:
        return int(f.readline().split()[1])


def reads(root, path="/data/deep/large", env=None):
    """How many bytes a machine of its own reads on the host for a program that reads a file of its image."""
    with machine(root, env) as pid:
        before = read_by(pid)
        expect(verb("exec", "one", "md5sum", path, env=ENV), 0)
        return read_by(pid) - before


def teach(root):
    """A machine that reads the file ends; the template of the next ones knows."""
    old = snapshots()
    assert reads(root) >= LARGE
    wait_until("a new template", lambda: not lists() and snapshots() - old and not unfinished() and not marked_processes(), 20)
    stop_waiting()


def run_one(root, *command):
    expect(roux("--rm", "--network", "none", root, "--", *(command or ("true",)), env=ENV), 0)


def unfinished():
    return [p for p in glob.glob(CACHE + "/templates/*") if ".new" in p]


def boot(root):
    """The first machine, which leaves a template."""
    run_one(root)
    wait_until("the template", lambda: snapshots() and not unfinished() and not marked_processes(), 10)
    stop_waiting()


def learns(root):
    boot(root)
    teach(root)
    for _ in range(2):
        assert reads(root) < LARGE / 10
        stop_waiting()
    assert not lists()
    assert reads(root, path="/data/other") > LARGE * 9 / 10	# what nobody has read is not there
    stop_waiting()
    expect(verb("template", "rm", "--all", env=ENV), 0)
    assert not glob.glob(CACHE + "/templates/*")


def test_what_machines_read_of_a_folder_is_in_their_template():
    learns(image("folder"))


def test_what_machines_read_of_an_image_is_in_their_template():
    root = image("image")
    expect(verb("import", root, "read-ahead:1", env=ENV), 0)
    learns("read-ahead:1")


def test_the_machine_that_leaves_the_template_teaches_too():
    root = image("first")
    run_one(root, "md5sum", "/data/deep/large")	# boots
    wait_until("a machine that waits", lambda: snapshots() and not lists() and not unfinished() and not marked_processes(), 20)
    stop_waiting()
    assert reads(root) < LARGE / 10
    stop_waiting()
    expect(verb("template", "rm", "--all", env=ENV), 0)


def test_what_machines_read_of_other_shares_is_their_own():
    root, share = image("root-of-shares"), image("other-share")
    for path, many in (("/mnt/data/other", 0), ("/mnt/data/deep/large", 0), ("/data/other", 1)):	# the first boots
        expect(roux("--rm", "--network", "none", "-v", f"{share}:/mnt:ro", root, "--", "md5sum", path,
                    env={**ENV, "ROUX_STANDBY": "0"}), 0)	# nobody takes lists
        wait_until("the machine to be gone", lambda: not marked_processes(), 10)
        assert len(lists()) == many, path
    expect(verb("template", "rm", "--all", env=ENV), 0)


def test_what_has_changed_since_is_read_again():
    root = image("changed")
    boot(root)
    teach(root)
    with open(root + "/data/deep/large", "r+b") as f:
        f.write(b"another beginning")
    with machine(root):
        out = expect(verb("exec", "one", "head", "-c", "17", "/data/deep/large", env=ENV), 0).out
        assert out == b"another beginning", out
    os.unlink(root + "/data/deep/large")
    with machine(root):
        assert verb("exec", "one", "cat", "/data/deep/large", env=ENV).status != 0
    stop_waiting()
    expect(verb("template", "rm", "--all", env=ENV), 0)


def test_a_machine_of_an_older_template_leaves_its_code_alone():
    root = image("older")
    boot(root)
    work = "ls / | sort -r | tr a-z A-Z | md5sum; seq 9 | awk '{ s += $1 } END { print s }'"	# is worth to be kept
    expect(roux("-d", "--name", "old", "--network", "none", root, "--", "sleep", "1000", env=ENV), 0)
    expect(verb("exec", "old", "sh", "-c", work, env=ENV), 0)
    old = snapshots()
    assert reads(root) >= LARGE
    wait_until("a machine of a new template", lambda: not lists() and snapshots() - old and standby_sockets(), 20)
    code = code_files()
    assert code
    expect(verb("rm", "-f", "old", env=ENV), 0)
    wait_until("the machine to be gone", lambda: not marked_processes(), 10)
    assert code == code_files()
    stop_waiting()
    expect(verb("template", "rm", "--all", env=ENV), 0)


def test_lists_may_be_damaged_or_too_much():
    root = image("damaged")
    boot(root)
    assert reads(root, env={"ROUX_STANDBY": "0"}) >= LARGE	# nobody takes the list
    wait_until("a list", lists)
    path, = lists()
    with open(path, "rb") as f:
        good = f.read()
    old = snapshots()
    nowhere = good.replace(b"data/deep/large", b"data/deep/absen")
    beyond = good.replace(b"data/deep/large", b"../../../../etc")
    for damaged in (b"", good[:-3], b"\xff" * 4096, nowhere, beyond):
        with open(path, "wb") as f:
            f.write(damaged)
        seal(path)
        run_one(root)
        wait_until("the list to be taken", lambda: not lists(), 10)
        wait_until("no machine but one that waits", lambda: not marked_processes(), 10)
        stop_waiting()
        assert snapshots() == old
    stop_waiting()
    expect(verb("template", "rm", "--all", env=ENV), 0)


main(dict(globals()))
