"""What the tests of the roux command share: root file systems, runs, leak checks.

A test file defines functions test_*(), whose names say what must hold, and ends
with main(globals()).  Its arguments are the roux command and, optionally, names of
tests to run.  Every process started here carries a marker in its environment, so
that what is left over is found wherever it went.
"""
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tools"))
import rootfs

ROUX = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else None
CACHE = rootfs.cache_folder()
MARK = f"ROUX_TEST_MARK={os.getpid()}.{time.time_ns()}"
WORK = tempfile.mkdtemp(prefix="roux-e2e.")	# everything a test makes goes here
STANDBY = os.environ.get("ROUX_STANDBY", "0")	# machines wait for their VMs only where that is tested
LIMIT = 180	# seconds after which a run hangs, on the busiest machine


def of_another_time(seconds):
    """Environment of a roux whose host's wall clock is so much ahead."""
    return {"LD_PRELOAD": os.path.join(os.path.dirname(ROUX), "../tests/e2e/shifted.so"), "SHIFTED": str(seconds)}


class Skip(Exception):
    """Raised by a test that cannot run here; says why."""


class ExpectedFailure(Exception):
    """Raised when a known bug shows; the test says which."""


def environ(**extra):
    env = dict(os.environ, ROUX_CACHE=CACHE, TMPDIR=WORK, ROUX_STORE=WORK + "/store", ROUX_STATE=WORK + "/state",
               DOCKER_CONFIG=WORK + "/docker", ROUX_STANDBY=STANDBY)
    name, value = MARK.split("=")
    env[name] = value
    env.update(extra)
    return env


class Result:
    def __init__(self, status, out, err, seconds):
        self.status, self.out, self.err, self.seconds = status, out, err, seconds

    def __repr__(self):
        return f"status {self.status} after {self.seconds:.1f} s\nstdout: {self.out[-2000:]!r}\n" \
               f"stderr: {self.err[-2000:]!r}"


def roux(*args, **kw):
    """Runs `roux run ARGS`; see verb()."""
    return verb("run", *args, **kw)


def verb(*args, stdin=None, env=None, cwd=None, prefix=(), limit=LIMIT):
    """Runs `roux ARGS`; stdin is bytes or None for /dev/null."""
    start = time.monotonic()
    p = subprocess.run([*prefix, ROUX, *args], input=stdin, stdin=subprocess.DEVNULL if stdin is None else None,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ(**(env or {})), cwd=cwd,
                       timeout=limit)
    return Result(p.returncode, p.stdout, p.stderr, time.monotonic() - start)


def start(*args, **kw):
    """Starts `roux run ARGS` and returns the Popen with pipes."""
    kw.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.Popen([ROUX, "run", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env=environ(**kw.pop("env", {})), **kw)


def expect(r, status=0, out=None, err=None):
    """Checks a result; out and err are bytes that must be there exactly (out) or inside (err)."""
    assert r.status == status, f"expected status {status}: {r}"
    if out is not None:
        assert r.out == out, f"expected {out!r}: {r}"
    if err is not None:
        assert err in r.err, f"expected {err!r} in stderr: {r}"
    return r


def complains(r, status, *words):
    """A failure of roux itself: that status, and one line "roux: ..." with these words."""
    assert r.status == status, f"expected status {status}: {r}"
    lines = [line for line in r.err.decode(errors="replace").splitlines() if line.startswith("roux: ")]
    assert lines, f"no line 'roux: ...': {r}"
    for w in words:
        assert w in lines[0], f"expected '{w}' in {lines[0]!r}"
    return r


def wait_until(what, condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def read_until(stream, text, seconds=60):
    """Reads a pipe until @text has come."""
    import select
    got, end = b"", time.monotonic() + seconds
    while text not in got:
        left = end - time.monotonic()
        assert left > 0 and select.select([stream], [], [], left)[0], f"no {text!r} in {got!r}"
        data = os.read(stream.fileno(), 65536)
        assert data, f"ended before {text!r}: {got!r}"
        got += data
    return got


# ---------------------------------------------------------------- root file systems

def folder(name):
    path = os.path.join(WORK, name)
    os.makedirs(path)
    return path


@contextlib.contextmanager
def tmpfs(name, options):
    at = folder(name)
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", at]).returncode:
        raise Skip("mounting a tmpfs needs root")
    try:
        yield at
    finally:
        subprocess.run(["umount", at], check=True)


def make_busybox(path):
    busybox = shutil.which("busybox")
    if not busybox:
        raise Skip("no busybox")
    os.mkdir(path)
    os.chmod(path, 0o755)
    for d in ("bin", "etc", "root", "home/app"):
        os.makedirs(os.path.join(path, d))
    os.mkdir(path + "/tmp")
    os.chmod(path + "/tmp", 0o1777)
    shutil.copy(busybox, path + "/bin/busybox")
    for applet in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            os.symlink("busybox", f"{path}/bin/{applet}")
    with open(path + "/etc/passwd", "w") as f:
        f.write("root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
    with open(path + "/etc/group", "w") as f:
        f.write("root:x:0:\napp:x:1000:\nextra:x:2000:app\n")
    os.chown(path + "/home/app", 1000, 1000) if os.geteuid() == 0 else None


def busybox_root():
    return rootfs.made_once("busybox-1", make_busybox)


def debian_root():
    try:
        return rootfs.debian_root()
    except rootfs.Unavailable as why:
        raise Skip(str(why)) from None


def cgroups(pid):
    """Controller -> folder of the group that limits the process: version 1 and 2 alike."""
    found = {}
    with open(f"/proc/{pid}/cgroup") as f:
        for line in f:
            _, names, path = line.rstrip("\n").split(":", 2)
            if "/roux-" in path:
                for name in names.split(",") if names else ("memory", "pids", "cpu"):
                    found[name] = f"/sys/fs/cgroup{'/' + name if names else ''}{path}"
    return found


def copy_cache(name, *without):
    """A copy of the cache below WORK, to fill, count or break; other tests may be writing to the original."""
    to = os.path.join(WORK, name)
    shutil.copytree(CACHE, to, symlinks=True,
                    ignore=shutil.ignore_patterns("test-roots", "templates", "boots", "images", "disks-v1", "fetching", "*.new-*", *without))
    return to


def vm_processes():
    """Pids of the VMs' own processes, without their helpers."""
    found = []
    for pid in marked_processes():
        try:
            with open(f"/proc/{pid}/comm") as f:
                if f.read() == "roux-vm\n":
                    found.append(pid)
        except OSError:
            pass
    return found


def mapped_kib(pid, name, what="Rss"):
    """KiB of that kind (proc_pid_smaps(5)) in a process's mappings of files whose names end so."""
    kib, wanted = 0, False
    with open(f"/proc/{pid}/smaps") as f:
        for line in f:
            words = line.split()
            if not words[0].endswith(":"):
                path = " ".join(words[5:]).removesuffix(" (deleted)")
                wanted = path.endswith(name)
            elif wanted and words[0] == what + ":":
                kib += int(words[1])
    return kib


# ------------------------------------------------------------------------ leak checks

def waits(pid):
    """Whether a process only waits for a VM: it, or the one whose child it is."""
    with open(f"/proc/{pid}/stat") as f:
        name, rest = f.read().split("(", 1)[1].rsplit(")", 1)
    if name == "roux-standby":
        return True
    parent = rest.split()[1]
    with open(f"/proc/{parent}/comm") as f:
        return f.read() == "roux-standby\n"


def standby_sockets():
    """Names of the machines that wait for a VM: each is complete."""
    folder = os.path.join(WORK, "state/standby")
    return [n for n in os.listdir(folder) if "." not in n] if os.path.isdir(folder) else []


def marked_processes(waiting=False):
    """Processes of this test file that still run: pid -> command line; with those that wait for VMs?"""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                if MARK.encode() not in f.read().split(b"\0"):
                    continue
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                found[int(pid)] = f.read().replace(b"\0", b" ").decode(errors="replace")
            with open(f"/proc/{pid}/stat") as f:
                if f.read().rsplit(")", 1)[1].split()[0] == "Z" or (not waiting and STANDBY != "0" and waits(pid)):
                    del found[int(pid)]
        except OSError:
            found.pop(int(pid), None)
    return found


def have_learned():
    """Waits for monitors: what machines translated is kept when their commands' ends have been told already."""
    wait_until("monitors to end", lambda: not marked_processes())


def blocks_translated(result):
    """Blocks that a machine which printed --dbt-stats translated, when it has been learnt from."""
    have_learned()
    return sum(int(n) for line in result.err.decode().splitlines() if line.startswith("blocks ") for n in line.split()[1:3])


def seal_time(size):
    """As file_seal() of os/file.c has it, in nanoseconds."""
    return (1 + size // 10**9 % 3600) * 10**9 + size % 10**9


def is_sealed(path):
    st = os.stat(path)
    return st.st_mtime_ns == seal_time(st.st_size)


def seal(path):
    os.utime(path, ns=(0, seal_time(os.stat(path).st_size)))


def mounts():
    with open("/proc/self/mountinfo") as f:
        return sorted(line.split()[4] for line in f if WORK in line or CACHE in line)


def cache_files(cache=None):
    """Files in roux's cache, without the stamps that may appear when a kernel file has got old enough."""
    names = []
    for base, dirs, files in os.walk(cache or CACHE):
        if "test-roots" in dirs:
            dirs.remove("test-roots")
        names += [os.path.join(base, n) for n in dirs + files if not n.startswith("stamp-")]
    return sorted(names)


def check_nothing_left(before_mounts, seconds=5):
    """A VM's process ends within moments of its owner."""
    end = time.monotonic() + seconds
    while (left := marked_processes(waiting=True)) and time.monotonic() < end:
        if STANDBY != "0":
            verb("template", "stop", "--all")
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, 9)	# ours by its marker; the next test starts clean
    assert not left, f"processes left: {left}"
    left = set(mounts()) - set(before_mounts)	# a folder shared with other tests may have lost some
    assert not left, f"mounts left: {sorted(left)}"


# ------------------------------------------------------------------------------ running

def main(names):
    tests = [(n, f) for n, f in names.items() if n.startswith("test_") and callable(f)]
    wanted = sys.argv[2:]
    failed = skipped = passed = 0
    try:
        for name, test in tests:
            if wanted and name not in wanted:
                continue
            before, begin = mounts(), time.monotonic()
            try:
                test()
                check_nothing_left(before)
                result = "ok"
                passed += 1
            except Skip as e:
                result = f"skipped: {e}"
                skipped += 1
            except ExpectedFailure as e:
                result = f"known bug: {e}"
                passed += 1
            except Exception:  # noqa: BLE001 - a test reports whatever went wrong
                result = "FAILED\n" + traceback.format_exc()
                failed += 1
            print(f"{name} ({time.monotonic() - begin:.1f} s): {result}", flush=True)
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    print(f"{passed} ok, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 77 if skipped and not passed else 0)
