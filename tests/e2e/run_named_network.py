#!/usr/bin/env python3
"""Networks that join several machines.  run_named_network.py ROUX [TEST...]

The tests run themselves in namespaces where they are the rest of the world: world.py.
"""
import contextlib
import glob
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(__file__))
import harness
from harness import CACHE, ROUX, WORK, Skip, busybox_root, complains, copy_cache, environ, expect, main, marked_processes, \
    read_until, start, verb, wait_until
from world import WORLD4, WORLD6, enter_world, free_port, http_get, name_server, programs, tcp_server, udp_server

NOBODY = 65534
SIZE = 24 << 20
# Its input stays open: it ends when the sender does.
TAKE = "mkfifo /tmp/f{0}; sleep 1000 > /tmp/f{0} & echo up; nc -l -p {0} < /tmp/f{0} > /tmp/x; sha256sum < /tmp/x"
SEND = f"head -c {SIZE} /dev/urandom > /tmp/d; sha256sum < /tmp/d"


def network(*args, status=0):
    return expect(verb("network", *args), status).out.decode()


@contextlib.contextmanager
def made(name, *options):
    """A network for the time of a test; what it is, as a dictionary."""
    what = json.loads(network("create", "--json", *options, name))
    try:
        yield what
    finally:
        wait_until("the machines to leave", lambda: not machines(name))
        network("rm", name)


def machines(name):
    """Host name -> what inspect says of the machine; those without one by their address."""
    return {m["hostname"] or m["addresses"][0]: m for m in json.loads(network("inspect", name))[0]["machines"]}


@contextlib.contextmanager
def running(net, hostname, script, *options, **kw):
    """A machine that has printed "up"; ends with it."""
    p = start("--rm", "--network", net, *(["--hostname", hostname] if hostname else []), *options, busybox_root(), "--",
              "sh", "-c", script, **kw)
    try:
        p.got = read_until(p.stdout, b"up\n")
        yield p
    finally:
        p.terminate()
        p.communicate(timeout=30)


def guest(net, hostname, script, *options, cache=CACHE):
    """What a shell on the network prints."""
    name = ("--hostname", hostname) if hostname else ()
    return expect(harness.roux("--rm", "--network", net, *name, *options, busybox_root(), "--", "sh", "-c", script,
                               env={"ROUX_CACHE": cache})).out.decode()


def test_two_machines_reach_each_other_by_name():
    with made("lab") as net, running("lab", "Server", "echo up; sleep 1000"):
        text = guest("lab", "client", "for n in server server.roux.internal; do ping -4 -c 2 $n; ping -6 -c 2 $n; done;"
                     "nslookup server; nslookup 10.89.1.2; hostname; ip addr; ip route; cat /etc/resolv.conf")
        assert text.count("2 packets received, 0% packet loss") == 4, text
        for part in ("server.roux.internal", "10.89.1.2", "fd72:6f75:7801::2", "10.89.1.3/24", "fd72:6f75:7801::3/64",
                     f"default via {net['gateways'][0]}", f"nameserver {net['dns'][0]}"):
            assert part in text, (part, text)


def test_clones_have_addresses_and_names_of_their_own():
    """The first boots and leaves a template, the others go on from that while those before them are there."""
    script = "cat /sys/class/net/eth0/address; ip addr show eth0 | grep -o 'inet6* [^ ]*'; echo up; exec sleep 1000"
    cache = copy_cache("cache-clones")
    with made("clones"), contextlib.ExitStack() as stack:
        for i in range(4):
            vm = stack.enter_context(running("clones", f"clone{i}", script, env={"ROUX_CACHE": cache}))
            mac, *inet, _ = vm.got.decode().split("\n")[:-1]
            there = machines("clones")[f"clone{i}"]
            assert mac == there["mac"], (mac, there)
            local = int(mac.replace(":", "")[:6] + "fffe" + mac.replace(":", "")[6:], 16) ^ 2 << 56 | 0xfe80 << 112
            assert sorted(a.split()[1].split("/")[0] for a in inet) == \
                sorted([*there["addresses"], str(ipaddress.IPv6Address(local))]), (inet, there)
            wait_until("the template", lambda: glob.glob(cache + "/templates/*.snap"))
        for i in range(1, 4):
            assert guest("clones", f"asks{i}", f"ping -c 1 clone{i} | grep -o '1 packets received'",
                         cache=cache) == "1 packets received\n"
        assert len({m["mac"] for m in machines("clones").values()}) == 4, machines("clones")
    r = expect(verb("template", "ls", env={"ROUX_CACHE": cache}), 0)
    assert len(r.out.splitlines()) == 2, r.out	# with its title: one for all


def test_streams_arrive_whole():
    with made("lab"), running("lab", "server", f"{TAKE.format(5000)}; {TAKE.format(5001)}; sleep 1000") as server:
        for port, family in ((5000, "-4"), (5001, "-6")):
            address = {"-4": "10.89.1.2", "-6": "fd72:6f75:7801::2"}[family]
            sums = guest("lab", "client", f"{SEND}; until nc {address} {port} < /tmp/d; do sleep 0.1; done").split()
            read_until(server.stdout, sums[0].encode())
        seen = machines("lab")["server"]
        # Long segments stay long: most frames are of tens of kilobytes.
        assert seen["received_bytes"] > 2 * SIZE and seen["received_packets"] < 2 * SIZE // 4000, seen


def test_datagrams_of_every_size_come_back():
    sizes = (1, 1472, 1473, 20000, 65507)
    with made("lab"), running("lab", "server", "exec /mnt/udp echo 5000", *programs()):
        text = guest("lab", "client", "".join(f"/mnt/udp send 10.89.1.2 5000 {size};" for size in sizes), *programs())
        assert text.split("\n")[:-1] == [f"{size} came back" for size in sizes], text


def test_three_machines_know_each_other():
    with made("lab"), running("lab", "one", "echo up; sleep 1000"), running("lab", "two", "echo up; sleep 1000"):
        text = guest("lab", "three", "ping -c 1 one; ping -c 1 two; nslookup three; nslookup four.roux.internal; true")
        assert text.count("1 packets received") == 2 and "10.89.1.4" in text and "NXDOMAIN" in text, text
        assert sorted(machines("lab")) == ["one", "two"]
        assert all(m["connected"] for m in machines("lab").values())


def test_networks_are_apart():
    with made("left"), made("right"), running("left", "server", "echo up; sleep 1000"):
        text = guest("right", "client", "nslookup server.roux.internal; ping -c 1 -W 2 10.89.1.2; echo; nc -w 3 10.89.1.2 22 2>&1; true")
        assert "NXDOMAIN" in text and "1 packets received" not in text, text


def test_the_gateway_leads_out():
    with made("lab"), udp_server(name_server, port=53), tcp_server(lambda c: c.sendall(b"hello\n")) as four, \
            tcp_server(lambda c: c.sendall(b"hello\n"), WORLD6) as six:
        text = guest("lab", "client", f"nc www.example.org {four}; nc {WORLD6} {six}; ping -c 1 {WORLD4}")
        assert text.count("hello") == 2 and "1 packets received" in text, text
        text = guest("lab", "client", f"nc {WORLD4} {four} 2>&1; true", "--egress", "deny any")
        assert "hello" not in text, text


def test_an_internal_network_has_no_way_out():
    with made("deep", "--internal"), udp_server(name_server, port=53), udp_server(lambda d: d) as udp, \
            tcp_server(lambda c: c.sendall(b"hello\n")) as port, \
            running("deep", "server", "echo up; sleep 1000"):
        # Also for a guest that finds itself a route.
        text = guest("deep", "client", "ip route add default via 10.89.1.1; ip route; ping -c 1 server >&2 && echo reached;"
                     f"nc -w 3 {WORLD4} {port} 2>&1; nslookup www.example.org; ping -c 1 -W 2 {WORLD4};"
                     f"timeout 3 /mnt/udp send {WORLD4} {udp} 100; true", *programs())
        assert "reached" in text and "default via" in text, text
        assert "hello" not in text and "1 packets received" not in text and "came back" not in text, text
        assert WORLD4 not in [line.split()[-1] for line in text.splitlines() if line.startswith("Address")], text
        assert "default" not in guest("deep", "other", "ip route")
        complains(harness.roux("--network", "deep", "-p", "8080:80", busybox_root(), "true"), 125, "internal")


def test_ports_are_published():
    port = free_port()
    with made("lab"), running("lab", "server", "mkdir /tmp/www; echo hello > /tmp/www/index.html; echo up;"
                              "exec httpd -f -p 80 -h /tmp/www", "-p", f"127.0.0.1:{port}:80"):
        got = http_get(port)
        assert got.endswith(b"hello\n"), got
        assert "hello" in guest("lab", "client", "wget -q -O - http://server/")
    with socket.create_server(("127.0.0.1", port)):
        pass


def kept(name, script):
    """What a machine prints that could be started again."""
    text = expect(harness.roux("--name", name, "--network", "lab", busybox_root(), "--", "sh", "-c", script)).out.decode()
    expect(verb("rm", name))
    return text


def test_machines_are_found_by_their_own_names_too():
    with made("lab"), running("lab", "host", "echo up; sleep 1000", "--name", "Mach_ine"):
        assert guest("lab", None, "ping -c 1 mach_ine; ping -c 1 host.roux.internal").count("1 packets received") == 2
        r = json.loads(network("inspect", "lab"))[0]["machines"][0]
        assert (r["name"], r["hostname"]) == ("mach_ine", "host"), r


def test_a_machine_that_restarts_keeps_its_place():
    with made("lab"):
        expect(verb("run", "-d", "--name", "again", "--network", "lab", busybox_root(), "--", "sleep", "1000"))
        first = machines("lab")
        expect(verb("restart", "-t", "1", "again"))
        wait_until("it to be back", lambda: [m["connected"] for m in machines("lab").values()] == [True], 60)
        assert list(machines("lab")) == list(first)
        assert "1 packets received" in guest("lab", "client", "ping -c 1 again")
        expect(verb("rm", "-f", "again"))


def test_a_name_keeps_its_address():
    with made("lab"):
        where = "ip -4 addr show eth0 | grep -o 'inet [0-9.]*'; cat /sys/class/net/eth0/address"
        first = kept("first", where)
        assert "10.89.1.2" in first, first
        assert "10.89.1.3" in kept("second", where)
        assert "10.89.1.4" in guest("lab", "third", where)	# which does not keep it
        wait_until("the switch to end", lambda: not switches(), 10)
        assert "10.89.1.4" in guest("lab", "fourth", where)
        assert kept("first", where) == first


def test_a_machine_without_a_name_leaves_its_address_free():
    with made("lab"):
        for _ in range(2):
            assert "10.89.1.2/24" in guest("lab", None, "ip addr")


def test_dhcp_gives_the_same_address():
    with made("lab"), running("lab", "server", "echo up; sleep 1000"):
        text = guest("lab", "client", "ip addr flush dev eth0; udhcpc -n -q -f -i eth0 -s /bin/true 2>&1")
        assert "lease of 10.89.1.3 obtained from 10.89.1.1" in text, text


def test_false_addresses_are_not_carried():
    with made("lab"), running("lab", "victim", "echo up; sleep 1000"), \
            running("lab", "liar", "ip addr del 10.89.1.3/24 dev eth0; ip addr add 10.89.1.9/24 dev eth0;"
                    "ping -c 2 -W 1 10.89.1.2 > /tmp/a; ip addr add 10.89.1.2/24 dev eth0;"
                    "arping -c 2 -U -I eth0 10.89.1.2 > /dev/null; ip link set eth0 down;"
                    "ip link set eth0 address 02:72:78:59:01:00; ip link set eth0 up;"
                    "ip -6 addr add fd72:6f75:7801::2/64 dev eth0; ping -c 2 -W 1 fd72:6f75:7801::4;"
                    "cat /tmp/a; echo up; sleep 1000") as liar:
        assert b"2 packets received" not in liar.got and b"100% packet loss" in liar.got, liar.got
        assert machines("lab")["liar"]["forged"] > 2, machines("lab")
        assert "3 packets received" in guest("lab", "client", "ping -c 3 victim")


def test_a_flood_leaves_room_for_others():
    flood = "/mnt/udp flood 10.89.1.2 9 1400 & /mnt/udp flood 10.89.1.255 9 60000 & echo up; wait"
    with made("lab"), running("lab", "server", TAKE.format(5000)) as server, running("lab", "flood", flood, *programs()):
        sums = guest("lab", "client", f"head -c 4000000 /dev/urandom > /tmp/d; sha256sum < /tmp/d;"
                     "ping -c 3 server >&2; nc server 5000 < /tmp/d").split()
        read_until(server.stdout, sums[0].encode())
        assert machines("lab")["flood"]["sent_packets"] > 1000, machines("lab")


def switches():
    return [pid for pid, line in marked_processes().items() if " switch " in line]


def test_the_switch_ends_with_the_last_machine():
    with made("lab"):
        assert not switches()
        with running("lab", "one", "echo up; sleep 1000"):
            assert len(switches()) == 1
            assert "hello" in guest("lab", "two", "echo hello")
            assert len(switches()) == 1
        wait_until("the switch to end", lambda: not switches(), 10)


def test_a_machine_killed_with_9_frees_its_address():
    with made("lab"):
        with running("lab", None, "echo up; sleep 1000") as p:
            assert list(machines("lab")) == ["10.89.1.2"]
            vm = [pid for pid, line in marked_processes().items() if " vmm" in line]
            for pid in vm:
                os.kill(pid, signal.SIGKILL)
            p.wait(30)
            wait_until("the address to be free", lambda: not machines("lab"))
        assert "10.89.1.2/24" in guest("lab", None, "ip addr")
        with running("lab", None, "echo up; sleep 1000", "--name", "victim") as p:
            monitor = json.loads(expect(verb("inspect", "victim")).out)[0]["State"]["MonitorPid"]
            os.kill(monitor, signal.SIGKILL)
            p.wait(30)
            wait_until("the address to be free", lambda: not machines("lab"))
            verb("rm", "-f", "victim")


def test_a_switch_killed_with_9_is_replaced():
    """Those who are on the network get another switch, and keep their addresses."""
    with made("lab"), tcp_server(lambda c: c.sendall(b"hello\n")) as port, running("lab", "one", "echo up; sleep 1000"), \
            running("lab", "two", f"echo up; nc {WORLD4} {port}; read x; until ping -c 1 -W 1 one; do sleep 0.2; done; sleep 1000", "-i",
                    stdin=subprocess.PIPE) as two:
        before = {name: m["addresses"] for name, m in machines("lab").items()}
        for _ in range(2):
            old = switches()[0]
            os.kill(old, signal.SIGKILL)
            wait_until("them to be back", lambda: old not in switches() and len(machines("lab")) == 2 and
                       all(m["connected"] for m in machines("lab").values()))
            assert {name: m["addresses"] for name, m in machines("lab").items()} == before
        two.stdin.write(b"\n")
        two.stdin.flush()
        read_until(two.stdout, b"1 packets received")
        assert guest("lab", "three", "ping -c 1 one; ping -c 1 two; ip addr").count("1 packets received") == 2


def test_who_joins_after_a_kill_gets_another_switch():
    with made("lab"), running("lab", "one", "echo up; sleep 1000"):
        os.kill(switches()[0], signal.SIGKILL)
        with running("lab", "two", "echo up; sleep 1000"):
            assert "1 packets received" in guest("lab", "three", "ping -c 1 two; until ping -c 1 -W 1 one; do sleep 0.2; done")
            assert machines("lab")["two"]["addresses"][0] == "10.89.1.3"


def test_a_network_in_use_stays():
    with made("lab"):
        with running("lab", "one", "echo up; sleep 1000"):
            r = complains(verb("network", "rm", "lab"), 1, "lab", "in use")
            assert r.err.count(b"\n") == 1, r
            assert list(machines("lab")) == ["one"]


def test_what_cannot_be_is_told():
    complains(harness.roux("--network", "nowhere", busybox_root(), "true"), 125, "no network 'nowhere'", "roux network create")
    complains(verb("network", "rm", "nowhere"), 1, "nowhere")
    complains(verb("network", "inspect", "nowhere"), 1, "nowhere")
    for name in ("user", "none", "-x", "a/b", "..", "x" * 40, "tap"):
        assert verb("network", "create", name).status in (1, 125), name
    for subnet in ("10.0.0.0", "10.0.0.0/30", "10.0.0.0/7", "224.0.0.0/24", "127.0.0.0/24", "fe80::/64", "fd00::/32", "x/24",
                   "10.0.2.0/24"):
        r = verb("network", "create", "--subnet", subnet, "lab")
        complains(r, 1)
        assert r.err.count(b"\n") == 1, r
    with made("lab", "--subnet", "10.77.0.64/28", "--subnet", "fd01:2:3:4::/64"):
        complains(verb("network", "create", "lab"), 1, "already")
        complains(verb("network", "create", "--subnet", "10.77.0.0/16", "other"), 1, "overlaps", "lab")
        text = guest("lab", "one", "ip addr")
        assert "10.77.0.66/28" in text and "fd01:2:3:4::2/64" in text, text
        assert [n["name"] for n in json.loads(network("ls", "--json"))] == ["lab"]
        assert "10.77.0.64/28" in network("ls")


def test_a_full_network_says_so():
    with made("lab", "--subnet", "10.77.0.0/29"), contextlib.ExitStack() as all:
        for i in range(4):
            all.enter_context(running("lab", f"vm{i}", "echo up; sleep 1000"))
        complains(harness.roux("--network", "lab", busybox_root(), "true"), 125, "lab", "no free address")


def test_it_works_as_an_ordinary_user():
    if os.geteuid() != 0:
        raise Skip("not root: the other tests show it")
    os.chmod(WORK, 0o755)
    cache = copy_cache("nobody-cache")
    root, command, own = (os.path.join(WORK, "nobody-" + n) for n in ("root", "roux", "own"))
    shutil.copytree(busybox_root(), root, symlinks=True)
    shutil.copy(ROUX, command)
    os.mkdir(own)
    for base, dirs, files in [*os.walk(cache), *os.walk(root), *os.walk(own)]:
        for n in ["", *dirs, *files]:
            os.lchown(os.path.join(base, n), NOBODY, NOBODY)
    env = environ(ROUX_CACHE=cache, ROUX_STORE=own + "/store", ROUX_STATE=own + "/state")
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", command]
    run = lambda *args: subprocess.run([*as_nobody, *args], env=env, capture_output=True, stdin=subprocess.DEVNULL, timeout=120)
    assert run("network", "create", "lab").returncode == 0
    server = subprocess.Popen([*as_nobody, "run", "--network", "lab", "--hostname", "server", root, "--", "sh", "-c",
                               "echo up; sleep 1000"], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        read_until(server.stdout, b"up\n")
        r = run("run", "--network", "lab", root, "--", "ping", "-c", "1", "server")
        assert r.returncode == 0 and b"1 packets received" in r.stdout, r
        # Nobody else may join: root could, so ask as another one.
        stat = os.stat(own + "/state/networks")
        assert (stat.st_uid, stat.st_mode & 0o777) == (NOBODY, 0o700), stat
        assert os.stat(own + "/state/networks/lab.sock").st_mode & 0o77 == 0
        with open(f"/proc/{switches()[0]}/status") as f:
            status = dict(line.split(":\t", 1) for line in f.read().splitlines() if ":\t" in line)
        assert status["Seccomp"] == "2" and status["NoNewPrivs"] == "1" and int(status["CapEff"], 16) == 0, status
    finally:
        server.terminate()
        server.communicate(timeout=30)
    wait_until("the machine to leave", lambda: run("network", "rm", "lab").returncode == 0)


def test_the_switch_is_jailed():
    with made("lab"), running("lab", "one", "echo up; sleep 1000"):
        pid = switches()[0]
        with open(f"/proc/{pid}/status") as f:
            status = dict(line.split(":\t", 1) for line in f.read().splitlines() if ":\t" in line)
        assert status["Seccomp"] == "2" and status["NoNewPrivs"] == "1" and int(status["CapEff"], 16) == 0, status
        assert os.listdir(f"/proc/{pid}/root") == [], os.listdir(f"/proc/{pid}/root")
        for space in ("mnt", "net", "pid", "ipc"):
            assert os.readlink(f"/proc/{pid}/ns/{space}") != os.readlink(f"/proc/self/ns/{space}"), space


# ------------------------------------------------------------------------- saved

def logs(name):
    return expect(verb("logs", name)).out.decode().splitlines()


@contextlib.contextmanager
def background(name, net, script, *options):
    verb("rm", "-f", name)
    expect(verb("run", "-d", "--name", name, *(["--network", net] if net else []), *options, busybox_root(), "--", "sh", "-c", script))
    try:
        yield name
    finally:
        verb("rm", "-f", name)


@contextlib.contextmanager
def restored(path, name):
    verb("rm", "-f", name)
    expect(verb("restore", "-d", "--name", name, path))
    try:
        yield name
    finally:
        verb("rm", "-f", name)


# Sends numbers over the network, and has a connection to the rest of the world.
BOTH = (f"(nc {WORLD4} {{port}} < /dev/zero > /dev/null; echo outside is over) & i=0; "
        "while :; do i=$((i + 1)); echo $i; sleep 0.05; done | nc {to} 5000; echo inside is over; sleep 1000")
COUNTS = "echo up; sleep 1000 | nc -l -p 5000; echo end; sleep 1000"


def gets_further(name, by=20):
    """The numbers that come are all there are."""
    before = len(logs(name))
    wait_until("more numbers", lambda: len(logs(name)) >= before + by)
    said = logs(name)	# once: it goes on
    assert said[1:] == [str(n) for n in range(1, len(said))], said


def test_connections_on_the_network_survive_and_others_are_reset():
    path = os.path.join(WORK, "saved-client")
    with tcp_server(lambda c: c.recv(1) and threading.Event().wait(60)) as port, made("lab"), \
            background("counting", "lab", COUNTS):
        address = machines("lab")["10.89.1.2"]["addresses"][0]
        with background("sending", "lab", BOTH.format(port=port, to=address)):
            gets_further("counting")
            expect(verb("checkpoint", "sending", path))	# it goes on here, with all that it has
            gets_further("counting")
            assert not logs("sending")
            with restored(path, "double"):	# which has other addresses, and no connection
                wait_until("its connections to end", lambda: sorted(logs("double")) == ["inside is over", "outside is over"])
                seen = {name: expect(verb("exec", name, "ip", "addr", "show", "eth0")).out.decode() for name in ("sending", "double")}
                assert "10.89.1.3/24" in seen["sending"] and "10.89.1.4/24" in seen["double"], seen
                assert "10.89.1.3/" not in seen["double"] and "fd72:6f75:7801::4/64" in seen["double"], seen
                assert seen["sending"].split("ether ")[1][:17] != seen["double"].split("ether ")[1][:17], seen
                assert len({text.split("inet6 fe80")[1].split()[0] for text in seen.values()}) == 2, seen
                expect(verb("exec", "double", "ping", "-c", "1", "10.89.1.3"))
                expect(verb("exec", "double", "ping", "-6", "-c", "1", "fd72:6f75:7801::3"))
                assert b"10.89.1.4" in expect(verb("exec", "double", "cat", "/etc/hosts")).out
            gets_further("counting")
            expect(verb("checkpoint", "--stop", "sending", path))
            expect(verb("wait", "sending"))
        with restored(path, "sending"):
            gets_further("counting")
            wait_until("the other to end", lambda: logs("sending") == ["outside is over"])
            expect(verb("exec", "sending", "sh", "-c", f"echo x | timeout 1 nc {WORLD4} {port}; ping -c 1 {address}"))


def test_connections_over_the_user_network_are_reset():
    path = os.path.join(WORK, "saved-user")
    with tcp_server(lambda c: threading.Event().wait(60)) as port, \
            background("waiting", None, f"mkfifo /tmp/f; sleep 1000 > /tmp/f & nc {WORLD4} {port} < /tmp/f; echo over; sleep 1000"):
        wait_until("the connection", lambda: b"ESTABLISHED" in expect(verb("exec", "waiting", "netstat", "-tn")).out)
        expect(verb("checkpoint", "waiting", path))
        with restored(path, "waiting-again"):
            wait_until("its end to be told", lambda: logs("waiting-again") == ["over"])
        assert not logs("waiting")


enter_world()
main(globals())
