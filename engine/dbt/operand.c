/* SPDX-License-Identifier: Apache-2.0 */
/* Guest instructions with another operand in place of their own. */
#include "engine/dbt/translator.h"

#include "base/checked.h"

void emit_bytes(struct emit *e, const uint8_t *bytes, unsigned n)
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

void emit_with_operand(struct emit *e, const struct insn *in, struct operand m)
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

void emit_high_byte(struct translator *t, const struct insn *in, struct operand m)
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

void emit_through_rdi(struct translator *t, const struct insn *in, struct operand m)
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

bool is_bit_string(const struct insn *in)
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
	emit_shift(e, true, SHIFT_SAR, t->s1, shift);	/* which word */
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

void emit_bit_string(struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	struct emit *e = &t->e;
	unsigned reg = insn_reg(in);
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
	emit_flags_to_ax(e);
	emit_gs_store(e, GS(tmp) + 24, RAX);
	emit_gs_load(e, RAX, GS(tmp) + 16);
	retry = e->p;
	emit_bit_address(t, i, reg, shift);
	emit_check(t, retry, in->opsize, in->mem_rw, false, false, MISS_SLOW);
	t->miss[t->nmiss - 1].site.flags_saved = 1;
	emit_gs_load(e, RAX, GS(tmp) + 24);
	emit_flags_from_ax(e);
	emit_gs_load(e, RAX, GS(tmp) + 16);
	emit_bit_in_word(t, in, (struct operand){ t->s0, t->s1, 0, 0 }, reg, shift);
}
