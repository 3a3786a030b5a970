#!/usr/bin/env python3
"""Guests on the user network, whose connections leave as sockets of the host.  run_user_network.py ROUX [TEST...]

The tests run themselves in namespaces where they are the rest of the world: world.py.
"""
import contextlib
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(__file__))
from harness import ROUX, Skip, busybox_root, complains, environ, expect, folder, main, read_until, roux, start
from world import (DATA, HASH, PROGRAMS, WORLD4, WORLD6, enter_world, free_port, guest, http_get, name_server, programs,
                   read_all, tcp_server, udp_server)

GUEST4, GATEWAY4, DNS4 = "10.0.2.15", "10.0.2.2", "10.0.2.3"
GATEWAY6 = "fd72:6f75:7800::2"


def test_the_network_is_there_without_being_asked_for():
    text = guest("ip addr; ip route; cat /etc/resolv.conf")
    for part in (f"{GUEST4}/24", "fd72:6f75:7800::15/64", f"default via {GATEWAY4} dev eth0", f"nameserver {DNS4}"):
        assert part in text, (part, text)


def test_it_can_be_left_out():
    assert guest("ls /sys/class/net", "--network", "none") == "lo\n"


def test_dhcp_gives_the_same_address():
    text = guest("ip addr flush dev eth0; udhcpc -n -q -f -i eth0 -s /bin/true 2>&1", "--hostname", "box")
    assert f"lease of {GUEST4} obtained" in text, text


def test_streams_arrive_whole_in_both_directions():
    """An end of one direction leaves the other open: the server answers when it has had everything."""
    def swap(c):
        got = hashlib.sha256(read_all(c)).hexdigest()
        c.sendall(got.encode() + b"\n" + DATA)

    for address in (WORLD4, WORLD6):
        with tcp_server(swap, address) as port:
            text = guest(f"head -c 25165824 /dev/urandom > /tmp/d; sha256sum < /tmp/d;"
                         f"nc {address} {port} < /tmp/d > /tmp/back; head -n 1 /tmp/back;"
                         f"tail -c +66 /tmp/back | sha256sum", "--memory", "512M").split()
        assert text[0] == text[2], text
        assert text[3] == HASH, text


def test_refused_and_unreachable_look_as_they_are():
    with socket.create_server((WORLD4, 0)) as s:
        port = s.getsockname()[1]
    began = time.monotonic()
    text = guest(f"nc {WORLD4} {port} 2>&1; wget -T 5 http://{WORLD4}:{port}/ 2>&1; nc 198.51.100.1 80 2>&1; exit 0")
    assert "refused" in text, text
    assert "unreachable" in text or "No route" in text, text
    assert time.monotonic() - began < 60


def test_datagrams_of_every_size_come_back():
    """Sizes around what fits into a frame, and those of many frames: fragments both ways."""
    sizes = (1, 1472, 1473, 9000, 65507)
    for address in (WORLD4, WORLD6):
        with udp_server(lambda d: d, address) as port:
            text = guest("".join(f"/mnt/udp send {address} {port} {size};" for size in sizes), *programs())
        assert text.split("\n")[:-1] == [f"{size} came back" for size in sizes], text


def test_names_are_looked_up():
    with udp_server(name_server, port=53):
        text = guest("nslookup www.example.org; nslookup nowhere.example.org; nslookup host.roux.internal; true")
    assert WORLD4 in text, text
    assert "NXDOMAIN" in text or "can't find" in text.lower() or "can't resolve" in text.lower(), text
    assert GATEWAY4 in text, text


def test_a_name_server_that_is_silent_ends_in_an_error():
    began = time.monotonic()
    text = guest("nslookup www.example.org 2>&1; true")
    assert WORLD4 + "\n" not in text.replace(f"{WORLD4}:53", ""), text
    assert time.monotonic() - began < 60, text


def test_echo_requests_reach_the_world():
    text = guest(f"ping -c 3 {WORLD4} && ping -c 3 {WORLD6} && ping -c 2 {GATEWAY4} && ping -c 2 {GATEWAY6}")
    assert text.count("0% packet loss") == 4, text


def test_the_loopback_of_the_host_is_closed_unless_opened():
    with tcp_server(lambda c: c.sendall(b"hello\n"), "127.0.0.1") as port:
        assert "refused" in guest(f"nc {GATEWAY4} {port} 2>&1; true")
        assert guest(f"nc host.roux.internal {port}", "--host-loopback") == "hello\n"


def test_published_ports_lead_to_the_guest():
    port, closed = free_port(), free_port()
    p = start("-p", f"127.0.0.1:{port}:80", "-p", f"{closed}:81", busybox_root(), "--", "sh", "-c",
              "mkdir /tmp/www; echo hello > /tmp/www/index.html; echo up; exec httpd -f -p 80 -h /tmp/www")
    try:
        read_until(p.stdout, b"up\n")
        got = http_get(port)
        assert got.endswith(b"hello\n"), got
        # Nobody listens there in the guest: the client is told.
        with socket.create_connection((WORLD4, closed), 5) as c:
            c.settimeout(10)
            try:
                assert c.recv(1) == b""
            except ConnectionResetError:
                pass
        # The address given is the only one.
        try:
            socket.create_connection((WORLD4, port), 5)
            assert False, "listens to all addresses"
        except ConnectionRefusedError:
            pass
    finally:
        p.terminate()
        p.wait(30)
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_published_datagrams_lead_to_the_guest():
    port = free_port(socket.SOCK_DGRAM)
    p = start("-p", f"127.0.0.1:{port}:5000/udp", *programs(), busybox_root(), "--", "/mnt/udp", "echo", "5000")
    try:
        read_until(p.stdout, b"up\n")
        for size in (5, 20000):
            r = subprocess.run([os.path.join(PROGRAMS, "udp"), "send", "127.0.0.1", str(port), str(size)],
                               stdout=subprocess.PIPE, timeout=60)
            assert r.stdout == b"%d came back\n" % size, r
    finally:
        p.terminate()
        p.wait(30)


def test_ports_that_cannot_be_published_are_told():
    root = busybox_root()
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
        complains(roux("-p", f"127.0.0.1:{port}:80", root, "true"), 125, f"port {port}", "in use")
    for bad in ("80:", "x", "80:80/sctp", "1:2:3:4", "70000:80"):
        complains(roux("-p", bad, root, "true"), 125, bad)


def test_rules_say_what_the_guest_may_reach():
    with tcp_server(lambda c: c.sendall(b"one\n")) as one, tcp_server(lambda c: c.sendall(b"two\n")) as two:
        try_both = f"nc {WORLD4} {one} 2>&1; nc {WORLD4} {two} 2>&1; true"
        text = guest(try_both, "--egress", f"allow 192.0.2.0/24 tcp {one}", "--egress", "deny any")
        assert "one" in text and "two" not in text, text
        text = guest(try_both, "--egress", f"deny {WORLD4} tcp {one}")
        assert "one" not in text and "two" in text, text
    complains(roux("--egress", "permit any", busybox_root(), "true"), 125, "permit any")


def test_rules_may_name_names():
    with udp_server(name_server, port=53), tcp_server(lambda c: c.sendall(b"hello\n")) as port:
        rules = ("--egress", "allow www.example.org", "--egress", "deny any")
        text = guest(f"nc {WORLD4} {port} 2>&1; echo; nc www.example.org {port} 2>&1; true", *rules)
        lines = text.splitlines()
        assert "hello" not in lines[0] and "hello" in lines, text


def test_thousands_of_connections_are_held():
    program = os.path.join(os.path.dirname(sys.argv[1]), "../bench/connections")
    if not os.path.exists(program):
        raise Skip("bench/connections is not built")
    port = free_port()
    server = subprocess.Popen([program, "serve", str(port)])
    try:
        text = expect(roux("--host-loopback", "--memory", "1G", "-v", f"{os.path.dirname(program)}:/mnt:ro",
                           busybox_root(), "--", "/mnt/connections", "many", GATEWAY4, str(port), "3000"), 0).out.decode()
    finally:
        server.kill()
        server.wait()
    assert re.search(r"held 3000 conns", text), text


def test_a_guest_that_is_gone_leaves_no_connection():
    gone = threading.Event()

    def hold(c):
        with contextlib.suppress(OSError):
            read_all(c)
        gone.set()

    with tcp_server(hold) as port:
        p = start("--rm", "--name", "gone", busybox_root(), "--", "sh", "-c",
                  f"(sleep 1; echo up) & sleep 1000 | nc {WORLD4} {port}")
        read_until(p.stdout, b"up\n")
        subprocess.run([ROUX, "kill", "gone"], env=environ(), check=True, stdout=subprocess.DEVNULL)
        p.wait(30)
        assert gone.wait(20)


def rss_mib(name):
    pid = subprocess.run([ROUX, "inspect", "--format", "{{.State.Pid}}", name], env=environ(), check=True,
                         stdout=subprocess.PIPE, text=True).stdout.strip()
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"VmRSS:\s+(\d+) kB", f.read())[1]) // 1024


def test_a_guest_that_floods_and_forges_hurts_only_itself():
    with tcp_server(lambda c: c.sendall(DATA)) as port:
        p = start("--rm", "--name", "flood", *programs(), busybox_root(), "--", "sh", "-c",
                  f"echo go; /mnt/flood 8 {WORLD4} {port}; nc {WORLD4} {port} | sha256sum; sleep 1000")
        try:
            read_until(p.stdout, b"go\n")
            before = rss_mib("flood")
            text = guest(f"nc {WORLD4} {port} | sha256sum; ping -c 10 -i 0.2 {GATEWAY4}")
            assert HASH in text and "10 packets received" in text, text
            out = read_until(p.stdout, b"-\n", 90).decode()	# its own network still works
            sent = int(re.search(r"sent (\d+)", out)[1])
            assert sent > 10_000 and HASH in out, out
            after = rss_mib("flood")
            print(f"{sent} frames; {before} MiB before, {after} MiB after")
            assert after < before + 200, (before, after)
        finally:
            subprocess.run([ROUX, "kill", "flood"], env=environ(), stdout=subprocess.DEVNULL)
            p.wait(30)


def test_what_passes_is_counted_and_can_be_limited():
    with tcp_server(lambda c: c.sendall(DATA[:4 << 20])) as port:
        began = time.monotonic()
        p = start("--rm", "--name", "counted", "--download", "16M", busybox_root(), "--", "sh", "-c",
                  f"nc {WORLD4} {port} | wc -c; sleep 1000")
        try:
            assert read_until(p.stdout, b"\n") == b"%d\n" % (4 << 20)
            assert time.monotonic() - began > 1.5	# 32 Mbit at 16 Mbit/s, less what a limit lets through at once
            r = subprocess.run([ROUX, "stats", "--json", "--no-stream", "counted"], env=environ(), check=True,
                               stdout=subprocess.PIPE)
            told = json.loads(r.stdout)
            assert 4 << 20 < told["NetworkReceivedBytes"] < 5 << 20, told
            assert 1000 < told["NetworkSentBytes"] < 1 << 20, told
        finally:
            subprocess.run([ROUX, "kill", "counted"], env=environ(), stdout=subprocess.DEVNULL)
            p.wait(30)
    complains(roux("--upload", "fast", busybox_root(), "true"), 125, "--upload", "20M")


def test_it_is_captured():
    path = os.path.join(folder("capture"), "net.pcap")
    guest(f"ping -c 2 {GATEWAY4}", "--pcap", path)
    with open(path, "rb") as f:
        assert f.read(4) == b"\x4d\x3c\xb2\xa1"


enter_world()
main(globals())
