#!/usr/bin/env python3
"""A minute of the mixed load that `make stress` runs for a day.  run_stress.py ROUX STRESS

ROUX_STRESS_SEED repeats a run.
"""
import os
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
STRESS = os.path.abspath(sys.argv.pop(2))
from harness import ROUX, busybox_root, environ, folder, main

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../stress"))
import guest

ROOT = busybox_root()


def stress(name, *parts):
    seed = int(os.environ.get("ROUX_STRESS_SEED") or time.time_ns() % (1 << 32))
    print(f"{name}: seed {seed}", flush=True)
    report = guest.run(ROUX, ROOT, STRESS, folder(name), seed, parts, environ())
    print(f"{name}: rounds {report.rounds}, {report.counters}", flush=True)
    return report


def test_pieces_of_a_mixed_load_find_what_they_expect():
    report = stress("mixed", "fork+pipes:5", "memory+code:5", "files+disk:5", "timers+threads:5",
                    "+".join(guest.PIECES) + ":12")
    assert sorted(report.rounds) == sorted(guest.PIECES), report.rounds


def test_the_code_cache_is_emptied_when_it_is_full_and_goes_on():
    report = stress("fill", "fill:30", "code+memory:3")
    assert report.counters["code_resets"] >= 1, report.counters	# 2 to 5; a busy machine does less in the time


main(globals())
