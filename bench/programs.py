"""Part `programs`: a Debian user space, natively and in guests; bench/programs.c runs and times the programs."""
import os
import pathlib
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tools"))
import c_source
import rootfs
from guests import output
from results import median, ratios, spread

MEMORY_MIB = 1024
C_LINES = 5000
DATA_BYTES = 100_000_000
ROWS = 100_000
NAMES = ("gcc", "python3", "gzip", "sha256sum", "sqlite3", "openssl-sha256", "openssl-aes-128-gcm", "openssl-rsa2048",
         "apt-get")


def write_data(root, path):
    """The first 100 MB of the files of @root, in the order of their names: programs, libraries, texts."""
    left = DATA_BYTES
    with open(path, "wb") as to:
        for base, dirs, files in os.walk(os.path.join(root, "usr")):
            dirs.sort()
            for name in sorted(files):
                if left and not os.path.islink(os.path.join(base, name)):
                    left -= to.write(pathlib.Path(base, name).read_bytes()[:left])
    if left:
        sys.exit(f"bench: {root} has less than {DATA_BYTES} bytes below /usr")


def write_rows(path):
    with open(path, "w") as f:
        f.write("create table item(id integer primary key, name text, price real, stock int);\n"
                "create index item_name on item(name);\nbegin;\n")
        for i in range(ROWS):
            f.write(f"insert into item values({i}, 'item {i * 7919 % 100003:06d} of shelf {i % 97}', "
                    f"{i * 31 % 10007 / 100}, {i % 1000});\n")
        f.write("commit;\n")


def make_folder(folder, root, out):
    """What bench/programs.c wants in its folder, and the program itself."""
    (folder / "out").mkdir(parents=True)
    shutil.copy(out / "bench" / "programs", folder)
    shutil.copy(pathlib.Path(__file__).parent / "json_regex.py", folder)
    (folder / "program.c").write_text(c_source.text(C_LINES))
    write_data(root, folder / "data")
    write_rows(folder / "rows.sql")


def native(root, folder, seconds):
    """The programs here, with @root as their root and @folder at /mnt, as in guests: in mounts of their own."""
    script = ('mount --make-rprivate / && mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && '
              'mount --bind "$2" "$1/mnt" && mount --bind /dev "$1/dev" && mount --rbind /proc "$1/proc" && '
              'mount -t tmpfs tmp "$1/tmp" && exec chroot "$1" /mnt/programs /mnt "$3"')
    return ["unshare", "--mount", "sh", "-c", script, "programs", root, folder, seconds]


def run(res, peer, args):
    """One round of a peer: its samples; returns units and checks by name."""
    text = output(args, 600)
    found = re.findall(r"^(\S+) ([0-9.]+) (s|MB/s|sign/s)\s*$", text, re.M)
    if tuple(name for name, _, _ in found) != NAMES:
        sys.exit(f"bench: programs on {peer} failed:\n{text}")
    for name, value, unit in found:
        res.add(f"programs/{name}/{peer}", unit, float(value))
    return {name: unit for name, _, unit in found}, dict(re.findall(r"^check (\S+) (.*?)\s*$", text, re.M))


def times_faster(res, name, units, other):
    """Speed of roux over that of @other, by round."""
    r = ratios(res[f"programs/{name}/roux"], res[f"programs/{name}/{other}"])
    return [1 / x for x in r] if units[name] == "s" else r


def part(res, guests, out, work, rounds, seconds):
    """@seconds: of each program that runs for a fixed time."""
    try:
        root, image = rootfs.debian_root(), rootfs.debian_image()
    except rootfs.Unavailable as why:
        res.say(f"### Programs\n\nSkipped: {why}\n")
        return
    folder, disk = work / "programs", work / "programs.img"
    make_folder(folder, root, out)
    rootfs.make_image(folder, disk, "-m", "0", "512M")
    append = f"BENCH=programs SECONDS_EACH={seconds}"
    machine = {"memory_mib": MEMORY_MIB, "disks": [image, disk]}
    peers = {"native": native(root, folder, seconds), "roux": guests.roux(append, **machine),
             "tcg": guests.tcg(append, **machine)}
    checks = {}
    for _ in range(rounds):
        shutil.rmtree(folder / "out")
        (folder / "out").mkdir()
        for peer, args in peers.items():
            units, checks[peer] = run(res, peer, args)
            if checks[peer] != checks["native"]:
                sys.exit(f"bench: programs on {peer} computed something else than here:\n"
                         f"{checks[peer]}\n{checks['native']}")
    rows = []
    for name, unit in units.items():
        tcg, here = (times_faster(res, name, units, other) for other in ("tcg", "native"))
        res.add(f"programs/{name}/roux-over-tcg", "ratio", median(tcg))
        res.add(f"programs/{name}/roux-over-native", "ratio", median(here))
        rows.append([name, median(tcg), spread(tcg), median(here), spread(here),
                     *(median(res[f"programs/{name}/{p}"]) for p in ("roux", "tcg", "native")), unit])
    res.say(f"### Programs\n\nPrograms of Debian {rootfs.DEBIAN_RELEASE}, the same root natively (chroot) and in guests "
            f"of one vCPU and {MEMORY_MIB} MiB with ext4 on virtio-blk, all of whose results agree: gcc -O2 of "
            f"{C_LINES} lines of C, python3 with JSON and regular expressions, gzip and sha256sum of "
            f"{DATA_BYTES // 1000000} MB, sqlite3 inserting {ROWS} rows, openssl speed for {seconds} s each, apt-get -s "
            f"install of more than a hundred packages.  Speed of roux dbt divided by that of the other (for times: "
            f"inverted); rounds: {rounds}.\n")
    res.table(["program", "roux/TCG", "lowest..highest", "roux/native", "lowest..highest", "roux", "TCG", "native",
               "unit"], rows)
