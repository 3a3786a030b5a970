#!/usr/bin/env python3
"""Makes a shared library one that is loaded when its first function is called.

lazy-library.py OUTPUT.c LIBRARY CC SOURCE...

Writes C with a small function of the same name for every function of -lLIBRARY that the
SOURCEs name; linked instead of the library, it finds the real one through os/lazy.h.  A
command that needs neither registries nor archives then starts without some forty libraries.
x86-64, System V.
"""
import re
import subprocess
import sys

BINDING = """
__asm__(".text\\n"
	".type lazy_bind_%(lib)s, @function\\n"
	"lazy_bind_%(lib)s:\\n"	/* the number of the function is on the stack, above the return address */
	"	sub $192, %%rsp\\n"
	"	mov %%rax, (%%rsp)\\n	mov %%rdi, 8(%%rsp)\\n	mov %%rsi, 16(%%rsp)\\n	mov %%rdx, 24(%%rsp)\\n"
	"	mov %%rcx, 32(%%rsp)\\n	mov %%r8, 40(%%rsp)\\n	mov %%r9, 48(%%rsp)\\n"
	"	movups %%xmm0, 64(%%rsp)\\n	movups %%xmm1, 80(%%rsp)\\n	movups %%xmm2, 96(%%rsp)\\n"
	"	movups %%xmm3, 112(%%rsp)\\n	movups %%xmm4, 128(%%rsp)\\n	movups %%xmm5, 144(%%rsp)\\n"
	"	movups %%xmm6, 160(%%rsp)\\n	movups %%xmm7, 176(%%rsp)\\n"
	"	lea lazy_%(lib)s(%%rip), %%rdi\\n"
	"	mov 192(%%rsp), %%esi\\n"
	"	call lazy_function@PLT\\n"
	"	mov %%rax, %%r11\\n"
	"	mov (%%rsp), %%rax\\n	mov 8(%%rsp), %%rdi\\n	mov 16(%%rsp), %%rsi\\n	mov 24(%%rsp), %%rdx\\n"
	"	mov 32(%%rsp), %%rcx\\n	mov 40(%%rsp), %%r8\\n	mov 48(%%rsp), %%r9\\n"
	"	movups 64(%%rsp), %%xmm0\\n	movups 80(%%rsp), %%xmm1\\n	movups 96(%%rsp), %%xmm2\\n"
	"	movups 112(%%rsp), %%xmm3\\n	movups 128(%%rsp), %%xmm4\\n	movups 144(%%rsp), %%xmm5\\n"
	"	movups 160(%%rsp), %%xmm6\\n	movups 176(%%rsp), %%xmm7\\n"
	"	add $200, %%rsp\\n"
	"	jmp *%%r11\\n");
"""

FUNCTION = """
__asm__(".globl %(name)s\\n.hidden %(name)s\\n.type %(name)s, @function\\n"
	"%(name)s:	jmp *lazy_%(lib)s_at+%(offset)d(%%rip)\\n"
	".size %(name)s, .-%(name)s\\n"
	"lazy_%(lib)s_%(index)d:	push $%(index)d\\n	jmp lazy_bind_%(lib)s\\n");
extern const char lazy_%(lib)s_%(index)d[];
"""


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main(to, library, cc, *sources):
    path = output(cc, f"-print-file-name=lib{library}.so").strip()
    soname = re.search(r"SONAME\s+(\S+)", output("objdump", "-p", path)).group(1)
    offered = set()
    for line in output("nm", "-D", "--defined-only", path).splitlines():
        kind, name = line.split()[-2:]
        if kind in "TWi":
            offered.add(name.split("@")[0])
    wanted = set()
    for source in sources:
        with open(source) as f:
            wanted |= set(re.findall(r"\b[A-Za-z_][A-Za-z0-9_]*", f.read()))
    wanted |= {name + "_" for name in wanted}	# what macros of zlib call
    names = sorted(offered & wanted)
    lib = re.sub(r"\W", "_", library)
    with open(to, "w") as f:
        f.write(f"/* Made by tools/lazy-library.py: {len(names)} functions of {soname}. */\n"
                '#include "os/lazy.h"\n' + BINDING % {"lib": lib})
        for i, name in enumerate(names):
            f.write(FUNCTION % {"lib": lib, "name": name, "index": i, "offset": 8 * i})
        f.write(f"\nconst void *lazy_{lib}_at[] = {{\n" +
                "".join(f"\tlazy_{lib}_{i},\n" for i in range(len(names))) + "};\n")
        f.write(f"\nstatic const char *const names[] = {{\n" + "".join(f'\t"{n}",\n' for n in names) + "};\n")
        f.write(f'\nstruct lazy_library lazy_{lib} = {{ .soname = "{soname}", .name = names, .at = lazy_{lib}_at }};\n')


main(*sys.argv[1:])
