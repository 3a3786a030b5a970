"""Client of the agent protocol (abi/agent.h) for tests."""
import select
import socket
import struct
import time

HELLO, EXEC, MOUNT, CLOCK, PING, POWER = 1, 16, 17, 18, 19, 20
STDIN, STDIN_EOF, RESIZE, SIGNAL = 24, 25, 26, 27
OK, ERROR, STARTED, STDOUT, STDERR, CREDIT, EXITED = 64, 65, 66, 67, 68, 69, 70
MAGIC, WINDOW = 0x58554F52, 128 * 1024
T = dict(arg=16, env=17, cwd=18, user=19, tty=20, stdin=21, rows=22, cols=23, primary=24,
         type=32, source=33, target=34, flags=35, options=36, clock_ns=40, how=41, grace_ms=42,
         errno=64, message=65, status=66, signo=67, pid=68, credit=69)
NAMES = {v: k for k, v in T.items()}


def field(tag, value):
    if isinstance(value, str):
        value = value.encode() + b"\0"
    elif isinstance(value, int):
        value = struct.pack("<Q" if tag == T["clock_ns"] else "<I", value)
    return struct.pack("<HHI", tag, 0, len(value)) + value


def frame(kind, payload=b""):
    return struct.pack("<IB3x", len(payload), kind) + payload


def fields(payload):
    out = {}
    while payload:
        tag, _, size = struct.unpack("<HHI", payload[:8])
        value, payload = payload[8:8 + size], payload[8 + size:]
        out[NAMES.get(tag, tag)] = struct.unpack("<I", value)[0] if size == 4 and tag != T["message"] \
            else value
    return out


class Session:
    def __init__(self, path, timeout=60):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
        self.timeout = timeout
        self.buf = b""
        self.window = WINDOW
        self.send(HELLO, field(1, MAGIC) + field(2, 1) + field(3, 1))

    def send(self, kind, payload=b""):
        self.sock.sendall(frame(kind, payload))

    def request(self, kind, **kw):
        self.send(kind, b"".join(field(T[k], v) for k, v in kw.items()))

    def recv(self):
        """Next (type, payload), or None at the end of the stream."""
        while True:
            if len(self.buf) >= 8:
                size, kind = struct.unpack("<IB3x", self.buf[:8])
                if len(self.buf) >= 8 + size:
                    payload, self.buf = self.buf[8:8 + size], self.buf[8 + size:]
                    return kind, payload
            if not select.select([self.sock], [], [], self.timeout)[0]:
                raise TimeoutError("agent says nothing")
            data = self.sock.recv(1 << 16)
            if not data:
                return None
            self.buf += data

    def expect(self, kind):
        got = self.recv()
        assert got and got[0] == kind, f"expected frame {kind}, got {got}"
        return got[1]

    def hello(self):
        self.expect(HELLO)
        return self

    def exec(self, argv, env=(), **kw):
        self.send(EXEC, b"".join([field(T["arg"], a) for a in argv] + [field(T["env"], e) for e in env] +
                                 [field(T[k], v) for k, v in kw.items()]))

    def finish(self, until=None):
        """Collects (stdout, stderr, end) where end is EXITED's or ERROR's fields."""
        out, err = b"", b""
        while True:
            got = self.recv()
            assert got, "stream ended without EXITED"
            kind, payload = got
            if kind == STDOUT:
                out += payload
                if until and until in out:
                    return out, err, None
            elif kind == STDERR:
                err += payload
            elif kind == CREDIT:
                self.window += fields(payload)["credit"]
            elif kind in (EXITED, ERROR):
                return out, err, fields(payload)

    def close(self):
        self.sock.close()


def run(path, argv, stdin=None, **kw):
    s = Session(path).hello()
    s.exec(argv, stdin=int(stdin is not None), **kw)
    if stdin is not None:
        s.send(STDIN, stdin)
        s.send(STDIN_EOF)
    r = s.finish()
    s.close()
    return r


def wait_path(path, seconds):
    end = time.time() + seconds
    while time.time() < end:
        try:
            s = socket.socket(socket.AF_UNIX)
            s.connect(path)
            s.close()
            return True
        except OSError:
            time.sleep(0.05)
    return False
