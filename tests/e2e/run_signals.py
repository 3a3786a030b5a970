#!/usr/bin/env python3
"""Ends of roux run that nobody planned, and what they leave: nothing.  run_signals.py ROUX [TEST...]"""
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
import harness
from harness import (ROUX, WORK, busybox_root, check_nothing_left, complains, copy_cache, environ, expect, folder, have_learned,
                     main, marked_processes, mounts, read_until, roux, start, cache_files, vm_processes, wait_until)

ROOT = busybox_root()


def monitor_of(cli):
    """The monitor is forked off by the command and shares its command line."""
    (monitor,) = [pid for pid, what in marked_processes().items() if " vmm" not in what and pid != cli]
    return monitor


def test_kill_9_of_roux_leaves_the_machine():
    p = start("--name", "survivor", ROOT, "--", "sh", "-c", "echo go; sleep 100")
    read_until(p.stdout, b"go\n")
    assert len(marked_processes()) == 4	# command, monitor, VM, the maker of its sockets
    p.kill()
    p.wait()
    time.sleep(0.3)
    assert len(marked_processes()) == 3
    r = subprocess.run([ROUX, "exec", "survivor", "echo", "alive"], env=environ(), capture_output=True)
    assert r.stdout == b"alive\n", r
    subprocess.run([ROUX, "rm", "-f", "survivor"], env=environ(), check=True, stdout=subprocess.DEVNULL)


def test_kill_9_of_the_monitor_ends_the_machine():
    p = start(ROOT, "--", "sh", "-c", "echo go; sleep 100")
    read_until(p.stdout, b"go\n")
    os.kill(monitor_of(p.pid), signal.SIGKILL)
    out, err = p.communicate(timeout=10)
    complains(harness.Result(p.returncode, out, err, 0), 125, "monitor was killed")
    wait_until("the VM's process to end", lambda: not marked_processes(), 5)


def test_kill_9_of_the_vm_is_told():
    p = start(ROOT, "--", "sh", "-c", "echo go; sleep 100")
    read_until(p.stdout, b"go\n")
    os.kill(vm_processes()[0], signal.SIGKILL)
    out, err = p.communicate(timeout=10)
    complains(harness.Result(p.returncode, out, err, 0), 125, "killed by signal 9")


def test_term_and_int_reach_the_command():
    for sig in (signal.SIGTERM, signal.SIGINT):
        p = start(ROOT, "--", "sh", "-c", "echo go; exec sleep 100")
        read_until(p.stdout, b"go\n")
        p.send_signal(sig)
        assert p.wait(10) == 128 + sig, p.returncode


def control_c_at(cache, delays_ms, *options):
    before, mounted = cache_files(cache), mounts()
    for delay_ms in delays_ms:
        p = start(*options, ROOT, "--", "sleep", "100", env={"ROUX_CACHE": cache}, start_new_session=True)
        time.sleep(delay_ms / 1000)
        os.killpg(p.pid, signal.SIGINT)
        out, err = p.communicate(timeout=20)
        # The first instructions of the program, before it can catch anything, die of the signal itself.
        assert p.returncode in (130, -signal.SIGINT), (delay_ms, p.returncode, out, err)
        assert p.returncode == 130 or delay_ms < 20, (delay_ms, p.returncode)
        check_nothing_left(mounted)
        assert cache_files(cache) == before, set(cache_files(cache)) ^ set(before)


def filled_cache(name):
    """One of its own lets every file be accounted for; the template, and what it learns, come after the answer."""
    cache = copy_cache(name)
    expect(roux(ROOT, "--", "true", env={"ROUX_CACHE": cache}), 0)
    have_learned()
    assert any(f.endswith(".snap") for f in cache_files(cache))
    return cache


def test_control_c_at_any_time_of_the_boot_is_130():
    control_c_at(filled_cache("cache"), (0, 1, 2, 3, 4, 5, 7, 10, 20, 40, 80, 150, 250, 400, 550, 700, 900), "--no-template")


def test_control_c_at_any_time_of_a_start_from_a_template_is_130():
    control_c_at(filled_cache("cache-of-clones"), (0, 1, 2, 3, 4, 5, 7, 10, 13, 16, 20, 25, 30, 40, 60, 80, 150))


def test_control_c_while_a_template_is_made_is_130():
    """What is left is a template or nothing, and never half of one that is used."""
    cache = copy_cache("cache-of-firsts")
    for delay_ms in (500, 700, 800, 900, 1000, 1100, 1200, 1400):
        p = start("--append", f"t{delay_ms}", ROOT, "--", "sleep", "100", env={"ROUX_CACHE": cache}, start_new_session=True)
        time.sleep(delay_ms / 1000)
        os.killpg(p.pid, signal.SIGINT)
        out, err = p.communicate(timeout=20)
        assert p.returncode == 130, (delay_ms, p.returncode, out, err)
        wait_until("the writer to end", lambda: not [f for f in cache_files(cache) if ".new" in f], 20)
        expect(roux("--append", f"t{delay_ms}", ROOT, "--", "true", env={"ROUX_CACHE": cache}), 0)


def test_term_while_the_image_is_unpacked_leaves_a_clean_cache():
    image = folder("big-image")
    payload = os.path.join(WORK, "big")
    with open(payload, "wb") as f:
        f.write(os.urandom(1 << 20) * 150)
    from oci_maker import docker_archive
    tar = docker_archive(os.path.join(image, "big.tar"), {"big": payload, "bin/busybox": ROOT + "/bin/busybox"},
                         {"Cmd": ["/bin/busybox", "true"]})
    cache = copy_cache("cache-unpack")
    p = start(tar, env={"ROUX_CACHE": cache})
    time.sleep(0.25)
    p.send_signal(signal.SIGTERM)
    assert p.wait(30) in (143, 0), p.returncode
    left = [f for f in cache_files(cache) if ".new" in f]
    assert not left, left
    expect(roux(tar, env={"ROUX_CACHE": cache}), 0)


def test_standard_output_that_is_stalled_does_not_hold_the_timeout():
    p = start("--timeout", "3", ROOT, "--", "sh", "-c", "while :; do seq 1 10000; done")
    begin = time.monotonic()
    assert p.wait(20) == 124
    assert time.monotonic() - begin < 6
    p.stdout.close()


def test_machines_of_a_closed_terminal_session_end():
    p = subprocess.Popen(["sh", "-c", f"{ROUX} run {ROOT} -- sh -c 'echo go; sleep 100' & read x"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ(), start_new_session=True,
                         preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))	# we may run under nohup
    read_until(p.stdout, b"go\n")
    os.killpg(p.pid, signal.SIGHUP)
    p.wait(10)
    wait_until("all processes to end", lambda: not marked_processes(), 10)


main(globals())
