/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SYSCALL and SYSRET without leaving translated code.
 *
 * What the C versions (event.c) compute from MSRs is prepared once, in
 * cpu.syscall_seg[] and cpu.syscall_ready; whatever changes an input clears the
 * latter.  Anything out of the ordinary - a mask that leaves flags standing, odd
 * flags in R11, an address that is not a user's - goes to the interpreter.
 */
#include "engine/dbt/run.h"
#include "engine/dbt/translator.h"

#define USER_CODE_BITS 47

_Static_assert(offsetof(struct cpu, direction) == offsetof(struct cpu, intr_enabled) + 1 &&
	       offsetof(struct cpu, cpl) == offsetof(struct cpu, intr_enabled) + 2 &&
	       offsetof(struct cpu, in_code) == offsetof(struct cpu, intr_enabled) + 3 &&
	       offsetof(struct cpu, intr_enabled) % 4 == 0, "stored as one");
_Static_assert((unsigned)T1 == R11, "movzx and TEST below have it in their bytes");
_Static_assert(SEG_SS == SEG_CS + 1 && sizeof(struct seg_reg) == 16, "copied as one");

bool is_fast_entry(const struct insn *in, uint32_t mode)
{
	if (in->op != INSN_SYSTEM)
		return false;
	return (in->sys == SYS_SYSCALL && mode == BLOCK_USER) || (in->sys == SYS_SYSRET && mode == 0 && in->opsize == 8);
}

/* cmp byte or dword gs:[off], imm */
static void emit_gs_cmp8(struct emit *e, uint32_t off, unsigned imm)
{
	emit_gs_abs(e, false, 0x80, ALU_CMP, off);
	emit_u8(e, imm);
}

static void emit_gs_cmp32(struct emit *e, uint32_t off, unsigned imm)
{
	emit_gs_abs(e, false, 0x83, ALU_CMP, off);
	emit_u8(e, imm);
}

static void emit_gs_set32(struct emit *e, uint32_t off, uint32_t imm)
{
	emit_gs_abs(e, false, 0xc7, 0, off);
	emit_u32(e, imm);
}

/* CS, SS, CPL, IF, DF, system flags and the mode of blocks.  Uses T1; flags kept. */
static void emit_new_privilege(struct translator *t, unsigned set, unsigned cpl, bool intr, uint32_t mode)
{
	struct emit *e = &t->e;

	for (uint32_t off = 0; off < 2 * sizeof(struct seg_reg); off += 8) {
		emit_gs_load(e, T1, GS(syscall_seg) + set * (uint32_t)(2 * sizeof(struct seg_reg)) + off);
		emit_gs_store(e, GS(seg) + SEG_CS * (uint32_t)sizeof(struct seg_reg) + off, T1);
	}
	emit_gs_set32(e, GS(intr_enabled), (uint32_t)intr | cpl << 16 | 1u << 24);
	emit_gs_set32(e, GS(sysflags), 0);
	emit_gs_set32(e, GS(mode), mode);
}

/* T1 = RFLAGS; AX = what emit_flags_to_ax() gave. */
static void emit_compose_flags(struct emit *e)
{
	emit_u8(e, 0x44), emit_u8(e, 0x0f), emit_u8(e, 0xb6), emit_u8(e, 0xd8);	/* movzx T1, al */
	emit_shift(e, false, SHIFT_SHL, T1, 11);
	emit_u8(e, 0x0f), emit_u8(e, 0xb6), emit_u8(e, 0xc4);	/* movzx eax, ah: bit 1 is set in it */
	emit_op_reg(e, false, 0x0b, T1, RAX);
	emit_gs_movzx(e, 0xb6, RAX, GS(intr_enabled));
	emit_shift(e, false, SHIFT_SHL, RAX, 9);
	emit_op_reg(e, false, 0x0b, T1, RAX);
	emit_gs_movzx(e, 0xb6, RAX, GS(direction));
	emit_shift(e, false, SHIFT_SHL, RAX, 10);
	emit_op_reg(e, false, 0x0b, T1, RAX);
	emit_gs_abs(e, false, 0x0b, T1, GS(sysflags));
	emit_alu_imm(e, false, ALU_AND, T1, (int32_t)~FLAG_RF);
}

static void emit_syscall(struct translator *t, unsigned i)
{
	struct emit *e = &t->e;
	uint8_t *slow;

	emit_gs_store(e, GS(tmp) + 8, RAX);
	emit_flags_to_ax(e);
	emit_gs_cmp8(e, GS(syscall_ready), 0);
	slow = emit_jcc(e, CC_E);
	emit_compose_flags(e);
	emit_gs_store(e, GS(gpr) + 8 * R11, T1);
	emit_guest_va(t, RCX, block_va(t, t->guest_off[i + 1]));
	emit_new_privilege(t, 0, 0, false, 0);
	emit_gs_load(e, T0, GS(lstar));
	emit_u8(e, 0x31), emit_u8(e, 0xc0);	/* xor eax, eax: OF is 0 */
	emit_u8(e, 0x9e);	/* sahf: and all others */
	emit_gs_load(e, RAX, GS(tmp) + 8);
	emit_dispatch(t, false);
	emit_patch_here(e, slow);
	emit_flags_from_ax(e);
	emit_gs_load(e, RAX, GS(tmp) + 8);
	emit_helper_exit(t, i);
}

static void emit_sysret(struct translator *t, unsigned i)
{
	struct emit *e = &t->e;
	uint8_t *slow[5];

	emit_gs_cmp8(e, GS(syscall_ready), 0);
	slow[0] = emit_jcc(e, CC_E);
	emit_mov(e, T0, RCX);
	emit_shift(e, true, SHIFT_SHR, T0, USER_CODE_BITS);
	slow[1] = emit_jcc(e, CC_NE);
	emit_gs_load(e, T1, GS(gpr) + 8 * R11);
	emit_alu_imm(e, false, ALU_AND, T1, (int32_t)~FLAGS_ARITH);
	emit_alu_imm(e, false, ALU_CMP, T1, FLAG_IF | 2);
	slow[2] = emit_jcc(e, CC_NE);
	emit_gs_cmp32(e, GS(deferred), 0);
	slow[3] = emit_jcc(e, CC_NE);
	emit_gs_cmp32(e, (uint32_t)GS_JC_MODE, BLOCK_USER);
	slow[4] = emit_jcc(e, CC_NE);
	emit_new_privilege(t, 1, 3, true, BLOCK_USER);
	emit_gs_store(e, GS(tmp) + 8, RAX);
	emit_gs_load(e, T1, GS(gpr) + 8 * R11);
	emit_op_reg(e, false, 0x8b, RAX, T1);
	emit_shift(e, false, SHIFT_SHL, RAX, 8);	/* AH: the flags that SAHF takes */
	emit_u8(e, 0x41), emit_u8(e, 0xf7), emit_u8(e, 0xc3), emit_u32(e, FLAG_OF);	/* test T1, OF */
	emit_u8(e, 0x0f), emit_u8(e, 0x95), emit_u8(e, 0xc0);	/* setne al */
	emit_flags_from_ax(e);
	emit_gs_load(e, RAX, GS(tmp) + 8);
	emit_mov(e, T0, RCX);
	emit_dispatch(t, true);
	for (unsigned k = 0; k < 5; k++)
		emit_patch_here(e, slow[k]);
	emit_helper_exit(t, i);
}

void emit_fast_entry(struct translator *t, unsigned i)
{
	leave_state(t);
	if (t->insn[i].sys == SYS_SYSCALL)
		emit_syscall(t, i);
	else
		emit_sysret(t, i);
}
