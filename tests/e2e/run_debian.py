#!/usr/bin/env python3
"""An unmodified Debian user space in a machine.  run_debian.py ROUX [TEST...]"""
import hashlib
import os
import random
import subprocess
import sys

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(1, os.path.join(os.path.dirname(__file__), "../../bench"))
import c_source
from harness import Skip, blocks_translated, debian_root, expect, folder, main, roux

try:
    ROOT = debian_root()
except Skip as why:
    print("skipped:", why)
    sys.exit(77)


def sh(script, *options, **kw):
    return roux("--memory", "1G", *options, ROOT, "--", "bash", "-euc", script, **kw)


def check(script, expected, *options, **kw):
    return expect(sh(script, *options, **kw), 0, out=expected.encode())


PYTHON = r"""
import concurrent.futures, hashlib, json, math, multiprocessing, re, subprocess, threading, zlib
data = {"list": list(range(1000)), "text": "é" * 100, "float": 0.1 + 0.2}
assert json.loads(json.dumps(data)) == data
assert re.findall(r"(\w+)@(\w+)\.org", "a@b.org, cc@dd.org") == [("a", "b"), ("cc", "dd")]
blob = bytes(i * i % 251 for i in range(1 << 18))
assert zlib.decompress(zlib.compress(blob)) == blob
print(hashlib.sha256(blob).hexdigest(), hashlib.sha3_512(blob).hexdigest()[:16], hashlib.blake2b(blob).hexdigest()[:16])
print(2 ** 521 % 1000003, math.factorial(200) % 10 ** 9 + 7, f"{math.sin(1e6):.15f} {math.lgamma(33.3):.12f}")
total, lock = 0, threading.Lock()
def add(n):
    global total
    for _ in range(n):
        with lock:
            total += 1
threads = [threading.Thread(target=add, args=(5000,)) for _ in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
print(total)
def square(x): return x * x
with multiprocessing.Pool(3) as pool:
    print(sum(pool.map(square, range(500))))
print(subprocess.run(["sort", "-n"], input="3\n1\n2\n", text=True, capture_output=True).stdout.split())
"""


def test_python_computes_what_it_computes_here():
    native = subprocess.run(["chroot", ROOT, "python3", "-"], input=PYTHON.encode(), capture_output=True)
    if native.returncode:
        raise Skip("python3 does not run in a chroot here: " + native.stderr.decode()[-200:])
    for cpus in ("1", "2"):
        r = roux("-i", "--cpus", cpus, "--memory", "1G", ROOT, "--", "python3", "-", stdin=PYTHON.encode())
        expect(r, 0, out=native.stdout)


C_PROGRAM = r"""
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static jmp_buf back;
static void on_fault(int sig) { longjmp(back, sig); }
static int cmp(const void *a, const void *b) { int x = *(const int *)a, y = *(const int *)b; return (x > y) - (x < y); }
int main(void)
{
	static double m[64][64], n[64][64];
	static int v[20000];
	unsigned seed = 7;
	double sum = 0;
	long long wide = 0x123456789abcdefll;
	for (int i = 0; i < 64; i++) for (int j = 0; j < 64; j++) m[i][j] = i * 0.5 - j * 0.25;
	for (int i = 0; i < 64; i++) for (int j = 0; j < 64; j++) for (int k = 0; k < 64; k++) n[i][j] += m[i][k] * m[k][j];
	for (int i = 0; i < 64; i++) sum += sqrt(fabs(n[i][63 - i]));
	for (int i = 0; i < 20000; i++) v[i] = (int)(seed = seed * 1664525u + 1013904223u);
	qsort(v, 20000, sizeof(*v), cmp);
	for (int i = 1; i < 100; i++) wide = wide * i + wide / (i + 3) % 1000;
	printf("%zu %.9f %d %d %lld\n", sizeof(void *), sum, v[0], v[19999], wide);
	signal(SIGSEGV, on_fault);
	signal(SIGFPE, on_fault);
	int sig = setjmp(back);
	if (!sig) *(volatile int *)(size_t)16 = 1;
	printf("fault %d\n", sig);
	volatile int one = 1, zero = 0;
	sig = setjmp(back);
	if (!sig) printf("%d\n", one / zero);
	printf("fault %d\n", sig);
	return 0;
}
"""


def compiled(flags):
    d = folder("c" + flags.replace(" ", "").replace("-", "_"))
    with open(d + "/p.c", "w") as f:
        f.write(C_PROGRAM)
    r = sh(f"cd /src && gcc {flags} -o p p.c -lm && ./p", "-v", f"{d}:/src")
    expect(r, 0)
    native = subprocess.run([d + "/p"], capture_output=True)	# the guest compiled it; static, so it runs here
    assert native.returncode == 0 and native.stdout == r.out, (native, r)
    assert r.out.endswith(b"fault 11\nfault 8\n"), r


def test_gcc_compiles_a_program_that_runs():
    compiled("-O2 -static")
    compiled("-O3 -march=native -static")


def test_a_compiler_that_clones_ran_is_translated_already():
    d = folder("compiled-again")
    with open(d + "/p.c", "w") as f:
        f.write(c_source.text(1200))

    def translated(*options):
        return blocks_translated(expect(sh("gcc -O2 -c -o /tmp/p.o /src/p.c", "--dbt-stats", "--memory", "1056M",
                                           "--network", "none", "-v", f"{d}:/src", *options), 0))

    alone = translated("--no-template")
    counts = [translated() for _ in range(5)]	# boots, teaches; a machine that waited meanwhile; and so on
    assert alone > 100_000 and counts[-1] < alone / 4, (alone, counts)


def test_32_bit_programs_run():
    compiled("-m32 -O2 -static")
    compiled("-m32 -O0 -mfpmath=387 -static")
    # Dynamic: the 32-bit loader and C library, against what a static one printed.
    d = folder("c32-dynamic")
    with open(d + "/p.c", "w") as f:
        f.write(C_PROGRAM)
    expect(sh("cd /src && gcc -m32 -O1 -o p p.c -lm && gcc -m32 -O1 -static -o q p.c -lm && got=$(./p) && "
              "./q > out && [ \"$got\" = \"$(cat out)\" ] && head -c 2 out", "-v", f"{d}:/src"), 0, out=b"4 ")


def test_openssl_computes_the_same():
    data = random.Random(3).randbytes(300_000)
    d = folder("ssl")
    with open(d + "/in", "wb") as f:
        f.write(data)
    check("cd /d; openssl sha256 -r in | cut -d' ' -f1; "
          "openssl enc -aes-256-cbc -pbkdf2 -k secret -in in -out enc; "
          "openssl enc -d -aes-256-cbc -pbkdf2 -k secret -in enc | cmp - in && echo same; "
          "openssl enc -chacha20 -pbkdf2 -k secret -in in | openssl enc -d -chacha20 -pbkdf2 -k secret | cmp - in && echo same; "
          "openssl ecparam -genkey -name prime256v1 -noout -out k; openssl dgst -sha256 -sign k -out sig in; "
          "openssl pkey -in k -pubout -out pub; openssl dgst -sha256 -verify pub -signature sig in",
          hashlib.sha256(data).hexdigest() + "\nsame\nsame\nVerified OK\n", "-v", f"{d}:/d")
    expect(sh("openssl speed -seconds 1 -bytes 1024 sha256 && openssl speed -seconds 1 -bytes 1024 -evp aes-128-gcm"), 0)


def test_perl_and_sqlite():
    check(r"""perl -e 'my %h; $h{$_ % 97} .= chr(65 + $_ % 26) for 1..20000; """
          r"""print length(join "", map { $h{$_} } sort { $a <=> $b } keys %h), " ", """
          r"""join(",", "2026-11-21" =~ /(\d+)-(\d+)/), sprintf(" %.10g\n", atan2(1, 1) * 4)'""",
          "20000 2026,11 3.141592654\n")
    check("cd /root; sqlite3 t.db 'create table t(a integer primary key, b text); "
          "with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000) "
          "insert into t select i, hex(i * i) from n; create index x on t(b); "
          "select count(*), sum(length(b)), max(b) from t; pragma integrity_check;'",
          sqlite_natively())


def sqlite_natively():
    import sqlite3
    db = sqlite3.connect(":memory:")
    db.execute("create table t(a integer primary key, b text)")
    db.execute("with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000) "
               "insert into t select i, hex(i * i) from n")
    return "|".join(map(str, db.execute("select count(*), sum(length(b)), max(b) from t").fetchone())) + "\nok\n"


def test_packages_are_managed():
    # Made, looked at by apt, installed, run and removed again.
    check("mkdir -p /root/p/DEBIAN /root/p/usr/bin; cd /root; "
          r"printf 'Package: hi\nVersion: 1.2\nArchitecture: amd64\nMaintainer: a <a@b.c>\nDepends: perl-base\nDescription: x\n' "
          "> p/DEBIAN/control; printf '#!/bin/sh\\necho hi there\\n' > p/usr/bin/hi; chmod 755 p/usr/bin/hi; "
          "dpkg-deb --root-owner-group -b p hi.deb >/dev/null; apt-get -qq -s install ./hi.deb | grep '^Inst'; "
          "dpkg -i hi.deb >/dev/null; hi; dpkg -s hi | grep ^Status; dpkg -P hi >/dev/null; test ! -e /usr/bin/hi; echo gone",
          "Inst hi (1.2 local-deb [amd64])\nhi there\nStatus: install ok installed\ngone\n", "--memory", "2G")
    r = expect(sh("dpkg -l | grep -c '^ii'; dpkg --verify bash && echo fine; apt-get -qq --version | head -1; "
                  "apt-get -s -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= remove sqlite3 | grep -c ^Remv"), 0)
    lines = r.out.decode().split("\n")
    assert int(lines[0]) > 80 and lines[1] == "fine" and lines[2].startswith("apt ") and lines[3] == "1", r


def test_thousands_of_files_through_tar_are_the_same():
    rng = random.Random(5)
    src, dst = folder("many"), folder("many-out")
    for i in range(5000):
        d = f"{src}/d{i % 50}"
        os.makedirs(d, exist_ok=True)
        with open(f"{d}/f{i}", "wb") as f:
            f.write(rng.randbytes(rng.choice((0, 1, 100, 4096, 5000))))
        os.chmod(f"{d}/f{i}", rng.choice((0o644, 0o600, 0o755)))
    os.symlink("f1", src + "/d1/link")
    os.link(src + "/d2/f2", src + "/d3/hard")
    expect(sh("cd /src && tar -cf /dst/all.tar . && mkdir /dst/x && tar -C /dst/x -xpf /dst/all.tar",
              "-v", f"{src}:/src:ro", "-v", f"{dst}:/dst"), 0)
    p = subprocess.run(["diff", "-r", "--no-dereference", src, dst + "/x"], capture_output=True)
    assert p.returncode == 0, p.stdout[-500:]
    for base, dirs, files in os.walk(src):
        for name in dirs + files:
            a = os.path.join(base, name)
            one, two = os.lstat(a), os.lstat(a.replace(src, dst + "/x", 1))
            assert (one.st_mode, one.st_uid, one.st_size if name in files else 0, int(one.st_mtime)) == \
                   (two.st_mode, two.st_uid, two.st_size if name in files else 0, int(two.st_mtime)), a


def test_bash_does_arithmetic_arrays_and_pipes():
    check('declare -A h; for i in {1..300}; do h[$((i % 7))]+=x; done; echo ${#h[3]} $((2**62 % 1000007)); '
          'seq 1 1000 | awk "{s += \\$1} END {print s}"; echo {a..e} | tr a-z A-Z | rev; '
          'diff <(seq 3) <(seq 4) || true; exec 3<<<here; read -u 3 x; echo $x',
          f"43 {2 ** 62 % 1000007}\n500500\nE D C B A\n3a4\n> 4\nhere\n")


def test_processors_work_together():
    check("gcc --version | head -1 | grep -o gcc; seq 1 8 | xargs -P 4 -I{} sh -c 'seq 1 20000 | sha256sum' | sort -u | wc -l",
          "gcc\n1\n", "--cpus", "4")


main(globals())
