/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside the interpreter: what its files share.
 *
 *   interpret.c  instruction by instruction; stack and branches
 *   system.c     system instructions, and the odd ones
 *   sysregs.c    control and debug registers, XCR0, MSRs
 *   segments.c   descriptor tables and segments
 *   xsave.c      the XSAVE family
 *   string.c, vector.c  what can be interrupted in its middle
 *
 * Contract of all functions that return bool: false with an exception pending and guest state as before the instruction.
 * True: it has been done; interpret() moves cpu->rip.
 */
#ifndef ENGINE_DBT_INTERPRET_H
#define ENGINE_DBT_INTERPRET_H

#include <stdbool.h>
#include <stdint.h>

struct cpu;
struct insn;

/* --- interpret.c --- */
bool load_data(struct cpu *cpu, uint64_t va, void *dst, unsigned size);
bool store_data(struct cpu *cpu, uint64_t va, const void *src, unsigned size);
/* The memory operand of @in. */
bool load_operand(struct cpu *cpu, const struct insn *in, void *dst, unsigned size);
bool store_operand(struct cpu *cpu, const struct insn *in, const void *src, unsigned size);
/* The register or memory operand selected by ModRM.rm. */
bool read_rm(struct cpu *cpu, const struct insn *in, unsigned size, uint64_t *ret);
/* Memory gets 2 bytes, a register the operand size: SLDT, STR, SMSW, MOV from segment. */
bool write_selector(struct cpu *cpu, const struct insn *in, uint64_t value);
/*
 * Neither an interrupt nor a single-step trap comes between a load of SS and the
 * next instruction, which loads RSP (SDM vol. 3, 6.8.3).  LSS needs no such thing.
 */
void shadow_stack_load(struct cpu *cpu);

/* --- system.c --- */
/* INSN_SYSTEM.  With @ret_jumped it has moved cpu->rip itself. */
bool system_insn(struct cpu *cpu, const struct insn *in, uint64_t next, bool *ret_jumped);

/* --- sysregs.c --- */
bool set_cr0(struct cpu *cpu, uint64_t value);
bool mov_cr(struct cpu *cpu, const struct insn *in);
bool mov_dr(struct cpu *cpu, const struct insn *in);
/* XGETBV, XSETBV. */
bool xcr_insn(struct cpu *cpu, const struct insn *in);
bool msr_insn(struct cpu *cpu, const struct insn *in);
/* WRFSBASE, WRGSBASE. */
bool write_base(struct cpu *cpu, const struct insn *in);

/* --- segments.c --- */
/* LGDT, LIDT, SGDT, SIDT. */
bool table_insn(struct cpu *cpu, const struct insn *in);
/* LLDT and LTR: system descriptors are 16 bytes in long mode. */
bool system_segment(struct cpu *cpu, const struct insn *in);
/* LAR, LSL, VERR, VERW: results go to ZF instead of exceptions. */
bool segment_query(struct cpu *cpu, const struct insn *in);
/* LES, LDS, LSS, LFS, LGS. */
bool load_far_segment(struct cpu *cpu, const struct insn *in);

/* --- xsave.c --- */
bool xsave_insn(struct cpu *cpu, const struct insn *in);

#endif /* ENGINE_DBT_INTERPRET_H */
