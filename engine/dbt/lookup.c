/* SPDX-License-Identifier: Apache-2.0 */
/* Guest address to host address: the look-ups in front of memory operands. */
#include "engine/dbt/translator.h"

#define GROUP_SPAN_MAX 1024

void emit_guest_va(struct translator *t, unsigned reg, int64_t va)
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

int64_t block_va(const struct translator *t, int64_t off)
{
	return (t->absolute ? (int64_t)t->va : t->b->off) + off;
}

void emit_truncate(struct emit *e, unsigned reg, unsigned size)
{
	emit_rex(e, false, reg, 0, reg);
	if (size == 2)
		emit_u8(e, 0x0f), emit_u8(e, 0xb7);
	else
		emit_u8(e, 0x8b);
	emit_u8(e, 0xc0 | (reg & 7) << 3 | (reg & 7));
}

void emit_segment_base(struct translator *t, const struct insn *in)
{
	if (in->mem_seg == INSN_REG_NONE)
		return;
	emit_gs_load(&t->e, t->s1, in->mem_seg == SEG_FS ? GS(fs_base) : GS(gs_base));
	emit_op_mem(&t->e, !t->code32, 0x8d, t->s0, t->s0, t->s1, 0, 0);
}

void emit_ea(struct translator *t, const struct insn *in, unsigned i, int64_t adjust)
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
		emit_lea_index(e, w, t->s0, index, in->mem_scale, (int32_t)disp);
	} else {
		emit_op_mem(e, w, 0x8d, t->s0, in->mem_base, index, in->mem_scale, (int32_t)disp);
	}
	if (in->addrsize == 2)	/* 67h in 32-bit code: 16-bit arithmetic */
		emit_truncate(e, t->s0, 2);
	emit_segment_base(t, in);
}

static void add_miss(struct translator *t, uint8_t *jump, uint8_t *retry, bool live, uint64_t size,
		     unsigned rw, enum miss_instead instead)
{
	t->miss[t->nmiss++] = (struct miss_stub){ .jump = jump, .retry = retry, .live = live,
		.base = NO_REG,
		.site = { .size = (uint16_t)size, .rw = (uint8_t)rw, .instead = (uint8_t)instead,
			  .user = t->user } };
	if (!live && t->remake.lost)
		t->miss[t->nmiss - 1].remake = t->remake;
}

/* S1 = index of the TLB entry for the address in @reg.  Flags kept. */
static void emit_entry_index(struct translator *t, unsigned reg)
{
	emit_pext_gs(&t->e, t->s1, reg, GS(tlb_mask));
}

void emit_check(struct translator *t, uint8_t *retry, uint64_t size, unsigned rw, bool live,
		bool addend, enum miss_instead instead)
{
	struct emit *e = &t->e;
	uint32_t ntag = TLB_FIELD(t, rw, ntag);
	uint32_t result = addend ? TLB_FIELD(t, rw, addend) : TLB_FIELD(t, rw, host);
	uint8_t *miss;

	if (!live) {
		emit_rorx(e, false, t->s1, t->s0, 9);
		emit_alu_imm(e, false, ALU_AND, t->s1, (TLB_ENTRIES - 1) << 3);
		emit_gs_idx(e, true, 0x03, t->s0, t->s1, 0, ntag);
		emit_alu_imm(e, true, ALU_CMP, t->s0, (int32_t)(PAGE_SIZE - size));
		miss = emit_jcc(e, CC_A);
		emit_gs_idx(e, true, 0x8b, t->s1, t->s1, 0, result);
	} else {
		emit_entry_index(t, t->s0);
		emit_gs_idx(e, true, 0x8b, t->s1, t->s1, 3, ntag);
		emit_lea(e, t->s1, t->s1, t->s0, 0, (int32_t)(PAGE_SIZE + size - 1));
		emit_pext_gs(e, t->s1, t->s1, GS(page_mask));	/* 1 if the last byte is in the page */
		miss = emit_jmp_unless_one(e, t->s1);
		emit_entry_index(t, t->s0);
		emit_gs_idx(e, true, 0x8b, t->s1, t->s1, 3, TLB_FIELD(t, rw, addend));
	}
	add_miss(t, miss, retry, live, size, rw, instead);
}

/*
 * The same for [@base + @disp] with flags kept: S1 = addend.  S0 is not needed again, so that is where the address is checked, and
 * S1 goes on to hold the entry's index.
 */
static void emit_check_live(struct translator *t, uint8_t *retry, unsigned base, int32_t disp, uint64_t size, unsigned rw,
			    enum miss_instead instead)
{
	struct emit *e = &t->e;
	int32_t last = (int32_t)(PAGE_SIZE + size - 1);
	uint8_t *miss;

	if (disp)
		emit_lea(e, t->s0, base, NO_INDEX, 0, disp);
	emit_entry_index(t, disp ? t->s0 : base);
	emit_gs_idx(e, true, 0x8b, t->s0, t->s1, 3, TLB_FIELD(t, rw, ntag));
	if (disp <= INT32_MAX - last) {
		emit_lea(e, t->s0, base, t->s0, 0, disp + last);
	} else {
		emit_lea(e, t->s0, base, t->s0, 0, disp);
		emit_lea(e, t->s0, t->s0, NO_INDEX, 0, last);
	}
	emit_pext_gs(e, t->s0, t->s0, GS(page_mask));
	miss = emit_jmp_unless_one(e, t->s0);
	emit_gs_idx(e, true, 0x8b, t->s1, t->s1, 3, TLB_FIELD(t, rw, addend));
	add_miss(t, miss, retry, true, size, rw, instead);
	t->miss[t->nmiss - 1].base = (uint8_t)base;
	t->miss[t->nmiss - 1].disp = disp;
}

static bool groupable(const struct translator *t, const struct insn *in)
{
	return in->addrsize == 8 && in->mem_seg == INSN_REG_NONE && in->mem_index == INSN_REG_NONE &&
	       in->mem_base < 16 && !t->code32 && !in->mem_masked;
}

struct simple_access access_of(const struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	struct simple_access a = { 0 };

	if (t->loop.on && t->loop.stream_of[i] >= 0)
		return a;	/* looked up in front of the loop */
	switch ((int)in->op) {
	case INSN_PUSH:
		a = (struct simple_access){ !in->mem, in->mem, RSP, MEM_WRITE, -(int64_t)in->opsize, in->opsize };
		break;
	case INSN_CALL:
	case INSN_CALL_IND:
		a = (struct simple_access){ !in->mem, in->mem, RSP, MEM_WRITE, -8, 8 };
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
	case INSN_JCC:
		break;
	default:
		a.other = true;
		break;
	}
	if (t->code32 || (t->b->mode & (BLOCK_SINGLE | BLOCK_SLOW)))
		a.other = true;
	return a;
}

unsigned pop_register(const struct insn *in)
{
	return (in->opcode == 0x8f ? in->modrm & 7 : in->opcode & 7) | (in->rex & 1 ? 8 : 0);
}

bool base_step(const struct insn *in, unsigned base, int64_t *ret_step)
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
	/* inc, dec base */
	if (in->op == INSN_COPY && !in->mem && in->enc == ENC_LEGACY && in->map == 0 && in->opsize == 8 &&
	    in->opcode == 0xff && (in->modrm & 0xf0) == 0xc0) {
		*ret_step = in->modrm & 8 ? -1 : 1;
		return true;
	}
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
	bool beyond = false;

	for (unsigned j = i; j < t->n && !(t->b->mode & BLOCK_PLAIN); j++) {
		struct simple_access x = access_of(t, j);
		int64_t step, nlo, nhi;

		if (x.other || (x.is && x.base != a->base) || (beyond && x.rw & ~rw & MEM_WRITE))
			break;
		beyond |= side_exit_at(t, j) != NULL;	/* what follows may not happen: no need to be able to write */
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

struct operand lookup_simple(struct translator *t, unsigned i, const struct simple_access *a)
{
	struct emit *e = &t->e;

	if (!in_group(t, a)) {
		uint8_t *retry = e->p;
		enum miss_instead instead;
		uint64_t span;
		unsigned rw;

		plan_group(t, i, a);
		span = (uint64_t)(t->group_hi - t->group_lo);
		rw = t->group_write ? MEM_WRITE : MEM_READ;
		instead = span == a->size && (!t->group_write || a->rw & MEM_WRITE) ? MISS_SLOW : MISS_PLAIN;
		if (flags_keep(t, i)) {
			emit_check_live(t, retry, a->base, (int32_t)t->group_lo, span, rw, instead);
		} else {
			emit_lea(e, t->s0, a->base, NO_INDEX, 0, (int32_t)t->group_lo);
			emit_check(t, retry, span, rw, false, true, instead);
		}
		t->miss[t->nmiss - 1].insn = (uint16_t)i;
		t->miss[t->nmiss - 1].site.careful = t->insn[i].mem_careful;
	}
	if (a->base == RSP)	/* RSP cannot be an index */
		return (struct operand){ RSP, t->s1, 0, (int32_t)a->disp };
	return (struct operand){ t->s1, a->base, 0, (int32_t)a->disp };
}

struct operand lookup_any(struct translator *t, unsigned i, int64_t adjust, uint64_t size, unsigned rw)
{
	const struct insn *in = &t->insn[i];
	uint8_t *retry = t->e.p;

	t->group_on = false;
	emit_ea(t, in, i, adjust);
	emit_check(t, retry, size, rw, flags_keep(t, i), false, MISS_SLOW);
	t->miss[t->nmiss - 1].site.careful = in->mem_careful;
	return (struct operand){ t->s0, t->s1, 0, 0 };
}

struct operand lookup_stack32(struct translator *t, unsigned i, unsigned base, int32_t disp, uint64_t size,
				     unsigned rw)
{
	uint8_t *retry = t->e.p;

	t->group_on = false;
	emit_op_mem(&t->e, false, 0x8d, t->s0, base, NO_INDEX, 0, disp);
	emit_check(t, retry, size, rw, flags_keep(t, i), false, MISS_SLOW);
	return (struct operand){ t->s0, t->s1, 0, 0 };
}

struct operand lookup_stack(struct translator *t, unsigned i, int32_t disp, uint64_t size, unsigned rw)
{
	struct simple_access a = { true, false, RSP, rw, disp, size };

	if (t->code32)
		return lookup_stack32(t, i, RSP, disp, size, rw);
	return lookup_simple(t, i, &a);
}
