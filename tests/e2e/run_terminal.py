#!/usr/bin/env python3
"""roux run -it on a pseudo-terminal, as a person uses it.  run_terminal.py ROUX [TEST...]"""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

sys.path.insert(0, os.path.dirname(__file__))
from harness import ROUX, busybox_root, complains, environ, folder, main, roux, vm_processes, wait_until

ROOT = busybox_root()


class Terminal:
    """roux run on a terminal of its own, as the foreground job of a new session."""

    def __init__(self, *args, rows=30, cols=100):
        self.fd, slave = pty.openpty()
        self.resize(rows, cols)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.seen = b""
        self.p = subprocess.Popen([ROUX, "run", *args], stdin=slave, stdout=slave, stderr=slave, env=environ(TERM="linux"),
                                  start_new_session=True,
                                  preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))

    def resize(self, rows, cols):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def type(self, text):
        os.write(self.fd, text.encode())

    def wait_for(self, pattern, seconds=30):
        """Waits for output that matches and forgets what came up to it."""
        end = time.monotonic() + seconds
        while not (m := re.search(pattern.encode(), self.seen)):
            left = end - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.seen!r}"
            if select.select([self.fd], [], [], left)[0]:
                self.seen += os.read(self.fd, 65536)
        self.seen = self.seen[m.end():]
        return m

    def finish(self, status=0):
        wait_until("roux to end", lambda: self.p.poll() is not None)
        assert self.p.returncode == status, (self.p.returncode, self.seen)
        assert termios.tcgetattr(self.slave) == self.before, "the terminal is not as it was"
        os.close(self.slave)
        os.close(self.fd)


def shell(**kw):
    t = Terminal("-it", "-e", "PS1=ready> ", "-e", "TERM=linux", ROOT, "--", "sh", **kw)
    t.wait_for("ready> ")
    return t


def test_size_is_known_and_changes():
    t = shell(rows=33, cols=77)
    t.type("stty size\r")
    t.wait_for(r"\r\n33 77\r\n")
    # One process group, unlike the interactive shell's own loops.
    t.type("sh -c 'trap \"echo new size: \\$(stty size)\" WINCH; echo l''oop; while :; do sleep 0.1; done'\r")
    t.wait_for("loop\r\n")
    t.resize(50, 132)
    os.killpg(t.p.pid, signal.SIGWINCH)
    t.wait_for("new size: 50 132")
    t.type("\x03")
    t.wait_for("ready> ")
    t.type("exit 5\r")
    t.finish(5)


def test_control_c_ends_the_foreground_job_alone():
    t = shell()
    t.type("sleep 100\r")
    t.wait_for("sleep 100\r\n")
    time.sleep(0.3)
    t.type("\x03")
    t.wait_for("ready> ", 5)
    t.type("echo status $?\r")
    t.wait_for("status 130\r\n")
    t.type("exit\r")
    t.finish(0)


def test_jobs_stop_and_go_on():
    t = shell()
    t.type("sleep 50\r")
    t.wait_for("sleep 50\r\n")
    time.sleep(0.3)
    t.type("\x1a")
    t.wait_for("Stopped")
    t.wait_for("ready> ")
    t.type("bg\r")
    t.wait_for("ready> ")
    t.type("jobs\r")
    t.wait_for("Running")
    t.type("fg\r")
    time.sleep(0.5)
    t.type("\x03")
    t.wait_for("ready> ", 5)
    t.type("jobs; echo over\r")
    m = t.wait_for(r"over\r\n(.*)over\r\n|\r\nover\r\n")
    assert b"Running" not in m[0], m[0]
    t.type("exit 0\r")
    t.finish(0)


def test_full_screen_editor_writes_a_file():
    shared = folder("edit")
    os.chmod(shared, 0o777)
    t = Terminal("-it", "-e", "TERM=linux", "-v", f"{shared}:/work", ROOT, "--", "vi", "/work/text")
    t.wait_for("/work/text")
    t.type("ifirst line\rsecond line\x1b")
    time.sleep(0.5)
    t.type("kyyp:wq\r")
    t.finish(0)
    with open(shared + "/text") as f:
        assert f.read() == "first line\nfirst line\nsecond line\n"


def test_end_of_file_ends_the_shell():
    t = shell()
    t.type("\x04")
    t.finish(0)


def test_a_terminal_is_needed():
    complains(roux("-it", ROOT, "--", "sh", stdin=b""), 125, "terminal")


def test_tty_without_input_is_a_terminal_for_output():
    t = Terminal("-t", ROOT, "--", "sh", "-c", "test -t 1 && echo yes")
    t.wait_for("yes\r\n")
    t.finish(0)


def test_control_c_while_booting_restores_the_terminal():
    t = Terminal("--no-template", "-it", ROOT, "--", "sh")
    time.sleep(0.2)
    t.type("\x03")
    t.finish(130)


def test_the_end_by_a_signal_restores_the_terminal():
    t = shell()
    t.type("trap '' TERM\r")
    t.wait_for("ready> ")
    os.kill(t.p.pid, signal.SIGHUP)
    wait_until("roux to end", lambda: t.p.poll() is not None)
    assert termios.tcgetattr(t.slave) == t.before
    assert t.p.returncode == 128 + signal.SIGHUP, t.p.returncode
    os.close(t.slave)
    os.close(t.fd)


def test_the_end_of_the_vm_restores_the_terminal():
    t = shell()
    os.kill(vm_processes()[0], signal.SIGKILL)
    t.wait_for("roux: .*killed by signal 9")
    t.finish(125)


def test_much_output_is_complete_and_in_order():
    t = Terminal("-it", ROOT, "--", "sh", "-c", "stty -onlcr; seq 1 20000; echo end")
    got = b""
    while not got.endswith(b"end\n"):
        assert select.select([t.fd], [], [], 20)[0], got[-100:]
        got += os.read(t.fd, 65536)
    assert got == b"".join(b"%d\n" % i for i in range(1, 20001)) + b"end\n"
    t.finish(0)


main(globals())
