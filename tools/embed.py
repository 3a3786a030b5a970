#!/usr/bin/env python3
"""Turn a file into a C array.

Usage: embed.py NAME HEADER INPUT OUTPUT.  Defines NAME[] and NAME_size as HEADER
declares them.
"""
import pathlib, sys

name, header, src, dst = sys.argv[1:]
data = pathlib.Path(src).read_bytes()
rows = ("".join(f"{b}," for b in data[i:i + 32]) for i in range(0, len(data), 32))
pathlib.Path(dst).write_text(
    f'#include "{header}"\n\n'
    f"const uint8_t {name}[] __attribute__((aligned(16))) = {{\n" + "\n".join(rows) + "\n};\n"
    f"const uint32_t {name}_size = {len(data)};\n")
