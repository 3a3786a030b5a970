#!/usr/bin/env python3
"""Kernels that were built: choosing, caching, interruptions.  run_kernel.py ROUX [TEST...]

The compiler, make and apt are stand-ins here, so that a build takes no time;
`make test-kernel` builds and boots a real one.
"""
import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time

sys.path.insert(0, os.path.dirname(__file__))
from harness import (CACHE, ROUX, WORK, busybox_root, complains, environ, expect, folder, main, roux, verb,
                     wait_until)

TOOLS = {
    "gcc": 'echo "gcc (Stand-in) ${TEST_GCC:-1.0}"',
    "ld": "echo ld", "flex": "echo flex", "bison": "echo bison", "bc": "echo bc",
    "apt-cache": 'echo "Package: linux-source"; echo "Depends: linux-source-9.9, xz-utils"',
    # What follows apt's own options is "update" or "download PACKAGE".
    "apt-get": 'echo "$*" >> "$TEST_DIR/apt.log"; case "$*" in *download*) '
               'cp "$TEST_DIR/linux-source.deb" "./linux-source-9.9_${TEST_SOURCE:-9.9-1}_all.deb";; esac',
    "make": """for last; do :; done
case "$last" in
--version) echo make;;
allnoconfig) cp ../wanted .config;;
kernelrelease) echo 9.9-roux;;
vmlinux)
	[ "$(cat Makefile)" = "the source" ] || { echo "wrong source" >&2; exit 2; }
	echo "$PWD $*" >> "$TEST_DIR/make.log"
	[ -z "$TEST_BROKEN" ] || { echo "kernel/x.c:7:1: error: no such thing"; echo "kernel/x.c:7:1: error: no such thing" >&2
		echo "make: *** [Makefile:1: vmlinux] Error 2" >&2; exit 2; }
	[ -z "$TEST_SLOW" ] || sleep "$TEST_SLOW"
	echo "the kernel of $PWD" > vmlinux;;
esac""",
}


def make_deb(path):
    """A linux-source package: ar of data.tar of usr/src/linux-source-9.9.tar.xz."""
    def tar(name, data, mode):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode=mode) as t:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            t.addfile(info, io.BytesIO(data))
        return out.getvalue()

    source = tar("linux-source-9.9/Makefile", b"the source\n", "w:xz")
    with open(path, "wb") as f:
        f.write(b"!<arch>\n")
        for name, data in (("debian-binary", b"2.0\n"),
                           ("data.tar", tar("./usr/src/linux-source-9.9.tar.xz", source, "w:"))):
            f.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data + b"\n"[:len(data) % 2])


class World:
    """A cache of its own and programs that stand in for the host's."""

    def __init__(self, name, *without):
        self.dir = folder(name)
        self.cache, self.bin = self.dir + "/cache", self.dir + "/bin"
        self.kernels = self.cache + "/kernels"
        os.mkdir(self.cache)
        os.mkdir(self.bin)
        make_deb(self.dir + "/linux-source.deb")
        for tool in ("cat", "cp", "sh", "sleep"):
            os.symlink(shutil.which(tool), f"{self.bin}/{tool}")
        for tool, text in TOOLS.items():
            if tool not in without:
                with open(f"{self.bin}/{tool}", "w") as f:
                    f.write("#!/bin/sh\n" + text + "\n")
                os.chmod(f"{self.bin}/{tool}", 0o755)

    def env(self, **extra):
        return {"PATH": self.bin, "ROUX_CACHE": self.cache, "TEST_DIR": self.dir, **extra}

    def kernel(self, *args, **extra):
        return verb("kernel", *args, env=self.env(**extra))

    def build(self, *args, **extra):
        """The ID of what was built."""
        out = expect(self.kernel("build", *args, **extra)).out.decode().split()
        assert len(out) == 1, out
        return out[0]

    def start(self, *args, **extra):
        return subprocess.Popen([ROUX, "kernel", "build", *args], env=environ(**self.env(**extra)), stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, start_new_session=True)

    def log(self, name):
        with contextlib.suppress(FileNotFoundError), open(f"{self.dir}/{name}.log") as f:
            return f.read().splitlines()
        return []

    def ls(self):
        return {k["Id"]: k for k in map(json.loads, expect(self.kernel("ls", "--json")).out.splitlines())}

    def current(self):
        return [i for i, k in self.ls().items() if k["Current"]]

    def unfinished(self):
        return [n for n in os.listdir(self.kernels) if n.startswith("building-")]


def test_wrong_words_are_refused():
    w = World("words")
    complains(w.kernel("build", "--features", "net,ipx"), 1, "'ipx'")
    complains(w.kernel("build", "--features", "ipv6"), 1, "'ipv6' needs 'net'")
    for args in ([], ["build", "--jobs"], ["build", "--jobs", "0"], ["build", "--jobs", "2x"], ["build", "--jobs", "4096"],
                 ["build", "extra"], ["rm"], ["rm", "--all"], ["use"], ["use", "a", "b"], ["ls", "x"], ["make"]):
        complains(w.kernel(*args), 125)
    assert not w.log("apt")


def test_programs_that_are_missing_are_named():
    w = World("missing", "flex", "bc")
    r = complains(w.kernel("build"), 1, "apt-get install flex bc")
    assert b"gcc" not in r.err and not w.log("apt"), r
    complains(World("no-apt", "apt-get", "apt-cache").kernel("build"), 1, "no source of the kernel", "no apt-cache")


def test_a_kernel_is_built_once():
    w = World("once")
    first = w.build()
    assert first.startswith("roux-") and w.current() == [first]
    known = w.ls()[first]
    assert known["Release"] == "9.9-roux" and known["Source"] == "linux-source-9.9_9.9-1_all"
    assert known["Compiler"] == "gcc (Stand-in) 1.0" and "net,ipv6" in known["Features"], known
    with open(f"{w.kernels}/{first}/config") as f:
        assert "CONFIG_VIRTIO_FS=y\n" in f.read()
    apt = len(w.log("apt"))
    assert w.build() == first and w.build("--features", "default", "--jobs", "7") == first
    assert len(w.log("make")) == 1 and len(w.log("apt")) == apt and not w.unfinished()
    table = expect(w.kernel("ls")).out.decode().splitlines()
    assert len(table) == 2 and table[1].startswith("* " + first), table


def test_source_features_and_compiler_make_another_kernel():
    w = World("inputs")
    ids = [w.build(), w.build("--features", "default,-ipv6"), w.build(TEST_GCC="2.0"),
           w.build("--refresh", TEST_SOURCE="9.9-2")]
    assert len(set(ids)) == 4 and set(w.ls()) == set(ids) and w.current() == [ids[3]]
    # The source that was fetched is used from then on, and the old one is gone.
    assert w.build() == ids[3]
    assert sorted(n for n in os.listdir(w.kernels + "/linux-source") if n.endswith(".xz")) == \
        ["linux-source-9.9_9.9-2_all.tar.xz"]
    assert "ipv6" not in w.ls()[ids[1]]["Features"]


def test_two_builds_at_once_are_one():
    w = World("two")
    both = [w.start(TEST_SLOW="1") for _ in range(2)]
    outs = [p.communicate(timeout=60) for p in both]
    assert [p.returncode for p in both] == [0, 0] and outs[0][0] == outs[1][0], outs
    assert len(w.log("make")) == 1 and b"waiting for another build" in outs[0][1] + outs[1][1], outs


def test_a_killed_build_leaves_no_kernel():
    w = World("killed")
    p = w.start(TEST_SLOW="1")
    wait_until("make", lambda: w.log("make"))
    p.kill()
    p.communicate()
    assert w.ls() == {} and w.unfinished()
    w.build()	# while make of the killed one is still at work
    time.sleep(1.2)
    assert len(w.ls()) == 1 and len(set(w.log("make"))) == 2
    with open(f"{w.kernels}/{w.current()[0]}/vmlinux") as f:
        assert f.read().split()[-1] in w.log("make")[1]


def test_an_interrupted_build_cleans_up():
    w = World("interrupted")
    p = w.start(TEST_SLOW="30")
    wait_until("make", lambda: w.log("make"))
    os.killpg(p.pid, signal.SIGINT)	# as a terminal does
    p.communicate(timeout=20)
    assert p.returncode == 128 + signal.SIGINT and w.ls() == {} and not w.unfinished()


def test_what_does_not_compile_is_told():
    w = World("broken")
    complains(w.kernel("build", TEST_BROKEN="1"), 1, "compiling the kernel failed: kernel/x.c:7:1: error: no such thing")
    assert w.ls() == {} and not w.unfinished() and w.current() == []
    w.build()


def test_kernels_are_chosen_and_removed():
    w = World("choose")
    a, b = w.build(), w.build("--features", "net")
    assert expect(w.kernel("use", a)).out.decode() == a + "\n" and w.current() == [a]
    expect(w.kernel("use", "debian"))
    assert w.current() == []
    expect(w.kernel("use", b))
    for bad in ("roux-", "roux-0", "../" + a, a + "/", "roux-../" + a, "debian-cloud-amd64", "", "x" * 300):
        complains(w.kernel("use", bad), 1, "there is no kernel")
        complains(w.kernel("rm", bad), 1, "there is no kernel")
    assert w.current() == [b]
    r = complains(w.kernel("rm", b, "roux-0", a), 1, "there is no kernel 'roux-0'")
    assert r.out.decode().split() == [b, a] and w.ls() == {}
    assert not [n for n in os.listdir(w.kernels) if n.startswith("roux-")]


def test_machines_take_the_chosen_kernel_and_no_damaged_one():
    w = World("machines")
    os.mkdir(w.kernels)
    os.symlink(CACHE + "/kernels/debian-cloud-amd64", w.kernels + "/debian-cloud-amd64")
    run = ["--no-template", busybox_root(), "--", "uname", "-r"]
    env = {"ROUX_CACHE": w.cache}
    debian = expect(roux(*run, env=env)).out
    mine = w.build()
    complains(roux(*run, env=env), 125, mine + "/vmlinux", "not a Linux kernel")
    packaged = os.path.realpath(f"{w.kernels}/debian-cloud-amd64")
    with open(packaged + "/current") as f:
        packaged += f"/{f.read()}/vmlinuz"
    # --kernel wins; Debian's has no shared folders without modules, but it is what starts.
    r = roux("--kernel", packaged, "--timeout", "20", *run, env=env)
    assert b"not a Linux kernel" not in r.err, r
    os.chmod(f"{w.kernels}/{mine}/vmlinux", 0o644)
    with open(f"{w.kernels}/{mine}/vmlinux", "a") as f:
        f.write("more")
    assert expect(roux(*run, env=env)).out == debian and w.ls() == {}
    # A build replaces it.
    assert w.build() == mine and w.current() == [mine]
    complains(roux(*run, env=env), 125, "not a Linux kernel")
    expect(w.kernel("use", "debian"))
    assert expect(roux(*run, env=env)).out == debian


main(globals())
