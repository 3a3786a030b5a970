#!/usr/bin/env python3
"""The agent as pid 1 of a real machine under QEMU: agent_qemu.py MAKE_BOOT.

Debian's cloud kernel (fetched by the code under test), an initramfs made by it,
a busybox root on a virtio disk, and sessions over virtio serial ports (vsock
would need the host's vhost_vsock).  Called through agent_qemu.sh.
"""
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(__file__))
import agent_client as ac
from agent_client import Session, run

PORTS = 2
APPLETS = "sh cat echo ls mount id sleep stty free hostname date kill touch pwd grep env test".split()


def make_root(d):
    root = d + "/root"
    os.makedirs(root + "/bin")
    os.makedirs(root + "/etc")
    shutil.copy(shutil.which("busybox"), root + "/bin/busybox")
    for a in APPLETS:
        os.symlink("busybox", f"{root}/bin/{a}")
    with open(root + "/etc/passwd", "w") as f:
        f.write("root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
    with open(root + "/etc/group", "w") as f:
        f.write("root:x:0:\napp:x:1000:\nextra:x:2000:app\n")
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", root, d + "/root.img", "32M"], check=True,
                   stdout=subprocess.DEVNULL)


class Machine:
    def __init__(self, make_boot, d, conf, mmio=False):
        self.dir = d
        with open(d + "/conf", "w") as f:
            f.write(conf)
        kernel = subprocess.run([make_boot, d + "/conf", d + "/initrd"], check=True,
                                stdout=subprocess.PIPE, text=True).stdout.strip()
        args = ["qemu-system-x86_64", "-M", "microvm" if mmio else "q35", "-accel", "tcg", "-cpu", "max", "-m", "384",
                "-nodefaults", "-display", "none", "-no-reboot", "-kernel", kernel,
                "-initrd", d + "/initrd",
                # A shared machine may stall: no calibration loops (they can hang there).
                "-append", "console=ttyS0 quiet panic=-1 lpj=4000000 tsc_early_khz=2000000",
                "-serial", f"file:{d}/console",
                "-device", "virtio-serial-device" if mmio else "virtio-serial-pci",
                "-drive", f"id=root,file={d}/root.img,if=none,format=raw,readonly=on",
                "-device", ("virtio-blk-device" if mmio else "virtio-blk-pci") + ",drive=root"]
        for i in range(PORTS):
            args += ["-chardev", f"socket,id=p{i},path={d}/port{i},server=on,wait=off",
                     "-device", f"virtserialport,chardev=p{i},name=roux.{i}"]
        self.qemu = subprocess.Popen(args, stderr=subprocess.PIPE)

    def console(self):
        try:
            with open(self.dir + "/console", errors="replace") as f:
                return f.read()
        except OSError:
            return ""

    def wait_console(self, text, seconds=120):
        end = time.time() + seconds
        while text not in self.console():
            if time.time() > end or (self.qemu.poll() is not None and text not in self.console()):
                raise AssertionError(f"no '{text}' on the console:\n{self.console()}")
            time.sleep(0.05)

    def port(self, i):
        return f"{self.dir}/port{i}"

    def stop(self):
        if self.qemu.poll() is None:
            self.qemu.kill()
        self.qemu.wait()
        for i in range(PORTS):
            if os.path.exists(self.port(i)):
                os.unlink(self.port(i))
        if os.path.exists(self.dir + "/console"):
            os.unlink(self.dir + "/console")


def check_running(m):
    p = m.port(0)
    out, err, end = run(p, ["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (out, err, end) == (b"out\n", b"err\n", {"status": 7}), (out, err, end)
    out, _, end = run(p, ["sh", "-c", "id; hostname; date -u +%Y; pwd; env"], user="app", cwd="/made/here")
    assert b"uid=1000(app) gid=1000(app) groups=1000(app),2000(extra)" in out and b"testvm\n2023\n/made/here\n" in out, out
    assert b"HOME=/home/app" in out, out
    # The disk is read-only: what was written went to the layer above.
    out, _, end = run(p, ["sh", "-c", "touch /new && ls / && grep -c ' / overlay' /proc/mounts"])
    assert end == {"status": 0} and b"new\n" in out and b"modules" not in out, (out, end)
    out, _, end = run(p, ["sh", "-c", "test -c /dev/null && test -d /dev/pts && test -e /dev/stdin && "
                                      "test -d /sys/class && echo hi >/dev/shm/x && cat /dev/shm/x"])
    assert (out, end) == (b"hi\n", {"status": 0}), (out, end)
    _, _, end = run(p, ["nothing"])
    assert end["status"] == 127, end
    data = os.urandom(60000)
    out, _, end = run(p, ["cat"], stdin=data)
    assert out == data and end == {"status": 0}, (len(out), end)


def check_terminal(m):
    s = Session(m.port(0)).hello()
    s.exec(["sh", "-c", "stty size; trap 'echo caught; exit 3' INT; while :; do sleep 1; done"],
           tty=1, stdin=1, rows=40, cols=100)
    s.finish(until=b"40 100")
    time.sleep(0.5)
    s.send(ac.STDIN, b"\x03")
    out, _, end = s.finish()
    assert b"caught" in out and end == {"status": 3}, (out, end)
    s.close()


def check_signal_and_two_sessions(m):
    s = Session(m.port(1)).hello()
    s.exec(["sleep", "1000"])
    s.expect(ac.STARTED)
    assert run(m.port(0), ["echo", "meanwhile"])[0] == b"meanwhile\n"
    s.request(ac.SIGNAL, signo=signal.SIGTERM)
    assert s.finish()[2] == {"signo": signal.SIGTERM}
    s.close()


def check_requests(m):
    s = Session(m.port(1)).hello()
    s.request(ac.MOUNT, type="tmpfs", source="tmpfs", target="/mnt/t", options="size=1m", flags=1)
    s.expect(ac.OK)
    s.request(ac.MOUNT, type="nosuchfs", source="x", target="/mnt/u")
    assert b"cannot mount" in ac.fields(s.expect(ac.ERROR))["message"]
    s.request(ac.CLOCK, clock_ns=1234567890 * 10**9)
    s.expect(ac.OK)
    s.exec(["sh", "-c", "date -u +%Y; grep -c '/mnt/t tmpfs ro' /proc/mounts"])
    out, _, _ = s.finish()
    assert out == b"2009\n1\n", out
    s.close()


def check_orphans_are_reaped(m):
    out, _, _ = run(m.port(0), ["sh", "-c", "for i in 1 2 3 4 5; do (sleep 0 &) ; done; sleep 0.5; "
                                            "grep -l 'State:.Z' /proc/[0-9]*/status; echo end"])
    assert out == b"end\n", out


def check_power_off_after_primary(m):
    s = Session(m.port(0)).hello()
    s.exec(["sh", "-c", "sleep 1000 & exit 5"], primary=1)
    assert s.finish()[2] == {"status": 5}
    s.close()
    assert m.qemu.wait(30) == 0
    assert "panic" not in m.console(), m.console()


CONF = "root=blk:/dev/vda:ext4\noverlay=tmpfs\nhostname=testvm\nclock=1700000000.5\n" \
    .replace(".5", ".500000000") + "console=ready\ntransport=vport\nmount=tmpfs:rw:size=1m:/scratch\n"


def test_machine_runs_commands_and_ends(make_boot, d):
    m = Machine(make_boot, d, CONF)
    try:
        m.wait_console("roux: ready")
        for check in (check_running, check_terminal, check_signal_and_two_sessions, check_requests,
                      check_orphans_are_reaped, check_power_off_after_primary):
            check(m)
            print("ok", check.__name__)
    finally:
        m.stop()


def test_read_only_root(make_boot, d):
    # On virtio-mmio devices that the kernel finds through ACPI.
    m = Machine(make_boot, d, CONF + "readonly=yes\n", mmio=True)
    try:
        m.wait_console("roux: ready")
        _, err, end = run(m.port(0), ["touch", "/new"])
        assert b"Read-only" in err and end == {"status": 1}, (err, end)
        assert run(m.port(0), ["touch", "/scratch/new"])[2] == {"status": 0}
        s = Session(m.port(1)).hello()
        s.request(ac.POWER, how=0, grace_ms=500)
        s.expect(ac.OK)
        s.close()
        assert m.qemu.wait(30) == 0
    finally:
        m.stop()


def test_failed_boots_say_why_and_power_off(make_boot, d):
    for conf, text in ((CONF.replace("vda", "vdx"), "cannot mount the root '/dev/vdx'"),
                       (CONF.replace("transport=vport\n", ""), "the machine has no vsock device"),
                       ("rot=x\n", "malformed /roux.conf, 'line 1'")):
        m = Machine(make_boot, d, conf)
        try:
            m.wait_console(text)
            assert m.qemu.wait(60) == 0
            assert "panic" not in m.console(), m.console()
        finally:
            m.stop()


def main():
    with tempfile.TemporaryDirectory() as d:
        make_root(d)
        for test in (test_machine_runs_commands_and_ends, test_read_only_root,
                     test_failed_boots_say_why_and_power_off):
            test(sys.argv[1], d)
            print("ok", test.__name__)


main()
