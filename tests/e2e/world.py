"""The rest of the world for guests on user networks: this process, in network and mount namespaces of its own.

It is 192.0.2.1 and 2001:db8::1, and the name server.
"""
import contextlib
import hashlib
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time

from harness import WORK, Skip, busybox_root, expect, roux

WORLD4, WORLD6 = "192.0.2.1", "2001:db8::1"
NAMES = {"www.example.org": WORLD4, "other.example.org": "192.0.2.9"}
DATA = random.Random(11).randbytes(24 << 20)
HASH = hashlib.sha256(DATA).hexdigest()


PROGRAMS = os.path.join(os.path.dirname(os.path.abspath(sys.argv[1])), "../tests/e2e")


def programs():
    """Options of a guest that has this folder's own programs in /mnt."""
    if not os.path.exists(os.path.join(PROGRAMS, "udp")):
        raise Skip("the programs of the tests are not built")
    return "-v", f"{PROGRAMS}:/mnt:ro"


def enter_world():
    """Becomes the same program inside the namespaces; as an ordinary user too."""
    if os.environ.get("ROUX_TEST_WORLD") != "1":
        os.environ["ROUX_TEST_WORLD"] = "1"
        rights = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        unshare = ["unshare", *rights, "--net", "--mount"]
        if subprocess.run([*unshare, "true"], stderr=subprocess.DEVNULL).returncode:
            sys.exit(77)
        os.execvp("unshare", [*unshare, sys.executable, *sys.argv])
    for line in ("link set lo up", f"addr add {WORLD4}/32 dev lo", f"-6 addr add {WORLD6}/128 dev lo"):
        if subprocess.run(["ip", *line.split()]).returncode:
            sys.exit(77)
    with open("/proc/sys/net/ipv4/ping_group_range", "w") as f:
        f.write("0 0")
    resolv = os.path.join(WORK, "resolv.conf")
    with open(resolv, "w") as f:
        f.write(f"nameserver {WORLD4}\n")
    subprocess.run(["mount", "--bind", resolv, "/etc/resolv.conf"], check=True)


def guest(script, *options, status=0):
    """What a shell in a guest prints."""
    return expect(roux(*options, busybox_root(), "--", "sh", "-c", script), status).out.decode()


@contextlib.contextmanager
def tcp_server(handle, address=WORLD4):
    """Serves each client with handle(connection) on a thread; gives the port."""
    s = socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET, backlog=1000)

    def one(c):
        with c, contextlib.suppress(OSError):
            handle(c)

    def serve():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=one, args=(s.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield s.getsockname()[1]
    finally:
        s.shutdown(socket.SHUT_RDWR)
        s.close()


@contextlib.contextmanager
def udp_server(handle, address=WORLD4, port=0):
    """Answers each datagram with handle(datagram), unless None."""
    s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((address, port))

    def serve():
        with contextlib.suppress(OSError):
            while True:
                data, client = s.recvfrom(65536)
                if client is None:	# shut down
                    return
                if (answer := handle(data)) is not None:
                    s.sendto(answer, client)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield s.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):	# it has no peer, and wakes up all the same
            s.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        s.close()


def read_all(c):
    got = bytearray()
    while more := c.recv(1 << 20):
        got += more
    return bytes(got)


def name_server(query):
    """A records of NAMES; no such name for others."""
    at, labels = 12, []
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode())
        at += 1 + query[at]
    kind = struct.unpack_from(">H", query, at + 1)[0]
    address = NAMES.get(".".join(labels).lower())
    answers = b"" if kind != 1 or not address else \
        b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(address)
    flags = 0x8180 | (0 if address else 3)
    return query[:2] + struct.pack(">HHHHH", flags, 1, 1 if answers else 0, 0, 0) + query[12:at + 5] + answers


def wait_for(port, address="127.0.0.1", limit=60):
    until = time.monotonic() + limit
    while True:
        try:
            c = socket.create_connection((address, port), 5)
            c.settimeout(10)
            return c
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def http_get(port):
    """What a web server in the guest answers at a published port; b"" when none has come to listen."""
    for _ in range(50):
        with wait_for(port) as c, contextlib.suppress(ConnectionError):
            c.sendall(b"GET / HTTP/1.0\r\n\r\n")
            if got := read_all(c):
                return got
        time.sleep(0.1)
    return b""


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
