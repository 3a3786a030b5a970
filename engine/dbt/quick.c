/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instructions that the interpreter has, done in place where nothing special is met:
 * repeated MOVS and STOS inside a page, WRFSBASE and WRGSBASE, reads of control registers.
 *
 *      checks                      each jumps to slow
 *      the instruction
 *      jmp  done
 *   slow:
 *      leave to the interpreter
 *   done:
 *
 * Guest flags that are live wait in cpu.tmp[3] meanwhile.
 */
#include "engine/dbt/run.h"
#include "engine/dbt/translator.h"

#define SLOW_MAX 5
#define USER_BITS 47	/* addresses below 2^47, and as many at the top, are canonical */

struct quick {
	struct translator *t;
	unsigned i;
	bool live;
	uint8_t *slow[SLOW_MAX];	/* rel32s that lead there */
	unsigned nslow;
};

static bool is_quick_string(const struct insn *in)
{
	const uint16_t need = (uint16_t)(1u << RCX | 1u << RDI | (in->op == INSN_MOVS ? 1u << RSI : 1u << RAX));

	return (in->op == INSN_MOVS || in->op == INSN_STOS) && in->rep && in->addrsize == 8 &&
	       in->mem_seg == INSN_REG_NONE && ((in->gpr_read | in->gpr_written) & need) == need;
}

bool is_quick(const struct insn *in, uint32_t mode)
{
	if (in->lock || mode & (BLOCK_32 | BLOCK_SINGLE))
		return false;
	switch ((int)in->op) {
	case INSN_MOVS:
	case INSN_STOS:
		return is_quick_string(in);
	case INSN_WRFSBASE:
	case INSN_WRGSBASE:
		return true;
	case INSN_SYSTEM:
		return in->sys == SYS_MOV_FROM_CR && (0x1du >> insn_reg(in) & 1) && !(mode & BLOCK_USER);	/* 0, 2, 3, 4 */
	default:
		return false;
	}
}

bool quick_may_leave(const struct insn *in, uint32_t mode)
{
	return is_quick(in, mode) && in->op != INSN_SYSTEM;
}

static void slow_if(struct quick *q, unsigned cond)
{
	q->slow[q->nslow++] = emit_jcc(&q->t->e, cond);
}

static void save_flags(const struct quick *q)
{
	struct emit *e = &q->t->e;

	if (!q->live)
		return;
	emit_gs_store(e, GS(tmp) + 16, RAX);
	emit_flags_to_ax(e);
	emit_gs_store(e, GS(tmp) + 24, RAX);
	emit_gs_load(e, RAX, GS(tmp) + 16);
}

static void restore_flags(const struct quick *q)
{
	struct emit *e = &q->t->e;

	if (!q->live)
		return;
	emit_gs_store(e, GS(tmp) + 16, RAX);
	emit_gs_load(e, RAX, GS(tmp) + 24);
	emit_flags_from_ax(e);
	emit_gs_load(e, RAX, GS(tmp) + 16);
}

/* ------------------------------------------------------------------ strings */

/* S1 = host address of the string at @reg, whose RCX elements of 2^@log bytes are in one page.  Uses S0. */
static void emit_string(struct quick *q, unsigned reg, unsigned rw, unsigned log)
{
	struct translator *t = q->t;
	struct emit *e = &t->e;
	uint8_t *retry = e->p;

	emit_mov(e, t->s0, reg);
	emit_check(t, retry, 1u << log, rw, false, false, MISS_SLOW);
	t->miss[t->nmiss - 1].site.flags_saved = q->live;
	emit_lea(e, t->s1, t->s1, t->s0, 0, 0);
	emit_neg(e, t->s0);
	emit_alu_imm(e, true, ALU_ADD, t->s0, (int32_t)PAGE_SIZE);
	if (log)
		emit_shift(e, true, SHIFT_SHR, t->s0, log);
	emit_op_reg(e, true, 0x3b, t->s0, RCX);	/* cmp: elements there is room for */
	slow_if(q, CC_B);
}

static unsigned log2_of(unsigned size)
{
	return size == 8 ? 3 : size == 4 ? 2 : size == 2;
}

static void emit_repeated(struct quick *q, const struct insn *in)
{
	struct translator *t = q->t;
	struct emit *e = &t->e;
	unsigned log = in->opcode & 1 ? log2_of(in->opsize) : 0;
	bool movs = in->op == INSN_MOVS;
	uint8_t *none;

	emit_op_reg(e, true, 0x85, RCX, RCX);	/* test: no element, no access */
	none = emit_jcc(e, CC_E);
	emit_gs_abs(e, false, 0x80, ALU_CMP, GS(direction));
	emit_u8(e, 0);
	slow_if(q, CC_NE);
	if (movs) {
		emit_string(q, RSI, MEM_READ, log);
		emit_gs_store(e, GS(tmp) + 8, t->s1);
	}
	emit_string(q, RDI, MEM_WRITE, log);

	/* S0 and S1: from host addresses back to RDI and RSI. */
	emit_mov(e, t->s0, RDI);
	emit_op_reg(e, true, 0x2b, t->s0, t->s1);
	emit_mov(e, RDI, t->s1);
	if (movs) {
		emit_gs_load(e, t->s1, GS(tmp) + 8);
		emit_op_reg(e, true, 0x2b, RSI, t->s1);
		emit_op_reg(e, true, 0x87, t->s1, RSI);	/* xchg */
	}
	emit_u8(e, 0xf3);
	if (in->opcode & 1 && in->opsize == 2)
		emit_u8(e, 0x66);
	emit_rex(e, log == 3, 0, 0, 0);
	emit_u8(e, in->opcode);
	emit_lea(e, RDI, RDI, t->s0, 0, 0);
	if (movs)
		emit_lea(e, RSI, RSI, t->s1, 0, 0);
	emit_patch_here(e, none);
}

/* -------------------------------------------------------------------- bases */

static void emit_base_write(struct quick *q, const struct insn *in)
{
	struct translator *t = q->t;
	struct emit *e = &t->e;
	unsigned reg = insn_rm(in);
	uint32_t off = in->op == INSN_WRFSBASE ? GS(fs_base) : GS(gs_base);

	emit_gs_abs(e, false, 0xf6, 0, GS(cr4) + 2);	/* test byte */
	emit_u8(e, CR4_FSGSBASE >> 16);
	slow_if(q, CC_E);
	if (in->opsize == 8) {
		emit_mov(e, t->s0, reg);
		emit_shift(e, true, SHIFT_SAR, t->s0, USER_BITS);	/* 0 or -1 if canonical */
		emit_alu_imm(e, true, ALU_ADD, t->s0, 1);
		emit_alu_imm(e, true, ALU_CMP, t->s0, 1);
		slow_if(q, CC_A);
		emit_gs_store(e, off, reg);
	} else {
		emit_op_reg(e, false, 0x8b, t->s0, reg);
		emit_gs_store(e, off, t->s0);
	}
}

static void emit_cr_read(struct translator *t, const struct insn *in)
{
	static const uint32_t off[] = { GS(cr0), 0, GS(cr2), GS(cr3), GS(cr4) };

	emit_gs_load(&t->e, insn_rm(in), off[insn_reg(in)]);
}

void emit_quick(struct translator *t, unsigned i)
{
	struct quick q = { .t = t, .i = i, .live = t->live[i + 1] != 0 };
	const struct insn *in = &t->insn[i];
	uint8_t *done;

	t->group_on = false;
	if (in->op == INSN_SYSTEM) {
		emit_cr_read(t, in);
		return;
	}
	save_flags(&q);
	if (in->op == INSN_MOVS || in->op == INSN_STOS)
		emit_repeated(&q, in);
	else
		emit_base_write(&q, in);
	restore_flags(&q);
	done = emit_jmp(&t->e);
	for (unsigned k = 0; k < q.nslow; k++)
		emit_patch_here(&t->e, q.slow[k]);
	restore_flags(&q);
	emit_helper(t, i);
	emit_patch_here(&t->e, done);
}
