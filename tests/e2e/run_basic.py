#!/usr/bin/env python3
"""roux run as scripts use it: statuses, streams, options, shares.  run_basic.py ROUX [TEST...]"""
import json
import os
import random
import subprocess
import sys

sys.path.insert(0, os.path.dirname(__file__))
from harness import ROUX, busybox_root, complains, environ, expect, folder, main, roux, start

ROOT = busybox_root()


def test_exit_status_is_the_commands():
    expect(roux(ROOT, "--", "true"), 0)
    expect(roux(ROOT, "--", "sh", "-c", "exit 7"), 7)
    expect(roux(ROOT, "sh", "-c", "exit 255"), 255)


def test_death_by_signal_is_128_plus_the_signal():
    expect(roux(ROOT, "--", "sh", "-c", "kill -TERM $$"), 143)
    expect(roux(ROOT, "--", "sh", "-c", "kill -KILL $$"), 137)


def test_commands_that_cannot_run_are_127_and_126():
    complains(roux(ROOT, "--", "no-such-command"), 127, "no-such-command")
    complains(roux(ROOT, "--", "/etc/passwd"), 126, "/etc/passwd")
    complains(roux(ROOT, "--", "/etc"), 126, "/etc")


def test_mistakes_on_the_command_line_are_125():
    complains(roux(), 125, "image")
    complains(roux("--no-such-option", ROOT), 125)
    complains(roux("--cpus", "9", ROOT, "true"), 125, "--cpus")
    complains(roux("--memory", "lots", ROOT, "true"), 125, "--memory")
    complains(roux("--memory", "1M", ROOT, "true"), 125, "emory")
    complains(roux("--timeout", "0", ROOT, "true"), 125, "--timeout")
    complains(roux("--engine", "steam", ROOT, "true"), 125, "steam")
    complains(roux("-v", "nonsense", ROOT, "true"), 125, "-v")
    complains(roux("-v", "/no/such/folder:/x", ROOT, "true"), 125, "/no/such/folder")
    complains(roux(ROOT), 125, "no command")


def test_output_and_errors_come_separately():
    expect(roux(ROOT, "--", "sh", "-c", "echo out; echo err >&2"), 0, out=b"out\n", err=b"err\n")


def test_without_i_the_command_reads_nothing():
    expect(roux(ROOT, "--", "cat", stdin=b"not for the guest"), 0, out=b"")


def test_a_megabyte_comes_back_through_cat():
    data = random.Random(1).randbytes(1 << 20)
    r = expect(roux("-i", ROOT, "--", "cat", stdin=data), 0)
    assert r.out == data


def test_input_that_nobody_reads_does_not_keep_the_command():
    expect(roux("-i", ROOT, "--", "true", stdin=b"x" * (1 << 20)), 0)


def test_output_that_nobody_reads_ends_quietly():
    p = subprocess.run(f"{ROUX} run {ROOT} -- sh -c 'yes | head -c 3000000' | head -c 10", shell=True,
                       env=environ(), capture_output=True, timeout=60)
    assert p.stdout == b"y\n" * 5 and not p.stderr, p


def test_three_megabytes_of_output_are_complete():
    r = expect(roux(ROOT, "--", "sh", "-c", "seq 1 400000"), 0)
    assert r.out == b"".join(b"%d\n" % i for i in range(1, 400001))


def test_environment_is_set_or_taken_over():
    r = roux("-e", "A=1 2", "-e", "TAKEN", "-e", "UNSET_HERE", ROOT, "--", "sh", "-c",
             'echo "$A,$TAKEN,${UNSET_HERE-none}"', env={"TAKEN": "it"})
    expect(r, 0, out=b"1 2,it,none\n")


def test_working_directory_and_user():
    expect(roux("-w", "/tmp", ROOT, "--", "pwd"), 0, out=b"/tmp\n")
    expect(roux("-u", "app", ROOT, "--", "id"), 0,
           out=b"uid=1000(app) gid=1000(app) groups=1000(app),2000(extra)\n")
    expect(roux("-u", "12:34", ROOT, "--", "sh", "-c", "id -u; id -g"), 0, out=b"12\n34\n")
    complains(roux("-u", "nobody-here", ROOT, "--", "true"), 125, "nobody-here")


def test_hostname():
    expect(roux("--hostname", "box7", ROOT, "--", "hostname"), 0, out=b"box7\n")
    complains(roux("--hostname", "a\nroot=initramfs", ROOT, "--", "hostname"), 125, "host name")


def test_entrypoint_replaces():
    expect(roux("--entrypoint", "/bin/echo", ROOT, "--", "a", "b"), 0, out=b"a b\n")


def test_shared_folder_is_written_with_the_right_owner():
    d = folder("share-rw")
    os.chmod(d, 0o777)
    with open(d + "/in", "w") as f:
        f.write("from the host\n")
    r = roux("-v", f"{d}:/data", ROOT, "--", "sh", "-c",
             "cat /data/in; echo hello > /data/out; mkdir /data/d; ln -s out /data/link; chmod 640 /data/out")
    expect(r, 0, out=b"from the host\n")
    with open(d + "/out") as f:
        assert f.read() == "hello\n"
    st = os.stat(d + "/out")
    assert (st.st_uid, st.st_mode & 0o777) == (os.geteuid(), 0o640), st
    assert os.readlink(d + "/link") == "out" and os.path.isdir(d + "/d")
    if os.geteuid() == 0:
        expect(roux("-u", "1000:1000", "-v", f"{d}:/data", ROOT, "--", "touch", "/data/by-app"), 0)
        st = os.stat(d + "/by-app")
        assert (st.st_uid, st.st_gid) == (1000, 1000), st


def test_read_only_share_refuses_writes():
    d = folder("share-ro")
    r = roux("-v", f"{d}:/data:ro", ROOT, "--", "sh", "-c", "touch /data/x")
    expect(r, 1, err=b"Read-only file system")
    assert os.listdir(d) == []


def test_writes_to_the_root_are_thrown_away():
    r = roux(ROOT, "--", "sh", "-c", "echo x > /written && rm /bin/vi && cat /written && ls /bin/vi")
    expect(r, 1, out=b"x\n")
    assert not os.path.exists(ROOT + "/written") and os.path.lexists(ROOT + "/bin/vi")


def test_read_only_root_refuses_writes():
    expect(roux("--read-only", ROOT, "--", "touch", "/x"), 1, err=b"Read-only file system")
    expect(roux("--read-only", ROOT, "--", "sh", "-c", "echo x > /dev/shm/x; cat /dev/shm/x"), 0, out=b"x\n")


def test_timeout_ends_the_machine():
    r = roux("--timeout", "4", ROOT, "--", "sleep", "100")
    complains(r, 124, "4 s")
    assert 3.9 < r.seconds < 7, r
    r = roux("--timeout", "4", ROOT, "--", "sh", "-c", "while :; do :; done")
    complains(r, 124, "4 s")
    assert 3.9 < r.seconds < 7, r


def test_timeout_counts_the_boot():
    r = roux("--timeout", "2", "--append", "rdinit=/roux-no-such-init init=/bin/busybox panic=0", ROOT, "--", "true")
    complains(r, 124)
    assert r.seconds < 5, r


def test_json_tells_the_phases():
    r = expect(roux("--json", ROOT, "--", "echo", "hi"), 0, out=b"hi\n")
    info = json.loads(r.err)
    assert info["engine"] in ("kvm", "dbt") and info["phases_ms"]["boot"] > 0, info
    total = sum(info["phases_ms"].values())
    assert abs(total - info["total_ms"]) < 5, info


def test_processors():
    for n in ("1", "2", "4"):
        expect(roux("--cpus", n, ROOT, "--", "nproc"), 0, out=n.encode() + b"\n")


def test_processors_share_memory():
    r = roux("--cpus", "4", ROOT, "--", "sh", "-c",
             "for i in 1 2 3 4; do (n=0; while [ $n -lt 20000 ]; do n=$((n+1)); done; echo $n) & done; wait")
    expect(r, 0, out=b"20000\n" * 4)


def test_memory_is_as_much_as_asked_for():
    for size, low, high in (("256M", 200, 256), ("2G", 1900, 2048)):
        r = expect(roux("--memory", size, ROOT, "--", "sh", "-c", "sed -n 's/MemTotal: *//p' /proc/meminfo"), 0)
        mib = int(r.out.split()[0]) / 1024
        assert low < mib <= high, (size, mib)


def test_signals_are_passed_on():
    for sig, name in ((15, "TERM"), (2, "INT"), (1, "HUP"), (10, "USR1")):
        p = start(ROOT, "--", "sh", "-c", f"trap 'exit {40 + sig}' {name}; echo go; while :; do sleep 0.05; done")
        assert p.stdout.readline() == b"go\n"
        p.send_signal(sig)
        assert p.wait(20) == 40 + sig, (name, p.returncode)


def test_many_short_machines_in_parallel():
    running = [start(ROOT, "--", "echo", str(i)) for i in range(4)]
    for i, p in enumerate(running):
        out, err = p.communicate(timeout=120)
        assert (p.returncode, out) == (0, b"%d\n" % i), (p.returncode, out, err)


main(globals())
