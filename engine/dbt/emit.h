/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host instruction encoder, just the forms the translator needs.
 *
 * A struct emit is a cursor over the writable alias of code memory; `delta`
 * leads to the executable alias.  Running out of room sets `full` and drops
 * bytes: the caller checks once at the end.  Nothing here changes flags except
 * where the name of a function says an arithmetic operation.
 */
#ifndef ENGINE_DBT_EMIT_H
#define ENGINE_DBT_EMIT_H

#include "vmm/vcpu_state.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct emit {
	uint8_t *p, *end;
	intptr_t delta;	/* executable address - writable address */
	bool full;
};

static inline void emit_u8(struct emit *e, unsigned v)
{
	if (e->p < e->end)
		*e->p++ = (uint8_t)v;
	else
		e->full = true;
}

static inline void emit_u32(struct emit *e, uint32_t v)
{
	if (e->end - e->p >= 4) {
		memcpy(e->p, &v, 4);
		e->p += 4;
	} else {
		e->full = true;
	}
}

static inline void emit_u64(struct emit *e, uint64_t v)
{
	emit_u32(e, (uint32_t)v);
	emit_u32(e, (uint32_t)(v >> 32));
}

/* Host address where the next byte will run. */
static inline uint64_t emit_pc(const struct emit *e)
{
	return (uint64_t)((intptr_t)e->p + e->delta);
}

enum { NO_INDEX = 4 };	/* SIB index that means none */

static inline void emit_rex(struct emit *e, bool w, unsigned reg, unsigned index, unsigned base)
{
	unsigned rex = 0x40 | (unsigned)w << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | base >> 3;

	if (rex != 0x40)
		emit_u8(e, rex);
}

/* ModRM and SIB of [base + index << scale + disp]; @disp32 forces four displacement bytes. */
static inline void emit_modrm_mem(struct emit *e, unsigned reg, unsigned base, unsigned index,
				  unsigned scale, int32_t disp, bool disp32)
{
	unsigned mod;

	if (disp == 0 && (base & 7) != RBP)
		mod = 0;
	else if (disp >= -128 && disp <= 127 && !(disp32 && disp != 0))
		mod = 1;
	else
		mod = 2;
	emit_u8(e, mod << 6 | (reg & 7) << 3 | ((index != NO_INDEX || (base & 7) == RSP) ? 4 : base & 7));
	if (index != NO_INDEX || (base & 7) == RSP)
		emit_u8(e, scale << 6 | (index & 7) << 3 | (base & 7));
	if (mod == 1)
		emit_u8(e, (uint8_t)disp);
	else if (mod == 2)
		emit_u32(e, (uint32_t)disp);
}

/* op reg, [base + index << scale + disp]; 64-bit when @w. */
static inline void emit_op_mem(struct emit *e, bool w, unsigned op, unsigned reg, unsigned base,
			       unsigned index, unsigned scale, int32_t disp)
{
	emit_rex(e, w, reg, index, base);
	emit_u8(e, op);
	emit_modrm_mem(e, reg, base, index, scale, disp, false);
}

/* op reg, rm (both registers) */
static inline void emit_op_reg(struct emit *e, bool w, unsigned op, unsigned reg, unsigned rm)
{
	emit_rex(e, w, reg, 0, rm);
	emit_u8(e, op);
	emit_u8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
}

static inline void emit_mov(struct emit *e, unsigned dst, unsigned src)
{
	emit_op_reg(e, true, 0x8b, dst, src);
}

static inline void emit_load(struct emit *e, unsigned reg, unsigned base, int32_t disp)
{
	emit_op_mem(e, true, 0x8b, reg, base, NO_INDEX, 0, disp);
}

/* Flags kept, as by a move, which costs processors nothing. */
static inline void emit_lea(struct emit *e, unsigned reg, unsigned base, unsigned index,
			    unsigned scale, int32_t disp)
{
	if (index == NO_INDEX && disp == 0)
		emit_mov(e, reg, base);
	else
		emit_op_mem(e, true, 0x8d, reg, base, index, scale, disp);
}

/* lea reg, [index << scale + disp] without base; 64-bit when @w. */
static inline void emit_lea_index(struct emit *e, bool w, unsigned reg, unsigned index, unsigned scale, int32_t disp)
{
	emit_rex(e, w, reg, index, 0);
	emit_u8(e, 0x8d);
	emit_u8(e, (reg & 7) << 3 | 4);
	emit_u8(e, scale << 6 | (index & 7) << 3 | 5);
	emit_u32(e, (uint32_t)disp);
}

/* op reg, gs:[disp32] without base. */
static inline void emit_gs_abs(struct emit *e, bool w, unsigned op, unsigned reg, uint32_t off)
{
	emit_u8(e, 0x65);
	emit_rex(e, w, reg, 0, 0);
	emit_u8(e, op);
	emit_u8(e, (reg & 7) << 3 | 4);
	emit_u8(e, 0x25);
	emit_u32(e, off);
}

/* op reg, gs:[index << scale + off] */
static inline void emit_gs_idx(struct emit *e, bool w, unsigned op, unsigned reg, unsigned index,
			       unsigned scale, uint32_t off)
{
	emit_u8(e, 0x65);
	emit_rex(e, w, reg, index, 0);
	emit_u8(e, op);
	emit_u8(e, (reg & 7) << 3 | 4);
	emit_u8(e, scale << 6 | (index & 7) << 3 | 5);
	emit_u32(e, off);
}

/* movzx reg32, byte or word gs:[off] */
static inline void emit_gs_movzx(struct emit *e, unsigned op, unsigned reg, uint32_t off)
{
	emit_u8(e, 0x65);
	emit_rex(e, false, reg, 0, 0);
	emit_u8(e, 0x0f);
	emit_u8(e, op);
	emit_u8(e, (reg & 7) << 3 | 4);
	emit_u8(e, 0x25);
	emit_u32(e, off);
}

static inline void emit_gs_load(struct emit *e, unsigned reg, uint32_t off)
{
	emit_gs_abs(e, true, 0x8b, reg, off);
}

static inline void emit_gs_store(struct emit *e, uint32_t off, unsigned reg)
{
	emit_gs_abs(e, true, 0x89, reg, off);
}

static inline void emit_gs_store_imm8(struct emit *e, uint32_t off, unsigned imm)
{
	emit_gs_abs(e, false, 0xc6, 0, off);
	emit_u8(e, imm);
}

static inline void emit_gs_store_imm32(struct emit *e, uint32_t off, int32_t imm)
{
	emit_gs_abs(e, true, 0xc7, 0, off);	/* sign-extended to 64 bits */
	emit_u32(e, (uint32_t)imm);
}

static inline void emit_gs_jmp(struct emit *e, uint32_t off)
{
	emit_gs_abs(e, false, 0xff, 4, off);
}

/* Shortest way to a constant. */
static inline void emit_mov_imm(struct emit *e, unsigned reg, uint64_t imm)
{
	if (imm <= UINT32_MAX) {
		emit_rex(e, false, 0, 0, reg);
		emit_u8(e, 0xb8 | (reg & 7));
		emit_u32(e, (uint32_t)imm);
	} else if ((int64_t)imm == (int32_t)imm) {
		emit_rex(e, true, 0, 0, reg);
		emit_u8(e, 0xc7);
		emit_u8(e, 0xc0 | (reg & 7));
		emit_u32(e, (uint32_t)imm);
	} else {
		emit_rex(e, true, 0, 0, reg);
		emit_u8(e, 0xb8 | (reg & 7));
		emit_u64(e, imm);
	}
}

/* lea reg, [rip + rel32]; returns the place of rel32 for emit_patch_here(). */
static inline uint8_t *emit_lea_rip(struct emit *e, unsigned reg)
{
	emit_rex(e, true, reg, 0, 0);
	emit_u8(e, 0x8d);
	emit_u8(e, (reg & 7) << 3 | 5);
	emit_u32(e, 0);
	return e->p - 4;
}

/* jmp rel32, call rel32 and jcc rel32; they return the place of rel32. */
static inline uint8_t *emit_jmp(struct emit *e)
{
	emit_u8(e, 0xe9);
	emit_u32(e, 0);
	return e->p - 4;
}

static inline uint8_t *emit_call_near(struct emit *e)
{
	emit_u8(e, 0xe8);
	emit_u32(e, 0);
	return e->p - 4;
}

static inline uint8_t *emit_jcc(struct emit *e, unsigned cond)
{
	emit_u8(e, 0x0f);
	emit_u8(e, 0x80 | cond);
	emit_u32(e, 0);
	return e->p - 4;
}

/* jcc rel8 (or jrcxz with @op 0xe3, loops ...); returns the place of rel8. */
static inline uint8_t *emit_short(struct emit *e, unsigned op)
{
	emit_u8(e, op);
	emit_u8(e, 0);
	return e->p - 1;
}

static inline void emit_patch_here(struct emit *e, uint8_t *rel32)
{
	int32_t rel = (int32_t)(e->p - (rel32 + 4));

	if (!e->full)
		memcpy(rel32, &rel, 4);
}

static inline void emit_patch_to(struct emit *e, uint8_t *rel32, uint64_t pc)
{
	int32_t rel = (int32_t)(pc - (uint64_t)((intptr_t)(rel32 + 4) + e->delta));

	if (!e->full)
		memcpy(rel32, &rel, 4);
}

static inline void emit_patch_short(struct emit *e, uint8_t *rel8)
{
	if (!e->full)
		*rel8 = (uint8_t)(e->p - (rel8 + 1));
}

/* rorx dst, src, imm (BMI2, flags kept). */
static inline void emit_rorx(struct emit *e, bool w, unsigned dst, unsigned src, unsigned imm)
{
	emit_u8(e, 0xc4);
	emit_u8(e, (dst < 8) << 7 | 1u << 6 | (src < 8) << 5 | 3);
	emit_u8(e, (unsigned)w << 7 | 0x7b);
	emit_u8(e, 0xf0);
	emit_u8(e, 0xc0 | (dst & 7) << 3 | (src & 7));
	emit_u8(e, imm);
}

/* pext dst, src, gs:[off] (BMI2, flags kept). */
static inline void emit_bits_gs(struct emit *e, unsigned pp, unsigned dst, unsigned src, uint32_t off)
{
	emit_u8(e, 0x65);
	emit_u8(e, 0xc4);
	emit_u8(e, (dst < 8) << 7 | 1u << 6 | 1u << 5 | 2);
	emit_u8(e, 1u << 7 | (~src & 15) << 3 | pp);	/* W1, L0 */
	emit_u8(e, 0xf5);
	emit_u8(e, (dst & 7) << 3 | 4);
	emit_u8(e, 0x25);
	emit_u32(e, off);
}

static inline void emit_pext_gs(struct emit *e, unsigned dst, unsigned src, uint32_t off)
{
	emit_bits_gs(e, 2, dst, src, off);
}

static inline void emit_pdep_gs(struct emit *e, unsigned dst, unsigned src, uint32_t off)
{
	emit_bits_gs(e, 3, dst, src, off);
}

/* xchg, 64-bit. */
static inline void emit_xchg(struct emit *e, unsigned a, unsigned b)
{
	emit_op_reg(e, true, 0x87, a, b);
}

/*
 * Two instructions look at a register and leave flags alone: LOOP and JRCXZ.  LOOP can be the one that is not taken where all is
 * well, and what is never taken needs no place among the branches that a processor remembers.  AMD's Zen 3
 * and 4 have places for some 7,000 (Software Optimization Guides, branch prediction), fewer than a compiler has hot look-ups, and
 * foretell all others as not taken.  Intel's LOOP is microcode: 7 instructions' worth and more (A. Fog, Instruction tables).
 */
extern bool loop_is_quick;

/*
 * jmp rel32 when @reg, which is destroyed, is not 1; returns the place of rel32.  Flags are kept, and RCX but where that leads:
 * there it is still in @reg.  In memory, everything that does this would wait for the one before it.
 */
static inline uint8_t *emit_jmp_unless_one(struct emit *e, unsigned reg)
{
	uint8_t *one, *jump;

	emit_xchg(e, reg, RCX);
	if (loop_is_quick) {	/* loop to the jmp that is in: nop [rcx + 8 * rbp + rel32] */
		emit_u8(e, 0xe2), emit_u8(e, 3);
		emit_u8(e, 0x0f), emit_u8(e, 0x1f), emit_u8(e, 0x84);
		jump = emit_jmp(e);
	} else {
		emit_lea(e, RCX, RCX, NO_INDEX, 0, -1);
		one = emit_short(e, 0xe3);	/* jrcxz */
		jump = emit_jmp(e);
		emit_patch_short(e, one);
	}
	emit_mov(e, RCX, reg);
	return jump;
}

/* The same to @to, at most 100 bytes back: one instruction less, 5 % of a jump that is looked up. */
static inline void emit_jmp_back_unless_one(struct emit *e, unsigned reg, uint64_t to)
{
	emit_xchg(e, reg, RCX);
	if (!loop_is_quick) {
		emit_lea(e, RCX, RCX, NO_INDEX, 0, -1);
		emit_u8(e, 0xe3), emit_u8(e, 2);	/* jrcxz over the next */
	}
	emit_u8(e, loop_is_quick ? 0xe2 : 0xeb);	/* loop, jmp */
	emit_u8(e, (uint8_t)(to - (emit_pc(e) + 1)));
	emit_mov(e, RCX, reg);
}

/* and/cmp/add/sub r, imm32 by ModRM extension; 32-bit when !w.  Changes flags. */
static inline void emit_alu_imm(struct emit *e, bool w, unsigned ext, unsigned reg, int32_t imm)
{
	emit_rex(e, w, 0, 0, reg);
	if (imm >= -128 && imm <= 127) {
		emit_u8(e, 0x83);
		emit_u8(e, 0xc0 | ext << 3 | (reg & 7));
		emit_u8(e, (uint8_t)imm);
	} else {
		emit_u8(e, 0x81);
		emit_u8(e, 0xc0 | ext << 3 | (reg & 7));
		emit_u32(e, (uint32_t)imm);
	}
}

enum { ALU_ADD = 0, ALU_OR = 1, ALU_AND = 4, ALU_SUB = 5, ALU_XOR = 6, ALU_CMP = 7 };
/* AH = flags as LAHF stores them, AL = OF: cheaper than PUSHF. */
static inline void emit_flags_to_ax(struct emit *e)
{
	emit_u8(e, 0x9f);	/* lahf */
	emit_u8(e, 0x0f), emit_u8(e, 0x90), emit_u8(e, 0xc0);	/* seto al */
}

/* The other way round; RAX is destroyed. */
static inline void emit_flags_from_ax(struct emit *e)
{
	emit_u8(e, 0x04), emit_u8(e, 0x7f);	/* add al, 127: overflows if AL is 1 */
	emit_u8(e, 0x9e);	/* sahf */
}

/* shl, shr or sar reg, imm by ModRM extension; 64-bit when @w.  Changes flags. */
static inline void emit_shift(struct emit *e, bool w, unsigned ext, unsigned reg, unsigned imm)
{
	emit_rex(e, w, 0, 0, reg);
	emit_u8(e, 0xc1);
	emit_u8(e, 0xc0 | ext << 3 | (reg & 7));
	emit_u8(e, imm);
}

/* not reg, 64-bit.  Flags kept. */
static inline void emit_not(struct emit *e, unsigned reg)
{
	emit_rex(e, true, 0, 0, reg);
	emit_u8(e, 0xf7);
	emit_u8(e, 0xd0 | (reg & 7));
}

/* neg reg, 64-bit.  Changes flags. */
static inline void emit_neg(struct emit *e, unsigned reg)
{
	emit_rex(e, true, 0, 0, reg);
	emit_u8(e, 0xf7);
	emit_u8(e, 0xd8 | (reg & 7));
}

enum { SHIFT_SHL = 4, SHIFT_SHR = 5, SHIFT_SAR = 7 };

/* @bytes bytes that do nothing, in as few instructions as may be. */
static inline void emit_nops(struct emit *e, unsigned bytes)
{
	static const uint8_t nop[8][8] = {	/* SDM vol. 2, NOP: recommended sequences */
		{ 0 }, { 0x90 }, { 0x66, 0x90 }, { 0x0f, 0x1f, 0 }, { 0x0f, 0x1f, 0x40, 0 },
		{ 0x0f, 0x1f, 0x44, 0, 0 }, { 0x66, 0x0f, 0x1f, 0x44, 0, 0 }, { 0x0f, 0x1f, 0x80, 0, 0, 0, 0 },
	};

	for (unsigned n; bytes; bytes -= n) {
		n = bytes < 7 ? bytes : 7;
		for (unsigned k = 0; k < n; k++)
			emit_u8(e, nop[n][k]);
	}
}

/* Starts the next instruction at a multiple of @to, a power of two. */
static inline void emit_align(struct emit *e, unsigned to)
{
	emit_nops(e, (unsigned)(0 - emit_pc(e)) & (to - 1));
}

/* jmp gs:[@table + 8 * i], where @i = what PDEP of @reg + (@reg rotated right by @fold) by gs:[@mask] gives.  Flags kept. */
static inline void emit_jmp_table(struct emit *e, unsigned reg, unsigned i, unsigned fold, uint32_t mask, uint32_t table)
{
	emit_rorx(e, true, i, reg, fold);
	emit_lea(e, i, i, reg, 0, 0);
	emit_pdep_gs(e, i, i, mask);
	emit_gs_idx(e, false, 0xff, 4, i, 3, table);
}

enum { CC_O, CC_NO, CC_B, CC_AE, CC_E, CC_NE, CC_BE, CC_A, CC_S, CC_NS };

#endif /* ENGINE_DBT_EMIT_H */
