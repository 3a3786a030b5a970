#!/usr/bin/env python3
"""What can be said of the benchmarks without running them: bench_parts.py SOURCE."""
import pathlib
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
SOURCE = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(SOURCE / "bench"))
import c_source
import programs
import results
import run


def test_parts_are_listed():
    found = subprocess.run([sys.executable, "-B", SOURCE / "bench/run.py", "--parts"], capture_output=True, text=True,
                           check=True).stdout.split()
    assert tuple(found) == run.PARTS, found
    for name in ("bench/run.sh", "SPECIFICATION.md"):
        text = (SOURCE / name).read_text()
        assert all(part in text for part in found), name


def test_unknown_part_is_refused():
    r = subprocess.run([sys.executable, "-B", SOURCE / "bench/run.py", "out", "nothing"], capture_output=True, text=True)
    assert r.returncode == 1 and "no part nothing" in r.stderr, r


def test_programs_in_guests_are_those_of_the_table():
    text = (SOURCE / "bench/programs.c").read_text()
    at = [text.find(f'{{ "{name}", ') for name in programs.NAMES]
    assert -1 not in at and at == sorted(at), at


def test_targets_are_judged():
    with tempfile.TemporaryDirectory() as folder:
        res = results.Results(pathlib.Path(folder))
        for name, value in (("boot/roux", 400), ("boot/tcg", 1200), ("cpu/qsort/roux", 3), ("cpu/qsort/native", 10),
                            ("cpu/pagefault/roux", 2), ("cpu/pagefault/tcg", 10), ("idle/roux", 1.5)):
            res.add(name, "", value)
        run.targets(res)
        res.finish()
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in "\n".join(res.text).splitlines()
            if line.startswith("| ")}
    assert rows["boot to init, speed over TCG"] == [">= 2.5", "3", "yes"], rows
    assert rows["qsort over native"] == [">= 0.4", "0.3", "no"], rows
    assert rows["pagefault over TCG"] == [">= 4", "5", "yes"], rows
    assert rows["idle guest, % of a core"] == ["< 1", "1.5", "no"], rows
    assert rows["program gcc over TCG"] == [">= 4", "not run", ""], rows


def test_c_source_is_long_and_always_the_same():
    text = c_source.text(programs.C_LINES)
    assert text == c_source.text(programs.C_LINES)
    assert programs.C_LINES <= text.count("\n") < programs.C_LINES + 300
    r = subprocess.run(["gcc", "-Wall", "-Werror", "-fsyntax-only", "-x", "c", "-"], input=text, text=True, capture_output=True)
    assert r.returncode == 0, r.stderr


for name, test in list(globals().items()):
    if name.startswith("test_"):
        test()
        print(name, "ok")
