#!/usr/bin/env python3
"""Guests on a TAP device, with Linux's own network as the peer.  run_network.py ROUX [TEST...]

Everything happens in a network namespace that the tests make, so nothing leaves this machine.
"""
import hashlib
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys

sys.path.insert(0, os.path.dirname(__file__))
from harness import busybox_root, complains, expect, folder, main, roux

NAMESPACE = f"roux-test-{os.getpid()}"
GUEST = "tap=tap0,192.0.2.2/24,192.0.2.1,2001:db8::2/64"


def inside(*args):
    return ["ip", "netns", "exec", NAMESPACE, *map(str, args)]


# Gives the first client what it was given, and says what the second has sent.
SERVER = """
import hashlib, socket, sys
data = sys.stdin.buffer.read()
with socket.create_server(("192.0.2.1", 5001)) as s:
    print("ready", flush=True)
    with s.accept()[0] as c:
        c.sendall(data)
        c.shutdown(socket.SHUT_WR)
        while c.recv(65536):
            pass
    with s.accept()[0] as c:
        hash = hashlib.sha256()
        while more := c.recv(1 << 20):
            hash.update(more)
        print(hash.hexdigest(), flush=True)
"""


def set_up():
    if os.geteuid() != 0 or not shutil.which("ip") or not os.path.exists("/dev/net/tun"):
        sys.exit(77)
    if subprocess.run(["ip", "netns", "add", NAMESPACE], stderr=subprocess.DEVNULL).returncode:
        sys.exit(77)
    for line in ("link set lo up", "tuntap add tap0 mode tap vnet_hdr", "addr add 192.0.2.1/24 dev tap0",
                 "-6 addr add 2001:db8::1/64 dev tap0 nodad", "link set tap0 up"):
        subprocess.run(inside("ip", *line.split()), check=True)


def guest(script, *options):
    """What a shell in a guest on the TAP device prints."""
    return expect(roux("--network", GUEST, *options, busybox_root(), "--", "sh", "-c", script, prefix=inside()), 0).out


def test_the_guest_has_the_addresses_it_was_given():
    text = guest("ip addr; ip route; cat /etc/hosts /etc/hostname", "--hostname", "box").decode()
    for part in ("192.0.2.2/24", "2001:db8::2/64", "default via 192.0.2.1 dev eth0", "192.0.2.2\tbox", "127.0.0.1"):
        assert part in text, (part, text)
    assert "tentative" not in text, text


def test_without_a_network_there_is_only_the_loopback():
    r = roux("--network", "none", busybox_root(), "--", "ls", "/sys/class/net")
    assert r.out == b"lo\n", r


def test_echo_requests_are_answered_over_both_protocols():
    text = guest("ping -c 3 192.0.2.1 && ping -c 3 2001:db8::1").decode()
    assert text.count("3 packets received, 0% packet loss") == 2, text


def test_frames_arrive_whole_in_both_directions():
    """64 MiB each way over TCP, with and without queues for two CPUs; sizes that need every offload."""
    data = random.Random(7).randbytes(64 << 20)
    want = hashlib.sha256(data).hexdigest()
    for cpus in ("1", "2"):
        server = subprocess.Popen(inside(sys.executable, "-c", SERVER), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            server.stdin.write(data)
            server.stdin.close()
            assert server.stdout.readline() == b"ready\n"
            text = guest("nc 192.0.2.1 5001 > /tmp/data; sha256sum < /tmp/data; nc 192.0.2.1 5001 < /tmp/data",
                         "--cpus", cpus, "--memory", "1G").decode()
            back = server.stdout.readline().decode().strip()
        finally:
            server.kill()
            server.wait()
        assert want in text, text
        assert back == want, back


def test_frames_are_captured():
    path = pathlib.Path(folder("capture")) / "net.pcap"
    guest("ping -c 2 192.0.2.1", "--pcap", path)
    raw = path.read_bytes()
    magic, link_type, at, echoes = struct.unpack_from("<I", raw)[0], struct.unpack_from("<I", raw, 20)[0], 24, 0
    assert (magic, link_type) == (0xA1B23C4D, 1)
    while at < len(raw):
        size = struct.unpack_from("<I", raw, at + 8)[0]
        frame = raw[at + 16:at + 16 + size]
        echoes += frame[12:14] == b"\x08\x00" and frame[23] == 1
        at += 16 + size
    assert echoes == 4, echoes


def test_mistakes_are_told():
    root = busybox_root()
    complains(roux("--network", "carrier-pigeon", root, "true"), 125, "no network", "roux network create")
    complains(roux("--network", "tap=", root, "true"), 125, "TAP")
    complains(roux("--network", "tap=a-name-much-too-long", root, "true"), 125, "network device")
    complains(roux("--network", "tap=tapx,192.0.2.2/99", root, "true"), 125, "192.0.2.2/99")


set_up()
try:
    main(globals())
finally:
    subprocess.run(["ip", "netns", "del", NAMESPACE])
