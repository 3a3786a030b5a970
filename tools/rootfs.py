"""Root file systems that tests and benchmarks use, made once and kept in roux's cache."""
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile

DEBIAN_PACKAGES = ["curl", "gcc", "gcc-multilib", "gdb-minimal", "iperf3", "iproute2", "iputils-ping", "libc6-dev",
                   "nginx-light", "openssl", "perl", "procps", "python3", "sqlite3", "wrk"]
DEBIAN_RELEASE = "bookworm"
DEBIAN_MIRROR = os.environ.get("ROUX_TEST_MIRROR", "http://deb.debian.org/debian")


class Unavailable(Exception):
    """What was asked for cannot be made here; says why."""


def cache_folder():
    return os.environ.get("ROUX_CACHE") or os.path.expanduser("~/.cache/roux")


def made_once(name, make):
    """Path of @name in the cache, a folder or file made by make(path) unless it is there; complete or absent.

    @make gets a path that does not exist yet.
    """
    base = os.path.join(cache_folder(), "test-roots")
    path = os.path.join(base, name)
    os.makedirs(base, exist_ok=True)
    with open(path + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(path):
            place = tempfile.mkdtemp(prefix="new.", dir=base)
            os.chmod(place, 0o755)
            try:
                make(os.path.join(place, "made"))
                os.rename(os.path.join(place, "made"), path)
            finally:
                shutil.rmtree(place, ignore_errors=True)
    return path


def make_debian(path):
    os.mkdir(path)
    os.chmod(path, 0o755)
    r = subprocess.run(["debootstrap", "--variant=minbase", "--include=" + ",".join(DEBIAN_PACKAGES),
                        DEBIAN_RELEASE, path, DEBIAN_MIRROR], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, text=True, errors="replace")
    if r.returncode:
        raise Unavailable("debootstrap failed: " + r.stdout[-300:])
    shutil.rmtree(path + "/var/cache/apt/archives", ignore_errors=True)
    os.makedirs(path + "/var/cache/apt/archives/partial")


def debian_name():
    """Changes whenever the content of the Debian root does."""
    return "debian-" + hashlib.sha256(" ".join([DEBIAN_RELEASE, *DEBIAN_PACKAGES]).encode()).hexdigest()[:12]


def debian_root():
    """Folder with a Debian user space, not to be written to; with apt's package lists."""
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        raise Unavailable("debootstrap needs root and the package debootstrap")
    return made_once(debian_name(), make_debian)


def make_image(folder, path, *options):
    """An ext4 image file with the content of @folder; @options of mke2fs, and its size last."""
    *options, size = options
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", folder, *options, path, size], check=True,
                   stdout=subprocess.DEVNULL)


def debian_image():
    """debian_root() as an ext4 image."""
    root = debian_root()
    return made_once(debian_name() + ".ext4", lambda path: make_image(root, path, "-m", "0", "1200M"))
