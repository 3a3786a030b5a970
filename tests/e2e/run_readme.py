#!/usr/bin/env python3
"""The examples of README.md, run as they stand there (HACKING.md says how they are marked).  run_readme.py ROUX"""
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.dirname(__file__))
from harness import LIMIT, ROUX, busybox_root, debian_root, environ, folder, main

README = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../README.md")
END = "\1status "	# printed after each command; no command prints it


def examples():
    """Blocks, each a list of [command, expected output lines]."""
    with open(README) as f:
        blocks = re.findall(r"^```console\n(.*?)^```$", f.read(), re.M | re.S)
    result = []
    for block in blocks:
        result.append([])
        for line in block.splitlines():
            if line.startswith("$ "):
                result[-1].append([line[2:], []])
            else:
                assert result[-1], f"output before a command: {line!r}"
                result[-1][-1][1].append(line)
    return result


def matches(expected, text):
    pattern = ".*".join(re.escape(part) for part in "\n".join(expected).split("..."))
    return re.fullmatch(pattern, text.rstrip("\n"), re.S)


def run(block, cwd):
    # One shell for all, so that $? is what the reader sees.
    script = "".join(f"{command}\n__s=$?; printf '{END}%d\\n' $__s; (exit $__s)\n" for command, _ in block)
    p = subprocess.run(["bash", "-c", script], cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True, timeout=LIMIT,
                       env=environ(PATH=f"{os.path.dirname(ROUX)}:{os.environ['PATH']}"))
    found = re.findall(r"(.*?)" + END + r"(\d+)\n", p.stdout, re.S)
    assert len(found) == len(block), p.stdout
    for i, ((command, expected), (output, status)) in enumerate(zip(block, found)):
        told = i + 1 < len(block) and block[i + 1][0] == "echo $?"
        assert status == "0" or told, f"{command}: status {status}: {output}"
        assert not expected or matches(expected, output), f"{command}: {output!r} instead of {expected}"


def test_the_examples_do_what_they_say():
    cwd = folder("reader")
    os.symlink(busybox_root(), cwd + "/rootfs")
    os.symlink(debian_root(), cwd + "/debian")
    os.mkdir(cwd + "/build")
    os.symlink(ROUX, cwd + "/build/roux")
    blocks = examples()
    assert len(blocks) >= 2, blocks
    for block in blocks:
        run(block, cwd)


main(globals())
