"""Part `network`: guests' user networks; roux's beside libslirp and passt under QEMU TCG, and the host's loopback."""
import contextlib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tools"))
import rootfs
from guests import output
from results import median, ratios, spread

MEMORY_MIB = 1024
CONNECTIONS = 10_000
GUEST, GATEWAY = "10.0.2.15", "10.0.2.2"
# Name, unit, whether more is better.
MEASURES = (("tcp-send", "Mbit/s", True), ("tcp-receive", "Mbit/s", True), ("ping", "us", False),
            ("tcp-roundtrip", "us", False), ("tcp-connect", "/s", True), ("http", "requests/s", True),
            ("held", "conns", True), ("held-time", "s", False))
TITLES = {"roux": "roux dbt", "slirp": "QEMU TCG, libslirp", "passt": "QEMU TCG, passt", "native": "loopback"}

# Runs in a Debian root; $1 is the server's address, $2.. its ports and numbers.
SCRIPT = r"""
ulimit -n 20000 2>/dev/null
iperf3 -c $1 -p $2 -t $5 -f m | sed -n 's|.* \([0-9.]*\) Mbits/sec .*receiver.*|tcp-send \1 Mbit/s|p'
iperf3 -R -c $1 -p $2 -t $5 -f m | sed -n 's|.* \([0-9.]*\) Mbits/sec .*receiver.*|tcp-receive \1 Mbit/s|p'
ping -q -c 500 -i 0.002 $1 | sed -n 's|^r.* = [0-9.]*/\([0-9.]*\)/.*|ping \1 ms|p'
/mnt/connections pingpong $1 $3 $5
/mnt/connections connects $1 $3 $5
wrk -t 1 -c 32 -d ${5}s http://$1:$4/ | sed -n 's|^Requests/sec: *|http |p'
/mnt/connections many $1 $3 $6
echo network-done
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def nginx_conf(folder, port):
    (folder / "www").mkdir()
    (folder / "www/index.html").write_text("x" * 1024)
    path = folder / "nginx.conf"
    path.write_text(f"""daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1;
{'user root;' if os.geteuid() == 0 else ''}
events {{ worker_connections 1024; }}
http {{ access_log off; server {{ listen 127.0.0.1:{port}; root {folder}/www; keepalive_requests 100000000; }} }}
""")
    return path


@contextlib.contextmanager
def servers(work, program):
    """The host's side: iperf3, an echo server and nginx, on its loopback only; gives their ports."""
    ports = [free_port() for _ in range(3)]
    folder = work / "servers"
    folder.mkdir()
    running = [subprocess.Popen([str(a) for a in args], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)
               for args in (["iperf3", "-s", "-B", "127.0.0.1", "-p", ports[0]], [program, "serve", ports[1]],
                            ["nginx", "-c", nginx_conf(folder, ports[2])])]
    try:
        for port in ports:
            for _ in range(100):
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.05)
        yield ports
    finally:
        for p in running:
            p.terminate()
            p.wait()


def read(res, peer, text):
    if "network-done" not in text:
        sys.exit(f"bench: network on {peer} did not finish:\n{text}")
    for name, unit, _ in MEASURES:
        found = re.search(rf"^{name} ([0-9.]+)( ms)?", text, re.M)
        if found:
            res.add(f"network/{name}/{peer}", unit, float(found[1]) * (1000 if found[2] else 1))


def run_passt(work):
    """A passt that QEMU connects to; gives its socket."""
    path = work / "passt.sock"
    p = subprocess.Popen(["passt", "-f", "-q", "-s", path, "-a", GUEST, "-n", "24", "-g", GATEWAY, "-t", "none",
                          "-u", "none", *(["--runas", "0"] if os.geteuid() == 0 else [])],
                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(100):
        if path.exists():
            break
        time.sleep(0.02)
    return p, path


def plans(guests, disks, append):
    machine = {"memory_mib": MEMORY_MIB, "disks": disks}
    device = ["-device", "virtio-net-device,netdev=n0"]
    return {
        "roux": lambda work: (None, guests.roux(append, **machine, network=(GUEST, GATEWAY))),
        "slirp": lambda work: (None, [*guests.tcg(append, **machine), "-netdev", "user,id=n0", *device]),
        "passt": lambda work: (lambda p, path: (p, [*guests.tcg(append, **machine), "-netdev",
                               f"stream,id=n0,server=off,addr.type=unix,addr.path={path}", *device]))(*run_passt(work)),
    }


def part(res, guests, out, work, rounds, seconds):
    try:
        root, image = rootfs.debian_root(), rootfs.debian_image()
    except rootfs.Unavailable as why:
        res.say(f"### Network\n\nSkipped: {why}\n")
        return
    folder, disk = work / "network", work / "network.img"
    folder.mkdir()
    program = out / "bench" / "connections"
    shutil.copy(program, folder)
    (folder / "run").write_text(SCRIPT)
    rootfs.make_image(folder, disk, "-m", "0", "16M")
    with servers(work, program) as ports:
        arguments = [*ports, seconds, CONNECTIONS]
        append = f"BENCH=network GUEST={GUEST} GATEWAY={GATEWAY} ARGUMENTS={','.join(map(str, arguments))}"
        here = ["unshare", "--mount", "sh", "-c", 'mount --make-rprivate / && mount --bind "$1" "$2/mnt" && '
                'mount --bind /dev "$2/dev" && mount --rbind /proc "$2/proc" && shift && r=$1 && shift && '
                'exec chroot $r sh /mnt/run "$@"', "network", folder, root, "127.0.0.1", *arguments]
        for _ in range(rounds):
            read(res, "native", output(here, 120))
            for peer, plan in plans(guests, [image, disk], append).items():
                helper, args = plan(work)
                try:
                    read(res, peer, output(args, 600))
                finally:
                    if helper:
                        helper.kill()
                        helper.wait()
                        pathlib.Path(work / "passt.sock").unlink(missing_ok=True)
    rows = []
    for name, unit, more in MEASURES:
        row = [name]
        for other in ("slirp", "passt", "native"):
            a, b = (res.samples.get(f"network/{name}/{p}") for p in ("roux", other))
            if not a or not b or len(a) != len(b):
                row.append("")
                continue
            r = ratios(a, b) if more else ratios(b, a)
            res.add(f"network/{name}/roux-over-{other}", "ratio", median(r))
            row.append(median(r))
        row += [median(res.samples.get(f"network/{name}/{p}", [float("nan")])) for p in TITLES] + [unit]
        rows.append(row)
    res.say(f"### Network\n\nA guest of one vCPU with a user network, same kernel, root and programs; servers on the "
            f"host's loopback. iperf3 for {seconds} s, ping of the gateway, one byte there and back over TCP, connections "
            f"made one after the other, wrk with 32 connections against nginx, {CONNECTIONS} connections at once each of "
            f"which must answer. Speed of roux divided by that of the other (for times: inverted); rounds: {rounds}.\n")
    res.table(["", "roux/libslirp", "roux/passt", "roux/loopback", *TITLES.values(), "unit"], rows)
