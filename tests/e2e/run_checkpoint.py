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
from harness import (ROUX, busybox_root, complains, environ, expect, folder, main, of_another_time, start, tmpfs, verb,
                     wait_until)
from world import programs

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
        lines = logs("counting")
        assert lines == [str(i + 1) for i in range(len(lines))]
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


def test_a_command_that_ends_while_it_is_saved_is_told_of():
    path = snapshot("too-late")
    for i in range(8):
        with vm("late", "sleep", str(0.03 * i)):
            r = verb("checkpoint", "--stop", "late", path)
            assert r.status == 0 or (r.status == 1 and (b"ended" in r.err or b"not running" in r.err)), r


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


def test_shared_folders_may_have_changed_but_not_what_is_open():
    path, shared = snapshot("shared-on"), folder("shared-on")
    log, other = shared + "/log", shared + "/other"
    with open(other, "w") as f:
        f.write("first\n")
    script = "cat /mnt/other; exec 3>> /mnt/log; i=0; while :; do i=$((i + 1)); echo $i >&3; sleep 0.05; done"

    def lines():
        with open(log) as f:
            return f.read().split()

    with vm("logging", "sh", "-c", script, options=("-v", f"{shared}:/mnt")):
        wait_for_log("logging", 1)
        ok("checkpoint", "logging", path)
        before = len(lines())
        wait_until("more lines", lambda: len(lines()) > before + 5)	# it goes on writing
    with open(other, "w") as f:
        f.write("second, and longer\n")
    with restored(path, "logging-again"):
        at = len(lines())
        wait_until("more lines of the copy", lambda: len(lines()) > at + 5)
        assert 0 < int(lines()[at]) <= before + 2, (before, lines()[at - 2:at + 2])
        assert ok("exec", "logging-again", "sh", "-c", "sleep 1.1; cat /mnt/other") == "second, and longer\n"
    os.rename(log, log + ".1")
    complains(verb("restore", path), 125, f"{log}, which the guest has open, was removed or replaced")
    with open(log, "w"):
        pass
    complains(verb("restore", path), 125, f"{log}, which the guest has open, was removed or replaced")


# ----------------------------------------------------------------------- not the same

def test_no_two_restored_vms_have_random_numbers_or_a_clock_in_common():
    path = snapshot("chance")
    with vm("chance", "sleep", "1000"):
        ok("checkpoint", "chance", path)
    with restored(path, "chance1"), restored(path, "chance2"):
        seen = {ok("exec", name, "cat", "/proc/sys/kernel/random/uuid") for name in ("chance1", "chance2")}
        assert len(seen) == 2, seen
        assert abs(int(ok("exec", "chance1", "date", "+%s")) - time.time()) < 3


def test_a_program_that_draws_random_numbers_all_the_time_never_draws_those_of_a_copy():
    """Each number has the machine's generation id before it: those with the saved one's were drawn before."""
    path = snapshot("draws")
    names = ("drawing0", "drawing1", "drawing2")

    def drawn(name):
        return [line.split() for line in ok("logs", name).splitlines()[1:] if len(line) == 49]

    with vm("drawing", "/mnt/draws", options=("--cpus", "2", *programs())):
        wait_for_log("drawing", 1000)
        ok("checkpoint", "--stop", "drawing", path)
        generations, seen = {drawn("drawing")[0][0]}, {}
    for name in names:
        with restored(path, name):
            wait_until("numbers of another generation", lambda: drawn(name) and drawn(name)[-1][0] not in generations)
            wait_for_log(name, len(logs(name)) + 1000)
            mine = [number for generation, number in drawn(name) if generation not in generations]
            generations |= {generation for generation, _ in drawn(name)}
        for number in mine:
            assert number not in seen, (name, seen[number], mine.index(number), len(mine))
            seen[number] = name
    assert len(generations) == 1 + len(names), generations


def test_programs_see_nothing_of_their_stop():
    path = snapshot("groups")
    script = ("mkdir /sys/fs/cgroup/a /sys/fs/cgroup/b && echo 1 > /sys/fs/cgroup/b/cgroup.freeze && "
              "echo 0 > /sys/fs/cgroup/a/cgroup.procs && " + COUNT)
    look = "cat /sys/fs/cgroup/a/cgroup.freeze /sys/fs/cgroup/b/cgroup.freeze; ls -d /sys/fs/cgroup/roux*; exit 0"

    def unchanged(name):
        lines = len(logs(name))
        wait_for_log(name, lines + 5)
        assert ok("exec", name, "sh", "-c", look) == "0\n1\n", name

    with vm("grouped", "sh", "-c", script):
        wait_for_log("grouped", 3)
        ok("checkpoint", "grouped", path)
        unchanged("grouped")
    with restored(path, "grouped-again"):
        unchanged("grouped-again")


def test_other_connections_with_the_guest_are_over():
    path = snapshot("others")

    def runs(name):
        return "sleep 4321" in ok("exec", name, "ps")

    with vm("others", "sleep", "1000"):
        others = [subprocess.Popen([ROUX, "exec", "others", "sleep", "4321"], env=environ(), stderr=subprocess.DEVNULL) for _ in range(5)]
        wait_until("the other commands", lambda: ok("exec", "others", "ps").count("sleep 4321") == 5)
        ok("checkpoint", "others", path)
        with restored(path, "others-again"):	# the agent hears of it, and ends what was run there
            wait_until("the other commands to be ended", lambda: not runs("others-again"))
            assert "sleep 1000" in ok("exec", "others-again", "ps")
        assert all(other.poll() is None for other in others) and runs("others")
    for other in others:
        other.wait(timeout=30)


# ------------------------------------------------------------------------------ disks

def image(name, mib=64):
    path = snapshot(name)
    with open(path, "wb") as f:
        f.truncate(mib << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)
    return path


def digest(path):
    return subprocess.run(["sha256sum", path], check=True, stdout=subprocess.PIPE).stdout.split()[0]


def files_of(path):
    folder_, name = os.path.split(path)
    return sorted(f for f in os.listdir(folder_) if f.startswith(name + ".") and ".disk" in f)


# Says BAD when the disk is not what memory knows that it is.
WRITER = ("mkdir -p /mnt; mount -t ext4 /dev/vda /mnt || exit 1; n=0; while :; do n=$((n + 1)); head -c 300000 /dev/urandom > /mnt/f$((n % 7)); "
          "sum=$(md5sum < /mnt/f$((n % 7))); echo $n > /mnt/n; sync; echo 3 > /proc/sys/vm/drop_caches; "
          "[ $n = $(cat /mnt/n) ] && [ \"$sum\" = \"$(md5sum < /mnt/f$((n % 7)))\" ] && echo $n || echo BAD; done")


def goes_on(name, lines=4):
    wait_for_log(name, len(logs(name)) + lines)
    seen = [int(n) for n in logs(name)]	# no BAD among them
    assert seen == list(range(seen[0], seen[0] + len(seen))), (name, seen)


def saves_a_disk_that_is_written(options, disk, path):
    with vm("writes", "sh", "-c", WRITER, options=options):
        wait_for_log("writes", 3)
        for i in range(3):
            ok("checkpoint", "writes", f"{path}{i}")
            goes_on("writes")
        at_last = logs("writes")[-1]
    before = digest(disk) if disk else None
    for i in range(3):
        with restored(f"{path}{i}", "written-on"), restored(f"{path}{i}", "written-twice"):
            goes_on("written-on")
            goes_on("written-twice")
            assert int(logs("written-on")[0]) <= int(at_last)
            expect(verb("exec", "written-on", "sh", "-c", "umount -l /mnt; sync; dmesg | grep -i 'EXT4-fs error'"), 1)
    if disk:	# the user's own file is nobody else's
        assert digest(disk) == before
        assert subprocess.run(["e2fsck", "-fn", disk], stdout=subprocess.DEVNULL).returncode in (0, 4)


def test_disks_are_saved_with_the_vm_that_writes_to_them():
    disk = image("disk-written")
    saves_a_disk_that_is_written(("--disk", disk), disk, snapshot("disks"))


def test_disks_with_an_overlay_are_saved():
    disk = image("disk-cow")
    before = digest(disk)
    path = snapshot("cow")
    saves_a_disk_that_is_written(("--disk", disk + ":cow", "--cpus", "2"), None, path)
    assert digest(disk) == before
    with open(disk, "r+b") as f:
        f.write(b"\0")
    complains(verb("restore", path + "0"), 125, "changed")


def test_a_restored_vm_can_be_saved_with_its_disks():
    first, second = snapshot("disk-first"), snapshot("disk-second")
    with vm("first", "sh", "-c", WRITER, options=("--disk", image("disk-again"))):
        wait_for_log("first", 3)
        ok("checkpoint", "--stop", "first", first)
    with restored(first, "second"):
        goes_on("second")
        ok("checkpoint", "second", second)
        data = ok("inspect", "--format", "{{.Config.Disks}}", "second")
        assert "disk-again" not in data, data
    with restored(second, "third"):
        goes_on("third")


def test_disks_may_be_kept_instead():
    disk, path = image("disk-kept"), snapshot("kept")
    with vm("keeping", "sh", "-c", WRITER, options=("--disk", disk)):
        wait_for_log("keeping", 3)
        ok("checkpoint", "--disks", "keep", "--stop", "keeping", path)
        assert not files_of(path)
    with restored(path, "kept"):
        goes_on("kept")
    complains(verb("restore", path), 125, "changed")
    with vm("keeping", "sleep", "1000", options=("--disk", disk)):
        assert verb("checkpoint", "--disks", "perhaps", "keeping", path).status == 125


def test_copies_of_disks_come_and_go_with_their_snapshot():
    disk = image("disk-owned")
    with vm("owning", "sleep", "1000", options=("--disk", disk)):
        ok("checkpoint", "owning", "owned")
        folder_ = environ()["ROUX_STORE"] + "/snapshots"
        first = files_of(folder_ + "/owned.snap")
        ok("checkpoint", "owning", "owned")
        second = files_of(folder_ + "/owned.snap")
        assert len(first) == len(second) == 1 and first != second, (first, second)
        copy = os.path.join(folder_, second[0])
        assert os.stat(copy).st_mode & 0o777 == 0o600
        assert os.stat(copy).st_blocks * 512 < 16 << 20, "holes are holes"
        with open(copy, "r+b") as f:
            f.seek(1024 + 100)
            byte = f.read(1)
            f.seek(1024 + 100)
            f.write(bytes([byte[0] ^ 1]))
            f.flush()
            complains(verb("restore", "--name", fresh("no-copy"), "owned"), 125, "damaged")
            assert verb("inspect", "no-copy").status != 0, "nothing is left of it"
            f.seek(1024 + 100)
            f.write(byte)
        os.rename(copy, copy + ".away")
        complains(verb("restore", "owned"), 125, "No such file")
        os.rename(copy + ".away", copy)
        with restored("owned", "owner"):
            assert ok("exec", "owner", "echo", "well") == "well\n"
    ok("snapshot", "rm", "owned")
    assert not files_of(folder_ + "/owned.snap")


def test_a_full_disk_leaves_no_half_copies_of_disks():
    disk = image("disk-full", 300)
    with vm("filled", "sh", "-c", "mkdir -p /mnt; mount -t ext4 /dev/vda /mnt; head -c 100000000 /dev/urandom > /mnt/x; echo up; " + COUNT,
            options=("--disk", disk)), tmpfs("disk-full", "size=60m") as at:
        wait_for_log("filled", 1)
        r = verb("checkpoint", "filled", at + "/snapshot")
        assert r.status == 1 and b"No space left" in r.err and len(r.err.splitlines()) == 1, r
        assert os.listdir(at) == []
        lines = len(logs("filled"))
        wait_for_log("filled", lines + 5)


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


def test_a_restored_guest_has_the_time_of_the_host_as_it_is_now():
    path = snapshot("another time")
    with vm("early", "sleep", "1000"):
        ok("checkpoint", "early", path)
    for shift in (3600, -7200):
        expect(verb("restore", "-d", "--name", fresh("late"), path, env=of_another_time(shift)), 0)
        before = time.time()
        text = ok("exec", "late", "sh", "-c", "date +%s; sleep 0.2; date +%s; cat /proc/uptime").split()
        assert before - 2 < int(text[0]) - shift < time.time() + 2 and 0 <= int(text[1]) - int(text[0]) <= 2, (shift, text)
        assert float(text[2]) < 240, (shift, text)	# two and a half minutes are its template's
        ok("rm", "-f", "late")


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


# --------------------------------------------------------------------- bases

HOW = {"full": (), "compressed": ("--compress",)}


def chain(name):
    """A running VM, and snapshots of it: full, on top of that, on top of that one; each with a number more of its count."""
    paths = [snapshot(f"{name}{i}") for i in range(4)]
    options = [(), ("--base", paths[0]), ("--base", paths[1], "--compress"), ("--base", paths[2])]
    for path, more in zip(paths, options):
        wait_for_log(name, len(logs(name)) + 2)
        ok("checkpoint", *more, name, path)
    return paths


def size(path):
    return os.stat(path).st_blocks * 512


def memory_written(path, base):
    """Bytes of memory that are not as in the base."""
    all_of_it = json.loads(ok("snapshot", "diff", "--json", base, path))["Memory"][-1]
    return all_of_it["ChangedBytes"] + all_of_it["OnlyBBytes"]


def test_snapshots_on_top_of_others_go_on_where_they_were_saved():
    with vm("layered", "sh", "-c", COUNT):
        paths = chain("layered")
    last = 0
    for path in paths:
        with restored(path, "layered-again"):
            wait_for_log("layered-again", 3)
            first = int(logs("layered-again")[0])
            assert first > last, (path, first, last)
            last = first
            assert ok("exec", "layered-again", "echo", "well") == "well\n"
    assert 0 < memory_written(paths[1], paths[0]) < 8 << 20
    assert size(paths[1]) < size(paths[0]) / 2, [size(p) for p in paths]


def test_compressed_snapshots_are_smaller_and_the_same():
    path = snapshot("packed")
    script = "head -c 20000000 /dev/urandom > /tmp/a; md5sum < /tmp/a; read x < /tmp/go || true; sleep 1; md5sum < /tmp/a; exit 0"
    with vm("packing", "sh", "-c", "mkfifo /tmp/go; " + script):
        wait_for_log("packing", 2)
        for how, options in HOW.items():
            ok("checkpoint", *options, "packing", path + how)
        ok("checkpoint", "--compress", "--base", path + "full", "packing", path + "both")
        sums = logs("packing")
    assert size(path + "compressed") < size(path + "full") * 0.75, (size(path + "compressed"), size(path + "full"))
    for how in ("compressed", "both"):
        with restored(path + how, "packed"):
            ok("exec", "packed", "sh", "-c", "echo go > /tmp/go")
            assert ok("wait", "packed") == "0\n"
            assert logs("packed")[0] == sums[0], (how, sums, logs("packed"))


def test_a_vm_from_a_snapshot_is_saved_on_top_of_it():
    path = snapshot("grown")
    with vm("growing", "sh", "-c", COUNT):
        wait_for_log("growing", 3)
        ok("checkpoint", "growing", path)
    for i in range(3):
        with restored(path if i == 0 else f"{path}{i - 1}", "grown"):
            wait_for_log("grown", 3)
            ok("checkpoint", "--base", path if i == 0 else f"{path}{i - 1}", "grown", f"{path}{i}")
    with restored(f"{path}2", "grown"):
        wait_for_log("grown", 3)


def test_what_others_need_is_not_removed_or_replaced():
    with vm("needed", "sleep", "1000"):
        ok("checkpoint", "needed", "lower")
        ok("checkpoint", "--base", "lower", "needed", "upper")
        listed = {s["Name"]: s for s in (json.loads(line) for line in ok("snapshot", "ls", "--json").splitlines())}
        assert listed["upper"]["Base"] == "lower" and listed["lower"]["Base"] == "", listed
        assert listed["upper"]["DiskBytes"] < listed["lower"]["DiskBytes"], listed
        r = verb("snapshot", "rm", "lower")
        assert r.status == 1 and b"needed by upper" in r.err, r
        for options in ((), ("--base", "upper"), ("--base", "lower")):
            r = verb("checkpoint", *options, "needed", "lower")
            assert r.status == 1 and (b"base of upper" in r.err or b"its own base" in r.err), r
        assert ok("exec", "needed", "echo", "well") == "well\n"
    with restored("upper", "upper-again"):
        pass
    assert ok("snapshot", "rm", "lower", "--force") == "lower\n"
    complains(verb("restore", "upper"), 125, "lower.snap is not there")
    ok("snapshot", "rm", "upper")


def test_a_base_is_found_beside_and_below_and_must_be_the_same():
    one, two = folder("bases"), folder("moved")
    os.mkdir(one + "/full")
    with vm("based", "sh", "-c", COUNT):
        wait_for_log("based", 2)
        ok("checkpoint", "based", one + "/full/a")
        ok("checkpoint", "--base", one + "/full/a", "based", one + "/b")
        ok("checkpoint", "based", one + "/other")
    with restored(one + "/b", "based-again"):
        pass
    os.rename(one + "/b", two + "/b")
    complains(verb("restore", two + "/b"), 125, "is not there")
    os.rename(one + "/full/a", two + "/a")	# no longer in a folder of its own, but beside it
    with restored(two + "/b", "based-again"):
        pass
    os.rename(two + "/a", two + "/kept")
    os.rename(one + "/other", two + "/a")
    complains(verb("restore", two + "/b"), 125, "another one by now")
    r = verb("checkpoint", "--base", "no-such", "nobody")
    assert r.status == 1, r
    os.rename(two + "/kept", two + "/a")
    with open(two + "/a", "r+b") as f:	# memory, in the middle of what is there
        at = os.lseek(f.fileno(), 60 << 20, os.SEEK_DATA)
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 4]))
    complains(verb("restore", two + "/b"), 125, "damaged")


def test_a_damaged_base_is_none():
    path = snapshot("rotten")
    with vm("rotten", "sleep", "1000"):
        ok("checkpoint", "rotten", path)
        with open(path, "r+b") as f:
            at = os.lseek(f.fileno(), 60 << 20, os.SEEK_DATA)
            f.seek(at)
            f.write(b"rotten")
        r = verb("checkpoint", "--base", path, "rotten", path + "2")
        assert r.status == 1 and b"damaged" in r.err and len(r.err.splitlines()) == 1, r
        assert ok("exec", "rotten", "echo", "well") == "well\n"
        assert not os.path.exists(path + "2")


def test_differences_are_told():
    path = snapshot("diff")
    with vm("one", "sh", "-c", COUNT):
        ok("checkpoint", "one", path + "1")
        ok("exec", "one", "sh", "-c", "head -c 3000000 /dev/urandom > /tmp/x")
        ok("checkpoint", "--compress", "one", path + "2")
    with vm("two", "sleep", "1000", options=("--memory", "384M", "--cpus", "2")):
        ok("checkpoint", "two", path + "3")
    d = json.loads(ok("snapshot", "diff", "--json", path + "1", path + "2"))
    total = d["Memory"][-1]
    assert sum(r["EqualBytes"] for r in d["Memory"][:-1]) == total["EqualBytes"] > 10 << 20, d
    assert 2900000 < total["ChangedBytes"] + total["OnlyBBytes"] < 30 << 20, d
    parts = {p["Part"]: p["OtherBytes"] for p in d["State"]}
    assert parts["vCPU 0"] > 0 and parts["CPUID"] == 0 and "virtio-vsock 1" in parts, parts
    assert d["Machine"] == [], d
    same = json.loads(ok("snapshot", "diff", path + "1", path + "1", "--json"))["Memory"][-1]
    assert same["ChangedBytes"] == same["OnlyABytes"] == same["OnlyBBytes"] == 0, same
    d = json.loads(ok("snapshot", "diff", "--json", path + "1", path + "3"))
    keys = {k["Key"]: (k["A"], k["B"]) for k in d["Machine"]}
    assert len([k for k in keys if "emory" in k]) == 1 and len([k for k in keys if "pus" in k.lower()]) == 1, keys
    assert any(p.get("OnlyIn") == "B" and p["Part"] == "vCPU 1" for p in d["State"]), d
    text = ok("snapshot", "diff", path + "1", path + "2")
    assert "vCPU 0" in text and "1 MiB..3 GiB" in text, text
    assert verb("snapshot", "diff", path + "1", snapshot("none")).status == 1


def test_a_full_disk_leaves_the_old_one_also_when_it_is_compressed():
    with vm("tight", "sh", "-c", COUNT), tmpfs("tight-disk", "size=70m") as at:
        path = at + "/snapshot"
        with open(path, "w") as f:
            f.write("old")
        for options in (("--compress",), ("--compress", "--base", snapshot("tight"))):
            ok("checkpoint", "tight", snapshot("tight"))
            ok("exec", "tight", "sh", "-c", "head -c 90000000 /dev/urandom > /tmp/x")
            r = verb("checkpoint", *options, "tight", path)
            assert r.status == 1 and b"No space left" in r.err and len(r.err.splitlines()) == 1, r
            with open(path) as f:
                assert f.read() == "old"
            assert os.listdir(at) == ["snapshot"]
            ok("exec", "tight", "rm", "/tmp/x")
        lines = len(logs("tight"))
        wait_for_log("tight", lines + 5)


def test_kill_9_in_the_middle_of_a_chain_leaves_the_old_one():
    path = snapshot("cut")
    for i, delay in enumerate((0.01, 0.05, 0.15)):
        with vm("cut", "sh", "-c", "head -c 50000000 /dev/urandom > /tmp/a; echo up; sleep 1000"):
            wait_for_log("cut", 1)
            ok("checkpoint", "cut", path)
            ok("checkpoint", "--base", path, *(("--compress",) if i % 2 else ()), "cut", path + "1")
            pid = int(ok("inspect", "--format", "{{.State.MonitorPid}}", "cut"))
            p = subprocess.Popen([ROUX, "checkpoint", "--compress", "--base", path, "cut", path + "1"], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL, env=environ())
            time.sleep(delay)
            os.kill(pid, signal.SIGKILL)
            p.wait(timeout=60)
        with restored(path + "1", "survivor"):
            assert ok("exec", "survivor", "echo", "alive") == "alive\n"


@contextlib.contextmanager
def damaged(path, at):
    """The file with one bit changed in the byte at @at."""
    def flip():
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 4]))
        f.flush()

    with open(path, "r+b") as f:
        flip()
        yield
        flip()


def test_damaged_compressed_memory_is_refused():
    path = snapshot("squeezed")
    with vm("squeezed", "sleep", "1000"):
        ok("checkpoint", "--compress", "squeezed", path)
    for at in ((16 << 20) + 7, (16 << 20) + 5000000, os.path.getsize(path) - 2000):
        with damaged(path, at):
            r = complains(verb("restore", path), 125, "damaged")
            assert len(r.err.splitlines()) == 1, (at, r)
    with restored(path, "squeezed-again"):
        pass


def test_other_versions_are_refused_with_a_sentence():
    path = snapshot("version")
    with vm("version", "sleep", "1000"):
        ok("checkpoint", "version", path)
    for version in (3, 5):
        with open(path, "r+b") as f:
            f.seek(8)
            f.write(bytes([version]))
        complains(verb("restore", path), 125, f"is of version {version}, and this roux reads version 4; take it again")


DAMAGE = {"the header": 40, "the state": 5000, "the notes": 8 << 20, "memory": None}


def test_damaged_snapshots_are_refused():
    path = snapshot("damaged")
    with vm("damaged", "sleep", "1000"):
        ok("checkpoint", "damaged", path)
    for what, at in DAMAGE.items():
        if at is None:	# somewhere in the middle of what is there
            with open(path, "rb") as f:
                at = os.lseek(f.fileno(), 60 << 20, os.SEEK_DATA)
        with damaged(path, at):
            r = complains(verb("restore", path), 125, "damaged")
            assert len(r.err.splitlines()) == 1, (what, r)
    # Nobody has to read it once more, unless it has changed, whatever its times say.
    ok("restore", "-d", "--name", fresh("whole"), path)
    ok("rm", "-f", "whole")
    times = os.stat(path)
    with open(path, "r+b") as f:
        at = os.lseek(f.fileno(), 60 << 20, os.SEEK_DATA)
        f.seek(at)
        f.write(b"!")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    complains(verb("restore", path), 125, "damaged")
    size = os.path.getsize(path)
    for length in (size - 1, 20 << 20, 9 << 20, 5000, 100, 1, 0):
        os.truncate(path, length)
        assert verb("restore", path).status == 125, length
    assert not re.search("damaged", ok("ps", "-a"))


main(globals())
