#!/usr/bin/env python3
"""Boots that use what earlier ones translated.  run_boot.py ROUX [TEST...]"""
import contextlib
import glob
import json
import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
from harness import busybox_root, copy_cache, expect, have_learned, main, roux, verb

ROOT = busybox_root()
KEPT_MAX = 6


@contextlib.contextmanager
def cache(name):
    """A cache that knows no boot yet."""
    yield {"ROUX_CACHE": copy_cache("cache-" + name)}


def files(env):
    return sorted(glob.glob(env["ROUX_CACHE"] + "/boots/*.code"))


def boot(env, *options, command=("uname", "-r")):
    """Boots; what the command printed, and how many blocks were translated and woken until it began."""
    r = expect(roux("--no-template", "--dbt-stats", *options, ROOT, "--", *command, env=env), 0)
    have_learned()
    counts = {line.split()[0]: int(line.split()[1]) for line in r.err.decode().splitlines()
              if line.startswith(("blocks ", "woken "))}
    return r.out.decode(), counts["blocks"], counts["woken"]


def is_known(env, *options):
    """Whether a boot finds most of its code."""
    _, blocks, woken = boot(env, *options)
    return woken > 4 * blocks


def test_the_second_boot_translates_little():
    with cache("second") as env:
        out, first, woken = boot(env)
        assert woken < first / 5 and len(files(env)) == 1, (first, woken, files(env))	# its own code, which it set aside
        again, second, woken = boot(env)
        assert again == out and second < first / 5 and woken > first / 2, (first, second, woken)


def test_a_boot_that_leaves_a_template_leaves_its_code_too():
    with cache("template") as env:
        expect(roux(ROOT, "--", "true", env=env), 0)
        have_learned()
        assert len(files(env)) == 1, files(env)
        assert is_known(env)


def test_memory_and_devices_may_be_others():
    with cache("others") as env:
        boot(env)
        for options in (("--memory", "1G"), ("--memory", "128M", "--network", "none"), ("--network", "user", "-v", "/tmp:/mnt")):
            assert is_known(env, *options), options
        assert len(files(env)) == 1, files(env)


def test_kernels_that_patch_themselves_otherwise_boot():
    """What is at an address differs; the code of both comes to be known."""
    with cache("patched") as env:
        boot(env)
        for _ in range(2):
            for append in ("mitigations=auto", "nosmap nopku", "noxsave", "debug initcall_debug"):
                out, *_ = boot(env, "--append", append, command=("cat", "/proc/cmdline"))
                assert append in out, (append, out)
        assert is_known(env, "--append", "mitigations=auto") and is_known(env)


def test_several_processors_have_code_of_their_own():
    with cache("smp") as env:
        boot(env)
        out, blocks, woken = boot(env, "--cpus", "2", command=("nproc",))
        assert out == "2\n" and woken < blocks / 5 and len(files(env)) == 2, (out, woken, files(env))
        for _ in range(3):
            out, blocks, woken = boot(env, "--cpus", "2", command=("sh", "-c", "for i in 1 2 3 4 5 6; do md5sum /bin/busybox & done; wait"))
            assert len(set(out.split())) == 2 and len(out.splitlines()) == 6, out
            assert woken > 4 * blocks, (woken, blocks)


def damage(path, how):
    size = os.path.getsize(path)
    times = os.stat(path)
    if how == "truncated":
        os.truncate(path, size // 2)
    elif how == "emptied":
        os.truncate(path, 0)
    else:
        with open(path, "r+b") as f:
            f.seek({"header": 8, "engine's header": 4096 + 66, "a byte": size // 2}[how])
            byte = f.read(1)[0]
            f.seek(-1, os.SEEK_CUR)
            f.write(bytes([byte ^ 0x10]))
    if how != "a byte":	# such damage only the seal tells
        seconds = 1 + os.path.getsize(path) // 10**9 % 3600
        os.utime(path, ns=(times.st_atime_ns, seconds * 10**9 + os.path.getsize(path) % 10**9))


def test_what_is_damaged_is_made_anew():
    with cache("damaged") as env:
        boot(env)
        for how in ("truncated", "emptied", "header", "engine's header", "a byte"):
            damage(files(env)[0], how)
            _, blocks, woken = boot(env)
            assert woken < blocks / 5 and blocks > 5000, (how, blocks, woken)
            assert is_known(env), how


def test_few_are_kept():
    with cache("few") as env:
        os.makedirs(env["ROUX_CACHE"] + "/boots")
        for i in range(10):
            path = f"{env['ROUX_CACHE']}/boots/{i:032x}.code"
            with open(path, "w") as f:
                f.write("old")
            os.utime(path, (1000 + i, 1000 + i))
        expect(roux(ROOT, "--", "true", env=env), 0)
        have_learned()
        names = [os.path.basename(f) for f in files(env)]
        assert len(names) == KEPT_MAX and f"{9:032x}.code" in names and f"{3:032x}.code" not in names, names
        expect(verb("template", "rm", "--all", env=env), 0)
        assert not files(env)


def test_debugged_guests_have_none():
    with cache("gdb") as env:
        r = expect(roux("--json", "--gdb", "0", "--no-template", ROOT, "--", "true", env=env), 0)
        assert json.loads(r.err.decode().splitlines()[-1])["engine"] == "dbt", r
        have_learned()
        assert not files(env)


main(globals())
