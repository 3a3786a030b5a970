#!/usr/bin/env python3
"""The jail of a running VM, looked at from outside.  run_jail.py ROUX [TEST...]"""
import os
import re
import shutil
import signal
import subprocess
import sys

sys.path.insert(0, os.path.dirname(__file__))
import harness
from harness import (CACHE, ROUX, WORK, Skip, busybox_root, cgroups, complains, copy_cache, debian_root, environ, expect, folder, main,
                     read_until, roux, start, wait_until)

ROOT = busybox_root()
NOBODY = 65534
SPACES = ("user", "mnt", "pid_for_children", "pid", "net", "ipc", "uts")
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")


def status_of(path):
    with open(path + "/status") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def of_threads(pid, read):
    """What read(folder) says of each thread of a process; all of it again when one ended meanwhile."""
    while True:
        try:
            return [read(f"/proc/{pid}/task/{tid}") for tid in os.listdir(f"/proc/{pid}/task")]
        except (FileNotFoundError, ProcessLookupError):
            if not os.path.exists(f"/proc/{pid}"):
                raise


def threads(pid):
    """Name of thread -> its status fields."""
    found = {}
    for s in of_threads(pid, status_of):
        found.setdefault(s["Name"], []).append(s)
    return found


def children(pid):
    """Name -> pid; two of a name are a mistake."""

    def read(folder):
        with open(folder + "/children") as f:
            return [int(child) for child in f.read().split()]

    found = {}
    for child in sum(of_threads(pid, read), []):
        name = status_of(f"/proc/{child}")["Name"]
        assert name not in found, (name, found)
        found[name] = child
    return found


def only_child(pid):
    found = children(pid)
    assert len(found) == 1, found
    return list(found.values())[0]


def data_of_nobody():
    """Folders for the records and sockets of VMs that nobody starts."""
    at = WORK + "/of-nobody"
    if not os.path.exists(at):
        os.mkdir(at)
        os.chown(at, NOBODY, NOBODY)
    return {"ROUX_STORE": at + "/store", "ROUX_STATE": at + "/state"}


class Machine:
    """A VM that waits for its standard input to end; started by root or by nobody."""

    def __init__(self, *options, user=False, root=ROOT, cache=CACHE, roux_command=ROUX):
        self.process = subprocess.Popen(
            [*(AS_NOBODY if user else ()), roux_command, "run", *options, "-i", root, "--",
             "sh", "-c", "echo go; cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environ(ROUX_CACHE=cache, **(data_of_nobody() if user else {})))
        try:
            read_until(self.process.stdout, b"go\n")
        except AssertionError as e:
            self.process.kill()
            raise AssertionError(f"{e}: {self.process.stderr.read()!r}") from None
        try:
            found = children(only_child(self.process.pid))	# roux, monitor, VM and perhaps the maker of its sockets
            self.pid = found.pop("roux-vm")
            self.helper = found.pop("roux-helper", None)
            assert not found, found
        except BaseException:
            self.process.kill()	# which ends the rest; the next test would find it
            raise

    def finish(self):
        self.process.stdin.close()
        self.process.stdin = None
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, (self.process.returncode, out, err)


def check_walls(pid, root):
    for name in SPACES:
        assert os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"), f"namespace {name} is ours"
    assert status_of(f"/proc/{pid}")["NSpid"].split()[-1] == "1"
    assert os.listdir(f"/proc/{pid}/root/") == []
    with open(f"/proc/{pid}/mountinfo") as f:
        mounts = f.readlines()
    assert len(mounts) == 1 and " - tmpfs " in mounts[0], mounts
    options = mounts[0].split()[5].split(",")
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(options), options
    with open(f"/proc/{pid}/net/dev") as f:
        assert [line.split(":")[0].strip() for line in f.readlines()[2:]] == ["lo"]
    with open(f"/proc/{pid}/uid_map") as f:
        ids = [int(n) for n in f.read().split()]
    assert ids == ([0, 0, 4294967295] if root else [NOBODY, NOBODY, 1]), ids


def check_rights(pid, serving):
    found = threads(pid)
    assert {"roux-vm", "io", "vcpu0"} <= set(found), found.keys()
    for name, several in found.items():
        for s in several:
            assert s["NoNewPrivs"] == "1" and s["Seccomp"] == "2", (name, s)
            for field in ("CapInh", "CapBnd", "CapAmb"):
                assert int(s[field], 16) == 0, (name, field, s[field])
            wanted = serving if name == "io" else 0
            assert int(s["CapEff"], 16) == int(s["CapPrm"], 16) == wanted, (name, s["CapEff"])


def check_limits(pid, writes):
    with open(f"/proc/{pid}/limits") as f:
        limits = {line[:26].strip(): line[26:].split()[:2] for line in f.readlines()[1:]}
    assert limits["Max core file size"] == ["0", "0"], limits
    assert limits["Max locked memory"] == ["0", "0"], limits
    if not writes:
        assert limits["Max file size"] == ["0", "0"], limits


def check_descriptors(pid):
    """What it holds: nothing that names the host but the shared folders."""
    held = [os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")]
    plain = re.compile(r"anon_inode:|socket:|/(dev/)?null$|/memfd:roux|/$|/fd$")
    # Nodes of a detached folder show as paths in it: the root file system's own.
    other = [h for h in held if not plain.search(h) and not h.startswith(("/bin", "/etc", "/root", "/home", "/tmp"))]
    assert not other, other
    assert len([h for h in held if plain.search(h)]) < 60, held


CAP_READ, CAP_WRITE = 1 << 2, 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 31


def test_the_helper_makes_sockets_or_is_gone():
    m = Machine("--network", "none")
    assert m.helper is None, m.helper
    m.finish()
    m = Machine()
    s = status_of(f"/proc/{m.helper}")
    assert s["NoNewPrivs"] == "1" and s["Seccomp"] == "2" and int(s["CapEff"], 16) == int(s["CapPrm"], 16) == 0, s
    assert s["Threads"] == "1", s
    # Without it connections fail; the VM goes on.
    os.kill(m.helper, signal.SIGKILL)
    m.finish()


def test_a_running_machine_is_in_its_jail():
    m = Machine()
    check_walls(m.pid, os.geteuid() == 0)
    check_rights(m.pid, CAP_READ if os.geteuid() == 0 else 0)
    check_limits(m.pid, False)
    check_descriptors(m.pid)
    m.finish()


def test_a_writable_share_gives_its_server_rights_over_files_and_no_other_thread():
    shared = folder("shared")
    m = Machine("-v", shared + ":/mnt", "--cpus", "2")
    check_walls(m.pid, os.geteuid() == 0)
    check_rights(m.pid, CAP_WRITE if os.geteuid() == 0 else 0)
    m.finish()


def test_files_of_a_share_are_used_in_every_way_there_is():
    shared = folder("used")
    script = """set -e; cd /mnt
        mkdir d; echo text > d/f; cat d/f; ln d/f d/hard; ln -s f d/soft; readlink d/soft; mv d/f d/g; cp -a d e
        chmod 4755 d/g; touch -d 2001-02-03 d/g; truncate -s 100000 d/g; mkfifo d/p; ls -lR / >/dev/null 2>&1 || true
        dd if=/dev/zero of=big bs=1M count=8 conv=fsync 2>/dev/null; cp big big2; cmp big big2; sync
        find . | sort | wc -l; df . >/dev/null; rm -r d e big big2; ls -A | wc -l"""
    expect(roux("-v", shared + ":/mnt", ROOT, "--", "sh", "-c", script), 0, out=b"text\nf\n12\n0\n")


def test_files_of_a_share_are_used_by_rarer_system_calls():
    shared = folder("rare")
    with open(shared + "/program.py", "w") as f:
        f.write('''
import ctypes, fcntl, os
os.chdir("/mnt")
f = os.open("f", os.O_RDWR | os.O_CREAT)
fcntl.lockf(f, fcntl.LOCK_EX)
fcntl.flock(f, fcntl.LOCK_EX)
fcntl.lockf(f, fcntl.LOCK_UN)
os.posix_fallocate(f, 0, 1 << 20)
os.pwrite(f, b"data", 4096)
os.fsync(f), os.fdatasync(f), os.sync()
os.lseek(f, 0, os.SEEK_HOLE), os.lseek(f, 0, os.SEEK_DATA)
g = os.open("g", os.O_RDWR | os.O_CREAT)
assert os.copy_file_range(f, g, 8192, 0, 0) == 8192
assert os.pread(g, 4, 4096) == b"data"
os.ftruncate(g, 10)
os.setxattr("f", "user.a", b"b")
assert os.listxattr("f") == ["user.a"] and os.getxattr("f", "user.a") == b"b"
os.removexattr("f", "user.a")
t = os.open(".", os.O_TMPFILE | os.O_RDWR)
os.write(t, b"x")
os.link(f"/proc/self/fd/{t}", "named", src_dir_fd=0, follow_symlinks=True)
os.symlink("f", "link"), os.mkfifo("fifo"), os.mkdir("d")
assert ctypes.CDLL(None).renameat2(-100, b"f", -100, b"g", 2) == 0
os.utime("f", (1, 2)), os.chmod("f", 0o4711), os.rename("g", "d/g")
os.statvfs("."), os.sched_yield()
print(sorted(os.listdir(".")))
''')
    expect(roux("-v", shared + ":/mnt", debian_root(), "--", "python3", "/mnt/program.py"), 0,
           out=b"['d', 'f', 'fifo', 'link', 'named', 'program.py']\n")


def test_owners_are_kept_as_root():
    if os.geteuid() != 0:
        raise Skip("not root")
    shared = folder("owned")
    script = "cd /mnt; echo x > f; chown 1234:4321 f; chmod 2640 f; stat -c '%u:%g %a' f"
    expect(roux("-v", shared + ":/mnt", ROOT, "--", "sh", "-c", script), 0, out=b"1234:4321 2640\n")
    st = os.stat(shared + "/f")
    assert (st.st_uid, st.st_gid, st.st_mode & 0o7777) == (1234, 4321, 0o2640), st


def test_it_works_as_an_ordinary_user():
    if os.geteuid() != 0:
        raise Skip("not root: the other tests show it")
    os.chmod(WORK, 0o755)
    cache, root, command = copy_cache("nobody-cache"), WORK + "/nobody-root", WORK + "/roux"
    shutil.copytree(ROOT, root, symlinks=True)
    shutil.copy(ROUX, command)
    shared = folder("nobody-shared")
    for base, dirs, files in [*os.walk(cache), *os.walk(root), *os.walk(shared)]:
        for n in ["", *dirs, *files]:
            os.lchown(os.path.join(base, n), NOBODY, NOBODY)
    m = Machine("-v", shared + ":/mnt", user=True, root=root, cache=cache, roux_command=command)
    check_walls(m.pid, False)
    check_rights(m.pid, 0)
    m.finish()
    r = subprocess.run([*AS_NOBODY, command, "run", "-v", shared + ":/mnt", root, "--", "sh", "-c",
                        "echo x > /mnt/f && chown 5:6 /mnt/f && stat -c %u:%g /mnt/f"],
                       env=environ(ROUX_CACHE=cache, **data_of_nobody()), capture_output=True, stdin=subprocess.DEVNULL,
                       timeout=60)
    assert (r.returncode, r.stdout) == (0, b"5:6\n"), r
    assert os.stat(shared + "/f").st_uid == NOBODY


def programs():
    return "-v", os.path.join(os.path.dirname(ROUX), "../tests/e2e") + ":/mnt:ro"


def test_a_control_group_holds_what_is_in_it():
    """Of the host's version here, and of version 2 in a guest, from three places."""
    program = os.path.join(os.path.dirname(ROUX), "../tests/e2e/cgroups")
    if subprocess.run([program], check=False).returncode not in (0, 77):
        raise AssertionError("see above")
    own = "mkdir /sys/fs/cgroup/a; echo $$ >/sys/fs/cgroup/a/cgroup.procs; /mnt/cgroups"
    limited = "echo 100M >/sys/fs/cgroup/a/memory.max; /mnt/cgroups; echo $?; ls /sys/fs/cgroup | grep roux-"
    r = roux("--memory", "256M", *programs(), ROOT, "--", "sh", "-c", f"/mnt/cgroups && {own} && {limited}")
    limits, why = b"limits: memory pids cpu\n", b"the control group that roux runs in has limits of its own"
    assert r.out.startswith(limits + limits + why) and r.out.endswith(b"\n77\n"), r
    expect(r, 1)


def test_a_vm_has_a_control_group():
    m = Machine("--memory", "200M")
    group = cgroups(m.pid)
    if not group:
        m.finish()
        raise Skip("roux may make no control group here")
    assert cgroups(m.helper) == group, (cgroups(m.helper), group)
    if "memory" in group:
        assert int(read_first(group["memory"], "memory.max", "memory.limit_in_bytes")) == 712 << 20
    if "pids" in group:
        assert int(read_first(group["pids"], "pids.max")) == 129
    m.finish()
    # The process may outlive its answer by some milliseconds.
    wait_until("the group to go", lambda: not any(os.path.exists(folder) for folder in group.values()), 5)


def read_first(folder, *names):
    for name in names:
        if os.path.exists(f"{folder}/{name}"):
            with open(f"{folder}/{name}") as f:
                return f.read()
    raise AssertionError((folder, names))


def test_kill_9_of_the_vm_leaves_nothing():
    m = Machine()
    os.kill(m.pid, signal.SIGKILL)
    out, err = m.process.communicate(timeout=10)
    complains(harness.Result(m.process.returncode, out, err, 0), 125, "killed by signal 9")


def test_other_signals_do_not_end_it():
    m = Machine()
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        os.kill(m.pid, sig)
    m.finish()


def test_a_forbidden_system_call_is_told():
    """A debugger on the host makes the main thread do what it never would."""
    if not shutil.which("gdb"):
        raise Skip("no gdb")
    m = Machine()
    # "syscall" at the current instruction, with number 41: socket().
    r = subprocess.run(["gdb", "-q", "-nx", "-batch", "-p", str(m.pid), "-ex", "set auto-solib-add off",
                        "-ex", "set $rax = 41", "-ex", "set $orig_rax = -1", "-ex", "set $rip = $rip - 2",
                        "-ex", "handle SIGSYS nostop noprint pass", "-ex", "continue"],
                       capture_output=True, text=True, timeout=60)
    out, err = m.process.communicate(timeout=20)
    assert m.process.returncode == 125, (m.process.returncode, err, r)
    complains(harness.Result(m.process.returncode, out, err, 0), 125, "stopped by its jail",
              "forbidden system call 41 (socket)")


if __name__ == "__main__":
    main(globals())
