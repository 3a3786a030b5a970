#!/usr/bin/env python3
"""No memory of roux is ever both writable and executable.  run_code_memory.py ROUX STRESS"""
import os
import re
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
STRESS = os.path.abspath(sys.argv.pop(2))
from harness import busybox_root, folder, main, start, wait_until

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../stress"))
import guest

ROOT = busybox_root()
SECONDS = 6
CODE_BYTES = guest.CODE_MIB << 20
PAIR = [("r-xs", CODE_BYTES), ("rw-s", CODE_BYTES)]	# the views of a code cache


def mappings(pid):
    """(bytes, permissions, name) of each mapping."""
    with open(f"/proc/{pid}/maps") as f:
        for line in f:
            m = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \S+ *(.*)$", line)
            yield int(m[2], 16) - int(m[1], 16), m[3], m[4]


def check(pid):
    """What is executable came from a file as it is, or is the read-only view of the code cache."""
    code = []
    for size, perms, name in mappings(pid):
        assert not ("w" in perms and "x" in perms), f"{perms} {name}"
        if name.startswith("/memfd:roux-code"):
            code.append((perms, size))
        elif "x" in perms:
            assert name.startswith("/") and not name.startswith("/memfd") or name in ("[vdso]", "[vsyscall]"), name
    return sorted(code)


def test_nothing_is_writable_and_executable_while_a_guest_makes_code():
    share = folder("share")
    with open(STRESS, "rb") as src, open(share + "/stress", "wb") as dst:
        dst.write(src.read())
    os.chmod(share + "/stress", 0o755)
    p = start("--engine", "dbt", "--cpus", "2", "-v", f"{share}:/share", ROOT, "--", "/share/stress", "1", "/tmp", "-",
              f"code+fork+memory:{SECONDS}")
    vm = []

    def begun():
        try:
            vm[:] = [guest.vm_process(p.pid)]
        except guest.Wrong:
            return False
        return True

    wait_until("the VM process", begun)
    samples = complete = 0
    exchanging = exchanged = False
    while p.poll() is None:
        try:
            code = check(vm[0])
        except OSError:	# it has just ended
            break
        assert check(p.pid) == []	# who uses libroux has none of it
        samples += 1
        if code:
            # What a boot left takes the place of an empty cache, once: for that moment there are views of another.
            if not exchanged and len(code) > 2:
                exchanging = True
                code.remove(PAIR[0])
                code.remove(PAIR[1])
            else:
                exchanged = exchanging
            assert code == PAIR or len(code) == 1, code
            complete += len(code) == 2
        time.sleep(0.003)
    out, err = p.communicate(timeout=60)
    assert p.returncode == 0, err
    assert b"code seed" in out, out
    print(f"{samples} samples, {complete} of them with the code cache")
    assert complete > 100, (samples, complete)


main(globals())
