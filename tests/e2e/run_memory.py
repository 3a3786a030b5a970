#!/usr/bin/env python3
"""Memory of a running VM: what goes back to the host, unasked and asked for.  run_memory.py ROUX [TEST...]"""
import json
import os
import sys

sys.path.insert(0, os.path.dirname(__file__))
from harness import busybox_root, complains, expect, folder, main, mapped_kib, roux, verb, wait_until

ROOT = busybox_root()
MIB = 1 << 20


def ok(*args, **kw):
    return expect(verb(*args, **kw), 0).out.decode()


def inspect(name, path):
    return ok("inspect", "-f", "{{" + path + "}}", name).strip()


class Machine:
    """A VM in the background; its figures in MiB."""

    def __init__(self, name, memory=512):
        self.name = name
        ok("run", "-d", "--name", name, "--memory", f"{memory}M", ROOT, "--", "sleep", "1000")
        self.learn()

    def learn(self):
        self.pid = int(inspect(self.name, ".State.Pid"))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        ok("rm", "-f", self.name)

    def run(self, text):
        return ok("exec", self.name, "sh", "-ec", text)

    def resident(self):
        """Of the VM's process on the host."""
        with open(f"/proc/{self.pid}/status") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmRSS:")) >> 10

    def guest(self):
        """Total and available."""
        words = dict(line.split(":") for line in self.run("cat /proc/meminfo").splitlines())
        return tuple(int(words[w].split()[0]) >> 10 for w in ("MemTotal", "MemAvailable"))

    def update(self, memory):
        assert ok("update", "--memory", f"{memory}M", self.name) == self.name + "\n"

    def fill(self, mib):
        """Files in the guest's memory, which nothing but rm frees."""
        self.run(f"mkdir -p /f; mount -t tmpfs -o size=90% none /f; dd if=/dev/zero of=/f/x bs=1M count={mib} 2>/dev/null")


def test_what_the_guest_frees_goes_back_to_the_host():
    with Machine("frees") as m:
        before = m.resident()
        m.fill(300)
        full = m.resident()
        assert full > before + 250, (before, full)
        m.run("rm /f/x")
        wait_until("the host to have it back", lambda: m.resident() < before + 50, 10)
        m.fill(300)		# and it can be had again
        assert m.resident() > before + 250, m.resident()
        assert m.run("tr -d '\\0' </f/x | wc -c").strip() == "0"


def test_what_a_process_used_goes_back_when_it_ends():
    with Machine("ends") as m:
        before = m.resident()
        m.run("dd if=/dev/zero of=/dev/null bs=300M count=1 2>/dev/null")
        wait_until("the host to have it back", lambda: m.resident() < before + 50, 10)


def test_a_vm_can_be_made_smaller_and_larger_again():
    with Machine("sizes") as m:
        total, _ = m.guest()
        m.fill(300)
        m.run("rm /f/x")
        assert total > 440, total
        m.update(256)
        wait_until("the guest to have less", lambda: m.guest()[0] == total - 256, 20)
        assert m.guest()[1] < 250, m.guest()
        assert m.resident() < 256, m.resident()
        seen = stats("sizes")
        assert seen["GuestMemoryTotalBytes"] >> 20 == total - 256 and seen["HostMemoryBytes"] < 256 * MIB, seen
        m.update(128)
        wait_until("the guest to have still less", lambda: m.guest()[0] == total - 384, 20)
        m.update(512)
        wait_until("the guest to have it back", lambda: m.guest()[0] == total, 20)
        m.fill(300)
        m.run("rm /f/x")


def test_a_guest_keeps_what_it_uses_until_it_is_free():
    with Machine("uses") as m:
        total, _ = m.guest()
        m.fill(200)
        m.update(128)
        wait_until("the guest to give what it does not use", lambda: m.guest()[0] < total - 100, 20)
        assert m.run("echo still here; seq 1 100 | wc -l") == "still here\n100\n"
        assert m.run("wc -c </f/x").strip() == str(200 * MIB)
        assert m.guest()[1] > 16, m.guest()
        m.run("rm /f/x")
        wait_until("the guest to give the rest", lambda: m.guest()[0] == total - 384, 20)
        assert inspect("uses", ".State.Status") == "running"


def test_programs_run_from_memory_that_was_away():
    """Pages with code that the translator knows are dropped, and come again with other code."""
    with Machine("code") as m:
        whole = "for a in md5sum sha1sum sha256sum sha512sum; do seq 1 3000 | $a; done; seq 1 2000 | sort -r | gzip | gunzip | tail -1"
        first = m.run(whole)
        for size in (96, 512, 64, 300):
            m.update(size)
            m.run("for i in 1 2 3; do cp /bin/busybox /tmp/busybox$i; /tmp/busybox$i sha1sum /tmp/busybox$i >/dev/null; done; "
                  "rm /tmp/busybox*; sync; echo 3 >/proc/sys/vm/drop_caches")
            assert m.run(whole) == first


def test_sizes_that_cannot_be_are_refused_with_one_line():
    with Machine("odd", memory=256) as m:
        total, _ = m.guest()
        for size, words in (("257M", ("256 MiB", "start")), ("64G", ("256 MiB", "start"))):
            r = complains(verb("update", "--memory", size, "odd"), 1, "VM odd", *words)
            assert len(r.err.splitlines()) == 1 and r.out == b"", r
        for size in ("1M", "lots", "-5M", ""):
            complains(verb("update", "--memory", size, "odd"), 125, "--memory")
        assert m.guest()[0] == total and inspect("odd", ".Config.Memory") == str(256 * MIB)
        ok("pause", "odd")
        complains(verb("update", "--memory", "128M", "odd"), 1, "paused")
        ok("unpause", "odd")
        m.run("cd /sys/bus/virtio/drivers/virtio_balloon; for d in virtio*; do echo $d > unbind; done")	# built in or not
        complains(verb("update", "--memory", "128M", "odd"), 1, "VM odd", "no driver")


def test_a_vm_that_does_not_run_starts_with_its_new_size():
    with Machine("later", memory=256) as m:
        m.update(128)
        ok("stop", "-t", "0", "later")
        assert inspect("later", ".Config.Memory") == str(128 * MIB)
        ok("update", "--memory", "768M", "later")
        ok("start", "later")
        m.learn()
        assert m.guest()[0] > 700, m.guest()
        complains(verb("update", "--memory", "1G", "later"), 1, "768 MiB")


def test_a_small_vm_runs_with_the_balloon():
    expect(roux("--memory", "96M", ROOT, "--", "echo", "small"), 0, out=b"small\n")


def stats(name):
    return json.loads(ok("stats", "--no-stream", "--json", name))


def test_stats_tell_what_a_vm_has_for_itself_and_what_it_shares():
    ok("template", "build", "--memory", "512M", ROOT)	# while it is written it is memory of the first VM's
    with Machine("one") as one:
        alone = stats("one")
        with Machine("two"):
            both = [stats(name) for name in ("one", "two")]
            for s in both:		# of one template
                assert s["HostMemorySharedBytes"] > 4 * MIB and s["HostMemorySavedBytes"] > 2 * MIB, s
                assert s["HostMemoryMergedBytes"] == 0, s
                assert s["HostMemorySavedBytes"] < s["HostMemorySharedBytes"], s
            one.fill(100)
            full = stats("one")
            assert 99 * MIB < full["HostMemoryOwnBytes"] - both[0]["HostMemoryOwnBytes"] < 120 * MIB, (both[0], full)
            assert stats("two")["HostMemoryOwnBytes"] < both[1]["HostMemoryOwnBytes"] + 10 * MIB
        assert alone["HostMemoryOwnBytes"] < 40 * MIB, alone
        assert "+" in ok("stats", "--no-stream", "one").splitlines()[1]


def test_an_idle_vm_gives_its_lookups_back():
    ok("run", "-d", "--name", "rests", "--no-template", ROOT, "--", "sleep", "1000")
    try:
        pid = int(inspect("rests", ".State.Pid"))
        if not mapped_kib(pid, "/memfd:roux-vcpu"):
            return	# KVM: there are none
        for _ in range(2):
            for _ in range(3):
                assert ok("exec", "rests", "sh", "-c", "ls -R /proc/self | md5sum > /dev/null; echo well") == "well\n"
            busy = mapped_kib(pid, "/memfd:roux-vcpu")
            wait_until("memory to go back", lambda: mapped_kib(pid, "/memfd:roux-vcpu") * 2 < busy, 60)
    finally:
        ok("rm", "-f", "rests")


class Ksm:
    """The kernel's merging, on and fast, as it was before at the end."""
    FOLDER = "/sys/kernel/mm/ksm/"

    def set(self, name, value):
        with open(self.FOLDER + name) as f:
            was = f.read()
        with open(self.FOLDER + name, "w") as f:
            f.write(value)
        return was

    def __enter__(self):
        self.was = {name: self.set(name, value) for name, value in
                    (("pages_to_scan", "20000"), ("sleep_millisecs", "10"), ("run", "1"))}

    def __exit__(self, *exc):
        for name, value in self.was.items():
            self.set(name, value)


def test_equal_pages_of_machines_that_allow_it_are_merged():
    if not os.access(Ksm.FOLDER + "run", os.W_OK):
        print("not here: KSM is not ours to turn on")
        return
    content = folder("content")
    with open(content + "/x", "wb") as f:
        f.write(os.urandom(48 * MIB))
    fill = "mkdir /f; mount -t tmpfs none /f; cp /mnt/x /f/x"
    with Ksm():
        for name, options in (("m1", ["--merge-memory"]), ("m2", ["--merge-memory"]), ("apart", [])):
            ok("run", "-d", "--name", name, "-v", content + ":/mnt", *options, ROOT, "--", "sh", "-c", fill + "; sleep 1000")
        wait_until("the pages to be one", lambda: min(stats(n)["HostMemoryMergedBytes"] for n in ("m1", "m2")) > 47 * MIB, 60)
        assert inspect("m1", ".Config.MergeMemory") == "true"
        # Each bears half of them at most.
        assert stats("m1")["HostMemorySavedBytes"] > 23 * MIB, stats("m1")
        assert stats("apart")["HostMemoryMergedBytes"] == 0 and stats("apart")["HostMemoryOwnBytes"] > 48 * MIB
        # Whoever writes has his own again, and others do not see it.
        ok("exec", "m1", "sh", "-ec", "dd if=/dev/zero of=/f/x bs=1M count=48 conv=notrunc 2>/dev/null")
        ok("exec", "m2", "cmp", "/mnt/x", "/f/x")
        ok("exec", "apart", "cmp", "/mnt/x", "/f/x")
        # What goes back to the host and comes again may be merged again.
        ok("exec", "m1", "sh", "-ec", "rm /f/x; sleep 4; cp /mnt/x /f/x; cmp /mnt/x /f/x")
        wait_until("the pages to be one again", lambda: stats("m1")["HostMemoryMergedBytes"] > 40 * MIB, 60)
        ok("exec", "m1", "cmp", "/mnt/x", "/f/x")
        ok("rm", "-f", "m1", "m2", "apart")


def test_merging_where_the_host_does_not_is_told():
    if not os.access(Ksm.FOLDER + "run", os.R_OK) or open(Ksm.FOLDER + "run").read() == "1\n":
        print("not here: KSM is on, or unknown")
        return
    r = expect(roux("--merge-memory", ROOT, "--", "echo", "runs"), 0, out=b"runs\n")
    assert b"KSM is off" in r.err, r.err


main(globals())
