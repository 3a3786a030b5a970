#!/usr/bin/env python3
"""What is installed works from where it is: command, library, example, manual.  run_install.py ROUX [TEST...]"""
import functools
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(__file__))
from harness import ROUX, WORK, Skip, busybox_root, environ, main

SOURCE = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
BUILD = os.path.dirname(os.path.dirname(ROUX))
DEST = os.path.join(WORK, "dest")


@functools.cache
def installed():
    """Installs once below DEST; path of each file, by its name."""
    subprocess.run(["meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", DEST], check=True,
                   stdout=subprocess.DEVNULL)
    return {name: os.path.join(base, name) for base, _, names in os.walk(DEST) for name in names}


def test_everything_is_installed_and_nothing_else():
    names = installed()
    assert {re.sub(r"[.]so[.0-9]*$", ".so", n) for n in names} == \
        {"roux", "libroux.so", "libroux.pc", "roux.h", "roux.1"}, names
    for name, folder in (("roux", "/bin"), ("roux.h", "/include/roux"), ("roux.1", "/share/man/man1"),
                         ("libroux.pc", "/pkgconfig")):
        assert os.path.dirname(names[name]).endswith(folder), names[name]
    p = subprocess.run([names["roux"], "version"], capture_output=True, text=True, env=environ())
    assert re.fullmatch(r"roux \d+[.]\d+[.]\d+\n", p.stdout) and not p.stderr, p


def test_the_library_exports_its_header_and_nothing_else():
    names = installed()
    with open(names["roux.h"]) as f:
        declared = set(re.findall(r"^ROUX_API .*?(roux_\w+)\(", f.read(), re.M))
    p = subprocess.run(["nm", "-D", "--defined-only", "--format=just-symbols", names["libroux.so"]],
                       capture_output=True, text=True, check=True)
    assert set(p.stdout.split()) == declared, set(p.stdout.split()) ^ declared


def test_programs_load_few_libraries_before_they_need_them():
    names = installed()
    for name in ("roux", "libroux.so"):
        p = subprocess.run(["readelf", "-d", names[name]], capture_output=True, text=True, check=True)
        needed = re.findall(r"NEEDED.*\[lib(\w+)", p.stdout)
        assert "c" in needed and not {"curl", "archive"} & set(needed) and len(needed) < 10, needed


def pkg_config(*args):
    """As for a cross build: the folder of the installation is the system's root."""
    names = installed()
    p = subprocess.run(["pkg-config", *args, "libroux"], capture_output=True, text=True, check=True, env=environ(
        PKG_CONFIG_LIBDIR=os.path.dirname(names["libroux.pc"]), PKG_CONFIG_SYSROOT_DIR=DEST))
    return p.stdout.split()


def embeds_with(compiler):
    if not shutil.which(compiler):
        raise Skip(f"no {compiler}")
    names, exe = installed(), os.path.join(WORK, "embed-" + compiler)
    p = subprocess.run([compiler, "-std=c11", "-Wall", "-Wextra", "-Werror", SOURCE + "/examples/embed.c",
                        *pkg_config("--cflags", "--libs"), "-o", exe], capture_output=True, text=True)
    assert p.returncode == 0 and not p.stderr, p.stderr
    env = environ(LD_LIBRARY_PATH=os.path.dirname(names["libroux.so"]), ROUX_VMM=names["roux"])
    p = subprocess.run([exe, busybox_root()], capture_output=True, text=True, timeout=120, env=env)
    assert p.returncode == 0 and not p.stderr, p
    lines = p.stdout.splitlines()
    assert lines[0] == "both run, in processes of their own", p.stdout
    for name in ("one", "two"):
        for line in (f"{name}: output: hello from {name}", f"{name}: status: 7", f"{name}: powered off: yes"):
            assert line in lines, (line, p.stdout)
        assert f"{name} writes to its console" in p.stdout.split(f"{name}: console: ")[1], p.stdout
    # Failures come back to the caller as sentences.
    p = subprocess.run([exe, "/no/such/root"], capture_output=True, text=True, timeout=60, env=env)
    assert p.returncode == 1 and "cannot create: no image at /no/such/root" in p.stderr, p
    p = subprocess.run([exe, busybox_root()], capture_output=True, text=True, timeout=60,
                       env=dict(env, ROUX_VMM="/no/such/vmm"))
    assert p.returncode == 1 and "cannot start: cannot run /no/such/vmm" in p.stderr, p


def test_the_example_runs_two_machines_with_gcc():
    embeds_with("gcc")


def test_the_example_runs_two_machines_with_clang():
    embeds_with("clang")


def test_the_header_is_good_c_plus_plus():
    if not shutil.which("clang"):
        raise Skip("no clang")
    subprocess.run(["clang", "-x", "c++", "-std=c++11", "-fsyntax-only", "-Wall", "-Wextra", "-Werror",
                    installed()["roux.h"]], check=True)


def manual_options(verb):
    with open(installed()["roux.1"]) as f:
        section = re.search(rf"^[.]Ss roux {verb}\n(.*?)^[.]S[sh] ", f.read(), re.M | re.S).group(1)
    items = "\n".join(re.findall(r"^[.]It (.*)$", section, re.M)).replace("\\-", "-")
    return {"-" + name for name in re.findall(r"\bFl (\S+)", items)}


def test_the_manual_has_every_option_and_no_other():
    listed = subprocess.run([ROUX, "--help"], capture_output=True, text=True, check=True).stdout
    verbs = re.findall(r"^  ([a-z]+) ", listed, re.M)
    assert {"run", "ps", "doctor"} <= set(verbs), verbs
    for verb in verbs:
        if verb == "create":
            continue	# has the options of run, and the manual says so
        text = subprocess.run([ROUX, verb, "--help"], capture_output=True, text=True, check=True).stdout
        text = re.sub(r"'(roux|docker|dpkg) [^']*'", "", text)
        told = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", text)) | {"--help"}
        assert manual_options(verb) == told, (verb, manual_options(verb) ^ told)
    if shutil.which("man"):
        p = subprocess.run(["man", "--warnings", "-l", installed()["roux.1"]], capture_output=True, text=True)
        assert p.returncode == 0 and not p.stderr and "EXIT STATUS" in p.stdout, p


main(globals())
