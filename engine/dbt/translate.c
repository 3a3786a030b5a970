/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guest x86-64 to host x86-64, one block at a time.
 *
 * Most instructions are copied.  What is rewritten:
 *
 *   memory operands   look the page up in the software TLB, then the same
 *                     instruction on the host address
 *   control flow      exits (block.h)
 *   system            leave to dbt_exit() with the decoded instruction
 *
 * A look-up (flags dead; E is the table entry, S0/S1 the two scratch registers):
 *
 *      lea  S0, [guest operand]
 *      rorx S1d, S0d, 7                 S1 = index * sizeof(entry), after the AND
 *      and  S1d, (TLB_ENTRIES-1) << 5
 *      add  S0, gs:[S1 + ntag]          S0 = offset in the page if the entry matches
 *      cmp  S0, 4096 - size             also catches accesses that leave the page
 *      ja   miss
 *      mov  S1, gs:[S1 + host or addend]
 *      op   [S0 + S1]       or, for base + displacement:   op [S1 + base + disp]
 *
 * In the second form S1 stays good for neighbours: accesses through the same
 * base register that follow are checked by the first look-up (a group).  When
 * the group's check fails, the instruction runs alone in a BLOCK_SINGLE block.
 *
 * Where guest flags are live, the same is done with PEXT, LEA and JRCXZ, which
 * leave flags alone, at the price of saving RCX.
 *
 * Invariant: at every point where translated code can leave for a fault, guest
 * registers are exactly those before the current instruction, except that S0,
 * S1 (and RCX between save and restore) are free, and that borrowed registers
 * are in cpu.spill[].
 */
#include "engine/dbt/block.h"
#include "engine/dbt/cpu.h"
#include "engine/dbt/emit.h"
#include "engine/dbt/miss.h"

#include "base/checked.h"

#include <errno.h>
#include <string.h>

#define GROUP_SPAN_MAX 1024

_Static_assert(sizeof(struct tlb_entry) == 32, "the look-up scales by 32");
_Static_assert(sizeof(struct jc_entry) == 32, "the look-up scales by 32");

/* A host operand: [base + index << scale + disp]. */
struct operand {
	unsigned base, index, scale;
	int32_t disp;
};

struct miss_stub {
	uint8_t *jump;	/* rel32 to patch */
	uint8_t *retry;	/* where to go when the entry has been filled */
	bool live;	/* the look-up that kept flags */
	struct miss_site site;
};

struct exit_stub {
	uint32_t exit;
	uint8_t *jump[2];	/* rel32s that lead to the stub */
	unsigned njumps;
	bool restore_rcx;
};

struct translator {
	struct code_cache *cc;
	struct emit e;
	struct block *b;
	struct insn insn[BLOCK_INSNS_MAX];
	uint32_t live[BLOCK_INSNS_MAX + 1];	/* flags live before instruction i */
	uint16_t guest_off[BLOCK_INSNS_MAX + 1];
	struct insn_mark marks[BLOCK_INSNS_MAX + 1];
	unsigned n;
	unsigned s0, s1;	/* scratch registers */
	uint16_t written;	/* guest registers the block writes */
	uint64_t va;
	bool user, absolute, code32;
	const uint8_t *page;	/* host bytes of the guest page */
	uint32_t tsc_plain;	/* TSC offset is zero: RDTSC as it is */

	/* group in force: base register, how far it has moved since the check */
	unsigned group_base;
	int64_t group_shift, group_lo, group_hi;	/* offsets from the base at the check */
	bool group_on, group_write;

	struct miss_stub miss[BLOCK_INSNS_MAX * 3];
	unsigned nmiss;
	struct exit_stub stub[16];
	unsigned nstubs;
	bool sti;	/* previous instruction was STI */
};

/* ------------------------------------------------------------------ scanning */

static bool ends_block(const struct insn *in, uint32_t mode)
{
	if ((mode & BLOCK_NO_FPU) && in->uses_fpu)
		return true;
	if ((mode & BLOCK_USER) && in->privileged)
		return true;
	switch ((enum insn_op)in->op) {
	case INSN_COPY:
	case INSN_LEA:
	case INSN_NOP:
	case INSN_PUSH:
	case INSN_POP:
	case INSN_CLI:
	case INSN_CLD:
	case INSN_STD:
	case INSN_RDFSBASE:
	case INSN_RDGSBASE:
	case INSN_SWAPGS:
	case INSN_RDTSC:
	case INSN_RDTSCP:
	case INSN_RDPID:
	case INSN_STI:
		return false;
	case INSN_PUSHF:
		return in->opsize != 8;
	case INSN_SYSTEM:
		return !(in->sys == SYS_MOV_FROM_SEG && !in->mem);
	case INSN_LEAVE:
		return in->opsize == 2;
	case INSN_UD:
	case INSN_JMP:
	case INSN_JCC:
	case INSN_CALL:
	case INSN_JMP_IND:
	case INSN_CALL_IND:
	case INSN_RET:
	case INSN_JCXZ:
	case INSN_LOOP:
	case INSN_LOOPE:
	case INSN_LOOPNE:
	case INSN_POPF:
	case INSN_ENTER:
	case INSN_PUSHA:
	case INSN_POPA:
	case INSN_PUSH_SEG:
	case INSN_POP_SEG:
	case INSN_MOVS:
	case INSN_STOS:
	case INSN_LODS:
	case INSN_SCAS:
	case INSN_CMPS:
	case INSN_INS:
	case INSN_OUTS:
	case INSN_GATHER:
	case INSN_WRFSBASE:	/* must check that the address is canonical */
	case INSN_WRGSBASE:
		return true;
	}
	return true;
}

/* True when dbt_exit() interprets the instruction. */
static bool is_helper(const struct insn *in, uint32_t mode)
{
	if (!ends_block(in, mode))
		return false;
	if (((mode & BLOCK_NO_FPU) && in->uses_fpu) || ((mode & BLOCK_USER) && in->privileged))
		return true;
	return !(in->op >= INSN_JMP && in->op <= INSN_LOOPNE);
}


/*
 * Registers an instruction names.  RSP is never scratch, and RAX, RCX, RDX are
 * kept out of the choice because sequences here use them.
 */
static uint16_t names(const struct insn *in)
{
	return in->gpr_read | in->gpr_written;
}

static const uint8_t borrow_order[] = { R13, R12, R11, R10, R9, R8, RBX, RBP, RDI, RSI };

static unsigned free_borrowable(uint16_t used)
{
	unsigned n = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(borrow_order); i++)
		n += !(used & 1u << borrow_order[i]);
	return n;
}

/* Flags live before guest offset @off of the page, as far as a short look ahead tells. */
static uint32_t live_ahead(struct translator *t, int64_t off, unsigned depth)
{
	uint32_t live = 0, open = FLAGS_ARITH;

	for (unsigned i = 0; i < 8 && open; i++) {
		struct insn in;

		if (off < 0 || off >= (int64_t)PAGE_SIZE ||
		    insn_decode(t->page + off, (size_t)((int64_t)PAGE_SIZE - off), !t->code32, &in) < 0)
			return live | open;
		live |= in.flags_read & open;
		open &= ~in.flags_killed;
		off += in.len;
		if (in.op == INSN_JMP) {
			off += in.imm;
		} else if (in.op == INSN_JCC) {
			if (depth == 0)
				return live | open;
			return live | (open & (live_ahead(t, off, depth - 1) |
					       live_ahead(t, off + in.imm, depth - 1)));
		} else if (is_helper(&in, t->b->mode) || in.op == INSN_RET || in.op == INSN_JMP_IND) {
			return live | open;
		} else if (in.op == INSN_CALL) {
			off += in.imm;
		} else if (in.op >= INSN_JMP && in.op <= INSN_LOOPNE) {
			return live | open;
		}
	}
	return live | open;
}

static uint32_t live_at_end(struct translator *t)
{
	const struct insn *in = &t->insn[t->n - 1];
	int64_t next = (int64_t)(t->b->pa & 4095) + t->guest_off[t->n];

	if (t->b->pa2 != ~0ull || is_helper(in, t->b->mode))
		return FLAGS_ARITH;
	switch ((int)in->op) {
	case INSN_JMP:
	case INSN_CALL:
		return live_ahead(t, next + in->imm, 1);
	case INSN_JCC:
		return live_ahead(t, next, 1) | live_ahead(t, next + in->imm, 1);
	case INSN_RET:
	case INSN_JMP_IND:
	case INSN_CALL_IND:
	case INSN_JCXZ:
	case INSN_LOOP:
	case INSN_LOOPE:
	case INSN_LOOPNE:
		return FLAGS_ARITH;
	default:
		return live_ahead(t, next, 1);
	}
}

static void flow_flags(struct translator *t)
{
	uint32_t live = live_at_end(t);

	t->live[t->n] = live;
	for (unsigned i = t->n; i-- > 0;) {
		const struct insn *in = &t->insn[i];

		live = (live & ~in->flags_killed) | in->flags_read;
		if (is_helper(in, t->b->mode))
			live = FLAGS_ARITH;
		t->live[i] = live;
	}
}

/* Decodes until control flow, page end or a limit.  False: nothing decodable here. */
static bool scan(struct translator *t, const uint8_t *bytes, const uint8_t *pa2_bytes)
{
	unsigned off = 0, room = (unsigned)(PAGE_SIZE - (t->b->pa & 4095));
	unsigned most = t->b->mode & (BLOCK_SINGLE | BLOCK_SLOW) ? 1 : BLOCK_INSNS_MAX;
	uint16_t used = 0;

	t->b->pa2 = ~0ull;
	for (t->n = 0; t->n < most;) {
		struct insn *in = &t->insn[t->n];
		uint16_t now;
		int r = insn_decode(bytes + off, room - off, !t->code32, in);

		if (r == -ENODATA || (r < 0 && room - off < INSN_LEN_MAX)) {
			uint8_t both[INSN_LEN_MAX];
			unsigned here = room - off;

			if (t->n > 0)
				break;	/* the crossing instruction gets a block of its own */
			memcpy(both, bytes + off, here);
			if (pa2_bytes)
				memcpy(both + here, pa2_bytes, INSN_LEN_MAX - here);
			r = insn_decode(both, pa2_bytes ? INSN_LEN_MAX : here, !t->code32, in);
			if (r < 0 && !pa2_bytes)
				return false;	/* page fault on the second page */
			t->b->pa2 = 0;	/* the caller fills it in */
		}
		if (r < 0) {	/* too long: #GP, told apart by the interpreter */
			memset(in, 0, sizeof(*in));
			in->op = INSN_UD;
			in->len = INSN_LEN_MAX;
			in->mode64 = !t->code32;
		}
		now = used | names(in);
		if (t->n > 0 && (now & (1u << R14 | 1u << R15)) && free_borrowable(now) < 3)
			break;
		used = now;
		t->written |= in->gpr_written;
		t->guest_off[t->n] = (uint16_t)off;
		off += in->len;
		t->n++;
		t->guest_off[t->n] = (uint16_t)off;
		if (ends_block(in, t->b->mode) || t->b->pa2 != ~0ull || off >= room)
			break;
		if (t->n >= 2 && t->insn[t->n - 2].op == INSN_STI)
			break;
	}
	t->b->len = (uint16_t)off;
	t->b->ninsns = (uint16_t)t->n;
	t->s0 = R14;
	t->s1 = R15;
	t->b->borrow[0] = t->b->borrow[1] = -1;
	for (unsigned k = 0; k < 2; k++) {
		if (!(used & 1u << (R14 + k)))
			continue;
		for (unsigned i = 0; i < ARRAY_SIZE(borrow_order); i++)
			if (!(used & 1u << borrow_order[i])) {
				used |= (uint16_t)(1u << borrow_order[i]);
				t->b->borrow[k] = (int8_t)borrow_order[i];
				break;
			}
		*(k ? &t->s1 : &t->s0) = (unsigned)t->b->borrow[k];
	}
	return true;
}

/* ------------------------------------------------------- borrowed registers */

static void enter_state(struct translator *t)
{
	for (unsigned k = 0; k < 2; k++)
		if (t->b->borrow[k] >= 0) {
			emit_gs_store(&t->e, GS(spill) + 8 * k, (unsigned)t->b->borrow[k]);
			emit_gs_load(&t->e, R14 + k, GS(gpr) + 8 * (R14 + k));
		}
}

/* Registers as every block expects them; R14 and R15 are free afterwards. */
static void leave_state(struct translator *t)
{
	for (unsigned k = 0; k < 2; k++)
		if (t->b->borrow[k] >= 0) {
			if (t->written & 1u << (R14 + k))
				emit_gs_store(&t->e, GS(gpr) + 8 * (R14 + k), R14 + k);
			emit_gs_load(&t->e, (unsigned)t->b->borrow[k], GS(spill) + 8 * k);
		}
}

/* The same when S0 holds a value wanted in R14 afterwards. */
static void leave_state_keep_s0(struct translator *t)
{
	if (t->s0 == R14) {
		if (t->b->borrow[1] >= 0) {
			if (t->written & 1u << R15)
				emit_gs_store(&t->e, GS(gpr) + 8 * R15, R15);
			emit_gs_load(&t->e, (unsigned)t->b->borrow[1], GS(spill) + 8);
		}
		return;
	}
	if (t->written & 1u << R14)
		emit_gs_store(&t->e, GS(gpr) + 8 * R14, R14);
	emit_mov(&t->e, R14, t->s0);
	emit_gs_load(&t->e, t->s0, GS(spill));
	if (t->b->borrow[1] >= 0) {
		if (t->written & 1u << R15)
			emit_gs_store(&t->e, GS(gpr) + 8 * R15, R15);
		emit_gs_load(&t->e, (unsigned)t->b->borrow[1], GS(spill) + 8);
	}
}

/* ------------------------------------------------------------------ look-ups */

static uint32_t tlb_field(const struct translator *t, size_t field)
{
	return (uint32_t)((t->user ? GS_UTLB : GS_KTLB) + field);
}

#define TLB_FIELD(t, f) tlb_field(t, offsetof(struct tlb_entry, f))

/* @reg = guest address relative to nothing: absolute, or through vbase.  Flags kept. */
static void emit_guest_va(struct translator *t, unsigned reg, int64_t va)
{
	if (t->absolute) {
		emit_mov_imm(&t->e, reg, (uint64_t)va);
	} else {
		int32_t step = va > INT32_MAX ? INT32_MAX : va < INT32_MIN ? INT32_MIN : (int32_t)va;

		emit_gs_load(&t->e, reg, GS(vbase));
		emit_lea(&t->e, reg, reg, NO_INDEX, 0, step);
		if (va != step)	/* at most 2 GiB from a block that is at most 1 GiB from vbase */
			emit_lea(&t->e, reg, reg, NO_INDEX, 0, (int32_t)(va - step));
	}
}

/* Address of guest offset @off of this block in the block's own terms. */
static int64_t block_va(const struct translator *t, int64_t off)
{
	return (t->absolute ? (int64_t)t->va : t->b->off) + off;
}

/* @reg = its low @size bytes, 2 or 4.  Flags kept. */
static void emit_truncate(struct emit *e, unsigned reg, unsigned size)
{
	emit_rex(e, false, reg, 0, reg);
	if (size == 2)
		emit_u8(e, 0x0f), emit_u8(e, 0xb7);
	else
		emit_u8(e, 0x8b);
	emit_u8(e, 0xc0 | (reg & 7) << 3 | (reg & 7));
}

/* S0 += segment base of the operand.  Uses S1.  Flags kept. */
static void emit_segment_base(struct translator *t, const struct insn *in)
{
	if (in->mem_seg == INSN_REG_NONE)
		return;
	emit_gs_load(&t->e, t->s1, in->mem_seg == SEG_FS ? GS(fs_base) : GS(gs_base));
	emit_op_mem(&t->e, !t->code32, 0x8d, t->s0, t->s0, t->s1, 0, 0);
}

/* S0 = linear address of the memory operand.  Uses S1 for segment bases.  Flags kept. */
static void emit_ea(struct translator *t, const struct insn *in, unsigned i, int64_t adjust)
{
	struct emit *e = &t->e;
	int64_t disp = in->mem_disp + adjust;
	unsigned index = in->mem_index == INSN_REG_NONE ? NO_INDEX : in->mem_index;
	bool w = in->addrsize == 8;

	if (in->addrsize == 8 && in->mem_base == INSN_REG_RIP) {
		emit_guest_va(t, t->s0, block_va(t, t->guest_off[i + 1]) + disp);
	} else if (in->mem_base == INSN_REG_RIP) {
		emit_guest_va(t, t->s0, block_va(t, t->guest_off[i + 1]) + disp);
		emit_op_reg(e, false, 0x8b, t->s0, t->s0);
	} else if (in->mem_base == INSN_REG_NONE && index == NO_INDEX) {
		emit_mov_imm(e, t->s0, w ? (uint64_t)disp : (uint32_t)disp);
	} else if (in->mem_base == INSN_REG_NONE) {
		emit_rex(e, w, t->s0, index, 0);
		emit_u8(e, 0x8d);
		emit_u8(e, (t->s0 & 7) << 3 | 4);
		emit_u8(e, (unsigned)in->mem_scale << 6 | (index & 7) << 3 | 5);
		emit_u32(e, (uint32_t)disp);
	} else {
		emit_op_mem(e, w, 0x8d, t->s0, in->mem_base, index, in->mem_scale, (int32_t)disp);
	}
	if (in->addrsize == 2)	/* 67h in 32-bit code: 16-bit arithmetic */
		emit_truncate(e, t->s0, 2);
	emit_segment_base(t, in);
}

static void add_miss(struct translator *t, uint8_t *jump, uint8_t *retry, bool live, uint64_t size,
		     unsigned rw, bool group)
{
	t->miss[t->nmiss++] = (struct miss_stub){ .jump = jump, .retry = retry, .live = live,
		.site = { .size = (uint16_t)size, .rw = (uint8_t)rw, .group = group,
			  .s0 = (uint8_t)t->s0, .user = t->user } };
}

/*
 * Checks [S0, S0 + size) and leaves the entry's addend (@addend) or host page
 * in S1, the offset in S0.  @live: guest flags must survive.
 */
static void emit_check(struct translator *t, uint8_t *retry, uint64_t size, unsigned rw, bool live,
		       bool addend, bool group)
{
	struct emit *e = &t->e;
	uint32_t ntag = rw & MEM_WRITE ? TLB_FIELD(t, ntag_write) : TLB_FIELD(t, ntag_read);
	uint32_t result = addend ? TLB_FIELD(t, addend) : TLB_FIELD(t, host);
	uint8_t *miss, *hit;

	if (!live) {
		emit_rorx(e, false, t->s1, t->s0, 7);
		emit_alu_imm(e, false, ALU_AND, t->s1, (TLB_ENTRIES - 1) << 5);
		emit_gs_idx(e, true, 0x03, t->s0, t->s1, 0, ntag);
		emit_alu_imm(e, true, ALU_CMP, t->s0, (int32_t)(PAGE_SIZE - size));
		miss = emit_jcc(e, CC_A);
		emit_gs_idx(e, true, 0x8b, t->s1, t->s1, 0, result);
	} else {
		emit_gs_store(e, GS(tmp), RCX);
		emit_pext_gs(e, t->s1, t->s0, GS(tlb_mask));
		emit_rex(e, true, t->s1, t->s1, 0);	/* lea S1, [S1 * 4] */
		emit_u8(e, 0x8d);
		emit_u8(e, (t->s1 & 7) << 3 | 4);
		emit_u8(e, 2u << 6 | (t->s1 & 7) << 3 | 5);
		emit_u32(e, 0);
		emit_gs_idx(e, true, 0x8b, RCX, t->s1, 3, ntag);
		emit_lea(e, t->s0, t->s0, RCX, 0, 0);
		emit_lea(e, RCX, t->s0, NO_INDEX, 0, (int32_t)size - 1);
		emit_pext_gs(e, RCX, RCX, GS(page_mask));
		hit = emit_short(e, 0xe3);
		miss = emit_jmp(e);
		emit_patch_short(e, hit);
		emit_gs_load(e, RCX, GS(tmp));
		emit_gs_idx(e, true, 0x8b, t->s1, t->s1, 3, result);
	}
	add_miss(t, miss, retry, live, size, rw, group);
}

static bool groupable(const struct translator *t, const struct insn *in)
{
	return in->addrsize == 8 && in->mem_seg == INSN_REG_NONE && in->mem_index == INSN_REG_NONE &&
	       in->mem_base < 16 && !t->code32 && !in->mem_masked;
}

/* What instruction i does to memory through a plain base register: one access, or none. */
struct simple_access {
	bool is, other;	/* @other: touches memory or scratch in a way that ends groups */
	unsigned base, rw;
	int64_t disp;
	uint64_t size;
};

static struct simple_access access_of(const struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	struct simple_access a = { 0 };

	switch ((int)in->op) {
	case INSN_PUSH:
		a = (struct simple_access){ !in->mem, in->mem, RSP, MEM_WRITE, -(int64_t)in->opsize, in->opsize };
		break;
	case INSN_CALL:
		a = (struct simple_access){ true, false, RSP, MEM_WRITE, -8, 8 };
		break;
	case INSN_PUSHF:
		a = (struct simple_access){ true, false, RSP, MEM_WRITE, -8, 8 };
		break;
	case INSN_POP:
		a = (struct simple_access){ !in->mem, in->mem, RSP, MEM_READ, 0, in->opsize };
		break;
	case INSN_RET:
		a = (struct simple_access){ true, false, RSP, MEM_READ, 0, 8 };
		break;
	case INSN_LEAVE:
		a.other = true;
		break;
	case INSN_COPY:
		if (!in->mem || !in->mem_rw)
			break;
		if (groupable(t, in) && !in->high_byte && in->modrm_off)
			a = (struct simple_access){ true, false, in->mem_base, in->mem_rw, in->mem_disp, in->mem_size };
		else
			a.other = true;
		break;
	case INSN_LEA:
	case INSN_NOP:
	case INSN_CLI:
	case INSN_CLD:
	case INSN_STD:
		break;
	default:
		a.other = true;
		break;
	}
	if (t->code32 || (t->b->mode & (BLOCK_SINGLE | BLOCK_SLOW)))
		a.other = true;
	return a;
}

static unsigned pop_register(const struct insn *in)
{
	return (in->opcode == 0x8f ? in->modrm & 7 : in->opcode & 7) | (in->rex & 1 ? 8 : 0);
}

/* How instruction i moves @base: true with the step, or false when it is overwritten otherwise. */
static bool base_step(const struct insn *in, unsigned base, int64_t *ret_step)
{
	*ret_step = 0;
	if ((in->op == INSN_PUSH || in->op == INSN_PUSHF) && base == RSP) {
		*ret_step = -(int64_t)in->opsize;
		return true;
	}
	if (in->op == INSN_POP && base == RSP) {
		*ret_step = in->opsize;
		return in->mem || pop_register(in) != RSP;
	}
	if (!(in->gpr_written & 1u << base))
		return true;
	/* add/sub base, imm in 64 bits */
	if (in->op == INSN_COPY && !in->mem && in->enc == ENC_LEGACY && in->map == 0 && in->opsize == 8 &&
	    (in->opcode == 0x83 || in->opcode == 0x81) && (in->modrm & 0xc0) == 0xc0) {
		unsigned ext = in->modrm >> 3 & 7;

		if (ext == 0 || ext == 5) {
			*ret_step = ext == 0 ? in->imm : -in->imm;
			return true;
		}
	}
	if (in->op == INSN_LEA && in->opsize == 8 && in->addrsize == 8 && in->mem_base == base &&
	    in->mem_index == INSN_REG_NONE && in->mem_seg == INSN_REG_NONE) {
		*ret_step = in->mem_disp;
		return true;
	}
	return false;
}

/* Opens a group at instruction i whose access is @a: finds how far it can reach. */
static void plan_group(struct translator *t, unsigned i, const struct simple_access *a)
{
	int64_t shift = 0, lo = a->disp, hi = a->disp + (int64_t)a->size;
	unsigned rw = a->rw;

	for (unsigned j = i; j < t->n; j++) {
		struct simple_access x = access_of(t, j);
		int64_t step, nlo, nhi;

		if (x.other || (x.is && x.base != a->base))
			break;
		if (x.is) {
			nlo = x.disp + shift < lo ? x.disp + shift : lo;
			nhi = x.disp + shift + (int64_t)x.size > hi ? x.disp + shift + (int64_t)x.size : hi;
			if (nhi - nlo > GROUP_SPAN_MAX)
				break;
			lo = nlo;
			hi = nhi;
			rw |= x.rw;
		}
		if (!base_step(&t->insn[j], a->base, &step))
			break;
		shift += step;
	}
	t->group_on = true;
	t->group_base = a->base;
	t->group_shift = 0;
	t->group_lo = lo;
	t->group_hi = hi;
	t->group_write = rw & MEM_WRITE;
}

static bool in_group(const struct translator *t, const struct simple_access *a)
{
	int64_t at = a->disp + t->group_shift;

	return t->group_on && a->base == t->group_base && at >= t->group_lo &&
	       at + (int64_t)a->size <= t->group_hi && (t->group_write || !(a->rw & MEM_WRITE));
}

/* Makes [base + disp] of a simple access reachable; S1 = addend. */
static struct operand lookup_simple(struct translator *t, unsigned i, const struct simple_access *a)
{
	struct emit *e = &t->e;

	if (!in_group(t, a)) {
		uint8_t *retry = e->p;
		uint64_t span;
		bool lone;

		plan_group(t, i, a);
		span = (uint64_t)(t->group_hi - t->group_lo);
		lone = span == a->size && (!t->group_write || a->rw & MEM_WRITE);
		emit_lea(e, t->s0, a->base, NO_INDEX, 0, (int32_t)t->group_lo);
		emit_check(t, retry, span, t->group_write ? MEM_WRITE : MEM_READ, t->live[i], true, !lone);
		t->miss[t->nmiss - 1].site.careful = t->insn[i].mem_careful;
	}
	if (a->base == RSP)	/* RSP cannot be an index */
		return (struct operand){ RSP, t->s1, 0, (int32_t)a->disp };
	return (struct operand){ t->s1, a->base, 0, (int32_t)a->disp };
}

/* Any operand; ends the group.  S0, S1 hold its two halves. */
static struct operand lookup_any(struct translator *t, unsigned i, int64_t adjust, uint64_t size, unsigned rw)
{
	const struct insn *in = &t->insn[i];
	uint8_t *retry = t->e.p;

	t->group_on = false;
	emit_ea(t, in, i, adjust);
	emit_check(t, retry, size, rw, t->live[i], false, false);
	t->miss[t->nmiss - 1].site.careful = in->mem_careful;
	return (struct operand){ t->s0, t->s1, 0, 0 };
}

/* [register + disp] with 32-bit wrap-around in 32-bit code: stack accesses. */
static struct operand lookup_stack32(struct translator *t, unsigned i, unsigned base, int32_t disp, uint64_t size,
				     unsigned rw)
{
	uint8_t *retry = t->e.p;

	t->group_on = false;
	emit_op_mem(&t->e, false, 0x8d, t->s0, base, NO_INDEX, 0, disp);
	emit_check(t, retry, size, rw, t->live[i], false, false);
	return (struct operand){ t->s0, t->s1, 0, 0 };
}

static struct operand lookup_stack(struct translator *t, unsigned i, int32_t disp, uint64_t size, unsigned rw)
{
	struct simple_access a = { true, false, RSP, rw, disp, size };

	if (t->code32)
		return lookup_stack32(t, i, RSP, disp, size, rw);
	return lookup_simple(t, i, &a);
}

/* ------------------------------------------------------------ re-encoding */

static void emit_bytes(struct emit *e, const uint8_t *bytes, unsigned n)
{
	for (unsigned k = 0; k < n; k++)
		emit_u8(e, bytes[k]);
}

/* Prefixes that a replaced operand must not have; REX bytes among them have no effect. */
static bool is_dropped(uint8_t prefix)
{
	return (prefix & 0xf0) == 0x40 || prefix == 0x26 || prefix == 0x2e || prefix == 0x36 || prefix == 0x3e || prefix == 0x64 ||
	       prefix == 0x65 || prefix == 0x67;
}

/* MOV with a 64-bit absolute address (A0-A3) in its ModRM form. */
static uint8_t moffs_opcode(uint8_t opcode)
{
	static const uint8_t to[] = { 0x8a, 0x8b, 0x88, 0x89 };

	return to[opcode & 3];
}

/* Where the immediates begin: behind the address fields. */
static unsigned tail_off(const struct insn *in)
{
	if (in->disp_off)
		return in->disp_off + in->disp_size;
	if (in->sib_off)
		return in->sib_off + 1u;
	return in->modrm_off ? in->modrm_off + 1u : in->len;
}

/* The instruction with its memory operand replaced by @m. */
static void emit_with_operand(struct emit *e, const struct insn *in, struct operand m)
{
	unsigned x = m.index == NO_INDEX ? 0 : m.index >> 3, b = m.base >> 3;
	unsigned reg = in->modrm >> 3 & 7;

	for (unsigned k = 0; k < in->prefix_len; k++)
		if (!is_dropped(in->bytes[k]))
			emit_u8(e, in->bytes[k]);
	if (in->enc == ENC_LEGACY) {
		unsigned rex = (in->rex & (in->modrm_off ? 0x4c : 0x48)) | x << 1 | b;

		if (in->rex || rex)
			emit_u8(e, 0x40 | rex);
		if (!in->modrm_off) {
			emit_u8(e, moffs_opcode(in->opcode));
			reg = 0;
		} else {
			unsigned op = in->opcode;

			emit_bytes(e, in->bytes + in->opcode_off, (unsigned)(in->modrm_off - in->opcode_off - 1));
			emit_u8(e, !in->mode64 && in->map == 0 && op == 0x82 ? 0x80 : op);
		}
	} else if (in->enc == ENC_VEX) {
		const uint8_t *v = in->bytes + in->opcode_off;
		unsigned b1 = v[0] == 0xc5 ? (v[1] & 0x80) | 1 : v[1] & 0x9f;
		unsigned b2 = v[0] == 0xc5 ? v[1] & 0x7f : v[2];

		emit_u8(e, 0xc4);
		emit_u8(e, b1 | (~x & 1) << 6 | (~b & 1) << 5);
		emit_u8(e, b2);
		emit_u8(e, in->opcode);
	} else {
		const uint8_t *v = in->bytes + in->opcode_off;

		emit_u8(e, 0x62);
		emit_u8(e, (v[1] & 0x9fu) | (~x & 1) << 6 | (~b & 1) << 5);
		emit_u8(e, v[2]);
		emit_u8(e, v[3]);
		emit_u8(e, in->opcode);
	}
	emit_modrm_mem(e, reg, m.base, m.index, m.scale, m.disp, in->enc == ENC_EVEX);
	emit_bytes(e, in->bytes + tail_off(in), (unsigned)(in->len - tail_off(in)));
}

/* An instruction that names AH..DH takes no REX: bring the address into a low register. */
static void emit_high_byte(struct translator *t, const struct insn *in, struct operand m)
{
	static const uint8_t low[] = { RSI, RDI, RBX, RDX };
	struct emit *e = &t->e;
	unsigned r = RSI;

	for (unsigned k = 0; k < ARRAY_SIZE(low); k++)
		if (!(names(in) & 1u << low[k])) {
			r = low[k];
			break;
		}
	emit_gs_store(e, GS(tmp) + 8, r);
	emit_lea(e, r, m.base, m.index, m.scale, m.disp);
	emit_with_operand(e, in, (struct operand){ r, NO_INDEX, 0, 0 });
	emit_gs_load(e, r, GS(tmp) + 8);
}

/*
 * MASKMOVQ, MASKMOVDQU: RDI becomes the host address for the moment.  A fault of
 * the store itself can only happen on the guard pages, where slow_raise() puts RDI
 * back; an x87 exception that MASKMOVQ would report comes before.
 */
static void emit_through_rdi(struct translator *t, const struct insn *in, struct operand m)
{
	struct emit *e = &t->e;

	if (in->mem_size == 8)
		emit_u8(e, 0x9b);	/* fwait */
	emit_gs_store(e, GS(tmp) + 8, RDI);
	emit_lea(e, RDI, m.base, m.index, m.scale, m.disp);
	for (unsigned k = 0; k < in->prefix_len; k++)
		if (!is_dropped(in->bytes[k]))
			emit_u8(e, in->bytes[k]);
	emit_bytes(e, in->bytes + in->prefix_len, (unsigned)(in->len - in->prefix_len));
	emit_gs_load(e, RDI, GS(tmp) + 8);
}

/* BT, BTS, BTR, BTC m, r: the register also selects the word. */
static bool is_bit_string(const struct insn *in)
{
	return in->enc == ENC_LEGACY && in->map == 1 && in->mem &&
	       (in->opcode == 0xa3 || in->opcode == 0xab || in->opcode == 0xb3 || in->opcode == 0xbb);
}

static unsigned pick(const uint8_t *choice, unsigned n, const struct translator *t, const struct insn *in)
{
	for (unsigned k = 0; k < n; k++)
		if (!(names(in) & 1u << choice[k]) && choice[k] != t->s0 && choice[k] != t->s1)
			return choice[k];
	return choice[0];	/* not reached: no instruction names that many */
}

/* S0 = linear address of the word that bit @reg of the operand is in. */
static void emit_bit_address(struct translator *t, unsigned i, unsigned reg, unsigned shift)
{
	const struct insn *in = &t->insn[i];
	struct emit *e = &t->e;
	struct insn plain = *in;

	plain.mem_seg = INSN_REG_NONE;	/* the base comes last: the address before it wraps */
	emit_ea(t, &plain, i, 0);
	if (in->opsize == 2) {
		emit_rex(e, true, t->s1, 0, reg);	/* movsx S1, r16 */
		emit_u8(e, 0x0f), emit_u8(e, 0xbf), emit_u8(e, 0xc0 | (t->s1 & 7) << 3 | (reg & 7));
	} else {
		emit_op_reg(e, true, in->opsize == 8 ? 0x8b : 0x63, t->s1, reg);	/* movsxd for 32 bits */
	}
	emit_rex(e, true, 0, 0, t->s1);	/* sar S1, shift: which word */
	emit_u8(e, 0xc1), emit_u8(e, 0xf8 | (t->s1 & 7)), emit_u8(e, shift);
	emit_lea(e, t->s0, t->s0, t->s1, shift - 3, 0);
	if (in->addrsize != 8)
		emit_truncate(e, t->s0, in->addrsize);
	emit_segment_base(t, in);
}

/* The instruction itself on the word at @m, with the bit number in the word. */
static void emit_bit_in_word(struct translator *t, const struct insn *in, struct operand m, unsigned reg, unsigned shift)
{
	static const uint8_t choice[] = { RSI, RDI, RBX, RDX, RBP };
	struct emit *e = &t->e;
	unsigned r = pick(choice, ARRAY_SIZE(choice), t, in);
	struct insn masked = *in;

	emit_gs_store(e, GS(tmp) + 8, r);
	emit_pext_gs(e, r, reg, GS(bit_mask) + 8 * (shift - 4));
	masked.modrm = (uint8_t)((in->modrm & 0xc7) | (r & 7) << 3);
	masked.rex = (uint8_t)(in->rex & ~4u);
	emit_with_operand(e, &masked, m);
	emit_gs_load(e, r, GS(tmp) + 8);
}

static void emit_bit_string(struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	struct emit *e = &t->e;
	unsigned reg = (in->modrm >> 3 & 7) | (in->rex & 4 ? 8 : 0);
	unsigned shift = in->opsize == 8 ? 6 : in->opsize == 4 ? 5 : 4;
	uint8_t *retry;

	if (t->b->mode & BLOCK_SLOW) {	/* the word has been found already */
		emit_gs_load(e, t->s0, GS(slow_host));
		emit_bit_in_word(t, in, (struct operand){ t->s0, NO_INDEX, 0, 0 }, reg, shift);
		return;
	}
	/* ZF survives and CF is the result: save flags before arithmetic destroys them. */
	t->group_on = false;
	emit_gs_store(e, GS(tmp) + 16, RAX);
	emit_u8(e, 0x9f);	/* lahf */
	emit_u8(e, 0x0f), emit_u8(e, 0x90), emit_u8(e, 0xc0);	/* seto al */
	emit_gs_store(e, GS(tmp) + 24, RAX);
	emit_gs_load(e, RAX, GS(tmp) + 16);
	retry = e->p;
	emit_bit_address(t, i, reg, shift);
	emit_check(t, retry, in->opsize, in->mem_rw, false, false, false);
	t->miss[t->nmiss - 1].site.flags_saved = 1;
	emit_gs_load(e, RAX, GS(tmp) + 24);
	emit_u8(e, 0x04), emit_u8(e, 0x7f);	/* add al, 127: sets OF again */
	emit_u8(e, 0x9e);	/* sahf */
	emit_gs_load(e, RAX, GS(tmp) + 16);
	emit_bit_in_word(t, in, (struct operand){ t->s0, t->s1, 0, 0 }, reg, shift);
}

/* ------------------------------------------------------------------- exits */

/* Pads so that the 4-byte field @skip bytes ahead does not straddle a cache line. */
static void align_field(struct emit *e, unsigned skip)
{
	while ((emit_pc(e) + skip) % 64 > 60)
		emit_u8(e, 0x90);
}

static struct exit *new_exit(struct translator *t, unsigned kind, int64_t off)
{
	struct exit *x = &t->cc->exits[t->cc->nexits++];

	*x = (struct exit){ .from = t->b, .kind = (uint8_t)kind, .target = block_va(t, off) };
	t->b->nexits++;
	return x;
}

static struct exit_stub *new_stub(struct translator *t, struct exit *x)
{
	struct exit_stub *s = &t->stub[t->nstubs++];

	*s = (struct exit_stub){ .exit = (uint32_t)(x - t->cc->exits) };
	return s;
}

/* Hands exit @x to dbt_exit(), here and now. */
static void emit_exit_now(struct translator *t, const struct exit *x)
{
	emit_mov_imm(&t->e, R15, (uint64_t)(x - t->cc->exits));
	emit_gs_jmp(&t->e, GS(thunk_exit));
}

/* Leaves at a poll when another thread wants the vCPU. */
static void emit_poll(struct translator *t, int64_t target_off, bool live)
{
	struct emit *e = &t->e;
	struct exit_stub *s = new_stub(t, new_exit(t, EXIT_POLL, target_off));

	if (!live) {
		emit_gs_abs(e, true, 0x83, 7, GS(exit_request));	/* cmp qword, 0 */
		emit_u8(e, 0);
		s->jump[s->njumps++] = emit_jcc(e, CC_NE);
	} else {
		uint8_t *ok;

		emit_gs_store(e, GS(tmp), RCX);
		emit_gs_load(e, RCX, GS(exit_request));
		ok = emit_short(e, 0xe3);
		emit_gs_load(e, RCX, GS(tmp));
		s->jump[s->njumps++] = emit_jmp(e);
		emit_patch_short(e, ok);
		emit_gs_load(e, RCX, GS(tmp));
	}
}

/*
 * Goes to the guest address in R14 through the jump cache.  Flags survive.
 * The poll is folded into the comparison: an exit request spoils the match.
 */
static void emit_dispatch(struct translator *t)
{
	struct emit *e = &t->e;
	uint32_t jc = (uint32_t)(t->user ? GS_UJC : GS_KJC);
	uint8_t *hit;

	if (t->code32)
		emit_op_reg(e, false, 0x8b, R14, R14);
	emit_gs_store(e, GS(rip), R14);
	emit_gs_store(e, GS(tmp), RCX);
	emit_pext_gs(e, R15, R14, GS(jc_mask));
	emit_gs_load(e, RCX, GS(exit_request));
	emit_lea(e, RCX, RCX, R14, 0, 0);
	emit_rex(e, true, R15, R15, 0);	/* lea r15, [r15 * 4] */
	emit_u8(e, 0x8d), emit_u8(e, 7 << 3 | 4), emit_u8(e, 2u << 6 | 7 << 3 | 5), emit_u32(e, 0);
	emit_gs_idx(e, true, 0x8b, R14, R15, 3, jc + (uint32_t)offsetof(struct jc_entry, ntag));
	emit_lea(e, RCX, RCX, R14, 0, 0);
	hit = emit_short(e, 0xe3);
	emit_gs_load(e, RCX, GS(tmp));
	emit_gs_jmp(e, GS(thunk_indirect));
	emit_patch_short(e, hit);
	emit_gs_load(e, RCX, GS(tmp));
	emit_gs_idx(e, true, 0x8b, R14, R15, 3, jc + (uint32_t)offsetof(struct jc_entry, vbase));
	emit_gs_store(e, GS(vbase), R14);
	emit_gs_idx(e, false, 0xff, 4, R15, 3, jc + (uint32_t)offsetof(struct jc_entry, code));
}

static bool same_page(const struct translator *t, int64_t off)
{
	int64_t at = (int64_t)(t->b->pa & 4095) + off;

	return t->b->pa2 == ~0ull && at >= 0 && at < (int64_t)PAGE_SIZE;
}

static bool is_backward(const struct translator *t, int64_t off)
{
	return off <= t->guest_off[t->n - 1];
}

/* User code that leaves the page: the link holds only while the mappings do. */
static bool needs_token(const struct translator *t, int64_t off)
{
	return !t->absolute && !same_page(t, off);
}

/* Everything an exit to guest offset @off needs, at the current place. */
static void emit_goto(struct translator *t, int64_t off)
{
	struct emit *e = &t->e;
	bool live = t->live[t->n] != 0;
	struct exit_stub *s;
	struct exit *x;
	uint8_t *ok;

	if (is_backward(t, off))
		emit_poll(t, off, live);
	x = new_exit(t, EXIT_DIRECT, off);
	s = new_stub(t, x);
	if (needs_token(t, off)) {
		emit_gs_store(e, GS(tmp), RCX);
		emit_gs_abs(e, false, 0x8b, RCX, (uint32_t)GS_TOKEN);
		align_field(e, 3);
		emit_u8(e, 0x48), emit_u8(e, 0x8d), emit_u8(e, 0x89);	/* lea rcx, [rcx - token] */
		x->token = e->p;
		emit_u32(e, 0);
		ok = emit_short(e, 0xe3);
		emit_gs_load(e, RCX, GS(tmp));
		align_field(e, 1);
		x->fail = emit_jmp(e);
		s->jump[s->njumps++] = x->fail;
		emit_patch_short(e, ok);
		emit_gs_load(e, RCX, GS(tmp));
	}
	align_field(e, 1);
	x->patch = emit_jmp(e);
	s->jump[s->njumps++] = x->patch;
}

static void emit_jcc_exits(struct translator *t, const struct insn *in)
{
	struct emit *e = &t->e;
	int64_t next = t->guest_off[t->n], taken = next + in->imm;

	if (t->code32)
		taken = next + (int32_t)in->imm;
	if (!is_backward(t, taken) && !needs_token(t, taken)) {
		struct exit *x = new_exit(t, EXIT_DIRECT, taken);
		struct exit_stub *s = new_stub(t, x);

		align_field(e, 2);
		x->patch = emit_jcc(e, in->cond);
		s->jump[s->njumps++] = x->patch;
	} else {
		uint8_t *around = emit_jcc(e, in->cond ^ 1);

		emit_goto(t, taken);
		emit_patch_here(e, around);
	}
	emit_goto(t, next);
}

/* LOOP, LOOPE, LOOPNE, JRCXZ, JECXZ. */
static void emit_loop_exits(struct translator *t, const struct insn *in)
{
	struct emit *e = &t->e;
	int64_t next = t->guest_off[t->n], taken = next + in->imm;
	uint8_t *fall, *cond = NULL, *go;

	if (in->op != INSN_JCXZ) {
		emit_op_mem(e, in->addrsize == 8, 0x8d, RCX, RCX, NO_INDEX, 0, -1);
		if (in->addrsize == 4)
			emit_u8(e, 0x67);
		fall = emit_short(e, 0xe3);
		if (in->op != INSN_LOOP)
			cond = emit_short(e, in->op == INSN_LOOPE ? 0x75 : 0x74);
		go = emit_jmp(e);
		emit_patch_short(e, fall);
		if (cond)
			emit_patch_short(e, cond);
		emit_goto(t, next);
		emit_patch_here(e, go);
		emit_goto(t, taken);
		return;
	}
	if (in->addrsize == 4)
		emit_u8(e, 0x67);
	fall = emit_short(e, 0xe3);
	go = emit_jmp(e);
	emit_patch_short(e, fall);
	emit_goto(t, taken);
	emit_patch_here(e, go);
	emit_goto(t, next);
}

static void emit_helper(struct translator *t, unsigned i)
{
	struct exit *x;
	struct insn *copy = code_arena(t->cc, sizeof(*copy));

	leave_state(t);
	x = new_exit(t, EXIT_HELPER, t->guest_off[i]);
	if (copy)
		*copy = t->insn[i];
	else
		t->e.full = true;
	x->insn = copy;
	emit_exit_now(t, x);
}

/* ------------------------------------------------------------ instructions */

/* mov between register @reg and @m in @size bytes; @op 0x89 stores, 0x8b loads. */
static void emit_move(struct emit *e, unsigned op, unsigned reg, struct operand m, unsigned size)
{
	if (size == 2)
		emit_u8(e, 0x66);
	emit_op_mem(e, size == 8, op, reg, m.base, m.index, m.scale, m.disp);
}

static void emit_store_imm(struct emit *e, struct operand m, int64_t imm, unsigned size)
{
	if (size == 2)
		emit_u8(e, 0x66);
	emit_op_mem(e, size == 8, 0xc7, 0, m.base, m.index, m.scale, m.disp);
	emit_u8(e, (uint8_t)imm);
	emit_u8(e, (uint8_t)(imm >> 8));
	if (size != 2) {
		emit_u8(e, (uint8_t)(imm >> 16));
		emit_u8(e, (uint8_t)(imm >> 24));
	}
}

static void emit_add_rsp(struct translator *t, int32_t step)
{
	emit_op_mem(&t->e, !t->code32, 0x8d, RSP, RSP, NO_INDEX, 0, step);
}

/* Frees S0 where the operand uses both scratch registers. */
static struct operand squeeze(struct translator *t, struct operand m)
{
	if (m.base != t->s0)
		return m;
	emit_lea(&t->e, t->s1, t->s0, t->s1, 0, 0);
	return (struct operand){ t->s1, NO_INDEX, 0, 0 };
}

static struct operand lookup_operand(struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	struct simple_access a = access_of(t, i);

	if (t->b->mode & BLOCK_SLOW) {
		emit_gs_load(&t->e, t->s0, GS(slow_host));
		return (struct operand){ t->s0, NO_INDEX, 0, 0 };
	}
	if (a.is && in->op == INSN_COPY)
		return lookup_simple(t, i, &a);
	return lookup_any(t, i, 0, in->mem_size, in->mem_rw);
}

static void emit_copy(struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	struct emit *e = &t->e;

	if (!in->mem || !in->mem_rw) {
		if (!in->mode64 && in->map == 0 && in->opcode >= 0x40 && in->opcode <= 0x4f) {
			emit_bytes(e, in->bytes, in->prefix_len);	/* INC, DEC: REX in 64-bit mode */
			emit_u8(e, 0xff);
			emit_u8(e, 0xc0 | (in->opcode & 15));
		} else if (!in->mode64 && in->map == 0 && in->opcode == 0x82) {
			emit_bytes(e, in->bytes, in->prefix_len);
			emit_u8(e, 0x80);
			emit_bytes(e, in->bytes + in->modrm_off, (unsigned)(in->len - in->modrm_off));
		} else {
			emit_bytes(e, in->bytes, in->len);
		}
		return;
	}
	if (in->mem_implicit)
		emit_through_rdi(t, in, lookup_operand(t, i));
	else if (is_bit_string(in)) {
		emit_bit_string(t, i);
	} else if (in->high_byte) {
		emit_high_byte(t, in, lookup_operand(t, i));
	} else {
		emit_with_operand(e, in, lookup_operand(t, i));
	}
}

static void emit_lea_insn(struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	struct emit *e = &t->e;
	unsigned dst = (in->modrm >> 3 & 7) | (in->rex & 4 ? 8 : 0);
	struct insn plain = *in;

	if (in->mode64 && in->mem_base != INSN_REG_RIP) {
		emit_bytes(e, in->bytes, in->len);
		return;
	}
	plain.mem_seg = INSN_REG_NONE;	/* LEA ignores segments */
	emit_ea(t, &plain, i, 0);
	if (in->opsize == 2)
		emit_u8(e, 0x66);
	emit_op_reg(e, in->opsize == 8, 0x8b, dst, t->s0);
}

static void emit_push(struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	struct emit *e = &t->e;
	unsigned size = in->opsize;
	struct operand m;

	if (in->mem) {
		struct operand from = lookup_any(t, i, 0, size, MEM_READ);

		emit_move(e, 0x8b, t->s0, from, size);
		emit_gs_store(e, GS(tmp) + 8, t->s0);
		m = squeeze(t, lookup_stack(t, i, -(int32_t)size, size, MEM_WRITE));
		emit_gs_load(e, t->s0, GS(tmp) + 8);
		emit_move(e, 0x89, t->s0, m, size);
	} else if (in->imm_size) {
		emit_store_imm(e, lookup_stack(t, i, -(int32_t)size, size, MEM_WRITE), in->imm, size);
	} else {
		unsigned reg = (in->opcode == 0xff ? in->modrm & 7 : in->opcode & 7) | (in->rex & 1 ? 8 : 0);

		m = lookup_stack(t, i, -(int32_t)size, size, MEM_WRITE);
		emit_move(e, 0x89, reg, m, size);
	}
	emit_add_rsp(t, -(int32_t)size);
}

static void emit_pop(struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	struct emit *e = &t->e;
	unsigned size = in->opsize, reg;
	struct operand m = lookup_stack(t, i, 0, size, MEM_READ);

	if (in->mem) {
		emit_move(e, 0x8b, t->s0, squeeze(t, m), size);
		emit_gs_store(e, GS(tmp) + 8, t->s0);
		/* The address is computed after RSP moved (SDM vol. 2, POP). */
		m = squeeze(t, lookup_any(t, i, in->mem_base == RSP ? (int64_t)size : 0, size, MEM_WRITE));
		emit_gs_load(e, t->s0, GS(tmp) + 8);
		emit_move(e, 0x89, t->s0, m, size);
		emit_add_rsp(t, (int32_t)size);
		return;
	}
	reg = pop_register(in);
	if (reg == RSP && size == 2) {	/* POP SP: rare, and RSP would move twice */
		emit_move(e, 0x8b, t->s0, squeeze(t, m), size);
		emit_add_rsp(t, 2);
		emit_u8(e, 0x66);
		emit_op_reg(e, false, 0x8b, RSP, t->s0);
		return;
	}
	emit_move(e, 0x8b, reg, m, size);
	if (reg != RSP)
		emit_add_rsp(t, (int32_t)size);
}

static void emit_leave(struct translator *t, unsigned i)
{
	struct emit *e = &t->e;
	unsigned size = t->code32 ? 4 : 8;
	struct operand m;

	if (t->code32) {
		m = lookup_stack32(t, i, RBP, 0, size, MEM_READ);
	} else {
		struct simple_access a = { true, false, RBP, MEM_READ, 0, 8 };

		t->group_on = false;
		m = lookup_simple(t, i, &a);
	}
	emit_move(e, 0x8b, t->s0, squeeze(t, m), size);
	emit_op_mem(e, !t->code32, 0x8d, RSP, RBP, NO_INDEX, 0, (int32_t)size);
	emit_mov(e, RBP, t->s0);
	t->group_on = false;
}

static void push_return(struct translator *t, unsigned i)
{
	struct emit *e = &t->e;
	unsigned size = t->code32 ? 4 : 8;
	struct operand m = lookup_stack(t, i, -(int32_t)size, size, MEM_WRITE);
	int64_t va = block_va(t, t->guest_off[i + 1]);

	if (t->absolute) {
		emit_store_imm(e, m, va, size);
	} else {
		m = squeeze(t, m);
		emit_guest_va(t, t->s0, va);
		emit_move(e, 0x89, t->s0, m, size);
	}
	emit_add_rsp(t, -(int32_t)size);
}

static void emit_call(struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];

	push_return(t, i);
	leave_state(t);
	emit_goto(t, t->guest_off[t->n] + in->imm);
}

/* S0 = target of an indirect jump or call. */
static void emit_target(struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	unsigned size = t->code32 ? 4 : 8;

	if (in->mem)
		emit_move(&t->e, 0x8b, t->s0, lookup_any(t, i, 0, size, MEM_READ), size);
	else
		emit_op_reg(&t->e, !t->code32, 0x8b, t->s0, (in->modrm & 7) | (in->rex & 1 ? 8 : 0));
}

static void emit_indirect(struct translator *t, unsigned i)
{
	emit_target(t, i);
	if (t->insn[i].op == INSN_CALL_IND) {
		emit_gs_store(&t->e, GS(tmp) + 8, t->s0);
		push_return(t, i);
		leave_state(t);
		emit_gs_load(&t->e, R14, GS(tmp) + 8);
	} else {
		leave_state_keep_s0(t);
	}
	emit_dispatch(t);
}

static void emit_ret(struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	unsigned size = t->code32 ? 4 : 8;
	struct operand m = lookup_stack(t, i, 0, size, MEM_READ);

	emit_move(&t->e, 0x8b, t->s0, m, size);
	emit_add_rsp(t, (int32_t)(size + (in->imm_size ? (uint16_t)in->imm : 0)));
	leave_state_keep_s0(t);
	emit_dispatch(t);
}

static void emit_base_read(struct translator *t, const struct insn *in)
{
	unsigned reg = (in->modrm & 7) | (in->rex & 1 ? 8 : 0);

	emit_gs_abs(&t->e, in->opsize == 8, 0x8b, reg, in->op == INSN_RDFSBASE ? GS(fs_base) : GS(gs_base));
}

static void emit_swapgs(struct translator *t)
{
	emit_gs_load(&t->e, t->s0, GS(gs_base));
	emit_gs_load(&t->e, t->s1, GS(kernel_gs_base));
	emit_gs_store(&t->e, GS(gs_base), t->s1);
	emit_gs_store(&t->e, GS(kernel_gs_base), t->s0);
	t->group_on = false;
}

static void emit_rdtsc(struct translator *t, const struct insn *in)
{
	struct emit *e = &t->e;

	if (in->op == INSN_RDTSCP)
		emit_u8(e, 0x0f), emit_u8(e, 0xae), emit_u8(e, 0xe8);	/* lfence: waits for loads */
	emit_u8(e, 0x0f), emit_u8(e, 0x31);
	if (!t->tsc_plain) {	/* edx:eax += tsc_offset, keeping flags */
		emit_op_reg(e, false, 0x8b, t->s0, RDX);
		emit_rorx(e, true, t->s0, t->s0, 32);
		emit_lea(e, t->s0, t->s0, RAX, 0, 0);
		emit_gs_load(e, t->s1, GS(tsc_offset));
		emit_lea(e, t->s0, t->s0, t->s1, 0, 0);
		emit_op_reg(e, false, 0x8b, RAX, t->s0);
		emit_rorx(e, true, RDX, t->s0, 32);
		emit_op_reg(e, false, 0x8b, RDX, RDX);
		t->group_on = false;
	}
	if (in->op == INSN_RDTSCP)
		emit_gs_abs(e, false, 0x8b, RCX, GS(tsc_aux));
}

/* movzx reg32, byte or word gs:[off] */
static void emit_gs_movzx(struct emit *e, unsigned op, unsigned reg, uint32_t off)
{
	emit_u8(e, 0x65);
	emit_rex(e, false, reg, 0, 0);
	emit_u8(e, 0x0f);
	emit_u8(e, op);
	emit_u8(e, (reg & 7) << 3 | 4);
	emit_u8(e, 0x25);
	emit_u32(e, off);
}

static void emit_mov_from_seg(struct translator *t, const struct insn *in)
{
	uint32_t off = GS(seg) + (uint32_t)(sizeof(struct seg_reg) * (in->modrm >> 3 & 7) +
					    offsetof(struct seg_reg, sel));
	unsigned reg = (in->modrm & 7) | (in->rex & 1 ? 8 : 0);

	if (in->opsize == 2) {
		emit_gs_movzx(&t->e, 0xb7, t->s0, off);
		emit_u8(&t->e, 0x66);
		emit_op_reg(&t->e, false, 0x8b, reg, t->s0);
	} else {
		emit_gs_movzx(&t->e, 0xb7, reg, off);
	}
}

/* PUSHFQ: host flags by LAHF and SETO, the others from the block; no flag changes. */
static void emit_pushf(struct translator *t, unsigned i)
{
	struct emit *e = &t->e;
	struct operand m = lookup_stack(t, i, -8, 8, MEM_WRITE);

	emit_gs_store(e, GS(tmp) + 8, RAX);
	emit_u8(e, 0x9f);	/* lahf */
	emit_u8(e, 0x0f), emit_u8(e, 0x90), emit_u8(e, 0xc0);	/* seto al */
	emit_rex(e, false, t->s0, 0, 0);	/* movzx S0d, al */
	emit_u8(e, 0x0f), emit_u8(e, 0xb6), emit_u8(e, 0xc0 | (t->s0 & 7) << 3);
	emit_rorx(e, false, t->s0, t->s0, 32 - 11);
	emit_u8(e, 0x0f), emit_u8(e, 0xb6), emit_u8(e, 0xc4);	/* movzx eax, ah */
	emit_lea(e, RAX, RAX, t->s0, 0, 0);
	emit_gs_movzx(e, 0xb6, t->s0, GS(intr_enabled));
	emit_rorx(e, false, t->s0, t->s0, 32 - 9);
	emit_lea(e, RAX, RAX, t->s0, 0, 0);
	emit_gs_movzx(e, 0xb6, t->s0, GS(direction));
	emit_rorx(e, false, t->s0, t->s0, 32 - 10);
	emit_lea(e, RAX, RAX, t->s0, 0, 0);
	emit_gs_abs(e, false, 0x8b, t->s0, GS(sysflags));
	emit_lea(e, RAX, RAX, t->s0, 0, 0);
	emit_move(e, 0x89, RAX, m, 8);
	emit_gs_load(e, RAX, GS(tmp) + 8);
	emit_add_rsp(t, -8);
}

static void emit_sti(struct translator *t)
{
	/* Interrupts that waited become exit requests; the block ends after the next instruction. */
	emit_gs_store_imm8(&t->e, GS(intr_enabled), 1);
	emit_gs_abs(&t->e, false, 0x8b, t->s0, GS(deferred));
	emit_gs_abs(&t->e, false, 0x89, t->s0, GS(exit_request) + 4);
}

/* Returns false when the instruction ended the block. */
static bool emit_insn(struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	int64_t step;

	if (is_helper(in, t->b->mode)) {
		emit_helper(t, i);
		return false;
	}
	switch ((int)in->op) {
	case INSN_COPY: emit_copy(t, i); break;
	case INSN_LEA: emit_lea_insn(t, i); break;
	case INSN_NOP: break;
	case INSN_PUSH: emit_push(t, i); break;
	case INSN_POP: emit_pop(t, i); break;
	case INSN_LEAVE: emit_leave(t, i); break;
	case INSN_CLI: emit_gs_store_imm8(&t->e, GS(intr_enabled), 0); break;
	case INSN_STI: emit_sti(t); break;
	case INSN_PUSHF: emit_pushf(t, i); break;
	case INSN_SYSTEM: emit_mov_from_seg(t, in); break;
	case INSN_CLD: emit_gs_store_imm8(&t->e, GS(direction), 0); break;
	case INSN_STD: emit_gs_store_imm8(&t->e, GS(direction), 1); break;
	case INSN_RDFSBASE:
	case INSN_RDGSBASE: emit_base_read(t, in); break;
	case INSN_SWAPGS: emit_swapgs(t); break;
	case INSN_RDTSC:
	case INSN_RDTSCP: emit_rdtsc(t, in); break;
	case INSN_RDPID:
		emit_gs_abs(&t->e, false, 0x8b, (in->modrm & 7) | (in->rex & 1 ? 8 : 0), GS(tsc_aux));
		break;
	case INSN_JMP:
		leave_state(t);
		emit_goto(t, t->guest_off[t->n] + in->imm);
		return false;
	case INSN_JCC:
		leave_state(t);
		emit_jcc_exits(t, in);
		return false;
	case INSN_JCXZ:
	case INSN_LOOP:
	case INSN_LOOPE:
	case INSN_LOOPNE:
		leave_state(t);
		emit_loop_exits(t, in);
		return false;
	case INSN_CALL: emit_call(t, i); return false;
	case INSN_JMP_IND:
	case INSN_CALL_IND: emit_indirect(t, i); return false;
	case INSN_RET: emit_ret(t, i); return false;
	default: break;
	}
	if (t->group_on) {
		if (in->op == INSN_STI || (in->op == INSN_COPY && in->mem && in->mem_rw && !access_of(t, i).is))
			t->group_on = false;
		else if (!base_step(in, t->group_base, &step))
			t->group_on = false;
		else
			t->group_shift += step;
	}
	return true;
}

/* ------------------------------------------------------------------- stubs */

static void emit_miss_stub(struct translator *t, struct miss_stub *m)
{
	struct emit *e = &t->e;
	uint32_t ntag = m->site.rw & MEM_WRITE ? TLB_FIELD(t, ntag_write) : TLB_FIELD(t, ntag_read);
	uint8_t *data;

	emit_patch_here(e, m->jump);
	if (m->live) {	/* address = offset - ntag = offset + ~ntag + 1 */
		emit_gs_idx(e, true, 0x8b, t->s1, t->s1, 3, ntag);
		emit_rex(e, true, 0, 0, t->s1);
		emit_u8(e, 0xf7), emit_u8(e, 0xd0 | (t->s1 & 7));	/* not */
		emit_lea(e, t->s0, t->s0, t->s1, 0, 1);
		emit_gs_load(e, RCX, GS(tmp));
	} else {
		emit_gs_idx(e, true, 0x2b, t->s0, t->s1, 0, ntag);
	}
	data = emit_lea_rip(e, t->s1);
	emit_gs_store(e, GS(miss_data), t->s1);
	emit_gs_jmp(e, GS(thunk_miss));
	emit_patch_here(e, data);
	m->site.retry = (int32_t)(m->retry - e->p);
	if (e->end - e->p >= (ptrdiff_t)sizeof(m->site)) {
		memcpy(e->p, &m->site, sizeof(m->site));
		e->p += sizeof(m->site);
	} else {
		e->full = true;
	}
}

static void emit_exit_stub(struct translator *t, const struct exit_stub *s)
{
	struct exit *x = &t->cc->exits[s->exit];

	x->stub = t->e.p;
	for (unsigned k = 0; k < s->njumps; k++)
		emit_patch_here(&t->e, s->jump[k]);
	emit_exit_now(t, x);
	if (x->fail) {
		x->dispatch = t->e.p;
		emit_guest_va(t, R14, x->target);
		emit_dispatch(t);
	}
}

static void emit_slow(struct translator *t)
{
	struct exit *x;

	enter_state(t);
	t->marks[0] = (struct insn_mark){ (uint16_t)0, 0 };
	emit_copy(t, 0);
	leave_state(t);
	x = new_exit(t, EXIT_COMMIT, t->guest_off[1]);
	emit_exit_now(t, x);
}

static void emit_body(struct translator *t)
{
	unsigned i;

	enter_state(t);
	for (i = 0; i < t->n; i++) {
		t->marks[i] = (struct insn_mark){ (uint16_t)(emit_pc(&t->e) - (uint64_t)(uintptr_t)t->b->code),
						  t->guest_off[i] };
		if (!emit_insn(t, i))
			return;
	}
	leave_state(t);
	/* After STI and its shadow, waiting interrupts must be looked at. */
	if ((t->n >= 2 && t->insn[t->n - 2].op == INSN_STI) || (t->n == 1 && t->insn[0].op == INSN_STI))
		emit_poll(t, t->guest_off[t->n], true);
	emit_goto(t, t->guest_off[t->n]);
}

static bool fits_simm32(uint64_t va)
{
	return (int64_t)va == (int32_t)(int64_t)va && (int64_t)(va + 0x10000) == (int32_t)(int64_t)(va + 0x10000);
}

struct block *translate(struct code_cache *cc, const struct cpu *cpu, gpa_t pa, uint64_t va,
			uint32_t mode, const uint8_t *bytes, gpa_t pa2, const uint8_t *pa2_bytes)
{
	static struct translator t;	/* guarded by cc->lock; large */
	struct block *b = &cc->blocks[cc->nblocks];
	int64_t near = (int64_t)(va - cpu->vbase);

	if (code_cache_full(cc))
		return NULL;
	memset(b, 0, sizeof(*b));
	t.cc = cc;
	t.b = b;
	t.va = va;
	t.page = bytes - (pa & 4095);
	t.user = mode & BLOCK_USER;
	t.code32 = mode & BLOCK_32;
	t.absolute = !t.user && fits_simm32(va);
	t.tsc_plain = cpu->tsc_offset == 0;
	t.written = 0;
	t.nmiss = t.nstubs = 0;
	t.group_on = false;
	b->pa = pa;
	b->mode = mode;
	b->absolute = t.absolute;
	b->va = va;
	b->off = near > -(1ll << 30) && near < 1ll << 30 ? near : (int64_t)(va & 4095);
	b->first_exit = cc->nexits;
	if (!scan(&t, bytes, pa2_bytes))
		return NULL;
	if (b->pa2 != ~0ull)
		b->pa2 = pa2;
	flow_flags(&t);
	if (mode & (BLOCK_SINGLE | BLOCK_SLOW))
		t.live[0] |= FLAGS_ARITH & ~t.insn[0].flags_killed, t.live[1] = FLAGS_ARITH;

	cc->used = (cc->used + 15) & ~(size_t)15;
	t.e = (struct emit){ .p = cc->rw + cc->used, .end = cc->rw + cc->size, .delta = cc->rx - cc->rw };
	b->code = cc->rx + cc->used;
	b->careful = t.insn[0].mem_careful || t.insn[0].mem_implicit;
	if (mode & BLOCK_SLOW)
		emit_slow(&t);
	else
		emit_body(&t);
	for (unsigned k = 0; k < t.nmiss; k++)
		emit_miss_stub(&t, &t.miss[k]);
	for (unsigned k = 0; k < t.nstubs; k++)
		emit_exit_stub(&t, &t.stub[k]);
	b->marks = code_arena(cc, t.n * sizeof(*b->marks));
	if (t.e.full || !b->marks)
		return NULL;
	memcpy(b->marks, t.marks, t.n * sizeof(*b->marks));
	b->code_len = (uint32_t)(emit_pc(&t.e) - (uint64_t)(uintptr_t)b->code);
	cc->used += b->code_len;
	cc->nblocks++;
	block_insert(cc, b);
	return b;
}
