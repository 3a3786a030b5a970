#!/usr/bin/env python3
"""Machines that go on from a template instead of booting: what they share and what not.  run_template.py ROUX [TEST...]"""
import contextlib
import glob
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from harness import (WORK, Skip, blocks_translated, busybox_root, complains, copy_cache, environ, expect, folder, have_learned, is_sealed,
                     main, mapped_kib, marked_processes, of_another_time, roux, seal, start, verb, wait_until)

ROOT = busybox_root()
CACHE = copy_cache("cache")
TEMPLATES = CACHE + "/templates"
ENV = {"ROUX_CACHE": CACHE}
HEADER = 4096	# bytes of machine/snapshot.h
BOOT_MS = 50	# a machine that boots takes far longer, one from a template far less


def run(*args):
    return roux(*args, env=ENV)


def ok(*args):
    """Output of a run that succeeds and complains of nothing."""
    r = expect(run(*args), 0)
    assert r.err == b"", r
    return r.out.decode()


def kind(name):
    """Options of a machine whose template no other test uses."""
    return "--append", f"test.kind={name}"


def roux_ok(*args):
    r = expect(verb(*args, env=ENV), 0)
    return r.out.decode()


def templates():
    return {p for p in glob.glob(TEMPLATES + "/*.snap") if is_sealed(p)}


def settle():
    """Waits for writers: a machine may end while its template is still on its way to the disk."""
    wait_until("templates to be complete", lambda: not unfinished() and not marked_processes())


def unfinished():
    return [p for p in glob.glob(TEMPLATES + "/*") if not p.endswith((".snap", ".code", ".reads"))]


@contextlib.contextmanager
def new_templates(count):
    """Runs that leave @count templates more."""
    before = templates()
    found = []
    yield found
    settle()
    found += sorted(templates() - before)
    assert len(found) == count, f"{len(found)} new templates, not {count}: {found}"


def template(*options):
    """Makes one, and returns its path."""
    with new_templates(1) as found:
        ok(*options, ROOT, "--", "true")
    return found[0]


def phases(*args):
    r = expect(run("--json", *args), 0)
    info = json.loads(r.err)
    return info["phases_ms"], info["total_ms"]


def booted(*args):
    return phases(*args)[0]["boot"] >= BOOT_MS


# ------------------------------------------------------------------- the same

def test_the_second_machine_does_not_boot():
    options = (*kind("second"), ROOT, "--", "true")
    with new_templates(1):
        first, first_total = phases(*options)
    assert first["boot"] >= BOOT_MS, first
    with new_templates(0):
        runs = [phases(*options) for _ in range(3)]
    total = min(t for _, t in runs)
    assert all(p["boot"] < BOOT_MS for p, _ in runs), runs
    assert total * 4 <= first_total, (first, first_total, runs)


def test_a_template_is_there_before_its_first_vm():
    options = (*kind("built"), "--memory", "128M", ROOT)
    with new_templates(1) as found:
        built = roux_ok("template", "build", *options).strip()
    assert found[0].endswith(f"/{built}.snap")
    with new_templates(0):
        assert not booted(*options, "--", "true")
        assert roux_ok("template", "build", *options).strip() == built
    complains(verb("template", "build", *options, "--", "true", env=ENV), 125, "no command")
    complains(verb("template", "build", ROOT + "-missing", env=ENV), 1, "no image")
    disk = os.path.join(folder("built-disk"), "disk")
    with open(disk, "wb") as f:
        f.truncate(1 << 20)
    complains(verb("template", "build", "--disk", disk, ROOT, env=ENV), 1, "have no template")
    assert verb("template", "build", env=ENV).status != 0


def test_what_the_guest_sees_makes_another_template():
    with new_templates(1):
        ok(*kind("differ"), ROOT, "--", "true")
    share = folder("differ-share")
    for options in (("--memory", "256M"), ("--cpus", "2"), ("-v", share + ":/mnt"), ("--network", "none")):
        with new_templates(1):
            ok(*options, *kind("differ"), ROOT, "--", "true")
        assert not booted(*options, *kind("differ"), ROOT, "--", "true"), options
    with new_templates(1):
        ok(*kind("differ more"), ROOT, "--", "true")


def test_what_only_the_host_sees_does_not():
    with new_templates(1):
        ok(*kind("same"), ROOT, "--", "true")
    with new_templates(0):
        for options in (("-p", "127.0.0.1:0:80"), ("--egress", "deny any"), ("--hostname", "other"), ("-e", "A=b"),
                        ("-w", "/tmp"), ("-u", "app"), ("--timeout", "50")):
            assert not booted(*options, *kind("same"), ROOT, "--", "true"), options


def test_two_first_machines_at_once():
    with new_templates(1):
        both = [start(*kind("at once"), ROOT, "--", "echo", str(i), env=ENV) for i in range(2)]
        for i, p in enumerate(both):
            out, err = p.communicate(timeout=120)
            assert (p.returncode, out, err) == (0, f"{i}\n".encode(), b""), (p.returncode, out, err)
    assert not booted(*kind("at once"), ROOT, "--", "true")


def test_processors_of_a_clone_all_work():
    options = ("--cpus", "2", *kind("processors"), ROOT, "--")
    template("--cpus", "2", *kind("processors"))
    assert not booted(*options, "true")
    assert ok(*options, "nproc") == "2\n"
    assert ok(*options, "sh", "-c", "for i in 0 1; do taskset $((1 << i)) sh -c "
              "'n=0; while [ $n -lt 20000 ]; do n=$((n+1)); done; echo $n' & done; wait") == "20000\n" * 2


def test_memory_of_a_clone_is_its_own():
    template(*kind("memory"))
    for text in ("one", "two"):
        assert ok(*kind("memory"), ROOT, "--", "sh", "-c", f"cat /tmp/it 2>/dev/null; echo {text} >/dev/shm/it || "
                  f"echo {text} >/tmp/it; cat /dev/shm/it /tmp/it 2>/dev/null; rm -f /tmp/it") == text + "\n"


# ------------------------------------------------------------------- not the same

SECRETS = "head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n'; echo; cat /proc/sys/kernel/random/uuid; " \
          "dd if=/proc/self/auxv bs=8 2>/dev/null | od -An -v -tx8 -w16 | sed -n 's/^ 0*19 //p'; " \
          "cat /proc/sys/kernel/random/uuid; od -An -tx8 -N8 /dev/random; " \
          "sed -n 's/-.*stack.*//p' /proc/self/maps"


def test_no_two_machines_have_random_numbers_in_common():
    outputs = []
    with new_templates(1):
        outputs.append(ok(*kind("random"), ROOT, "--", "sh", "-c", SECRETS))
    for _ in range(4):
        outputs.append(ok(*kind("random"), ROOT, "--", "sh", "-c", SECRETS))
    lines = [line for o in outputs for line in o.split("\n") if line]
    assert len(lines) >= 6 * len(outputs), outputs
    # Among them where AT_RANDOM and the stack are, which the kernel draws for each program.
    assert len(set(lines)) == len(lines), "in common: " + "\n".join(outputs)


def test_ten_clones_at_once():
    template(*kind("ten"))
    runs = [start(*kind("ten"), ROOT, "--", "sh", "-c", f"echo {i}; " + SECRETS, env=ENV) for i in range(10)]
    seen = set()
    for i, p in enumerate(runs):
        out, err = p.communicate(timeout=120)
        assert p.returncode == 0 and err == b"", (i, p.returncode, out, err)
        first, *secrets = out.decode().split()
        assert first == str(i), out
        assert len(secrets) >= 6 and not seen & set(secrets), (i, out)
        seen |= set(secrets)


def test_clocks_of_a_clone():
    template(*kind("clocks"))
    up = float(ok(*kind("clocks"), ROOT, "--", "cat", "/proc/uptime").split()[0])
    time.sleep(3)
    for _ in range(2):
        before = time.time()
        out = ok(*kind("clocks"), ROOT, "--", "sh", "-c", "date +%s; cat /proc/uptime; date +%s").split()
        after = time.time()
        assert before - 2 <= int(out[0]) <= after + 2, (before, out, after)
        assert int(out[3]) - int(out[0]) <= after - before + 1, out
        assert abs(float(out[1]) - up) < 1.5, f"CLOCK_MONOTONIC jumped: {up} then {out[1]}"


def test_clones_have_the_time_of_the_host_as_it_is_now():
    """It has slept since the template was made, or its clock was set back."""
    template(*kind("another time"))
    for shift in (3600, -7200, 400 * 86400):
        for _ in range(2):
            before = time.time()
            r = expect(roux(*kind("another time"), ROOT, "--", "sh", "-c", "date +%s; sleep 0.2; date +%s; cat /proc/uptime",
                            env={**ENV, **of_another_time(shift)}), 0)
            first, second, up = r.out.split()[:3]
            assert before - 2 < int(first) - shift < time.time() + 2 and 0 <= int(second) - int(first) <= 2, (shift, r)
            assert float(up) < 240, (shift, r)	# as old as its template was: nothing of the shift
        before = time.time()
        assert before - 2 < int(ok(*kind("another time"), ROOT, "--", "date", "+%s")) < time.time() + 2


def test_time_passes_in_a_clone_as_it_should():
    template(*kind("passes"))
    out = ok(*kind("passes"), ROOT, "--", "sh", "-c",
             "cat /proc/uptime; date +%s; sleep 2; date +%s; cat /proc/uptime").split()
    assert 1.9 <= float(out[4]) - float(out[0]) < 4, out
    assert 1 <= int(out[3]) - int(out[2]) <= 4, out


def written_to(pid):
    """Bytes of guest memory that the template has and a machine made of it has written to."""
    return mapped_kib(pid, ".snap", "Private_Dirty") << 10


def test_what_a_boot_puts_off_is_done_in_the_template():
    """Kernels put off work by seconds; a clone whose guest did it would write to hundreds of pages of its own."""
    code_of(template(*kind("rest")))	# the translator's, which skips time
    uptime = float(ok(*kind("rest"), ROOT, "--", "cat", "/proc/uptime").split()[0])
    assert 120 < uptime < 240, uptime	# not that it took so long
    roux_ok("run", "-d", "--name", "rests", *kind("rest"), ROOT, "--", "sleep", "1000")
    try:
        pid = int(roux_ok("inspect", "-f", "{{.State.Pid}}", "rests"))
        time.sleep(1)
        before = written_to(pid)
        time.sleep(4)	# Linux reports free memory after two seconds
        assert 0 < written_to(pid) < before + 300 * 1024, (before, written_to(pid))
        assert large_pages(pid) == 0
    finally:
        verb("rm", "-f", "rests", env=ENV)


def large_pages(pid):
    """Bytes of a process's memory in large pages."""
    return mapped_kib(pid, "", "AnonHugePages") << 10


def test_memory_that_no_template_has_touched_comes_in_large_pages():
    with open("/sys/kernel/mm/transparent_hugepage/enabled") as f:
        if "[never]" in f.read():
            raise Skip("this host gives no large pages")
    template(*kind("large"))
    roux_ok("run", "-d", "--name", "large", *kind("large"), ROOT, "--", "sleep", "1000")
    try:
        pid = int(roux_ok("inspect", "-f", "{{.State.Pid}}", "large"))
        roux_ok("exec", "large", "dd", "if=/dev/zero", "of=/tmp/zeroes", "bs=1M", "count=48")
        assert large_pages(pid) >= 16 << 20, large_pages(pid)
        roux_ok("exec", "large", "rm", "/tmp/zeroes")
        wait_until("memory to go back", lambda: large_pages(pid) <= 8 << 20, 20)
    finally:
        verb("rm", "-f", "large", env=ENV)


def test_the_name_of_a_clone_is_its_own():
    show = ("sh", "-c", "hostname; cat /etc/hostname; grep -c \"$(hostname)\" /etc/hosts || :")
    with new_templates(1):
        assert ok("--hostname", "alpha", *kind("name"), ROOT, "--", *show) == "alpha\nalpha\n2\n"
    for name in ("beta", "g" * 60, "alpha"):
        assert ok("--hostname", name, *kind("name"), ROOT, "--", *show) == f"{name}\n{name}\n2\n"
    given = ok(*kind("name"), ROOT, "--", "hostname").strip()
    assert given and given not in ("alpha", "beta"), given


def test_a_read_only_clone_has_its_own_name_too():
    show = ("sh", "-c", "hostname; cat /etc/hostname; grep -c \"$(hostname)\" /etc/hosts; touch /etc/x || echo no")
    with new_templates(1):
        for name in ("alpha", "beta"):
            out = expect(run("--read-only", "--hostname", name, *kind("read-only"), ROOT, "--", *show), 0).out.decode()
            assert out == f"{name}\n{name}\n2\nno\n", out
            settle()


def root_with_id(name, text):
    root = folder(name)
    shutil.copytree(ROOT, root, symlinks=True, dirs_exist_ok=True)
    os.makedirs(root + "/etc", exist_ok=True)
    with open(root + "/etc/machine-id", "w") as f:
        f.write(text)
    return root


def test_no_two_machines_have_a_mac_address_or_machine_id_in_common():
    root = root_with_id("with-id", "0123456789abcdef0123456789abcdef\n")
    show = ("sh", "-c", "cat /sys/class/net/eth0/address /etc/machine-id; ip addr show eth0 | grep -o 'fe80[^ ]*'")
    seen = set()
    for i in range(4):
        options = ("--read-only",) if i == 3 else ()
        mac, machine_id, link_local = ok(*options, *kind("ids"), root, "--", *show).split()
        assert int(mac[:2], 16) & 3 == 2, mac	# locally administered, for one station
        assert len(machine_id) == 32 and not machine_id.strip("0123456789abcdef") and machine_id[0:8] != "01234567", machine_id
        assert link_local == "fe80::15/64", link_local
        seen |= {mac, machine_id}
        settle()
    assert len(seen) == 8, seen
    with open(root + "/etc/machine-id") as f:
        assert f.read().startswith("0123456789"), "the image has changed"
    # An image without one stays without.
    expect(run(*kind("ids"), ROOT, "--", "cat", "/etc/machine-id"), 1)


def test_a_vm_keeps_its_machine_id():
    root = root_with_id("keeps-id", "")
    try:
        roux_ok("run", "-d", "--name", "keeps", root, "--", "sh", "-c", "cat /etc/machine-id; exec sleep 1000")
        vm_id = json.loads(roux_ok("inspect", "keeps"))[0]["Id"]
        wait_until("output of the first life", lambda: len(roux_ok("logs", "keeps").split()) == 1)
        roux_ok("restart", "-t", "0", "keeps")
        wait_until("output of the second life", lambda: len(roux_ok("logs", "keeps").split()) == 2)
        assert roux_ok("logs", "keeps").split() == [vm_id[:32]] * 2
    finally:
        verb("rm", "-f", "keeps", env=ENV)


# ------------------------------------------------------------------------ files

def write(path, text):
    """In place: neither the folder nor the file's number changes."""
    with open(path, "w") as f:
        f.write(text)


def test_files_changed_behind_the_template_are_seen_changed():
    share = folder("files")
    for name in ("same", "changed", "longer", "shorter", "replaced", "removed"):
        write(f"{share}/{name}", f"{name} before\n")
    os.mkdir(share + "/below")
    write(share + "/below/one", "one\n")
    options = ("-v", share + ":/mnt", *kind("files"), ROOT, "--")
    with new_templates(1):
        assert ok(*options, "sh", "-c", "cat /mnt/same /mnt/changed /mnt/longer /mnt/shorter /mnt/below/*; ls /mnt") \
            == "same before\nchanged before\nlonger before\nshorter before\none\n" \
               "below\nchanged\nlonger\nremoved\nreplaced\nsame\nshorter\n"
    write(share + "/changed", "changed  after\n"[:15])
    write(share + "/longer", "longer " * 3000 + "\n")
    write(share + "/shorter", "s\n")
    write(share + "/below/one", "uno\n")
    write(share + "/below/two", "two\n")
    with new_templates(0):	# what is in folders of a share is no part of it
        assert ok(*options, "sh", "-c", "cat /mnt/same /mnt/changed /mnt/longer /mnt/shorter /mnt/below/*") \
            == "same before\nchanged  after\n" + "longer " * 3000 + "\ns\nuno\ntwo\n"
    os.unlink(share + "/removed")
    write(share + "/new", "replaced after\n")
    os.rename(share + "/new", share + "/replaced")
    assert ok(*options, "sh", "-c", "cat /mnt/replaced /mnt/same; ls /mnt") \
        == "replaced after\nsame before\nbelow\nchanged\nlonger\nreplaced\nsame\nshorter\n"


def test_a_clone_writes_to_shared_folders():
    share = folder("written")
    template("-v", share + ":/mnt", *kind("written"))
    ok("-v", share + ":/mnt", *kind("written"), ROOT, "--", "sh", "-c", "echo clone >/mnt/file; mkdir /mnt/dir")
    with open(share + "/file") as f:
        assert f.read() == "clone\n"
    assert os.path.isdir(share + "/dir")


def test_a_root_folder_changed_behind_the_template_is_seen_changed():
    root = os.path.join(WORK, "root")
    shutil.copytree(ROOT, root, symlinks=True)
    write(root + "/etc/it", "before\n")
    options = (*kind("root"), root, "--", "sh", "-c", "cat /etc/it; cat /etc/passwd | head -c 4; echo; /bin/echo ran")
    with new_templates(1):
        assert ok(*options) == "before\nroot\nran\n"
    write(root + "/etc/it", "after that\n")
    with new_templates(0):
        assert ok(*options) == "after that\nroot\nran\n"
    os.unlink(root + "/bin/echo")
    write(root + "/bin/echo", "#!/bin/sh\necho replaced\n")
    os.chmod(root + "/bin/echo", 0o755)
    assert ok(*options) == "after that\nroot\nreplaced\n"


def test_a_program_that_the_template_ran_may_be_replaced():
    root = os.path.join(WORK, "replaced-root")
    shutil.copytree(ROOT, root, symlinks=True)
    options = (*kind("replaced"), root, "--", "/bin/true")
    with new_templates(1):
        assert ok(*options) == ""
    os.unlink(root + "/bin/true")
    write(root + "/bin/true", "#!/bin/sh\necho not true\n")
    os.chmod(root + "/bin/true", 0o755)
    r = run(*options)
    assert (r.status, r.out) == (0, b"not true\n"), r


def test_a_program_that_the_template_ran_may_be_rewritten():
    root = os.path.join(WORK, "rewritten-root")
    shutil.copytree(ROOT, root, symlinks=True)
    os.unlink(root + "/bin/true")
    write(root + "/bin/true", "#!/bin/sh\necho old\n")
    os.chmod(root + "/bin/true", 0o755)
    options = (*kind("rewritten"), root, "--", "/bin/true")
    with new_templates(1):
        assert ok(*options) == "old\n"
    for text in ("new", "longer than that", ""):
        write(root + "/bin/true", f"#!/bin/sh\necho {text}\n")
        assert ok(*options) == text + "\n"
        settle()


# ------------------------------------------------------------------------ damage

def flip(path, at):
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 0x10]))


def flip_state(path):
    with open(path, "rb") as f:
        state_len, = struct.unpack_from("<16xQ", f.read(HEADER))
    assert state_len > 4096, state_len
    flip(path, HEADER + state_len // 2)


def be_garbage(path):
    size = os.stat(path).st_size
    with open(path, "wb") as f:
        f.write(os.urandom(100000))
        f.truncate(size)


def truncate(size):
    return lambda path: os.truncate(path, size)


def be_old(path):
    """Of a version that this roux does not read."""
    with open(path, "r+b") as f:
        f.seek(8)
        f.write(struct.pack("<I", 0xfffe))


DAMAGE = {
    "a flipped bit in the magic": lambda p: flip(p, 0), "in the version": lambda p: flip(p, 8),
    "in the length of the state": lambda p: flip(p, 16), "in the memory's size": lambda p: flip(p, 26),
    "in the engine's name": lambda p: flip(p, 40), "in a checksum": lambda p: flip(p, 100),
    "in the state": flip_state, "of another version": be_old, "garbage": be_garbage,
    "no bytes": truncate(0), "half a header": truncate(60), "a header": truncate(HEADER),
    "a part of the state": truncate(HEADER + 500),
    "no memory": truncate(16 << 20), "a part of memory": truncate(100 << 20),
}


def test_a_damaged_template_is_replaced():
    path = template(*kind("damaged"))
    for name, damage in DAMAGE.items():
        damage(path)
        seal(path)
        r = expect(run(*kind("damaged"), ROOT, "--", "echo", "hello"), 0, out=b"hello\n")
        assert r.err == b"", f"{name}: {r}"
        settle()
        assert os.path.exists(path) and is_sealed(path), name
        assert not booted(*kind("damaged"), ROOT, "--", "true"), f"{name}: not replaced"


def code_of(path):
    code = path.removesuffix(".snap") + ".code"
    if not os.path.exists(code):
        raise Skip("this engine keeps none")
    return code


def translated(*args):
    """Blocks that a machine translated, when its template has learnt from it."""
    return blocks_translated(expect(run("--dbt-stats", *args), 0))


def test_what_clones_translate_is_kept():
    options = (*kind("learning"), ROOT, "--", "sh", "-c", "echo $((3 * 7)); ls / | sort -r | tr a-z A-Z | wc -l")
    code = code_of(template(*kind("learning")))
    first = translated(*options)
    assert first > 200, first
    last = min(translated(*options) for _ in range(3))
    assert last < first / 2, (first, last)
    for _ in range(12):	# and is not written again for ever
        ok(*options)
    have_learned()
    with open(code, "rb") as f:
        generation, = struct.unpack_from("<48xI", f.read(HEADER))	# machine/code_file.c
    assert 2 <= generation <= 6, generation
    assert is_sealed(code)


def test_what_the_machine_that_leaves_the_template_translates_is_kept():
    work = (ROOT, "--", "sh", "-c", "echo $((3 * 7)); ls / | sort -r | tr a-z A-Z | md5sum; seq 9 | awk '{ s += $1 } END { print s }'")
    code_of(template(*kind("taught by others")))
    alone = translated(*kind("taught by others"), *work)
    with new_templates(1):
        ok(*kind("taught"), *work)
    have_learned()
    assert translated(*kind("taught"), *work) < alone / 2


def test_images_without_a_shell_have_another_program_run_in_their_template():
    root = folder("no-shell")
    os.mkdir(root + "/bin")
    shutil.copy(ROOT + "/bin/busybox", root + "/bin/only")
    os.symlink("only", root + "/bin/echo")
    with new_templates(1):
        assert ok(root, "--", "echo", "x") == "x\n"
    count = translated(root, "--", "echo", "x")
    assert count < 2900, count	# some 2,200 when one has run, 3,400 when none has


def test_a_clone_that_was_saved_leaves_its_templates_code_good():
    template(*kind("saved"))
    work = "echo $((3 * 7)); ls / | sort -r | tr a-z A-Z | wc -l; exec sleep 1000"	# is worth to be kept
    roux_ok("run", "-d", "--name", "saved", *kind("saved"), ROOT, "--", "sh", "-c", work)
    try:
        wait_until("its output", lambda: len(roux_ok("logs", "saved").split()) == 2)
        roux_ok("checkpoint", "saved", os.path.join(WORK, "of-a-clone.snap"))
    finally:
        verb("rm", "-f", "saved", env=ENV)
    have_learned()
    assert translated(*kind("saved"), ROOT, "--", "true") < 1000


def test_programs_that_clones_ran_are_known_wherever_they_are():
    """They are read from a folder after the template was made, into other pages of memory each time."""
    share = folder("programs")
    shutil.copy(ROOT + "/bin/busybox", share)
    options = (*kind("programs"), "-v", f"{share}:/mnt", ROOT, "--")
    work = "echo $((3 * 7)); ls / | sort -r | tr a-z A-Z | md5sum; expr 5 + 6; seq 9 | awk '{ s += $1 } END { print s }'"
    template(*options[:-2])
    first = translated(*options, "/mnt/busybox", "sh", "-c", work)
    again = min(translated(*options, "/mnt/busybox", "sh", "-c", work) for _ in range(3))
    assert first > 400 and again < first / 3, (first, again)
    out = ok(*options, "/mnt/busybox", "sh", "-c", work)
    # Another order of files in memory, and a program that is not the same any more.
    ok(*options, "sh", "-c", "cat /bin/* /mnt/* > /dev/null; /mnt/busybox true")
    assert ok(*options, "sh", "-c", "cat /bin/* > /dev/null; exec /mnt/busybox sh -c \"$0\"", work) == out
    with open(share + "/busybox", "r+b") as f:
        data = f.read()
        at = data.index(b"BusyBox v")
        f.seek(at)
        f.write(b"Another")
    assert ok(*options, "/mnt/busybox", "sh", "-c", work) == out


def test_code_may_be_missing_or_damaged():
    path = template(*kind("kept"))
    code = code_of(path)
    for damage in (os.unlink, truncate(0), truncate(5000), lambda p: truncate(os.stat(p).st_size - 4096)(p), be_garbage,
                   *(lambda p, at=at: flip(p, at) for at in (0, 8, 24, 40, 60)),	# of the header
                   # magic, program, and where it was: engine/dbt/store.c
                   *(lambda p, at=at: flip(p, HEADER + at) for at in (0, 8, 16, 24, 32, 48))):
        damage(code)
        if os.path.exists(code):
            seal(code)
        assert ok(*kind("kept"), ROOT, "--", "echo", "hello") == "hello\n"
        have_learned()
        assert is_sealed(code) and translated(*kind("kept"), ROOT, "--", "true") < 5000, "no code that was made anew"
        assert not booted(*kind("kept"), ROOT, "--", "true")


def test_code_is_of_one_template():
    path, other = template(*kind("one")), template(*kind("two"))
    shutil.copy(code_of(other), code_of(path))
    seal(code_of(path))
    assert ok(*kind("one"), ROOT, "--", "echo", "hello") == "hello\n"


def test_a_template_without_a_seal_is_not_used():
    path = template(*kind("unsealed"))
    be_garbage(path)	# as after a crash of the host
    os.utime(path)
    assert not is_sealed(path)
    assert ok(*kind("unsealed"), ROOT, "--", "echo", "hello") == "hello\n"
    settle()
    assert is_sealed(path)
    assert not booted(*kind("unsealed"), ROOT, "--", "true")


def test_a_removed_template_does_not_hurt_its_clones():
    path = template(*kind("removed"))
    p = start("-i", *kind("removed"), ROOT, "--", "sh", env=ENV, stdin=subprocess.PIPE)
    p.stdin.write(b"echo up\n")
    p.stdin.flush()
    assert p.stdout.readline() == b"up\n"
    os.unlink(path)
    with new_templates(1):	# another one may be made meanwhile
        p.stdin.write(b"find / -xdev >/dev/null; md5sum /bin/busybox | wc -l; head -c 8388608 /dev/zero | wc -c; exit 4\n")
        p.stdin.flush()
        assert ok(*kind("removed"), ROOT, "--", "echo", "hello") == "hello\n"
        out, err = p.communicate(timeout=120)
    assert (p.returncode, out, err) == (4, b"1\n8388608\n", b""), (p.returncode, out, err)


def test_a_shell_that_does_not_end_is_no_reason_to_have_no_template():
    root = folder("endless")
    shutil.copytree(ROOT, root, symlinks=True, dirs_exist_ok=True)
    os.unlink(root + "/bin/sh")
    with open(root + "/bin/sh", "w") as f:
        f.write("#!/bin/busybox ash\ntrap '' HUP INT TERM\nwhile :; do /bin/busybox sleep 1; done\n")
    os.chmod(root + "/bin/sh", 0o755)
    for _ in range(2):
        expect(run(*kind("endless"), root, "--", "/bin/busybox", "echo", "ok"), 0, out=b"ok\n")
    settle()
    assert not booted(*kind("endless"), root, "--", "/bin/busybox", "true")


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail():
    cache = copy_cache("read-only-templates")
    write(cache + "/templates", "in the way\n")
    r = roux(*kind("read-only"), ROOT, "--", "echo", "hello", env={"ROUX_CACHE": cache})
    expect(r, 0, out=b"hello\n")
    shutil.rmtree(cache)


def test_a_monitor_killed_while_it_writes_leaves_nothing_half():
    options = (*kind("killed"), ROOT, "--", "sh", "-c", "echo up; sleep 50")
    others = templates()
    for delay in (0, 0.02, 0.05, 0.1, 0.2, 0.4):
        for path in templates() - others:
            os.unlink(path)
        p = start(*options, env=ENV)
        assert p.stdout.readline() == b"up\n", p.stderr.read()
        time.sleep(delay)
        for pid in marked_processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        p.communicate(timeout=30)
        wait_until("all to be gone", lambda: not marked_processes())
        r = expect(run(*kind("killed"), ROOT, "--", "echo", "hello"), 0, out=b"hello\n")
        assert r.err == b"", (delay, r)
    wait_until("all to end", lambda: not marked_processes())
    open(TEMPLATES + "/" + "0" * 32 + ".code", "w").close()	# of none
    listed = roux_ok("template", "rm", "--all").split()	# what the killed left goes too
    assert len(listed) == len(set(listed)) and not os.listdir(TEMPLATES), (listed, os.listdir(TEMPLATES))


# ---------------------------------------------------------------- life of a clone

def test_verbs_work_on_clones():
    template(*kind("verbs"))
    roux_ok("run", "-d", "--name", "clone", "--hostname", "it", *kind("verbs"), ROOT, "--", "sh", "-c",
            "trap 'echo bye; exit 3' TERM; echo started; hostname; cat /proc/sys/kernel/random/boot_id; "
            "while :; do sleep 0.1; done")
    try:
        wait_until("output", lambda: len(roux_ok("logs", "clone").split()) == 3)
        assert roux_ok("logs", "clone").split()[:2] == ["started", "it"]
        assert roux_ok("exec", "clone", "hostname") == "it\n"
        assert roux_ok("exec", "clone", "sh", "-c", "cat /proc/1/comm | wc -l") == "1\n"
        assert expect(verb("exec", "-i", "clone", "cat", env=ENV, stdin=b"in\n" * 50000), 0).out == b"in\n" * 50000
        assert expect(verb("exec", "clone", "sh", "-c", "exit 9", env=ENV), 9)
        roux_ok("stop", "clone")
        assert roux_ok("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "clone").split() == ["exited", "3"]
        roux_ok("restart", "clone")
        wait_until("output of the second life", lambda: roux_ok("logs", "clone").count("started") == 2)
        assert roux_ok("exec", "clone", "echo", "again") == "again\n"
        roux_ok("stop", "clone")
        assert roux_ok("logs", "clone").count("bye") == 2
    finally:
        verb("rm", "-f", "clone", env=ENV)


def test_the_network_of_a_clone():
    template(*kind("network"))
    server = subprocess.Popen([sys.executable, "-u", "-c",
                               "import socket\ns = socket.create_server(('127.0.0.1', 0))\nprint(s.getsockname()[1])\n"
                               "for _ in range(2):\n  c, a = s.accept()\n  c.sendall(b'from the host\\n')\n  c.close()\n"],
                              stdout=subprocess.PIPE, env=environ())
    try:
        port = server.stdout.readline().decode().strip()
        for _ in range(2):
            assert ok("--host-loopback", *kind("network"), ROOT, "--", "nc", "-w", "5", "host.roux.internal", port) \
                == "from the host\n"
    finally:
        server.kill()
        server.communicate()



main(globals())
