#!/usr/bin/env python3
"""The mixed load for hours of guest time, in machines of some minutes.

    long.py [--hours N | --more N] [--seed N] [--jobs N] ROUX STRESS STATE_FOLDER

What is done is in STATE_FOLDER/state.json: guest seconds, machines, rounds of each piece,
failures with their seeds.  Started again, it goes on where it stopped; machines that it was
stopped in do not count.  The state is complete after every machine.  The status is 1 when
anything has failed since the folder was new.
"""
import argparse
import concurrent.futures
import itertools
import json
import os
import random
import shutil
import sys
import tempfile
import time

import guest

PARTS = 6	# a machine
PART_SECONDS = 50
FILL_SECONDS = 30
FAILURES_MAX = 20


def load(path):
    try:
        with open(path) as f:
            return json.load(f)
    except FileNotFoundError:
        return {"version": 1, "guest_seconds": 0, "machines": 0, "rounds": {}, "code_resets": 0, "failures": []}


def save(path, state):
    with open(path + ".new", "w") as f:
        json.dump(state, f, indent=1)
        f.write("\n")
        f.flush()
        os.fsync(f.fileno())
    os.replace(path + ".new", path)


def choose_parts(rng):
    """Two to all pieces beside each other, time and again; then ever new code beside one of them."""
    parts = ["+".join(rng.sample(guest.PIECES, rng.randint(2, len(guest.PIECES)))) + f":{PART_SECONDS}"
             for _ in range(PARTS)]
    return parts + [f"fill+{rng.choice(guest.PIECES)}:{FILL_SECONDS}"]


def make_root(folder):
    """All that the static program needs; and nothing is left of machines that were stopped."""
    for name in os.listdir(folder):
        if name.startswith("machine."):
            shutil.rmtree(os.path.join(folder, name))
    root = os.path.join(folder, "root")
    os.makedirs(root + "/tmp", exist_ok=True)
    return root


def one_machine(args, root, seed):
    """What it did, and with which parts; or why it failed."""
    parts = choose_parts(random.Random(seed))
    place = tempfile.mkdtemp(prefix="machine.", dir=args.folder)
    try:
        return guest.run(args.roux, root, args.stress, place, seed, parts, dict(os.environ)), parts, None
    except guest.Wrong as why:
        return None, parts, str(why)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def note(state, seed, report, parts, why):
    if why is not None:
        print(f"FAILED: {why}", flush=True)
        state["failures"].append({"seed": seed, "parts": parts, "why": why})
    else:
        state["guest_seconds"] += report.guest_seconds
        state["code_resets"] += report.counters.get("code_resets", 0)
        for piece, rounds in report.rounds.items():
            state["rounds"][piece] = state["rounds"].get(piece, 0) + rounds
    state["machines"] += 1


def run_all(args, root, state, path):
    seeds = itertools.count(args.seed + state["machines"])
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        running = {}
        while True:
            wanted = state["guest_seconds"] < args.hours * 3600 and len(state["failures"]) < FAILURES_MAX
            while wanted and len(running) < args.jobs:
                seed = next(seeds) % (1 << 63)
                running[pool.submit(one_machine, args, root, seed)] = seed
            if not running:
                return
            for f in concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED).done:
                note(state, running.pop(f), *f.result())
                save(path, state)
                print(f"{state['guest_seconds'] / 3600:.2f} of {args.hours:.2f} hours of guest time, {state['machines']} machines, "
                      f"{len(state['failures'])} failed", flush=True)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--hours", type=float, default=24)
    p.add_argument("--more", type=float, help="hours beside those that are done already")
    p.add_argument("--seed", type=int, help="of the first machine; without it another one every time")
    p.add_argument("--jobs", type=int, default=1, help="machines at a time; each does less than it would alone")
    p.add_argument("roux", type=os.path.abspath)
    p.add_argument("stress", type=os.path.abspath)
    p.add_argument("folder", type=os.path.abspath)
    args = p.parse_args()
    os.makedirs(args.folder, exist_ok=True)
    path = os.path.join(args.folder, "state.json")
    state = load(path)
    args.seed = state.setdefault("seed", time.time_ns() % (1 << 32) if args.seed is None else args.seed)
    root = make_root(args.folder)
    if args.more is not None:
        args.hours = state["guest_seconds"] / 3600 + args.more
    run_all(args, root, state, path)
    print(json.dumps(state["rounds"]))
    for failure in state["failures"]:
        print(f"failed: {failure['why']}")
    return 1 if state["failures"] else 0


sys.exit(main())
