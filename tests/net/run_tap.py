#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""net/ with the Linux kernel as its peer: run_tap.py TAP_PROGRAM [TEST...]

Runs itself again in a network namespace of its own; exits with 77 where it may
not have one.  Each function test_* gets a link that is set up afresh.
"""
import errno, hashlib, os, random, resource, select, shutil, socket, subprocess, sys, threading, time

DEVICE = "roux0"
GATEWAY, GATEWAY6, ELSEWHERE, ELSEWHERE6 = "10.7.0.1", "fd07::1", "198.51.100.7", "2001:db8::7"
BOTH = ((ELSEWHERE, socket.AF_INET), (ELSEWHERE6, socket.AF_INET6))


def run(*args, check=True):
    return subprocess.run(args, check=check, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


class Link:
    """The device, with static addresses unless @bare, and net/ at its other end."""

    def __init__(self, program, mtu=1500, offloads=7, bare=False):
        run("ip", "tuntap", "add", DEVICE, "mode", "tap", "vnet_hdr")
        run("ip", "link", "set", DEVICE, "mtu", str(mtu))
        if not bare:
            run("sysctl", "-qw", f"net.ipv6.conf.{DEVICE}.accept_ra=0", f"net.ipv6.conf.{DEVICE}.dad_transmits=0")
            run("ip", "addr", "add", "10.7.0.2/24", "dev", DEVICE)
            run("ip", "-6", "addr", "add", "fd07::2/64", "dev", DEVICE, "nodad")
        self.process = subprocess.Popen([program, DEVICE, str(mtu), str(offloads)], stdout=subprocess.PIPE)
        self.process.stdout.readline()
        run("ip", "link", "set", DEVICE, "up")
        if not bare:
            run("ip", "route", "add", "default", "via", GATEWAY)
            run("ip", "-6", "route", "add", "default", "via", GATEWAY6)
            for _ in range(100):    # the link-local address is not usable at once
                if "tentative" not in run("ip", "-6", "addr", "show", "dev", DEVICE):
                    break
                time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        alive = self.process.poll() is None
        self.process.kill()
        self.process.wait()
        run("ip", "link", "del", DEVICE)
        assert alive, "the program ended"


def connect(address, port, family=socket.AF_INET, timeout=20):
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    sock.connect((address, port))
    return sock


def receive_all(sock):
    parts = []
    while part := sock.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


def echo(address, family, size):
    """Sends @size random bytes and checks that they come back."""
    data = random.randbytes(size)
    with connect(address, 7, family, 120) as sock:
        def send():
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        thread = threading.Thread(target=send)
        thread.start()
        back = receive_all(sock)
        thread.join()
    assert hashlib.sha256(back).digest() == hashlib.sha256(data).digest(), f"{len(back)} of {size} bytes"


def upload(address, family, size):
    with connect(address, 9, family, 120) as sock:
        block = bytes(1 << 20)
        begun = time.monotonic()
        for _ in range(size >> 20):
            sock.sendall(block)
        sock.shutdown(socket.SHUT_WR)
        assert int(receive_all(sock)) == size
        return size / (time.monotonic() - begun)


def download(address, family, size):
    with connect(address, 19, family, 120) as sock:
        sock.sendall(b"%d\n" % size)
        buf, got, begun = bytearray(1 << 20), 0, time.monotonic()
        while n := sock.recv_into(buf):
            got += n
        assert got == size, f"{got} of {size} bytes"
        return size / (time.monotonic() - begun)


def test_ping(program):
    with Link(program):
        for args in (("-4", GATEWAY), ("-6", GATEWAY6), ("-4", ELSEWHERE), ("-6", ELSEWHERE6),
                     ("-4", "-s", "5000", GATEWAY), ("-6", "-s", "5000", GATEWAY6)):
            # Once some were answered, ping waits for the last no longer than the interval.
            out = run("ping", "-c", "3", "-i", "0.3", "-W", "2", *args, check=False)
            assert " 0% packet loss" in out, out


def test_echo(program):
    with Link(program):
        for address, family in BOTH + ((GATEWAY, socket.AF_INET), (GATEWAY6, socket.AF_INET6)):
            for size in (1, 1000, 100000, 20000000):
                echo(address, family, size)


def test_echo_without_offloads(program):
    with Link(program, offloads=0):
        for address, family in BOTH:
            echo(address, family, 10000000)


def test_echo_with_large_mtu(program):
    for offloads in (1, 7):     # a segment is larger than what else would be a large one
        with Link(program, mtu=65520, offloads=offloads):
            for address, family in BOTH:
                echo(address, family, 10000000)


def counters():
    """Frames to net/ and from it."""
    with open("/proc/net/dev") as lines:
        fields = [line.split(":")[1].split() for line in lines if DEVICE in line][0]
    return int(fields[9]), int(fields[1])


def test_throughput(program):
    for offloads, mtu, what in ((7, 1500, "64 KiB segments"), (1, 65520, "MTU 65520"), (1, 1500, "MTU 1500")):
        with Link(program, mtu=mtu, offloads=offloads):
            size = (1 << 30) if offloads == 7 else (256 << 20)
            for name, how in (("to net", upload), ("from net", download)):
                before = counters()
                rate = how(ELSEWHERE, socket.AF_INET, size)
                sizes = [size // max(1, after - then) for after, then in zip(counters(), before)]
                print(f"  {what}, {name}: {rate / 1e9:.2f} GB/s, {sizes[name == 'from net']} bytes a frame", flush=True)


def test_half_close(program):
    with Link(program):
        with connect(ELSEWHERE, 7) as sock:
            sock.sendall(b"a" * 1000)
            sock.shutdown(socket.SHUT_WR)
            assert receive_all(sock) == b"a" * 1000


def test_refused(program):
    with Link(program):
        for address, family in BOTH:
            for port, expected in ((1, errno.ECONNREFUSED), (2, errno.EHOSTUNREACH)):
                begun = time.monotonic()
                try:
                    connect(address, port, family)
                    raise AssertionError("connected")
                except OSError as error:
                    assert error.errno == expected, error
                assert time.monotonic() - begun < 0.5
            try:
                connect(address, 3, family, 1.5)
                raise AssertionError("connected")
            except TimeoutError:
                pass


def test_accept_later(program):
    with Link(program):
        begun = time.monotonic()
        with connect(ELSEWHERE, 4) as sock:
            assert 0.29 < time.monotonic() - begun < 0.9
            sock.sendall(b"hello")
            assert sock.recv(100) == b"hello"


def test_connect_from_any_address(program):
    with Link(program):
        for family, wildcard, seen, gateway in ((socket.AF_INET, "0.0.0.0", "203.0.113.9", GATEWAY),
                                                (socket.AF_INET6, "::", "2001:db8::9", GATEWAY6)):
            with socket.socket(family) as server, socket.socket(family, socket.SOCK_DGRAM) as asker:
                server.bind((wildcard, 0))
                server.listen()
                server.settimeout(5)
                asker.sendto(b"%d" % server.getsockname()[1], (gateway, 5))
                sock, peer = server.accept()
                assert peer[0] == seen, peer
                sock.sendall(b"published")
                sock.settimeout(5)
                assert sock.recv(100) == b"published"
                sock.close()


def test_udp(program):
    for offloads in (7, 0):
        with Link(program, offloads=offloads):
            for address, family in BOTH:
                with socket.socket(family, socket.SOCK_DGRAM) as sock:
                    sock.settimeout(5)
                    sock.connect((address, 7))
                    for size in (0, 1, 1472, 1473, 5000, 65507):
                        data = random.randbytes(size)
                        sock.send(data)
                        assert sock.recv(70000) == data, size
                with socket.socket(family, socket.SOCK_DGRAM) as sock:
                    sock.settimeout(5)
                    sock.connect((address, 8))
                    sock.send(b"x")
                    try:
                        sock.recv(10)
                        raise AssertionError("an answer")
                    except ConnectionRefusedError:
                        pass


def test_slow_reader(program):
    with Link(program):
        with connect(ELSEWHERE, 19) as sock:
            sock.sendall(b"30000000\n")
            time.sleep(1)
            assert len(receive_all(sock)) == 30000000


def test_many_connections(program):
    resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
    with Link(program):
        begun, socks = time.monotonic(), []
        for i in range(10000):
            address, family = BOTH[i % 2]
            sock = connect(address, 7, family)
            sock.sendall(b"%d" % i)
            socks.append(sock)
        rate = len(socks) / (time.monotonic() - begun)
        for i, sock in enumerate(socks):
            assert sock.recv(100) == b"%d" % i
        with open(f"/proc/{LAST.process.pid}/status") as status:
            rss = [int(line.split()[1]) for line in status if line.startswith("VmRSS")][0]
        print(f"  10000 connections held, {rate:.0f} a second, {rss} KiB resident", flush=True)
        for sock in socks:
            sock.close()


def test_short_connections(program):
    with Link(program):
        begun, count = time.monotonic(), 3000
        for i in range(count):
            with connect(ELSEWHERE, 7) as sock:
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"
        print(f"  {count / (time.monotonic() - begun):.0f} connections a second, one at a time", flush=True)


def test_round_trips(program):
    with Link(program):
        with connect(ELSEWHERE, 7) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            times = []
            for _ in range(5000):
                begun = time.perf_counter()
                sock.sendall(b"x")
                sock.recv(1)
                times.append(time.perf_counter() - begun)
            times.sort()
            print(f"  round trip: median {times[len(times) // 2] * 1e6:.0f} us, 99% {times[-50] * 1e6:.0f} us", flush=True)


def netem(*what):
    """Both ways: on the way out, and on the way in through an ifb device."""
    run("tc", "qdisc", "replace", "dev", DEVICE, "root", "netem", *what)
    run("ip", "link", "add", "ifb7", "type", "ifb")
    run("ip", "link", "set", "ifb7", "up")
    run("tc", "qdisc", "add", "dev", DEVICE, "handle", "ffff:", "ingress")
    run("tc", "filter", "add", "dev", DEVICE, "parent", "ffff:", "matchall", "action", "mirred", "egress",
        "redirect", "dev", "ifb7")
    run("tc", "qdisc", "replace", "dev", "ifb7", "root", "netem", *what)


def test_bad_links(program):
    for what in (("delay", "10ms"), ("loss", "3%", "delay", "2ms"), ("duplicate", "10%", "delay", "1ms"),
                 ("reorder", "20%", "delay", "5ms"), ("corrupt", "2%", "delay", "1ms"),
                 ("loss", "2%", "duplicate", "2%", "delay", "5ms", "3ms")):
        for offloads in (7, 0):
            with Link(program, offloads=offloads):
                try:
                    netem(*what)
                except subprocess.CalledProcessError as error:
                    print("  no netem here:", error.stdout.strip().splitlines()[-1:])
                    return
                begun = time.monotonic()
                try:
                    echo(ELSEWHERE, socket.AF_INET, 3000000)
                finally:
                    run("ip", "link", "del", "ifb7")
                print(f"  {' '.join(what)}, offloads {offloads}: {time.monotonic() - begun:.1f} s", flush=True)


def test_dhcp(program):
    with Link(program, bare=True):
        script = "/tmp/roux-udhcpc.%d" % os.getpid()
        with open(script, "w") as out:
            out.write("#!/bin/sh\n[ \"$1\" = bound ] && env > $0.env\nexit 0\n")
        os.chmod(script, 0o755)
        try:
            run("busybox", "udhcpc", "-i", DEVICE, "-n", "-q", "-f", "-s", script, "-O", "search", "-O", "mtu",
                "-x", "hostname:guest")
            with open(script + ".env") as env:
                got = dict(line.rstrip("\n").split("=", 1) for line in env if "=" in line)
        finally:
            for name in (script, script + ".env"):
                if os.path.exists(name):
                    os.unlink(name)
        expected = {"ip": "10.7.0.100", "mask": "24", "router": "10.7.0.1", "dns": "10.7.0.3",
                    "domain": "roux.test", "search": "roux.test example.org", "mtu": "1400", "lease": "3600",
                    "serverid": "10.7.0.1"}
        assert {key: got.get(key) for key in expected} == expected, got


def test_autoconfiguration(program):
    with Link(program, bare=True):
        for _ in range(100):
            addresses = run("ip", "-6", "addr", "show", "dev", DEVICE)
            if "fd07:" in addresses and "tentative" not in addresses:
                break
            time.sleep(0.1)
        assert "fd07::" in addresses or "fd07:" in addresses, addresses
        assert "default via fe80::" in run("ip", "-6", "route")
        with open(f"/proc/sys/net/ipv6/conf/{DEVICE}/mtu") as mtu:
            assert mtu.read().strip() == "1450"
        echo(ELSEWHERE6, socket.AF_INET6, 100000)


LAST = None


def main():
    global LAST
    if os.environ.get("ROUX_TAP_TEST") != "1":
        if not os.path.exists("/dev/net/tun") or not shutil.which("ip") or subprocess.run(
                ["unshare", "-n", "sh", "-c", "ip tuntap add t0 mode tap"], capture_output=True).returncode:
            print("no network namespace or TAP device here")
            sys.exit(77)
        os.environ["ROUX_TAP_TEST"] = "1"
        os.execvp("unshare", ["unshare", "-n", sys.executable, *sys.argv])
    run("ip", "link", "set", "lo", "up")
    old = Link.__init__

    def remember(self, *args, **kwargs):
        global LAST
        old(self, *args, **kwargs)
        LAST = self
    Link.__init__ = remember
    wanted, failed = sys.argv[2:], 0
    for name, test in list(globals().items()):
        if not name.startswith("test_") or (wanted and name[5:] not in wanted):
            continue
        begun = time.monotonic()
        try:
            test(sys.argv[1])
            print(f"ok {name[5:]} ({time.monotonic() - begun:.1f} s)", flush=True)
        except (AssertionError, OSError, subprocess.CalledProcessError) as error:
            failed += 1
            print(f"FAILED {name[5:]}: {type(error).__name__} {error} {getattr(error, 'stdout', '')}", flush=True)
    sys.exit(1 if failed else 0)


main()
