#!/usr/bin/env python3
"""GDB debugs the guest: from outside (--gdb), and from inside.  run_gdb.py ROUX [TEST...]"""
import os
import re
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
from harness import busybox_root, complains, debian_root, environ, expect, folder, main, read_until, roux, start

if not shutil.which("gdb"):
    print("skipped: no gdb")
    sys.exit(77)

# Prints the address of the function that opens files, opens one every 0.1 s, ends by itself.
COMMAND = "grep -w do_sys_openat2 /proc/kallsyms; echo ready; " \
          "i=0; while [ $i -lt 30 ]; do i=$((i+1)); cat /etc/passwd >/dev/null; sleep 0.1; done; echo done $i"


class Machine:
    """`roux run --gdb 0` with COMMAND, up to where it has said ready."""

    def __init__(self, *options, command=COMMAND):
        self.process = start("--gdb", "0", *options, busybox_root(), "--", "sh", "-c", command)
        text = read_until(self.process.stderr, b"\n").decode()
        self.port = int(re.search(r"target remote 127\.0\.0\.1:(\d+)", text)[1])

    def ready(self):
        text = read_until(self.process.stdout, b"ready\n").decode()
        self.function = int(text.split()[0], 16)
        return self

    def finish(self, out=b"done 30\n", status=0):
        rest, err = self.process.communicate(timeout=120)
        assert self.process.returncode == status and rest.endswith(out), (self.process.returncode, rest, err)

    def gdb(self, *commands, limit=60):
        """Runs gdb in batch mode; what it printed."""
        args = ["gdb", "-q", "-nx", "-batch", "-ex", "set pagination off", "-ex", "set architecture i386:x86-64",
                "-ex", f"target remote 127.0.0.1:{self.port}"]
        for c in commands:
            args += ["-ex", c]
        r = subprocess.run(args, capture_output=True, text=True, env=environ(), timeout=limit)
        assert r.returncode == 0, r
        return r.stdout + r.stderr


def test_breakpoints_registers_and_memory():
    m = Machine("--engine", "dbt").ready()
    at = f"0x{m.function:x}"
    text = m.gdb(f"hbreak *{at}", "continue", "p/x $pc", "p/x $cs", "p/x ($cr0 & 1)", "x/s $rdx", "p $_siginfo",
                 "continue", "p/x $pc", "stepi", "p/x $pc", "delete", "detach")
    assert text.count(f" = {at}\n") == 2, text
    assert "= 0x10\n" in text and "= 0x1\n" in text, text
    m.finish()


def test_software_breakpoints():
    m = Machine("--engine", "dbt").ready()
    at = f"0x{m.function:x}"
    text = m.gdb(f"p/x *(long*){at}", f"break *{at}", "continue", "p/x $pc", f"p/x *(long*){at}", "continue",
                 "p/x $pc", "delete", "detach")
    assert text.count(f" = {at}\n") == 2, text
    values = re.findall(r"^\$\d+ = (0x[0-9a-f]{9,})$", text, re.M)
    assert values[0] == values[2], "GDB saw its own INT3: " + text
    m.finish()


def test_watchpoints():
    m = Machine("--engine", "dbt", "--cpus", "2").ready()
    # The stack of the function: what its caller pushes next time is not there, but its own frame is.
    text = m.gdb(f"hbreak *0x{m.function:x}", "continue", "delete", "set $at = $rsp - 16", "watch *(long*)$at",
                 "continue", "p/x $at", "info watchpoints", "delete", "detach")
    assert "Hardware watchpoint 2" in text and re.search(r"Old value = .*\nNew value = ", text), text
    m.finish()


def test_steps_through_kernel_code_on_two_processors():
    m = Machine("--engine", "dbt", "--cpus", "2").ready()
    steps = ["stepi"] * 50
    text = m.gdb(f"hbreak *0x{m.function:x}", "continue", "delete", *steps, "p/x $pc", "info threads", "detach")
    assert len(re.findall(r"Thread [12] \(vCPU [01]", text)) >= 2, text
    m.finish()


def test_ctrl_c_breaks_in_and_the_guest_goes_on():
    m = Machine("--engine", "dbt").ready()
    p = subprocess.Popen(["gdb", "-q", "-nx", "-ex", "set pagination off", "-ex", "set confirm off", "-ex",
                          "set architecture i386:x86-64", "-ex", f"target remote 127.0.0.1:{m.port}"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environ())
    for _ in range(3):
        p.stdin.write(b"continue\n")
        p.stdin.flush()
        read_until(p.stdout, b"Continuing.")
        time.sleep(0.3)	# before it has sent the packet, GDB takes the signal for itself
        p.send_signal(signal.SIGINT)
        read_until(p.stdout, b"SIGINT")
    p.stdin.write(b"p/x $efer & 0x500\ndetach\nquit\n")
    p.stdin.flush()
    text = p.communicate(timeout=60)[0]
    assert b"= 0x500" in text, text
    m.finish()


def test_a_gdb_that_dies_leaves_the_guest_running():
    m = Machine("--engine", "dbt").ready()
    p = subprocess.Popen(["gdb", "-q", "-nx", "-ex", "set pagination off", "-ex", "set architecture i386:x86-64", "-ex",
                          f"target remote 127.0.0.1:{m.port}", "-ex", f"break *0x{m.function:x}", "-ex", "continue",
                          "-ex", "echo stopped\\n"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environ())
    read_until(p.stdout, b"stopped\n")
    p.kill()
    p.wait()
    m.finish()


def test_wait_starts_with_gdb():
    m = Machine("--engine", "dbt", "--gdb-wait", command="echo done 30")
    text = m.gdb("p/x $rip", "x/i $rip", "stepi", "detach")
    assert re.search(r"= 0x[0-9a-f]+\n", text), text
    m.finish()


def test_registers_can_be_changed():
    m = Machine("--engine", "dbt").ready()
    text = m.gdb(f"hbreak *0x{m.function:x}", "continue", "set $saved = $rax", "set $rax = 0x1234567", "p/x $rax",
                 "set $rax = $saved", "set $xmm15.uint128 = 77", "p $xmm15.uint128", "p/x $ymm0", "p $st0", "p $mxcsr",
                 "set $x = *(long*)$rsp", "set *(long*)$rsp = 5", "p *(long*)$rsp", "set *(long*)$rsp = $x",
                 "delete", "detach")
    assert "= 0x1234567\n" in text and "= 77\n" in text and "= 5\n" in text, text
    m.finish()


def test_kill_ends_the_machine():
    m = Machine("--engine", "dbt").ready()
    m.gdb("kill")
    m.process.communicate(timeout=60)
    assert m.process.returncode == 125, m.process.returncode


def test_a_port_in_use_is_said():
    m = Machine("--engine", "dbt").ready()
    complains(roux("--gdb", str(m.port), busybox_root(), "--", "true"), 125, "GDB", str(m.port), "in use")
    complains(roux("--gdb", "70000", busybox_root(), "--", "true"), 125, "--gdb")
    complains(roux("--gdb-wait", busybox_root(), "--", "true"), 125, "--gdb")
    m.finish()


# ------------------------------------------------------------------- gdb in the guest

PROGRAM = r"""
#include <stdio.h>
#include <string.h>
volatile long total;
volatile char text[16];
__attribute__((noinline)) long add(long n) { total += n; return total; }
int main(void)
{
	for (long i = 1; i <= 3; i++)
		add(i);
	memcpy((char *)text, "hello", 6);
	printf("total %ld %s\n", total, (char *)text);
	return 0;
}
"""


def test_gdb_inside_the_guest():
    root, work = debian_root(), folder("inside")
    with open(work + "/p.c", "w") as f:
        f.write(PROGRAM)
    commands = ["start", "hbreak add", "continue", "continue", "p n", "delete", "watch total", "continue", "continue",
                "delete", "awatch text[4]", "continue", "delete", "stepi", "stepi", "next", "info registers rip",
                "continue"]
    script = "cd /w && gcc -g -O1 -o /tmp/p p.c && gdb -q -nx -batch -ex 'set disable-randomization off' " + \
        " ".join(f"-ex '{c}'" for c in commands) + " /tmp/p"
    r = expect(roux("--engine", "dbt", "--memory", "1G", "-v", work + ":/w:ro", root, "--", "bash", "-c", script), 0)
    text = r.out.decode()
    assert "Hardware assisted breakpoint 2" in text and "$1 = 2\n" in text, r
    assert "Old value = 1\nNew value = 3\n" in text and "Old value = 3\nNew value = 6\n" in text, r
    assert "Hardware access (read/write) watchpoint" in text and "New value = 111 'o'" in text, r
    assert "total 6 hello" in text and "exited normally" in text, r


main(globals())
