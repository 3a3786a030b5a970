#!/usr/bin/env python3
"""Images of several layers: the guest's files are what the layers' tars say.  run_layers.py ROUX [TEST...]"""
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time

sys.path.insert(0, os.path.dirname(__file__))
from harness import (WORK, Skip, busybox_root, cache_files, complains, copy_cache, expect, folder, have_learned,
                     main, roux, start, tmpfs)
from oci_maker import layer_tar, oci_layout_of

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
TIME = 1234567890

# The host's own Python, shared with the guest, whose image has nothing but what is to be looked at.
LIBS = "/usr/lib/x86_64-linux-gnu"
PYTHON = [f"/host{LIBS}/ld-linux-x86-64.so.2", "--library-path", f"/host{LIBS}", "/host/usr/bin/python3"]
PYTHON_OPTIONS = ["-v", "/usr:/host/usr:ro", "-e", "PYTHONHOME=/host/usr", "-e", "PYTHONUTF8=1"]

# Prints every file of a folder with all that stat and the attributes tell, and what is in it.
TELL = r"""
import hashlib, json, os, stat, sys
found = {}
def tell(path):
    st = os.lstat(path)
    one = {"mode": st.st_mode, "uid": st.st_uid, "gid": st.st_gid, "mtime": int(st.st_mtime),
           "xattr": {n: os.getxattr(path, n, follow_symlinks=False).hex()
                     for n in sorted(os.listxattr(path, follow_symlinks=False)) if not n.startswith("trusted.overlay")}}
    if stat.S_ISREG(st.st_mode):
        one["size"] = st.st_size
        h = hashlib.sha256()
        with open(path, "rb") as f:
            while data := f.read(1 << 20):
                h.update(data)
        one["sha256"] = h.hexdigest()
    if stat.S_ISLNK(st.st_mode):
        one["target"] = os.readlink(path)
    if stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode):
        one["device"] = [os.major(st.st_rdev), os.minor(st.st_rdev)]
    if not stat.S_ISDIR(st.st_mode):
        one["ino"], one["nlink"] = st.st_ino, st.st_nlink
    found[path[len(sys.argv[1]) + 1:]] = one
    if stat.S_ISDIR(st.st_mode):
        for name in os.listdir(path):
            tell(path + "/" + name)
tell(sys.argv[1])
json.dump(found, sys.stdout)
"""


# ---------------------------------------------------------------- layers, and what they mean

def inside(name):
    return "t/" + name if name else "t"


class Layer:
    """A tar, and what it does to the files of the layers below."""

    def __init__(self):
        self.out = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.out, mode="w", format=tarfile.PAX_FORMAT)
        self.files, self.hidden = {}, []

    def add(self, name, kind, data=b"", mode=0o644, uid=0, gid=0, link="", device=(0, 0), xattr=()):
        info = tarfile.TarInfo(inside(name))
        info.type, info.mode, info.uid, info.gid, info.mtime = kind, mode, uid, gid, TIME
        info.linkname = inside(link) if kind == tarfile.LNKTYPE else link
        info.devmajor, info.devminor = device
        info.size = len(data) if kind == tarfile.REGTYPE else 0
        info.pax_headers = {"SCHILY.xattr." + n: v for n, v in dict(xattr).items()}
        self.tar.addfile(info, io.BytesIO(data))
        if kind == tarfile.LNKTYPE:
            self.files[name] = self.files[link] if link in self.files else ("below", link)
            return
        one = {"mode": mode | {tarfile.REGTYPE: 0o100000, tarfile.DIRTYPE: 0o040000, tarfile.SYMTYPE: 0o120000,
                               tarfile.CHRTYPE: 0o020000, tarfile.BLKTYPE: 0o060000, tarfile.FIFOTYPE: 0o010000}[kind],
               "uid": uid, "gid": gid, "mtime": TIME, "xattr": {n: v.encode().hex() for n, v in dict(xattr).items()}}
        if kind == tarfile.REGTYPE:
            one.update(size=len(data), sha256=hashlib.sha256(data).hexdigest())
        if kind == tarfile.SYMTYPE:
            one.update(target=link, mode=0o120777)
        if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
            one.update(device=list(device))
        self.files[name] = one

    def file(self, name, data, **kw):
        self.add(name, tarfile.REGTYPE, data, **kw)

    def dir(self, name, mode=0o755, **kw):
        self.add(name, tarfile.DIRTYPE, mode=mode, **kw)

    def link(self, name, target, **kw):
        self.add(name, tarfile.SYMTYPE, link=target, **kw)

    def hard(self, name, target):
        self.add(name, tarfile.LNKTYPE, link=target)

    def hide(self, name):
        base, last = os.path.split(name)
        self.tar.addfile(tarfile.TarInfo(inside(os.path.join(base, ".wh." + last))))
        self.hidden.append((name, False))

    def opaque(self, name):
        self.tar.addfile(tarfile.TarInfo(inside(os.path.join(name, ".wh..wh..opq"))))
        self.hidden.append((name, True))

    def finish(self):
        self.tar.close()
        return self.out.getvalue()

    def over(self, below):
        """The files of @below with this layer over them."""
        below = dict(below)
        for name, only_inner in self.hidden:
            for path in list(below):
                if path.startswith(name + "/") or (path == name and not only_inner):
                    del below[path]
        for name, one in self.files.items():
            one = below[one[1]] if isinstance(one, tuple) else one
            if name in below and (below[name]["mode"] ^ one["mode"]) & 0o170000:
                for path in [p for p in below if p.startswith(name + "/")]:
                    del below[path]
            below[name] = one
        return below


def first_layer():
    la = Layer()
    la.dir("", mode=0o751, uid=1, gid=2)
    la.dir("d", mode=0o1777, uid=3, gid=4, xattr={"user.note": "a folder's"})
    la.dir("empty", mode=0o700, uid=65534, gid=65534)
    la.file("d/setuid", b"#!", mode=0o6755, uid=1000, gid=1000, xattr={"user.a": "1", "user.b": "x" * 3000})
    la.file("d/none", b"", mode=0)
    la.file("d/large-owner", b"x", uid=4000000000, gid=3000000000)
    la.file("d/capable", b"x", xattr={"security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00" + "\x00" * 12})
    for size in (1, 4095, 4096, 4097, 1 << 20, 3000001):
        la.file(f"d/size-{size}", (os.urandom(997) * (size // 997 + 1))[:size])
    la.link("d/link", "../d/none")
    la.link("d/long", "x" * 255 + "/" + "y" * 3000)
    la.link("lib", "usr/lib")
    la.dir("usr")
    la.dir("usr/lib")
    la.add("d/null", tarfile.CHRTYPE, mode=0o666, device=(1, 3))
    la.add("d/disk", tarfile.BLKTYPE, mode=0o660, gid=6, device=(259, 300000))
    la.add("d/pipe", tarfile.FIFOTYPE, mode=0o620, uid=7)
    la.hard("d/hard", "d/setuid")
    la.hard("hard-null", "d/null")
    la.file("n" * 255, b"long name")
    la.file("\udce9t\udce9", b"bytes")
    la.dir("many")
    for i in range(3000):
        la.file(f"many/file number {i}", str(i).encode(), uid=i)
    la.dir("gone")
    la.file("gone/x", b"x")
    la.dir("opaque", mode=0o711)
    la.file("opaque/x", b"x")
    la.file("becomes-folder", b"x")
    la.dir("becomes-file")
    la.file("becomes-file/x", b"x")
    return la


def second_layer():
    la = Layer()
    la.hide("gone")
    la.hide("d/none")
    la.opaque("opaque")
    la.file("opaque/y", b"y")
    la.dir("becomes-folder", mode=0o750, uid=8)
    la.file("becomes-folder/x", b"2")
    la.file("becomes-file", b"2")
    la.hard("hard-to-below", "d/setuid")
    la.file("many/file number 7", b"seven")
    la.hide("many/file number 8")
    return la


def third_layer():
    la = Layer()
    la.file("gone", b"back, but a file")
    la.dir("d", mode=0o755, uid=9, gid=9)
    la.file("d/none", b"some")
    return la


def image_of(name, *layers):
    """An image layout, and what the guest must find in it below /t."""
    expected = {}
    for la in layers:
        expected = la.over(expected)
    return oci_layout_of(folder(name), [la.finish() for la in layers], {"Entrypoint": [*PYTHON, "-c", TELL, "/t"]}), expected


# ---------------------------------------------------------------- looking

def groups(files, key):
    """Sets of names that are one file."""
    found = {}
    for name, one in files.items():
        if not one["mode"] & 0o170000 == 0o040000:
            found.setdefault(key(one), set()).add(name)
    return sorted(sorted(names) for names in found.values())


def compare(image, expected, **kw):
    if not os.path.exists(LIBS + "/ld-linux-x86-64.so.2") or not os.path.exists("/usr/bin/python3"):
        raise Skip("no Python where Debian has it")
    r = roux(*PYTHON_OPTIONS, image, **kw)
    expect(r, 0)
    got = json.loads(r.out)
    assert got.keys() == expected.keys(), (sorted(got.keys() ^ expected.keys())[:20])
    same = groups(expected, id)
    assert groups(got, lambda one: one["ino"]) == same
    for names in same:
        for name in names:
            assert got[name]["nlink"] == len(names), name
    for name, want in expected.items():
        have = {k: got[name][k] for k in want}
        assert have == want, (name, have, want)


LAYERS = []


def layers():
    if not LAYERS:
        LAYERS.extend([first_layer(), second_layer(), third_layer()])
    return LAYERS


def test_the_guest_finds_what_the_layers_say():
    for count in (1, 3):
        compare(*image_of(f"as-root-{count}", *layers()[:count]))


def test_it_does_so_when_an_ordinary_user_made_it():
    if os.geteuid() != 0:
        raise Skip("becoming another user needs root; the test before was such a user")
    image, expected = image_of("as-nobody", *layers())
    cache = copy_cache("cache-of-nobody")
    subprocess.run(["chown", "-R", "65534:65534", cache], check=True)
    os.chmod(WORK, 0o711)
    compare(image, expected, env={"ROUX_CACHE": cache, "ROUX_STORE": cache + "/store",
                                   "ROUX_STATE": cache + "/state"}, prefix=NOBODY)


def test_a_hundred_layers():
    tars = [layer_tar({"bin": None, "bin/busybox": busybox_root() + "/bin/busybox"})]
    tars += [layer_tar({f"d/{i}": str(i).encode()}, whiteouts=[f"d/{i - 2}"] if i % 2 else []) for i in range(100)]
    image = oci_layout_of(folder("hundred"), tars, {})
    r = expect(roux(image, "--", "/bin/busybox", "ls", "/d"), 0)
    kept = [i for i in range(100) if i % 2 == 0 or i > 97]
    assert sorted(map(int, r.out.split())) == kept, r.out


# ---------------------------------------------------------------- the cache

def cached(cache, kind):
    """Names of the files of the kind, "layers" or "images", as they are and as they are made."""
    return {os.path.basename(f) for f in cache_files(cache) if f"/disks-v1/{kind}/" in f and not f.endswith(".lock")}


def busybox_image(name, *contents):
    """One with a layer of each of @contents over busybox."""
    tars = [layer_tar({"bin": None, "bin/busybox": busybox_root() + "/bin/busybox"})]
    return oci_layout_of(folder(name), tars + [layer_tar({f"file{i}": data}) for i, data in enumerate(contents)],
                         {"Cmd": ["/bin/busybox", "sha256sum", *(f"/file{i}" for i in range(len(contents)))]})


def sums(*contents):
    return "".join(f"{hashlib.sha256(data).hexdigest()}  /file{i}\n" for i, data in enumerate(contents)).encode()


def test_images_share_layers():
    cache = copy_cache("cache-shared", "disks-v1")
    expect(roux(busybox_image("share-1", b"1", b"2"), env={"ROUX_CACHE": cache}), 0, out=sums(b"1", b"2"))
    before = cached(cache, "layers")
    assert len(before) == 3 and len(cached(cache, "images")) == 1, cache_files(cache)
    expect(roux(busybox_image("share-2", b"1", b"3"), env={"ROUX_CACHE": cache}), 0, out=sums(b"1", b"3"))
    after = cached(cache, "layers")
    assert len(after) == 4 and before < after and len(cached(cache, "images")) == 2, cache_files(cache)


def test_kill_9_at_any_time_leaves_nothing_that_is_taken_for_whole():
    content = os.urandom(1 << 20) * 100
    image = busybox_image("killed", content, b"2")
    cache = copy_cache("cache-killed", "disks-v1")
    for delay_ms in (100, 200, 350, 500, 700, 1000, 1400):
        p = start(image, env={"ROUX_CACHE": cache})
        time.sleep(delay_ms / 1000)
        p.send_signal(signal.SIGKILL)
        p.communicate()
        assert len(cached(cache, "layers")) <= 3, cached(cache, "layers")	# what is left is not left again and again
    expect(roux(image, env={"ROUX_CACHE": cache}), 0, out=sums(content, b"2"))
    left = [f for f in cache_files(cache) if ".new" in f]
    assert not left, left


def test_several_machines_make_one_disk_together():
    content = os.urandom(1 << 20) * 20
    image = busybox_image("together", content)
    cache = copy_cache("cache-together", "disks-v1")
    vms = [start(image, env={"ROUX_CACHE": cache}) for _ in range(4)]
    for vm in vms:
        out, err = vm.communicate(timeout=120)
        assert vm.returncode == 0 and out == sums(content), (vm.returncode, out, err)
    assert len(cached(cache, "layers")) == 2 and len(cached(cache, "images")) == 1, cache_files(cache)


def test_a_full_disk_is_told_and_what_is_there_is_used_later():
    content = os.urandom(20 << 20)
    image = busybox_image("full", b"small", content)
    with tmpfs("full-cache", "size=500m") as at:
        shutil.copytree(copy_cache("cache-full", "disks-v1"), at + "/c", symlinks=True)
        room = os.statvfs(at)
        with open(at + "/fill", "wb") as f:
            os.posix_fallocate(f.fileno(), 0, room.f_bavail * room.f_frsize - (10 << 20))
        r = complains(roux(image, env={"ROUX_CACHE": at + "/c"}), 125, "o space left", "ROUX_CACHE")
        assert len(r.err.splitlines()) == 1, r
        assert len(cached(at, "layers")) == 2 and not cached(at, "images"), cached(at, "layers")
        # No room for what files are called either, long after their data, of which there are none.
        names = oci_layout_of(folder("names"), [layer_tar({f"{i:0150}": b"" for i in range(50000)})], {"Cmd": ["x"]})
        r = complains(roux(names, env={"ROUX_CACHE": at + "/c"}), 125, "o space left", "ROUX_CACHE")
        assert len(r.err.splitlines()) == 1 and len(cached(at, "layers")) == 2, r
        os.unlink(at + "/fill")
        expect(roux(image, env={"ROUX_CACHE": at + "/c"}), 0, out=sums(b"small", content))
        # With everything in it, a cache need not be written.
        have_learned()
        subprocess.run(["mount", "-o", "remount,ro", at], check=True)
        expect(roux(image, env={"ROUX_CACHE": at + "/c"}), 0, out=sums(b"small", content))


main(globals())
