#!/usr/bin/env python3
"""The life of a VM: every verb about VMs, and what is left when anything is killed.  run_life.py ROUX [TEST...]"""
import filecmp
import functools
import glob
import json
import os
import pty
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(__file__))
import harness
from harness import (ROUX, WORK, Result, Skip, busybox_root, cgroups, complains, environ, expect, folder, main, marked_processes,
                     read_until, start, wait_until)

ROOT = busybox_root()
STORE, STATE = WORK + "/store", WORK + "/state"


def verb(*args, stdin=None, env=None, limit=120):
    begin = time.monotonic()
    p = subprocess.run([ROUX, *args], input=stdin, stdin=subprocess.DEVNULL if stdin is None else None,
                       capture_output=True, env=environ(**(env or {})), timeout=limit)
    return Result(p.returncode, p.stdout, p.stderr, time.monotonic() - begin)


def ok(*args, **kw):
    return expect(verb(*args, **kw), 0).out.decode()


def inspect(name, path):
    return ok("inspect", "-f", "{{" + path + "}}", name).strip()


def status(name):
    return inspect(name, ".State.Status")


def names(*args):
    return sorted(ok("ps", "--format", "{{.Names}}", *args).split())


def run_d(name, *command, options=()):
    return ok("run", "-d", "--name", name, *options, ROOT, "--", *command).strip()


def gone(*which):
    """Removes VMs and checks that all of them is gone."""
    ok("rm", "-f", *which)
    for w in which:
        complains(verb("inspect", w), 1, "there is no VM")


def nothing_stray():
    wait_until("all processes to end", lambda: not marked_processes(), 10)
    assert names("-a") == [], names("-a")
    assert os.listdir(STORE + "/vms") in ([], [".names.lock"]), os.listdir(STORE + "/vms")
    assert os.listdir(STATE + "/vms") == [], os.listdir(STATE + "/vms")


def monitor_pid(name):
    return int(inspect(name, ".State.MonitorPid"))


# ---------------------------------------------------------------------------------- verbs

def test_a_vm_runs_in_the_background():
    out = run_d("web", "sh", "-c", "echo one; echo two >&2; exec sleep 1000")
    assert re.fullmatch("[0-9a-f]{64}", out), out
    assert names() == ["web"]
    assert ok("ps", "-q").strip() == out[:12] and ok("ps", "-q", "--no-trunc").strip() == out
    (vm,) = json.loads(ok("ps", "--json"))
    assert vm["Name"] == "web" and vm["State"]["Status"] == "running" and vm["Id"] == out
    assert inspect(out[:5], ".Name") == "web"
    wait_until("the output", lambda: b"two" in verb("logs", "web").err)
    expect(verb("logs", "web"), 0, out=b"one\n", err=b"two\n")
    complains(verb("run", "--name", "web", ROOT, "true"), 125, "'web' is taken")
    complains(verb("rm", "web"), 1, "running", "roux stop web")
    gone("web")
    nothing_stray()


def test_stop_asks_first_and_kills_later():
    run_d("polite", "sh", "-c", "trap 'echo bye; exit 3' TERM; echo go; while :; do sleep 0.05; done")
    run_d("stubborn", "sh", "-c", "trap '' TERM; echo go; while :; do sleep 0.05; done")
    for n in ("polite", "stubborn"):
        wait_until("its trap", lambda: verb("logs", n).out == b"go\n")
    assert ok("stop", "polite") == "polite\n"
    assert inspect("polite", ".State.ExitCode") == "3"
    assert verb("logs", "polite").out == b"go\nbye\n"
    r = expect(verb("stop", "-t", "1", "stubborn"), 0)
    assert 0.9 < r.seconds < 4, r
    assert inspect("stubborn", ".State.ExitCode") == "137"
    assert ok("stop", "stubborn") == "stubborn\n"	# as docker: no mistake
    assert names() == [] and names("-a") == ["polite", "stubborn"]
    assert ok("start", "polite") == "polite\n" and names() == ["polite"]
    wait_until("its trap", lambda: verb("logs", "polite").out.count(b"go\n") == 2)
    ok("kill", "-s", "TERM", "polite")
    assert ok("wait", "polite", "stubborn") == "3\n137\n"
    gone("polite", "stubborn")
    nothing_stray()


def test_exec_runs_other_commands():
    run_d("box", "sleep", "1000", options=("-e", "MINE=it", "-w", "/tmp"))
    expect(verb("exec", "box", "sh", "-c", "echo $MINE $OTHER; pwd; exit 9", ), 9, out=b"it\n/tmp\n")
    expect(verb("exec", "-e", "OTHER=x", "-w", "/etc", "-u", "app", "box", "sh", "-c", "echo $OTHER; pwd; id -un"), 0,
           out=b"x\n/etc\napp\n")
    data = random.Random(2).randbytes(2 << 20)
    assert verb("exec", "-i", "box", "cat", stdin=data).out == data
    complains(verb("exec", "box", "no-such-command"), 127, "no-such-command")
    complains(verb("exec", "box", "/etc/passwd"), 126, "/etc/passwd")
    complains(verb("exec", "nobox", "true"), 1, "there is no VM 'nobox'")
    complains(verb("exec", "box"), 125, "a VM and a command")
    expect(verb("exec", "-d", "box", "sh", "-c", "sleep 0.3; touch /tmp/done; sleep 1000"), 0, out=b"")
    wait_until("the command in the background", lambda: verb("exec", "box", "test", "-e", "/tmp/done").status == 0)
    results = []
    threads = [threading.Thread(target=lambda i=i: results.append(verb("exec", "box", "sh", "-c", f"seq 1 2000; exit {i}")))
               for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert sorted(r.status for r in results) == list(range(6)), results
    assert all(r.out.count(b"\n") == 2000 for r in results)
    assert "sleep 1000" in ok("top", "box")
    gone("box")
    nothing_stray()


def test_exec_has_a_terminal():
    run_d("term", "sleep", "1000")
    fd, slave = pty.openpty()
    p = subprocess.Popen([ROUX, "exec", "-it", "term", "sh", "-c", "test -t 0 && read x && echo got $x; exit 4"], stdin=slave,
                         stdout=slave, stderr=slave, env=environ(), start_new_session=True)
    time.sleep(0.3)
    os.write(fd, b"words\r")
    seen = b""
    while b"got words" not in seen:
        assert select.select([fd], [], [], 20)[0], seen
        seen += os.read(fd, 4096)
    assert p.wait(10) == 4
    os.close(fd)
    os.close(slave)
    gone("term")


def test_attach_and_detach():
    expect(verb("run", "-dit", "--name", "inter", "-e", "PS1=ready> ", ROOT, "--", "sh"), 0)
    fd, slave = pty.openpty()

    def attach():
        return subprocess.Popen([ROUX, "attach", "inter"], stdin=slave, stdout=slave, stderr=slave, env=environ(),
                                start_new_session=True)

    def until(text):
        seen = b""
        while text not in seen:
            assert select.select([fd], [], [], 20)[0], seen
            seen += os.read(fd, 4096)

    p = attach()
    time.sleep(0.3)
    os.write(fd, b"echo a''b; X=kept\r")
    until(b"\nab\r\n")
    os.write(fd, b"\x10\x11")
    assert p.wait(10) == 0
    until(b"left inter running")
    assert names() == ["inter"]
    p = attach()
    time.sleep(0.3)
    os.write(fd, b"echo [$X]; exit 6\r")
    until(b"[kept]")
    assert p.wait(10) == 6
    assert inspect("inter", ".State.ExitCode") == "6"
    complains(verb("attach", "inter"), 1, "not running")
    os.close(fd)
    os.close(slave)
    gone("inter")


def test_two_windows_see_the_same():
    run_d("twice", "sh", "-c", "while [ ! -e /go ]; do sleep 0.05; done; seq 1 30000; exit 5")
    windows = [subprocess.Popen([ROUX, "attach", "--no-stdin", "twice"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                env=environ()) for _ in range(2)]
    time.sleep(0.3)
    ok("exec", "twice", "touch", "/go")
    want = b"".join(b"%d\n" % i for i in range(1, 30001))
    for w in windows:
        out, _ = w.communicate(timeout=60)
        assert (out, w.returncode) == (want, 5)
    assert verb("logs", "twice").out == want
    gone("twice")


def test_a_stalled_window_does_not_hold_the_command_for_ever():
    run_d("flood", "sh", "-c", "while [ ! -e /go ]; do sleep 0.05; done; seq 1 200000; echo over >&2")
    p = subprocess.Popen([ROUX, "attach", "--no-stdin", "flood"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environ())
    time.sleep(0.3)
    ok("exec", "flood", "touch", "/go")
    begin = time.monotonic()
    assert ok("wait", "flood") == "0\n"
    assert 8 < time.monotonic() - begin < 30
    assert verb("logs", "flood").err == b"over\n"
    p.kill()
    p.stdout.close()
    p.wait()
    gone("flood")


def test_logs_have_times_tails_and_ends():
    run_d("talk", "sh", "-c", "for i in 1 2 3 4 5; do echo line $i; sleep 0.2; done; printf end")
    p = subprocess.run([ROUX, "logs", "-f", "talk"], env=environ(), capture_output=True, timeout=60)
    assert p.stdout == b"".join(b"line %d\n" % i for i in range(1, 6)) + b"end", p
    assert verb("logs", "--tail", "2", "talk").out == b"line 5\nend"
    assert verb("logs", "-n", "0", "talk").out == b""
    stamped = verb("logs", "-t", "talk").out.decode().splitlines()
    assert len(stamped) == 6 and all(re.match(r"\d{4}-\d\d-\d\dT[\d:]+\.\d{9}Z ", s) for s in stamped), stamped
    third = stamped[2].split()[0]
    assert verb("logs", "--since", third, "talk").out == b"line 3\nline 4\nline 5\nend"
    assert verb("logs", "--until", third, "talk").out == b"line 1\nline 2\nline 3\n"
    complains(verb("logs", "--since", "yesterday-ish", "talk"), 125, "is no time")
    complains(verb("logs", "nobody"), 1, "there is no VM 'nobody'")
    gone("talk")


def test_logs_are_bounded_and_followed_while_they_rotate():
    run_d("rotate", "sh", "-c", "while [ ! -e /go ]; do sleep 0.05; done; seq 1 400000", options=("--log-max-size", "1M"))
    p = subprocess.Popen([ROUX, "logs", "-f", "rotate"], env=environ(), stdout=subprocess.PIPE)
    ok("exec", "rotate", "touch", "/go")
    out, _ = p.communicate(timeout=60)
    lines = out.split()
    assert lines[-1] == b"400000" and len(lines) > 10000
    numbers = [int(n) for n in lines]
    skipped = [(a, b) for a, b in zip(numbers, numbers[1:]) if b != a + 1]
    assert len(skipped) < 8 and numbers == sorted(numbers), skipped	# only when it fell behind by all files
    (vm,) = glob.glob(STORE + "/vms/*/")
    assert sum(os.path.getsize(f) for f in glob.glob(vm + "log.*")) <= 1 << 20
    assert verb("logs", "-n", "1", "rotate").out == b"400000\n"
    gone("rotate")


def test_a_full_disk_loses_logs_but_nothing_else():
    if os.geteuid() != 0:
        raise harness.Skip("mounting needs root")
    at = folder("small")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", at], check=True)
    try:
        env = {"ROUX_STORE": at}
        r = verb("run", "--name", "full", ROOT, "--", "seq", "1", "200000", env=env)
        assert r.status == 0 and r.out == b"".join(b"%d\n" % i for i in range(1, 200001))
        assert verb("rm", "full", env=env).status == 0
        subprocess.run(["dd", "if=/dev/zero", f"of={at}/fill", "bs=4k"], stderr=subprocess.DEVNULL)
        complains(verb("run", "--name", "full", ROOT, "--", "true", env=env), 125, "No space left")
        os.unlink(at + "/fill")
        expect(verb("run", "--name", "full", "--rm", ROOT, "--", "true", env=env), 0)
    finally:
        wait_until("its monitor to end", lambda: not marked_processes(), 10)
        subprocess.run(["umount", at], check=True)


def test_copies_are_the_same_byte_for_byte():
    run_d("copy", "sleep", "1000")
    src = folder("tree")
    rnd = random.Random(3)
    os.makedirs(src + "/a/b/c")
    for i in range(40):
        with open(f"{src}/a/file {i}", "wb") as f:
            f.write(rnd.randbytes(rnd.choice((0, 1, 100, 65536, 200001))))
        os.chmod(f"{src}/a/file {i}", rnd.choice((0o600, 0o644, 0o755, 0o4711)))
        os.utime(f"{src}/a/file {i}", ns=(1, 10 ** 18 + i * 1000))
    os.symlink("../nowhere", src + "/a/b/link")
    os.symlink("/etc/passwd", src + "/a/absolute")
    os.mkfifo(src + "/a/b/fifo")
    os.utime(src + "/a/b/c", ns=(1, 123456789 * 10 ** 9))
    os.chmod(src + "/a/b", 0o711)
    ok("cp", src, "copy:/tmp")
    ok("cp", "copy:/tmp/tree", WORK + "/back")

    def facts(top):
        out = {}
        for base, dirs, files in os.walk(top):
            for n in dirs + files:
                path = os.path.join(base, n)
                st = os.lstat(path)
                out[os.path.relpath(path, top)] = (st.st_mode, st.st_mtime_ns, os.readlink(path) if os.path.islink(path) else
                                                   open(path, "rb").read() if os.path.isfile(path) else None)
        return out

    def without_set_id(tree):	# these bits are about an owner that is not kept
        return {name: (mode & ~0o6000, *rest) for name, (mode, *rest) in tree.items()}

    assert without_set_id(facts(src)) == facts(WORK + "/back")
    if os.geteuid() == 0:
        ok("cp", "-a", src, "copy:/tmp/archive")
        ok("cp", "-a", "copy:/tmp/archive", WORK + "/archive")
        assert facts(src) == facts(WORK + "/archive")
    ok("cp", src + "/a/.", "copy:/tmp/contents")
    assert sorted(ok("exec", "copy", "ls", "/tmp/contents").split("\n")) == sorted(os.listdir(src + "/a") + [""])
    ok("cp", "copy:/etc/passwd", WORK + "/passwd")
    assert filecmp.cmp(WORK + "/passwd", ROOT + "/etc/passwd", shallow=False)
    ok("cp", WORK + "/passwd", "copy:/tmp/other-name")
    expect(verb("exec", "copy", "cmp", "/etc/passwd", "/tmp/other-name"), 0)
    complains(verb("cp", "copy:/no/such", WORK), 1, "/no/such")
    complains(verb("cp", "/no/such/here", "copy:/tmp"), 1, "/no/such/here")
    complains(verb("cp", WORK + "/passwd", "copy:/no/such/folder/"), 1, "folder")
    complains(verb("cp", "copy:/a", "copy:/b"), 125, "exactly one")
    complains(verb("cp", "nobody:/a", "."), 1, "there is no VM 'nobody'")
    # A hostile link in the guest leads nowhere on the host.
    ok("exec", "copy", "sh", "-c", "mkdir -p /tmp/evil && ln -s /tmp /tmp/evil/x")
    ok("cp", "copy:/tmp/evil", WORK + "/evil")
    ok("exec", "copy", "sh", "-c", "rm /tmp/evil/x && mkdir /tmp/evil/x && echo bad > /tmp/evil/x/roux-evil")
    r = verb("cp", "copy:/tmp/evil/.", WORK + "/evil")
    assert r.status == 1 and not os.path.exists("/tmp/roux-evil"), r
    gone("copy")


def test_names_change():
    run_d("first", "sleep", "1000")
    run_d("second", "sleep", "1000")
    complains(verb("rename", "first", "second"), 1, "taken")
    complains(verb("rename", "first", "bad name"), 1, "cannot be a name")
    ok("rename", "first", "third")
    assert names() == ["second", "third"]
    ok("kill", "third")
    ok("rename", "third", "first")
    assert names("-a") == ["first", "second"]
    complains(verb("rename", "third", "x"), 1, "there is no VM 'third'")
    gone("first", "second")
    nothing_stray()


def test_pause_stops_the_processors():
    run_d("p", "sh", "-c", "while :; do echo x; sleep 0.05; done")
    ok("pause", "p")
    assert status("p") == "paused"
    before = len(verb("logs", "p").out)
    time.sleep(0.4)
    assert len(verb("logs", "p").out) == before
    complains(verb("exec", "p", "true"), 1, "paused")
    complains(verb("pause", "p"), 1, "paused")
    ok("unpause", "p")
    wait_until("more output", lambda: len(verb("logs", "p").out) > before)
    ok("pause", "p")
    ok("stop", "-t", "5", "p")	# a paused one too
    gone("p")


def test_wrong_names_and_states_are_told():
    for v in ("stop", "kill", "start", "restart", "rm", "wait", "rename", "logs", "top", "attach", "pause", "port", "inspect"):
        r = verb(v, "nobody", *(["x"] if v == "rename" else []))
        complains(r, 1, "there is no VM 'nobody'")
        assert len(r.err.splitlines()) == 1 and (v == "inspect" or r.out == b""), r
        complains(verb(v), 125, v)
        expect(verb(v, "--help"), 0)
    complains(verb("run", "--name", "no/slash", ROOT, "true"), 125, "cannot be a name")
    complains(verb("run", "--rm", "--restart", "always", ROOT, "true"), 125, "--rm and --restart")
    complains(verb("run", "--restart", "sometimes", ROOT, "true"), 125, "sometimes")
    out = ok("create", "--name", "only", "-p", "8080:80", ROOT, "--", "true").strip()
    assert status("only") == "created" and names() == [] and ok("port", out[:12]) == "80/tcp -> 0.0.0.0:8080\n"
    complains(verb("kill", "only"), 1, "not running")
    complains(verb("exec", "only", "true"), 1, "not running")
    expect(verb("start", "-a", "only"), 0)
    assert ok("wait", "only") == "0\n"
    gone("only")
    nothing_stray()


def test_rm_option_leaves_nothing():
    expect(verb("run", "--rm", "--name", "brief", ROOT, "--", "sh", "-c", "exit 3"), 3)
    expect(verb("run", "--rm", "--name", "brief", ROOT, "--", "true"), 0)	# the name is free at once
    nothing_stray()
    complains(verb("run", "--name", "typo", WORK + "/no-image"), 125, "no-image")
    assert names("-a") == []


def test_labels_filters_and_cidfile():
    file = WORK + "/cid"
    run_d("l1", "sleep", "1000", options=("-l", "tier=front", "-l", "x", "--cidfile", file))
    run_d("l2", "sleep", "1000", options=("-l", "tier=back"))
    with open(file) as f:
        assert f.read() == inspect("l1", ".Id")
    complains(verb("run", "--cidfile", file, ROOT, "true"), 125, "exists already")
    assert names("-f", "label=tier") == ["l1", "l2"]
    assert names("-f", "label=tier=back") == ["l2"] and names("-f", "name=l1") == ["l1"]
    assert names("-a", "-f", "status=exited") == []
    assert inspect("l1", ".Config.Labels.tier") == "front"
    complains(verb("ps", "-f", "colour=red"), 125, "colour=red")
    gone("l1", "l2")


def host_clock_jumps():
    """Hardly, but whoever asks the kernel whether it was set hears of it, as after a suspend."""
    try:
        time.clock_settime(time.CLOCK_REALTIME, time.time())
    except PermissionError:
        raise Skip("the host's clock is not ours to set") from None


def test_a_guests_clock_follows_the_hosts():
    def is_ahead(seconds):
        before = time.time()
        there = int(ok("exec", "clock", "date", "+%s"))
        return before + seconds - 2 < there < time.time() + seconds + 2

    def put(seconds):
        ok("exec", "clock", "sh", "-c", f"date -s @$(($(date +%s) + {seconds}))")

    run_d("clock", "sleep", "1000")
    for off in (3600, -7200):	# the host has slept; its clock was set back
        put(off)
        assert is_ahead(off)
        host_clock_jumps()
        wait_until("the guest to have the host's time", lambda: is_ahead(0))
    put(-3600)
    ok("pause", "clock")
    host_clock_jumps()
    host_clock_jumps()
    ok("unpause", "clock")
    wait_until("the guest to have the host's time", lambda: is_ahead(0))
    up = float(ok("exec", "clock", "cat", "/proc/uptime").split()[0])
    assert 0 < up < 240, "the time since it booted has jumped too"
    gone("clock")


def test_stats_and_metrics():
    run_d("busy", "sh", "-c", "while :; do :; done")
    stats = json.loads(ok("stats", "--no-stream", "--json", "busy"))
    assert stats["CpuPercent"] > 10 and stats["GuestMemoryTotalBytes"] > 400 << 20 and stats["HostMemoryBytes"] > 1 << 20, stats
    assert "busy" in ok("stats", "--no-stream")
    (sock,) = glob.glob(STATE + "/vms/*/sock")
    assert os.stat(sock).st_mode & 0o777 == 0o600 and os.stat(os.path.dirname(sock)).st_mode & 0o777 == 0o700
    s = socket.socket(socket.AF_UNIX)
    s.connect(sock)
    s.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    text = b""
    while data := s.recv(65536):
        text += data
    assert b'roux_vm_running{' in text and b"roux_guest_memory_total_bytes" in text, text
    ok("update", "--cpu-shares", "100", "busy")
    pid = int(inspect("busy", ".State.Pid"))
    group = cgroups(pid).get("cpu")
    if group and os.path.exists(group + "/cpu.shares"):
        with open(group + "/cpu.shares") as f:
            assert f.read() == "100\n"
    elif group:
        with open(group + "/cpu.weight") as f:
            assert f.read() == "9\n"
    else:
        assert os.getpriority(os.PRIO_PROCESS, pid) == 10, os.getpriority(os.PRIO_PROCESS, pid)
    gone("busy")


def test_events_tell_what_happened():
    begin = time.time()
    p = subprocess.Popen([ROUX, "events", "--json"], env=environ(), stdout=subprocess.PIPE)
    time.sleep(0.2)
    run_d("ev", "sleep", "1000")
    ok("rename", "ev", "ev2")
    ok("stop", "-t", "1", "ev2")
    ok("rm", "ev2")
    read_until(p.stdout, b'"destroy"')
    p.terminate()
    p.wait()
    p.stdout.close()
    lines = [json.loads(e) for e in ok("events", "--since", f"{begin:.6f}", "--until", "0s", "--json").splitlines()]
    assert [e["Action"] for e in lines] == ["create", "start", "rename", "stop", "die", "destroy"], lines
    assert lines[4]["Detail"] == "143" and lines[2]["Detail"] == "ev2"
    assert "die" in ok("events", "--since", f"{begin:.6f}", "--until", "0s", "-f", "event=die")


# ---------------------------------------------------------------------- policies and health

def test_restart_policies():
    run_d("always", "sh", "-c", "echo life; exit 0", options=("--restart", "always"))
    run_d("twice", "sh", "-c", "echo life; exit 5", options=("--restart", "on-failure:2"))
    run_d("fine", "sh", "-c", "echo life; exit 0", options=("--restart", "on-failure"))
    wait_until("three lives", lambda: verb("logs", "always").out.count(b"life") >= 3)
    ok("stop", "always")
    wait_until("it to give up", lambda: status("twice") == "exited")
    assert verb("logs", "twice").out.count(b"life") == 3 and inspect("twice", ".State.RestartCount") == "2"
    wait_until("its end", lambda: status("fine") == "exited")
    assert verb("logs", "fine").out.count(b"life") == 1
    time.sleep(0.5)
    assert status("always") == "exited"
    gone("always", "twice", "fine")
    nothing_stray()


def test_restart_gives_a_fresh_root():
    run_d("again", "sh", "-c", "ls /mark; touch /mark; echo up; exec sleep 1000")
    wait_until("its start", lambda: b"up" in verb("logs", "again").out)
    monitor = monitor_pid("again")
    ok("restart", "-t", "1", "again")
    wait_until("its second start", lambda: verb("logs", "again").out.count(b"up") == 2)
    assert b"/mark\n" not in verb("logs", "again").out and monitor_pid("again") == monitor
    assert inspect("again", ".State.RestartCount") == "0"
    ok("kill", "again")
    ok("restart", "again")	# one that does not run is started
    assert status("again") == "running"
    gone("again")


def test_health_is_checked():
    run_d("sick", "sleep", "1000", options=("--health-cmd", "test -e /ok", "--health-interval", "200ms", "--health-retries", "2"))
    assert inspect("sick", ".State.Health") == "starting"
    wait_until("it to be unhealthy", lambda: inspect("sick", ".State.Health") == "unhealthy")
    ok("exec", "sick", "touch", "/ok")
    wait_until("it to be healthy", lambda: inspect("sick", ".State.Health") == "healthy")
    assert "(healthy)" in ok("ps")
    gone("sick")
    run_d("slow", "sleep", "1000", options=("--health-cmd", "sleep 1000", "--health-interval", "100ms", "--health-timeout", "300ms",
                                           "--health-retries", "1"))
    wait_until("a check that hangs to count", lambda: inspect("slow", ".State.Health") == "unhealthy")
    wait_until("it to be killed", lambda: ok("top", "slow").count("sleep 1000") <= 2)
    gone("slow")


def test_timeout_counts_in_the_background_too():
    run_d("late", "sleep", "1000", options=("--timeout", "3"))
    assert ok("wait", "late") == "124\n"
    assert "did not end within 3 s" in inspect("late", ".State.Error")
    gone("late")


# ------------------------------------------------------------------------------- accidents

def test_kill_9_of_the_monitor_is_noticed():
    run_d("orphan", "sleep", "1000")
    os.kill(monitor_pid("orphan"), signal.SIGKILL)
    assert status("orphan") == "exited" and inspect("orphan", ".State.ExitCode") == "137"
    wait_until("the VM's process to end", lambda: not marked_processes(), 5)
    assert glob.glob(STATE + "/vms/*/sock") == []
    ok("start", "orphan")
    assert status("orphan") == "running"
    gone("orphan")
    nothing_stray()


def test_kill_9_of_the_vm_ends_one_life():
    run_d("victim", "sleep", "1000", options=("--restart", "on-failure"))
    run_d("other", "sleep", "1000")
    for n in ("victim", "other"):
        os.kill(int(inspect(n, ".State.Pid")), signal.SIGKILL)
    wait_until("its next life", lambda: status("victim") == "running" and inspect("victim", ".State.RestartCount") == "1")
    wait_until("its end", lambda: status("other") == "exited")
    assert "killed by signal 9" in inspect("other", ".State.Error")
    gone("victim", "other")
    nothing_stray()


def test_kill_9_at_any_point_leaves_order():
    """The command, the monitor, the VM's process or all of them, at random points of creating, starting and stopping."""
    rnd = random.Random(int(os.environ.get("ROUX_TEST_SEED", "4")))
    for i in range(24):
        p = subprocess.Popen([ROUX, "run", "-d", "--name", "chaos", ROOT, "--", "sleep", "1000"], env=environ(),
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        q = None
        if rnd.random() < 0.3:
            p.wait(60)
            q = subprocess.Popen([ROUX, rnd.choice(("stop", "kill", "restart", "rm")), "chaos"], env=environ(),
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rnd.choice((0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.4, 0.8)) * rnd.random())
        running = sorted(marked_processes())
        for pid in running if rnd.random() < 0.5 else rnd.sample(running, min(len(running), 1)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for started in (p, q):
            if started:
                started.wait(60)
        alive = bool(marked_processes())
        shown = {vm["Name"]: vm["State"]["Status"] for vm in json.loads(ok("ps", "-a", "--json"))}
        assert set(shown) <= {"chaos"}, (i, shown)
        if shown and shown["chaos"] in ("running", "starting", "stopping", "restarting"):
            assert alive or not marked_processes() and status("chaos") == "exited", (i, shown)
        verb("rm", "-f", "chaos")
        nothing_stray()
    links = os.listdir(STORE + "/names")
    assert links in ([], ["chaos"]), links	# one may be stale: its VM is gone, and the next to want it takes it
    run_d("chaos", "sleep", "1000")
    gone("chaos")


def test_nothing_begins_before_its_client_watches():
    if not shutil.which("strace"):
        raise harness.Skip("no strace")
    for args, status, out in (((ROOT, "--", "echo", "hi"), 0, b"hi\n"), (("/no/image",), 125, b"")):
        p = subprocess.run(["strace", "-qq", "-o", "/dev/null", "-e", "trace=sendto", "-e",
                            "inject=sendto:delay_enter=3000000:when=1", ROUX, "run", "--name", "watched", "--rm", *args],
                           stdin=subprocess.DEVNULL, capture_output=True, env=environ(), timeout=60)
        assert (p.returncode, p.stdout) == (status, out) and (b"/no/image" in p.stderr) == (status == 125), p
    nothing_stray()


def killed_at(call, n, *args):
    """Runs a command that gets SIGKILL instead of its nth system call of a kind.  True when there is none."""
    p = subprocess.run(["strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={n}",
                        ROUX, *args], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                       env=environ(), timeout=60)
    assert p.returncode in (0, -signal.SIGKILL, 128 + signal.SIGKILL), p
    return p.returncode == 0


def test_kill_9_at_every_step_of_the_command():
    if not shutil.which("strace"):
        raise harness.Skip("no strace")
    if subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True).returncode:
        raise harness.Skip("no ptrace")

    def every_step(calls, prepare, *args):
        steps = 0
        for call in calls.split():
            for n in range(1, 100):
                prepare()
                whole = killed_at(call, n, *args)
                left = json.loads(ok("ps", "-a", "--json"))
                assert len(left) <= 1 and all(vm["Name"] in ("a", "b") for vm in left), (call, n, left)
                yield (call, n), whole, left
                verb("rm", "-f", "a", "b")
                nothing_stray()
                if whole:
                    break
                steps += 1
        assert steps > 5, steps

    files = "mkdir symlink rename unlink unlinkat write fsync fcntl"
    for n, whole, left in every_step(files, lambda: None, "create", "--name", "a", ROOT, "true"):
        assert all(vm["State"]["Status"] == "created" for vm in left) and (left or not whole), (n, left)
    for n, whole, left in every_step(files, lambda: ok("create", "--name", "a", ROOT, "true"), "rename", "a", "b"):
        assert len(left) == 1 and (left[0]["Name"] == "b" or not whole), (n, left)
        other = "b" if left[0]["Name"] == "a" else "a"
        ok("create", "--name", other, ROOT, "true")	# the name it has not is free
    for n, whole, left in every_step(files, lambda: ok("create", "--name", "a", ROOT, "true"), "rm", "a"):
        assert not whole or not left, (n, left)
    for n, whole, left in every_step("symlink rename socketpair clone sendto recvfrom", lambda: None, "run", "-d", "--name", "a", ROOT, "--", "sleep", "1000"):
        for vm in left:
            assert vm["State"]["Status"] in ("created", "starting", "running", "exited"), (n, vm)
        assert not whole or left[0]["State"]["Status"] == "running", (n, left)


def test_the_file_says_that_a_vm_runs_soon_after_its_start():
    def written():
        with open(f"{STORE}/vms/{vm}/record.json") as f:
            return json.load(f)["State"]["Status"]

    vm = run_d("written", "sleep", "1000")
    assert inspect("written", ".State.Status") == "running"
    assert written() in ("starting", "running")
    wait_until("the file", lambda: written() == "running", 10)
    ok("rm", "-f", "written")
    nothing_stray()


def test_damaged_records_are_told_and_removed():
    out = run_d("torn", "true")
    ok("wait", "torn")
    with open(f"{STORE}/vms/{out}/record.json", "w") as f:
        f.write('{"Version":1,"Id":')
    r = verb("ps", "-a")
    complains(r, 1, "damaged", "roux rm -f")
    complains(verb("rm", out), 1, "damaged")
    ok("rm", "-f", out)
    nothing_stray()


def test_who_waits_for_a_vm_that_is_just_ending_hears_how_it_ended():
    for i in range(60):
        run_d("ending", "sh", "-c", f"exit {i}")
        if i % 3:
            time.sleep(i % 7 / 500)
        if i % 2:
            ok("stop", "-t", "0", "ending")	# by now, or in a moment, there is nothing to stop
            status = ok("wait", "ending")
            assert status in (f"{i}\n", "137\n", "143\n"), (i, status)
        else:
            assert ok("wait", "ending") == f"{i}\n"
        ok("rm", "ending")
    nothing_stray()


def test_eight_at_once():
    for _ in range(2):
        started = [subprocess.Popen([ROUX, "run", "-d", "--name", f"vm{i}", "--memory", "128M", ROOT, "--", "sh", "-c",
                                     f"echo I am {i}; exec sleep 1000"], env=environ(), stdout=subprocess.DEVNULL) for i in range(8)]
        assert [p.wait(120) for p in started] == [0] * 8
        assert names() == [f"vm{i}" for i in range(8)]
        for i in range(8):
            wait_until("its output", lambda: verb("logs", f"vm{i}").out == b"I am %d\n" % i)
        expect(verb("rm", "-f", *(f"vm{i}" for i in range(8))), 0)
    nothing_stray()


def test_one_name_is_for_one():
    started = [subprocess.Popen([ROUX, "create", "--name", "unique", ROOT, "true"], env=environ(), stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL) for _ in range(12)]
    assert sorted(p.wait(60) for p in started) == [0] + [125] * 11
    gone("unique")


def test_help_lists_every_command():
    text = ok("--help")
    for title in ("Common commands:", "Commands for VMs:", "Other commands:"):
        assert title in text
    for v in re.findall(r"^  ([a-z]+) ", text, re.M):
        if v not in ("version",):
            assert "Usage: roux" in ok(v, "--help"), v


def ask(sock, method, path, *headers, body=""):
    """Status and body of a request to a control socket; a client that is not the roux command."""
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(sock)
        head = [f"{method} {path} HTTP/1.1", "Host: roux", "Connection: close", f"Content-Length: {len(body)}", *headers]
        s.sendall(("\r\n".join(head) + "\r\n\r\n" + body).encode())
        s.settimeout(20)
        data = b""
        while more := s.recv(65536):
            data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), rest


def test_the_control_socket_serves_what_is_documented():
    with open(os.path.join(os.path.dirname(__file__), "../../docs/control-api.yaml")) as f:
        text = f.read()
    documented, path = set(), None
    for line in text[text.index("\npaths:\n"):text.index("\ncomponents:\n")].splitlines():
        if m := re.fullmatch(r"  (/\S+):", line):
            path = m[1]
        elif m := re.fullmatch(r"    (get|post):", line):
            documented.add((m[1].upper(), path))
    with open(os.path.join(os.path.dirname(__file__), "../../life/service.c")) as f:
        served = set(re.findall(r'{ "([A-Z]+)", "(/[^"]+)", \w+\b', f.read()))
    assert documented == served and len(served) > 10, documented ^ served

    run_d("api", "sleep", "1000")
    (sock,) = glob.glob(STATE + "/vms/*/sock")
    for method, path in sorted(documented):
        other = "POST" if method == "GET" else "GET"
        assert ask(sock, other, path)[0] == 405, path
        if path in ("/v1/attach", "/v1/exec", "/v1/copy"):
            assert ask(sock, method, path)[0] == 426, path
        elif path not in ("/v1/wait", "/v1/stop", "/v1/restart", "/v1/kill"):	# which end it
            status, body = ask(sock, method, path)
            assert status == (400 if path in ("/v1/rename", "/v1/checkpoint") else 409 if path == "/v1/unpause" else 200), (path, status, body)
            ask(sock, "POST", "/v1/unpause")
    status, body = ask(sock, "GET", "/v1/vm")
    vm = json.loads(body)
    assert status == 200 and vm["Name"] == "api" and vm["State"]["Status"] == "running"
    for name in re.findall(r"^            (\w+): {", text[text.index("        State:"):text.index("        Config:")], re.M):
        assert name in vm["State"], name
    assert ask(sock, "GET", "/nothing")[0] == 404
    assert ask(sock, "POST", "/v1/kill", body="[1]")[0] == 400
    assert ask(sock, "POST", "/v1/kill", body='{"Signal":"NOPE"}')[0] == 400
    assert ask(sock, "POST", "/v1/rename", body='{"Name":"../x"}')[0] == 400
    assert ask(sock, "POST", "/v1/exec", "Upgrade: roux-frames", body='{"Cmd":[1]}')[0] == 400
    assert ask(sock, "POST", "/v1/exec", "Upgrade: roux-frames", body="{}")[0] == 400
    assert ask(sock, "GET", "/v1/vm", "Transfer-Encoding: chunked")[0] == 501
    status, body = ask(sock, "POST", "/v1/restart", body='{"TimeoutMs":100}')
    assert (status, json.loads(body)) == (200, {}), body
    status, body = ask(sock, "POST", "/v1/stop", body='{"TimeoutMs":0}')
    assert status == 200 and json.loads(body)["StatusCode"] in (137, 143), body	# KILL comes right behind TERM
    gone("api")


def test_who_connects_at_the_end_is_not_left_waiting():
    """Also not while the monitor has output for a window that does not read: here more than a socket takes, and
    less than holds the command up."""
    run_d("late", "sh", "-c", "while [ ! -e /go ]; do sleep 0.05; done; seq 1 60000; sleep 1000")
    (sock,) = glob.glob(STATE + "/vms/*/sock")
    monitor, vm = monitor_pid("late"), int(inspect("late", ".State.Pid"))
    with socket.socket(socket.AF_UNIX) as window, socket.socket(socket.AF_UNIX) as late:
        window.connect(sock)
        window.sendall(b"POST /v1/attach HTTP/1.1\r\nHost: roux\r\nUpgrade: roux-frames\r\nContent-Length: 0\r\n\r\n")
        assert window.recv(16).startswith(b"HTTP/1.1 101")
        ok("exec", "late", "touch", "/go")
        time.sleep(0.5)
        os.kill(monitor, signal.SIGSTOP)	# it finds both the end of the VM and a connection, in this order
        os.kill(vm, signal.SIGKILL)
        time.sleep(0.3)
        late.connect(sock)
        late.sendall(b"GET /v1/vm HTTP/1.1\r\nHost: roux\r\n\r\n")
        os.kill(monitor, signal.SIGCONT)
        wait_until("the end of the VM", lambda: not os.path.exists(sock))
        os.kill(monitor, 0)
        late.settimeout(5)
        try:
            assert late.recv(1) == b""
        except ConnectionResetError:
            pass
    gone("late")
    nothing_stray()


def test_metrics_are_what_prometheus_reads():
    run_d("metered", "sleep", "1000")
    (sock,) = glob.glob(STATE + "/vms/*/sock")
    status, body = ask(sock, "GET", "/metrics")
    assert status == 200
    told, values = {}, {}
    for line in body.decode().splitlines():
        if m := re.fullmatch(r"# (HELP|TYPE) (\w+) (.+)", line):
            told.setdefault(m[2], {})[m[1]] = m[3]
        else:
            m = re.fullmatch(r'(\w+){id="([0-9a-f]{12})",name="metered"} ([0-9.e+-]+)', line)
            assert m and m[1] not in values, line
            values[m[1]] = float(m[3])
    assert told.keys() == values.keys() and len(values) >= 11
    assert all(t["TYPE"] == ("counter" if n.endswith("_total") else "gauge") for n, t in told.items()), told
    assert values["roux_vm_running"] == 1 and abs(values["roux_vm_start_time_seconds"] - time.time()) < 60
    ok("pause", "metered")
    status, body = ask(sock, "GET", "/metrics")	# the guest is silent, the host is not
    assert status == 200 and b"roux_vm_memory_bytes" in body and b"roux_guest" not in body
    gone("metered")


def completed(*words):
    """What the shell offers for the last of @words."""
    return [line.split("\t")[0] for line in ok("complete", "--", *words).splitlines()]


def test_words_are_completed():
    ok("create", "--name", "finishme", ROOT, "true")
    assert sorted(completed("re")) == ["rename", "restart", "restore"]
    assert completed("run", "--na") == ["--name"] and completed("logs", "--s") == ["--since"]
    assert completed("run", "--restart", "un") == ["unless-stopped"]
    assert completed("stop", "fin") == ["finishme"] and completed("run", "fin") == []
    assert completed("nonsense", "") == [] and completed("") != []
    script = f"PATH={os.path.dirname(ROUX)}:$PATH; source <(roux completion bash); " \
             "COMP_WORDS=(roux start fin); COMP_CWORD=2; _roux; echo ${COMPREPLY[@]}"
    p = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environ())
    assert p.stdout == "finishme\n" and not p.stderr, p
    for shell in ("zsh", "fish"):
        if shutil.which(shell):
            subprocess.run([shell, "-n", "/dev/stdin"], input=ok("completion", shell).encode(), check=True)
    complains(verb("completion", "csh"), 125, "bash, zsh or fish")
    gone("finishme")


def test_facts_can_be_had_as_json():
    run_d("facts", "sleep", "1000", options=("-p", "8080:80"))
    assert json.loads(ok("port", "--json", "facts"))["Publish"] == ["8080:80/tcp"]
    assert any(p["Command"].startswith("sleep") for p in json.loads(ok("top", "--json", "facts")))
    ok("kill", "facts")
    assert json.loads(ok("wait", "--json", "facts"))["StatusCode"] == 137
    assert "Version" in json.loads(ok("version", "--json"))
    gone("facts")


def alone(test):
    """A test that fails leaves its VMs to none of those that follow."""
    @functools.wraps(test)
    def run():
        try:
            test()
        except BaseException:
            for pid in marked_processes():
                os.kill(pid, signal.SIGKILL)
            for at in (STORE, STATE):
                shutil.rmtree(at, ignore_errors=True)
            raise
    return run


main({n: alone(f) if n.startswith("test_") else f for n, f in globals().items()})
