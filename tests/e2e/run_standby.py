#!/usr/bin/env python3
"""Machines that wait for their VMs.  run_standby.py ROUX [TEST...]"""
import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

os.environ["ROUX_STANDBY"] = "30"
sys.path.insert(0, os.path.dirname(__file__))
from harness import (CACHE, ROUX, WORK, busybox_root, environ, expect, folder, have_learned, main, make_busybox, marked_processes, roux,
                     standby_sockets, start, verb, wait_until)

ROOT = busybox_root()
FOLDER = os.path.join(WORK, "state/standby")


def waiting():
    """Pids of processes with a machine that can be had."""
    found = []
    for pid in marked_processes(waiting=True):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as f:
            if f.read() == "roux-standby\n":
                found.append(pid)
    return found if len(standby_sockets()) >= len(found) else []


def still_waits(pid):
    with open(f"/proc/{pid}/comm") as f:
        return f.read() == "roux-standby\n"


def one_waits():
    found = []

    def look():	# once: it may be made anew at any time
        found[:] = waiting()
        return len(found) == 1

    wait_until("one machine to wait", look, 15)
    return found[0]


def none_waits():
    wait_until("no machine to wait", lambda: not waiting() and not standby_sockets(), 15)


def run(*args, root=ROOT, options=(), **kw):
    return expect(roux("--rm", "--network", "none", *options, root, "--", *args, **kw)).out.decode()


@contextlib.contextmanager
def vm(*options, root=ROOT, **kw):
    """A VM in the background: its monitor's pid."""
    expect(roux("-d", "--rm", "--name", "one", "--network", "none", *options, root, "--", "sleep", "1000", **kw))
    try:
        yield json.loads(expect(verb("inspect", "one", **kw)).out)[0]["State"]["MonitorPid"]
    finally:
        verb("rm", "-f", "one", **kw)
        wait_until("the VM to be gone", lambda: not marked_processes(), 10)


def fresh():
    """One machine, made after all that was here, and not to be made anew."""
    expect(verb("template", "stop", "--all"))
    run("true")
    have_learned()
    return one_waits()


def test_a_vm_starts_in_the_machine_that_waits_and_leaves_another():
    before = fresh()
    with vm() as monitor:
        assert monitor == before, (monitor, before)
        wait_until("the next machine", lambda: waiting() and waiting() != [before], 15)


def test_no_two_vms_share_chance_names_or_time():
    seen = set()
    ask = "head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/uuid; cat /proc/sys/kernel/random/boot_id"
    for _ in range(6):
        one_waits() if seen else fresh()
        lines = run("sh", "-c", ask + "; date +%s").split("\n")
        assert abs(int(lines[3]) - time.time()) < 3, lines
        for text in lines[:3]:
            assert text not in seen, (text, seen)
            seen.add(text)
    one_waits()
    assert run("hostname", options=("--hostname", "two")) == "two\n"
    one_waits()
    assert run("hostname") == "roux\n"


def test_time_of_a_machine_that_has_waited_is_right():
    fresh()
    time.sleep(3)
    assert abs(int(run("date", "+%s")) - time.time()) < 2


def test_what_a_machine_did_while_it_waited_is_not_seen():
    fresh()
    ps = run("sh", "-c", "ps; ls -A /root /tmp; cat /proc/loadavg")
    assert "/bin/true" not in ps and len(ps.splitlines()) < 60, ps
    one_waits()
    assert int(run("sh", "-c", "echo $$")) < 2000


def test_a_vm_that_is_asked_for_otherwise_has_a_machine_of_its_own():
    fresh()
    for options in (("--memory", "256M"), ("--cpus", "2"), ("--append", "quiet"), ("--read-only",), ("--network", "user"),
                    ("-v", f"{folder('shared')}:/mnt"), ("--no-template",)):
        before = waiting()
        with vm(*options) as monitor:
            assert monitor not in before, options


def test_a_caller_in_another_context_has_a_machine_of_its_own():
    before = fresh()

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))

    for how in (dict(preexec_fn=lambda: os.umask(0o77)), dict(preexec_fn=limited), dict(preexec_fn=lambda: os.nice(1)),
                dict(env=environ(https_proxy="http://127.0.0.1:9"))):
        how = {"env": environ(), **how}
        subprocess.run([ROUX, "run", "-d", "--rm", "--name", "one", "--network", "none", ROOT, "--", "sleep", "1000"], check=True,
                       stdout=subprocess.DEVNULL, **how)
        try:
            monitor = json.loads(expect(verb("inspect", "one")).out)[0]["State"]["MonitorPid"]
            assert monitor != before and still_waits(before), list(how)
        finally:
            verb("rm", "-f", "one")
    if os.geteuid() == 0 and shutil.which("unshare"):
        subprocess.run(["unshare", "-n", ROUX, "run", "--rm", "--network", "none", ROOT, "--", "true"], check=True, env=environ())
        assert still_waits(before)


def test_an_image_that_has_changed_is_seen_as_it_is():
    root = os.path.join(WORK, "image")
    make_busybox(root)
    with open(root + "/etc/version", "w") as f:
        f.write("one\n")
    for _ in range(3):
        assert run("cat", "/etc/version", root=root) == "one\n"
        wait_until("a machine", waiting)
    with open(root + "/etc/version", "w") as f:
        f.write("two, longer\n")
    assert run("cat", "/etc/version", root=root) == "two, longer\n"
    wait_until("a machine", waiting)
    os.rename(root, root + ".old")	# another folder of that name
    shutil.copytree(root + ".old", root, symlinks=True)
    with open(root + "/etc/version", "w") as f:
        f.write("three\n")
    assert run("cat", "/etc/version", root=root) == "three\n"


def test_they_wait_as_long_as_they_are_told():
    expect(verb("template", "stop", "--all"))
    run("true", env={"ROUX_STANDBY": "2"})
    wait_until("a machine", waiting)
    begin = time.monotonic()
    none_waits()
    assert time.monotonic() - begin < 6
    assert not os.listdir(FOLDER)
    run("true", env={"ROUX_STANDBY": "0"})
    time.sleep(0.5)
    assert not marked_processes(waiting=True)


def test_template_verbs_know_them():
    def live():
        return [t["Id"] for t in map(json.loads, expect(verb("template", "ls", "--json")).out.splitlines()) if t["Live"]]

    fresh()
    (one,) = live()
    expect(verb("template", "stop", one))
    assert not live() and not waiting()
    fresh()
    env = {"ROUX_CACHE": folder("other-cache")}
    os.symlink(CACHE + "/kernels", env["ROUX_CACHE"] + "/kernels")
    run("true", env=env)
    wait_until("two", lambda: len(waiting()) == 2)
    listed = json.loads(expect(verb("template", "ls", "--json", env=env)).out)
    assert listed["Live"]
    expect(verb("template", "rm", listed["Id"], env=env))
    one_waits()


def test_one_waits_however_many_run():
    fresh()
    running = [start("--rm", "--network", "none", ROOT, "--", "echo", str(i)) for i in range(8)]
    for i, p in enumerate(running):
        out, err = p.communicate(timeout=60)
        assert (p.returncode, out) == (0, f"{i}\n".encode()), (p.returncode, out, err)
    one_waits()


def test_one_that_was_killed_is_no_reason_to_fail():
    for victim in ("roux-standby", "roux-vm"):
        fresh()
        pids = [p for p in marked_processes(waiting=True) if open(f"/proc/{p}/comm").read().strip() == victim]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_until("its end", lambda: not marked_processes(waiting=True))
        assert pids and run("echo", "there") == "there\n"
        one_waits()


def test_a_frozen_one_costs_a_second():
    os.kill(fresh(), signal.SIGSTOP)
    begin = time.monotonic()
    assert run("echo", "there") == "there\n"
    assert time.monotonic() - begin < 5
    for pid in waiting():
        os.kill(pid, signal.SIGCONT)
    assert run("echo", "again") == "again\n"	# what it missed is nobody's any more


def test_nonsense_on_its_socket_does_not_hold_the_next_vm():
    fresh()
    path = os.path.join(FOLDER, standby_sockets()[0])
    for junk in (b"", b"x", b"\xff" * 72, b"a" * 4096):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.connect(path)
            with contextlib.suppress(OSError):
                s.send(junk)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.connect(path)	# and says nothing
        threading.Timer(0.2, s.close)
        assert run("echo", "there") == "there\n"
    assert run("echo", "there") == "there\n"


def test_it_holds_nothing_of_whoever_ran_before():
    fresh()
    run("true", cwd=folder("left-behind"))	# by a pipe and in a folder that are gone then
    pid = one_waits()
    os.rmdir(os.path.join(WORK, "left-behind"))
    assert os.readlink(f"/proc/{pid}/cwd") == "/", os.readlink(f"/proc/{pid}/cwd")
    assert os.getsid(pid) == pid or os.getsid(pid) != os.getsid(0)
    for n in os.listdir(f"/proc/{pid}/fd"):
        to = os.readlink(f"/proc/{pid}/fd/{n}")
        assert not to.startswith("pipe:") and "/dev/pts" not in to, to


main(globals())
