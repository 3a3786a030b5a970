/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flags that can be made again.
 *
 * A look-up is half as long again where guest flags are live.  But often the
 * instruction that set them can simply be done again: CMP and TEST while their
 * registers are as they were, logical operations as a TEST of their result,
 * ADD and SUB of an immediate to RSP from where RSP is now.  Then look-ups may
 * destroy the flags, and they are made again
 *
 *   - where something reads them, changes some of them, or may fault,
 *   - before a register that they come from is written,
 *   - at every exit, and in the stub of every look-up that lost them.
 */
#include "engine/dbt/translator.h"

enum { REMAKE_SAME, REMAKE_RESULT, REMAKE_RSP };

#define RSP_IMM_MAX 0x100000

/* The result register of AND, OR or XOR in 32 or 64 bits; NO_REG otherwise. */
static unsigned logic_result(const struct insn *in)
{
	unsigned ext = in->modrm >> 3 & 7;

	if (in->opsize < 4)
		return NO_REG;
	switch (in->opcode) {
	case 0x21: case 0x09: case 0x31: return insn_rm(in);
	case 0x23: case 0x0b: case 0x33: return insn_reg(in);
	case 0x25: case 0x0d: case 0x35: return RAX;
	case 0x81: case 0x83: return ext == 1 || ext == 4 || ext == 6 ? insn_rm(in) : NO_REG;
	default: return NO_REG;
	}
}

/* CMP and TEST: they change nothing but flags. */
static bool is_comparison(const struct insn *in)
{
	switch (in->opcode) {
	case 0x38: case 0x39: case 0x3a: case 0x3b: case 0x3c: case 0x3d: case 0x84: case 0x85: case 0xa8: case 0xa9:
		return true;
	case 0x80: case 0x81: case 0x83:
		return (in->modrm >> 3 & 7) == 7;
	case 0xf6: case 0xf7:
		return (in->modrm >> 3 & 7) <= 1;
	default:
		return false;
	}
}

static bool moves_rsp(const struct insn *in)
{
	unsigned ext = in->modrm >> 3 & 7;

	return (in->opcode == 0x81 || in->opcode == 0x83) && (ext == 0 || ext == 5) && insn_rm(in) == RSP &&
	       in->opsize == 8 && in->imm < RSP_IMM_MAX && in->imm > -RSP_IMM_MAX;
}

/* What instruction i, which set all flags, leaves to make them from. */
static void remember(struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	struct remake *m = &t->remake;
	unsigned result;

	*m = (struct remake){ .by = i };
	if (in->op != INSN_COPY || in->mem || in->enc != ENC_LEGACY || in->map != 0 || t->code32)
		return;
	result = logic_result(in);
	if (is_comparison(in))
		m->from = in->gpr_read, m->kind = REMAKE_SAME, m->on = true;
	else if (result != NO_REG)
		m->from = (uint16_t)(1u << result), m->kind = REMAKE_RESULT, m->on = true;
	else if (moves_rsp(in))
		m->from = 1u << RSP, m->kind = REMAKE_RSP, m->on = true;
}

void flags_make(struct translator *t, const struct remake *m, unsigned tmp)
{
	const struct insn *in = &t->insn[m->by];
	struct emit *e = &t->e;
	unsigned r;

	switch (m->kind) {
	case REMAKE_SAME:
		for (unsigned k = 0; k < in->len; k++)
			emit_u8(e, in->bytes[k]);
		break;
	case REMAKE_RESULT:
		r = logic_result(in);
		emit_op_reg(e, in->opsize == 8, 0x85, r, r);
		break;
	default:
		if ((in->modrm >> 3 & 7) == 0) {
			emit_lea(e, tmp, RSP, NO_INDEX, 0, (int32_t)(-m->moved - in->imm));
			emit_alu_imm(e, true, ALU_ADD, tmp, (int32_t)in->imm);
		} else {
			emit_lea(e, tmp, RSP, NO_INDEX, 0, (int32_t)(-m->moved + in->imm));
			emit_alu_imm(e, true, ALU_SUB, tmp, (int32_t)in->imm);
		}
		break;
	}
}

void flags_settle(struct translator *t, unsigned tmp)
{
	if (t->remake.lost)
		flags_make(t, &t->remake, tmp);
	t->remake.lost = false;
}

bool flags_keep(struct translator *t, unsigned i)
{
	if (!t->live[i])
		return false;
	if (!t->remake.on)
		return true;
	t->remake.lost = true;
	return false;
}

/* An integer instruction that every processor has and that cannot fault but for its operand in memory. */
static bool is_plain(const struct insn *in)
{
	if (in->enc != ENC_LEGACY || in->lock || in->uses_fpu)
		return false;
	if (in->map == 1)	/* MOVZX, MOVSX, BSWAP */
		return in->opcode == 0xb6 || in->opcode == 0xb7 || in->opcode == 0xbe || in->opcode == 0xbf ||
		       (in->opcode & 0xf8) == 0xc8;
	if (in->map != 0)
		return false;
	if (in->opcode == 0xc6 || in->opcode == 0xc7)	/* MOV, not XABORT or XBEGIN */
		return !(in->modrm & 0x38);
	return in->opcode < 0x40 || in->opcode == 0x63 || (in->opcode >= 0x80 && in->opcode <= 0x8b) ||
	       (in->opcode >= 0x90 && in->opcode <= 0x99) || (in->opcode >= 0xa0 && in->opcode <= 0xa3) ||
	       in->opcode == 0xa8 || in->opcode == 0xa9 || (in->opcode >= 0xb0 && in->opcode <= 0xbf) ||
	       ((in->opcode == 0xf6 || in->opcode == 0xf7) && (in->modrm >> 3 & 7) < 6);
}

/* Neither looks at flags nor can fault once its operands are looked up, and changes all flags or none. */
static bool indifferent(const struct insn *in)
{
	switch ((int)in->op) {
	case INSN_LEA:
	case INSN_NOP:
	case INSN_PUSH:
	case INSN_POP:
	case INSN_CALL:
	case INSN_CALL_IND:
	case INSN_JMP_IND:
	case INSN_RET:
		return true;
	case INSN_COPY:
		return is_plain(in) && !in->flags_read && (!in->flags_written || in->flags_killed == FLAGS_ARITH);
	default:
		return false;
	}
}

static bool calls_or_returns(const struct insn *in)
{
	return in->op == INSN_CALL || in->op == INSN_CALL_IND || in->op == INSN_RET;
}

/* Whether instruction @in changes what flags are made from, other than by a known step of RSP. */
static bool spoils(const struct remake *m, const struct insn *in)
{
	int64_t step;

	if (m->kind == REMAKE_RSP)	/* calls and returns keep account of their step themselves */
		return !calls_or_returns(in) && !base_step(in, RSP, &step);
	if (m->from & 1u << RSP && (calls_or_returns(in) || !base_step(in, RSP, &step) || step))
		return true;
	return in->gpr_written & m->from;
}

void flags_before(struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	bool fit = indifferent(in);

	if (side_exit_at(t, i)) {	/* behind it they can still be made again */
		flags_settle(t, t->s0);
		return;
	}
	if (fit && !spoils(&t->remake, in))
		return;
	if (!fit || in->flags_killed != FLAGS_ARITH)
		flags_settle(t, t->s0);
	t->remake.on = false;
}

void flags_after(struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	int64_t step;

	if (in->flags_killed == FLAGS_ARITH)
		remember(t, i);
	else if (in->flags_written || spoils(&t->remake, in))
		t->remake.on = false;
	else if (t->remake.kind == REMAKE_RSP && base_step(in, RSP, &step))
		t->remake.moved += step;
}
