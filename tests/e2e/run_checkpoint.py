#!/usr/bin/env python3
"""Running VMs saved in files, and VMs that go on from there.  run_checkpoint.py ROUX [TEST...]"""
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from harness import (ROUX, busybox_root, complains, environ, expect, folder, main, start, tmpfs, verb,
                     wait_until)

ROOT = busybox_root()
HOME = folder("checkpoints")
COUNT = "i=0; while :; do i=$((i + 1)); echo $i; sleep 0.05; done"


def ok(*args, **more):
    r = expect(verb(*args, **more), 0)
    return r.out.decode()


def fresh(name):
    with contextlib.suppress(Exception):
        verb("rm", "-f", name)
    return name


@contextlib.contextmanager
def vm(name, *args, options=(), image=None):
    """A VM in the background."""
    ok("run", "-d", "--name", fresh(name), "--network", "none", *options, image or ROOT, "--", *args)
    try:
        yield name
    finally:
        verb("rm", "-f", name)


@contextlib.contextmanager
def restored(path, name, *options):
    ok("restore", "-d", "--name", fresh(name), *options, path)
    try:
        yield name
    finally:
        verb("rm", "-f", name)


def snapshot(name):
    return os.path.join(HOME, name)


def logs(name):
    return ok("logs", name).split()


def wait_for_log(name, count):
    wait_until(f"{count} lines of {name}", lambda: len(logs(name)) >= count)


# ------------------------------------------------------------------- the same

def test_a_command_goes_on_where_it_was_saved():
    path = snapshot("count")
    with vm("counting", "sh", "-c", COUNT):
        wait_for_log("counting", 5)
        assert ok("checkpoint", "counting", path) == path + "\n"
        before = int(logs("counting")[-1])
        wait_for_log("counting", before + 5)	# and goes on here too
        assert logs("counting") == [str(i + 1) for i in range(len(logs("counting")))]
    with restored(path, "again"):
        wait_for_log("again", 10)
        lines = [int(n) for n in logs("again")]
        assert 5 < lines[0] <= before + 1, (before, lines[0])
        assert lines == list(range(lines[0], lines[0] + len(lines)))


def test_the_end_of_a_restored_command_is_its_end():
    path = snapshot("status")
    with vm("ending", "sh", "-c", "echo before; sleep 2; echo out; echo err >&2; exit 7"):
        wait_for_log("ending", 1)
        ok("checkpoint", "--stop", "ending", path)
        assert ok("wait", "ending") == "137\n"
    r = verb("restore", "--name", fresh("ended"), path)
    assert (r.status, r.out, r.err) == (7, b"out\n", b"err\n"), r
    assert "7" in ok("inspect", "--format", "{{.State.ExitCode}}", "ended")
    ok("rm", "ended")


def test_input_goes_on():
    path = snapshot("input")
    p = start("-i", "--name", fresh("reading"), "--network", "none", ROOT, "--", "sh", "-c",
              "while read line; do echo got $line; done; echo end; exit 3", stdin=subprocess.PIPE)
    p.stdin.write(b"one\n")
    p.stdin.flush()
    assert p.stdout.readline() == b"got one\n"
    ok("checkpoint", "reading", path)
    out, _ = p.communicate(b"two\n", timeout=60)
    assert (p.returncode, out) == (3, b"got two\nend\n"), (p.returncode, out)
    ok("rm", "reading")
    for _ in range(2):
        r = verb("restore", "-i", "--rm", path, stdin=b"three\nfour\n")
        assert (r.status, r.out) == (3, b"got three\ngot four\nend\n"), r


def test_output_on_its_way_is_neither_lost_nor_doubled():
    path = snapshot("flood")
    with vm("flooding", "sh", "-c", "seq 1 200000; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo done; sleep 1000"):
        for i in range(5):
            ok("checkpoint", "flooding", f"{path}{i}")
        ok("exec", "flooding", "touch", "/tmp/go")
        wait_until("the flood to be over", lambda: logs("flooding")[-1] == "done")
        assert logs("flooding") == [str(n) for n in range(1, 200001)] + ["done"]
    for i in range(5):
        with restored(f"{path}{i}", "flooded"):
            ok("exec", "flooded", "touch", "/tmp/go")
            wait_until("the flood to go on", lambda: "done" in logs("flooded"))
            lines = logs("flooded")[:-1]
            expected = [str(n) for n in range(200001 - len(lines), 200001)]
            assert lines[1:] == expected[1:], (i, lines[:3], len(lines))
            assert not lines or expected[0].endswith(lines[0]), (i, lines[0])	# pieces of output may end within a line


def test_memory_and_files_are_what_they_were():
    path = snapshot("memory")
    script = "head -c 20000000 /dev/urandom > /tmp/a; md5sum < /tmp/a; read x < /tmp/go || true; sleep 1; md5sum < /tmp/a; exit 0"
    with vm("remembering", "sh", "-c", "mkfifo /tmp/go; " + script):
        wait_for_log("remembering", 2)
        ok("checkpoint", "remembering", path)
        sums = logs("remembering")
    with restored(path, "remembered"):
        ok("exec", "remembered", "sh", "-c", "echo go > /tmp/go")
        assert ok("wait", "remembered") == "0\n"
        assert logs("remembered")[0] == sums[0], (sums, logs("remembered"))


def test_a_guest_that_writes_all_the_time_is_saved_at_one_moment():
    path = snapshot("writer")
    script = ("n=0; while :; do n=$((n + 1)); head -c 4000000 /dev/urandom > /tmp/x; md5sum /tmp/x > /tmp/x.md5; "
              "cp /tmp/x /tmp/y; cmp /tmp/x /tmp/y && md5sum -c -s /tmp/x.md5 && echo good || echo BAD; done")
    with vm("writer", "sh", "-c", script, options=("--cpus", "2")):
        wait_for_log("writer", 3)
        for i in range(4):
            ok("checkpoint", "writer", f"{path}{i}")
            wait_for_log("writer", len(logs("writer")) + 1)
        assert set(logs("writer")) == {"good"}, logs("writer")
    for i in range(4):
        with restored(f"{path}{i}", "written"):
            wait_for_log("written", 3)
            assert set(logs("written")) == {"good"}, (i, logs("written"))


def test_several_processors_go_on():
    path = snapshot("processors")
    with vm("many", "sh", "-c", "(while :; do :; done) & (while :; do :; done) & " + COUNT, options=("--cpus", "2")):
        wait_for_log("many", 3)
        ok("checkpoint", "many", path)
    with restored(path, "many-again"):
        wait_for_log("many-again", 5)
        assert ok("exec", "many-again", "nproc") == "2\n"


def test_an_image_and_shared_folders_are_there_again():
    path, shared = snapshot("shared"), folder("shared")
    with open(shared + "/text", "w") as f:
        f.write("as it was\n")
    with vm("sharing", "sh", "-c", "exec 3< /mnt/text; echo open; while [ ! -e /mnt/go ]; do sleep 0.1; done; cat <&3",
            options=("-v", f"{shared}:/mnt")):
        wait_for_log("sharing", 1)
        ok("checkpoint", "sharing", path)
    with restored(path, "shared-again"):
        with open(shared + "/go", "w"):
            pass
        assert ok("wait", "shared-again") == "0\n"
        assert ok("logs", "shared-again") == "as it was\n"


# ----------------------------------------------------------------------- not the same

def test_no_two_restored_vms_have_random_numbers_or_a_clock_in_common():
    path = snapshot("chance")
    with vm("chance", "sleep", "1000"):
        ok("checkpoint", "chance", path)
    with restored(path, "chance1"), restored(path, "chance2"):
        seen = {ok("exec", name, "cat", "/proc/sys/kernel/random/uuid") for name in ("chance1", "chance2")}
        assert len(seen) == 2, seen
        assert abs(int(ok("exec", "chance1", "date", "+%s")) - time.time()) < 3


def test_other_connections_with_the_guest_are_over():
    path = snapshot("others")

    def runs(name):
        return "sleep 4321" in ok("exec", name, "ps")

    with vm("others", "sleep", "1000"):
        other = subprocess.Popen([ROUX, "exec", "others", "sleep", "4321"], env=environ(), stderr=subprocess.DEVNULL)
        wait_until("the other command", lambda: runs("others"))
        ok("checkpoint", "others", path)
        with restored(path, "others-again"):	# the agent hears of it, and ends what was run there
            wait_until("the other command to be ended", lambda: not runs("others-again"))
        assert other.poll() is None and runs("others")
    other.wait(timeout=30)


# ------------------------------------------------------------------------------ files

def test_snapshots_have_names():
    with vm("named", "sh", "-c", COUNT):
        assert ok("checkpoint", "named") == "named\n"
        assert ok("checkpoint", "named", "second.1") == "second.1\n"
        listed = [json.loads(line) for line in ok("snapshot", "ls", "--json").splitlines()]
        assert {"named", "second.1"} <= {s["Name"] for s in listed}, listed
        assert all(s["VM"] == "named" for s in listed if s["Name"] in ("named", "second.1")), listed
        assert "second.1" in ok("snapshot", "ls")
    with restored("second.1", "from-a-name"):
        wait_for_log("from-a-name", 3)
        assert ok("snapshot", "rm", "named", "second.1") == "named\nsecond.1\n"
        wait_for_log("from-a-name", 6)	# it needs the file no longer
    for what in (("restore", "second.1"), ("snapshot", "rm", "second.1")):
        r = verb(*what)
        assert r.status in (1, 125) and b"there is no snapshot second.1" in r.err, r


def test_a_restored_vm_has_the_name_of_the_saved_one_when_that_is_free():
    path = snapshot("name")
    with vm("original", "sleep", "1000"):
        ok("checkpoint", "original", path)
        other = ok("restore", "-d", path).strip()
        assert ok("inspect", "--format", "{{.Name}}", other).strip() not in ("original", "/original")
        ok("rm", "-f", other)
    assert ok("restore", "-d", path)
    assert ok("exec", "original", "echo", "here") == "here\n"
    ok("rm", "-f", "original")


def test_what_cannot_be_saved_is_told():
    disk = snapshot("disk")
    with open(disk, "wb") as f:
        f.truncate(1 << 20)
    with vm("writing", "sleep", "1000", options=("--disk", disk)):
        r = verb("checkpoint", "writing", snapshot("no"))
        assert r.status == 1 and b"writes to disk" in r.err and len(r.err.splitlines()) == 1, r
    with vm("resting", "true"):
        wait_until("its end", lambda: "exited" in ok("inspect", "--format", "{{.State.Status}}", "resting"))
        assert verb("checkpoint", "resting", snapshot("no")).status == 1
    assert verb("checkpoint", "nobody", snapshot("no")).status == 1
    with vm("running", "sleep", "1000"):
        for name in ("", "-x", "a b", ".."):
            assert verb("checkpoint", "running", "--", name).status in (1, 125), name
        r = verb("checkpoint", "running", "/no/such/folder/file")
        assert r.status == 1 and b"/no/such/folder" in r.err, r
        assert ok("exec", "running", "echo", "well") == "well\n"
    assert not os.path.exists(snapshot("no"))


def test_a_full_disk_leaves_the_old_snapshot_and_the_vm():
    with vm("full", "sh", "-c", COUNT), tmpfs("full-disk", "size=60m") as at:
        path = at + "/snapshot"
        with open(path, "w") as f:
            f.write("old")
        r = verb("checkpoint", "full", path)
        assert r.status == 1 and b"No space left" in r.err and len(r.err.splitlines()) == 1, r
        with open(path) as f:
            assert f.read() == "old"
        assert os.listdir(at) == ["snapshot"]
        lines = len(logs("full"))
        wait_for_log("full", lines + 5)


def test_kill_9_in_the_middle_leaves_the_old_snapshot():
    path = snapshot("killed")
    for delay in (0.005, 0.02, 0.05, 0.1):
        with vm("killed", "sh", "-c", "head -c 100000000 /dev/urandom > /tmp/a; echo up; sleep 1000"):
            wait_for_log("killed", 1)
            ok("checkpoint", "killed", path)
            pid = int(ok("inspect", "--format", "{{.State.MonitorPid}}", "killed"))
            p = subprocess.Popen([ROUX, "checkpoint", "killed", path], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL, env=environ())
            time.sleep(delay)
            os.kill(pid, signal.SIGKILL)
            p.wait(timeout=60)
        with restored(path, "survivor"):
            assert ok("exec", "survivor", "echo", "alive") == "alive\n"


def test_translated_code_of_somebody_else_is_not_run():
    path = snapshot("foreign")
    with vm("foreign", "sleep", "1000"):
        ok("checkpoint", "foreign", path)
        engine = ok("inspect", "--format", "{{.State.Engine}}", "foreign").strip()
    key = environ()["ROUX_STORE"] + "/code-key"
    assert os.stat(key).st_mode & 0o777 == 0o600

    def mapped(name):
        with open(f"/proc/{ok('inspect', '--format', '{{.State.Pid}}', name).strip()}/maps") as f:
            return any(path in line and "r-xp" in line for line in f)

    with restored(path, "own"):
        own = mapped("own")
    os.rename(key, key + ".old")	# as on another machine
    try:
        with restored(path, "foreigner"):
            assert ok("exec", "foreigner", "echo", "well") == "well\n"
            assert not mapped("foreigner")
    finally:
        os.rename(key + ".old", key)
    assert own or engine != "dbt", "our own was not run either"


DAMAGE = {"the header": 40, "the state": 5000, "the notes": 8 << 20, "memory": None}


def test_damaged_snapshots_are_refused():
    path = snapshot("damaged")
    with vm("damaged", "sleep", "1000"):
        ok("checkpoint", "damaged", path)
    for what, at in DAMAGE.items():
        with open(path, "r+b") as f:
            if at is None:	# somewhere in the middle of what is there
                at = os.lseek(f.fileno(), 60 << 20, os.SEEK_DATA)
            f.seek(at)
            byte = f.read(1)[0]
            f.seek(at)
            f.write(bytes([byte ^ 4]))
            f.flush()
            r = complains(verb("restore", path), 125, "damaged")
            assert len(r.err.splitlines()) == 1, (what, r)
            f.seek(at)
            f.write(bytes([byte]))
    size = os.path.getsize(path)
    for length in (size - 1, 20 << 20, 9 << 20, 5000, 100, 1, 0):
        os.truncate(path, length)
        assert verb("restore", path).status == 125, length
    assert not re.search("damaged", ok("ps", "-a"))


main(globals())
