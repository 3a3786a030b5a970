/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loops that are one block: a conditional jump back to the block's own start.
 *
 * Where the address of an operand moves by the same step each time round, the
 * look-up need not be made each time: it is good until the address leaves its
 * page.  Such operands with the same registers, near each other, are a stream.
 * In front of the loop proper the streams are looked up and it is computed how
 * often the loop can go round before any of them leaves its page:
 *
 *   head:   for each stream:   S0, S1 = look-up; holder = S1 (+ base)
 *                              count = min(count, bytes left in page >> log2(step))
 *   body:   instructions, operands of streams relative to their holders
 *           jcc(not) out
 *           sub  count, 1
 *           jns  body
 *           jmp  head            polls, and is an exit like any other
 *   out:
 *
 * A round whose operands do not lie in one page each runs in a BLOCK_PLAIN
 * block, translated without this, to which the look-up that finds it so is
 * linked.  Operands that are not in streams have look-ups of their own in the body.
 *
 * Guest flags must be dead at the start of the block: counting changes them.
 *
 * Nobody takes the right to write a page away while another vCPU has a holder
 * that it writes through: see cpu.strips and claim_page().
 */
#include "engine/dbt/translator.h"

#include "base/checked.h"

#include <string.h>

#define SPAN_MAX 256
#define ROUNDS_MAX 1023u	/* between polls, when no stream limits them */
#define STEP_MAX 1024

/* How the registers of an address move in a round. */
struct movement {
	bool known[16];	/* only by constant steps */
	int64_t step[16];	/* in a whole round */
	int64_t shift[16];	/* since the start of the round, while scanning */
};

static void find_movement(const struct translator *t, struct movement *m)
{
	memset(m, 0, sizeof(*m));
	for (unsigned r = 0; r < 16; r++) {
		m->known[r] = true;
		for (unsigned i = 0; i < t->n && m->known[r]; i++) {
			int64_t step;

			m->known[r] = base_step(&t->insn[i], r, &step);
			m->step[r] += step;
		}
	}
}

static bool may_stream(const struct insn *in)
{
	return in->op == INSN_COPY && in->mem && in->mem_rw && in->modrm_off && !in->high_byte && !in->mem_masked &&
	       !in->mem_implicit && !is_bit_string(in) && in->addrsize == 8 && in->mem_seg == INSN_REG_NONE &&
	       in->mem_size <= 64;
}

/* The operand of instruction i as a stream of its own.  False: its address moves otherwise. */
static bool describe(const struct translator *t, const struct movement *m, unsigned i, struct stream *s)
{
	const struct insn *in = &t->insn[i];
	bool base = in->mem_base < 16, index = in->mem_index < 16;
	int64_t index_step;

	if (!may_stream(in) || (base && !m->known[in->mem_base]) || (index && !m->known[in->mem_index]))
		return false;
	index_step = index ? m->step[in->mem_index] * (1 << in->mem_scale) : 0;
	*s = (struct stream){ .base = in->mem_base, .index = in->mem_index, .scale = in->mem_scale,
			      .rw = in->mem_rw, .lo = in->mem_disp, .accesses = 1 };
	if (base) {
		s->step = m->step[in->mem_base];
		s->lo += m->shift[in->mem_base];
	}
	if (index)
		s->lo += m->shift[in->mem_index] * (1 << in->mem_scale);
	if (in->mem_base == INSN_REG_RIP)
		s->lo += t->guest_off[i + 1];
	s->hi = s->lo + in->mem_size;
	s->base_moves = base && (s->step || m->shift[in->mem_base]);
	s->index_moves = index && (index_step || m->shift[in->mem_index]);
	if (s->base_moves && s->index_moves)
		return false;	/* a host operand has room for one register besides the holder */
	s->step += index_step;
	return s->step <= STEP_MAX && s->step >= -STEP_MAX && s->lo == (int32_t)s->lo;
}

static bool joins(struct stream *s, const struct stream *with)
{
	int64_t lo = s->lo < with->lo ? s->lo : with->lo, hi = s->hi > with->hi ? s->hi : with->hi;

	if (s->base != with->base || s->index != with->index || s->scale != with->scale || hi - lo > SPAN_MAX ||
	    ((s->base_moves | with->base_moves) && (s->index_moves | with->index_moves)))
		return false;
	s->lo = lo;
	s->hi = hi;
	s->rw |= with->rw;
	s->base_moves |= with->base_moves;
	s->index_moves |= with->index_moves;
	s->accesses++;
	return true;
}

static void add_to_stream(struct loop *l, unsigned i, const struct stream *s)
{
	for (unsigned k = 0; k < l->nstreams; k++)
		if (joins(&l->stream[k], s)) {
			l->stream_of[i] = (int8_t)k;
			return;
		}
	if (l->nstreams == ARRAY_SIZE(l->stream))
		return;
	l->stream_of[i] = (int8_t)l->nstreams;
	l->stream[l->nstreams++] = *s;
}

static void find_streams(struct translator *t)
{
	struct loop *l = &t->loop;
	struct movement m;

	find_movement(t, &m);
	l->nstreams = 0;
	for (unsigned i = 0; i < t->n; i++) {
		struct stream s;

		l->stream_of[i] = -1;
		if (describe(t, &m, i, &s))
			add_to_stream(l, i, &s);
		for (unsigned r = 0; r < 16; r++) {
			int64_t step;

			if (m.known[r] && base_step(&t->insn[i], r, &step))
				m.shift[r] += step;
		}
	}
}

static void drop_stream(struct translator *t, unsigned k)
{
	struct loop *l = &t->loop;

	for (unsigned i = 0; i < t->n; i++)
		if (l->stream_of[i] == (int)k)
			l->stream_of[i] = -1;
		else if (l->stream_of[i] == (int)l->nstreams - 1)
			l->stream_of[i] = (int8_t)k;
	l->stream[k] = l->stream[--l->nstreams];
}

static unsigned least_used(const struct loop *l)
{
	unsigned best = 0;

	for (unsigned k = 1; k < l->nstreams; k++)
		if (l->stream[k].accesses < l->stream[best].accesses)
			best = k;
	return best;
}

/* Whether the body needs the scratch registers: for look-ups, or as an instruction's own. */
static bool body_needs_scratch(const struct translator *t)
{
	for (unsigned i = 0; i + 1 < t->n; i++) {
		const struct insn *in = &t->insn[i];

		if (t->loop.stream_of[i] >= 0)
			continue;
		if (in->op != INSN_NOP && !(in->op == INSN_COPY && !(in->mem && in->mem_rw)) &&
		    !(in->op == INSN_LEA && in->mem_base != INSN_REG_RIP))
			return true;
	}
	return false;
}

static unsigned free_registers(const struct translator *t)
{
	unsigned n = 0;

	for (unsigned r = RAX; r <= R15; r++)
		n += r != RSP && !is_scratch(r) && !((t->used | t->b->borrowed) & 1u << r);
	return n;
}

static unsigned take_register(struct translator *t)
{
	unsigned r = borrow(t);

	/* Others have uses of their own in some sequences, which save and restore them. */
	for (unsigned k = RAX; r == NO_REG && k <= RDX; k++)
		if (!((t->used | t->b->borrowed) & 1u << k)) {
			t->b->borrowed |= (uint16_t)(1u << k);
			r = k;
		}
	return r;
}

/* Registers to borrow: a holder a stream and the count, less the scratch registers where the body leaves them alone. */
static unsigned registers_needed(const struct loop *l, bool scratch)
{
	if (scratch)
		return l->nstreams + 1;
	return l->nstreams < 2 ? 0 : l->nstreams;
}

static bool assign_registers(struct translator *t)
{
	struct loop *l = &t->loop;
	bool scratch = body_needs_scratch(t);

	while (registers_needed(l, scratch) > free_registers(t)) {
		if (l->nstreams == 0)
			return false;
		drop_stream(t, least_used(l));
		scratch = true;
	}
	l->count = !scratch && l->nstreams < 2 ? t->s0 : take_register(t);
	for (unsigned k = 0; k < l->nstreams; k++)
		l->stream[k].holder = !scratch && k == l->nstreams - 1 ? t->s1 : take_register(t);
	return true;
}

bool loop_plan(struct translator *t)
{
	const struct insn *last = &t->insn[t->n - 1];

	t->loop.on = false;
	if (last->op != INSN_JCC || t->nsides || t->guest_off[t->n] + last->imm != 0 || t->b->pa2 != ~0ull || t->code32 ||
	    t->b->mode & (BLOCK_SINGLE | BLOCK_SLOW | BLOCK_PLAIN) || t->live[0])
		return false;
	for (unsigned i = 0; i < t->n; i++)
		if (t->insn[i].op == INSN_STI || quick_may_leave(&t->insn[i], t->b->mode))
			return false;
	find_streams(t);
	if (!assign_registers(t))
		return false;
	t->loop.marked = false;
	for (unsigned k = 0; k < t->loop.nstreams; k++)
		t->loop.marked |= t->smp && t->loop.stream[k].rw & MEM_WRITE;
	t->loop.on = true;
	return true;
}

/* ------------------------------------------------------------------ emission */

/* XCHG: the look-ups must not be made before others can see it. */
void emit_strip_mark(struct translator *t)
{
	if (!t->loop.on || !t->loop.marked)
		return;
	emit_gs_abs(&t->e, false, 0x8b, t->s0, GS(strips));
	emit_op_mem(&t->e, false, 0x8d, t->s0, t->s0, NO_INDEX, 0, 1);
	emit_gs_abs(&t->e, false, 0x87, t->s0, GS(strips));
}

static unsigned log2_ceil(uint64_t v)
{
	unsigned n = 0;

	while (1ull << n < v)
		n++;
	return n;
}

/* S0 = offset in the page of the stream's first byte: how many more rounds stay in it; kept if the least. */
static void emit_rounds(struct translator *t, const struct stream *s, bool first)
{
	struct emit *e = &t->e;
	unsigned shift = log2_ceil((uint64_t)(s->step < 0 ? -s->step : s->step));

	if (s->step > 0) {
		emit_rex(e, false, 0, 0, t->s0);	/* neg */
		emit_u8(e, 0xf7), emit_u8(e, 0xd8 | (t->s0 & 7));
		emit_alu_imm(e, false, ALU_ADD, t->s0, (int32_t)((int64_t)PAGE_SIZE - (s->hi - s->lo)));
	}
	if (shift)
		emit_shift(e, false, SHIFT_SHR, t->s0, shift);
	if (first) {
		if (t->loop.count != t->s0)
			emit_op_reg(e, false, 0x8b, t->loop.count, t->s0);
		return;
	}
	emit_op_reg(e, false, 0x3b, t->s0, t->loop.count);	/* cmp; cmovb */
	emit_rex(e, false, t->loop.count, 0, t->s0);
	emit_u8(e, 0x0f), emit_u8(e, 0x42), emit_u8(e, 0xc0 | (t->loop.count & 7) << 3 | (t->s0 & 7));
}

/* S0 = linear address of the stream's lowest byte in this round. */
static void emit_stream_address(struct translator *t, const struct stream *s)
{
	struct emit *e = &t->e;

	if (s->base == INSN_REG_RIP) {
		emit_guest_va(t, t->s0, block_va(t, s->lo));
	} else if (s->base == INSN_REG_NONE && s->index == INSN_REG_NONE) {
		emit_mov_imm(e, t->s0, (uint64_t)s->lo);
	} else if (s->base == INSN_REG_NONE) {
		emit_lea_index(e, true, t->s0, s->index, s->scale, (int32_t)s->lo);
	} else {
		emit_lea(e, t->s0, s->base, s->index == INSN_REG_NONE ? NO_INDEX : s->index, s->scale, (int32_t)s->lo);
	}
}

static bool moves(const struct stream *s)
{
	return s->base_moves || s->index_moves;
}

/*
 * The holder makes up, with the register that moves, the host address:
 *   nothing moves     host address of the lowest byte
 *   the base moves    addend + index << scale
 *   the index moves   addend + base
 */
static void emit_holder(struct translator *t, const struct stream *s)
{
	struct emit *e = &t->e;

	if (!moves(s))
		emit_lea(e, s->holder, t->s1, t->s0, 0, 0);
	else if (s->base_moves && s->index != INSN_REG_NONE)
		emit_lea(e, s->holder, t->s1, s->index, s->scale, 0);
	else if (s->index_moves && s->base < 16)
		emit_lea(e, s->holder, s->base, t->s1, 0, 0);	/* RSP can be a base only */
	else if (s->holder != t->s1)
		emit_mov(e, s->holder, t->s1);
}

static void emit_head(struct translator *t)
{
	const struct loop *l = &t->loop;
	bool first = true;

	emit_strip_mark(t);
	for (unsigned k = 0; k < l->nstreams; k++) {
		const struct stream *s = &l->stream[k];
		uint8_t *retry = t->e.p;

		emit_stream_address(t, s);
		emit_check(t, retry, (uint64_t)(s->hi - s->lo), s->rw, false, moves(s), MISS_PLAIN);
		emit_holder(t, s);
		if (s->step) {
			emit_rounds(t, s, first);
			first = false;
		}
	}
	if (first)
		emit_mov_imm(&t->e, l->count, ROUNDS_MAX);
}

struct operand loop_operand(const struct translator *t, unsigned i)
{
	const struct insn *in = &t->insn[i];
	const struct stream *s = &t->loop.stream[t->loop.stream_of[i]];
	int64_t disp = in->mem_disp;

	if (!moves(s)) {
		if (in->mem_base == INSN_REG_RIP)
			disp += t->guest_off[i + 1];
		return (struct operand){ s->holder, NO_INDEX, 0, (int32_t)(disp - s->lo) };
	}
	if (s->base_moves) {
		if (s->base == RSP)	/* cannot be an index */
			return (struct operand){ RSP, s->holder, 0, (int32_t)disp };
		return (struct operand){ s->holder, s->base, 0, (int32_t)disp };
	}
	return (struct operand){ s->holder, s->index, s->scale, (int32_t)disp };
}

void emit_loop(struct translator *t)
{
	struct emit *e = &t->e;
	uint8_t *out, *body;

	enter_state(t);
	t->group_on = false;
	t->marks[0] = (struct insn_mark){ 0, 0 };
	emit_head(t);
	emit_align(e, 64);	/* in few lines of what the host keeps decoded: a matrix product gains 3 % over 16 */
	body = e->p;
	for (unsigned i = 0; i + 1 < t->n; i++) {
		if (i > 0)
			mark_insn(t, i);
		(void)emit_insn(t, i);
	}
	mark_insn(t, t->n - 1);
	flags_before(t, t->n - 1);
	out = emit_jcc(e, t->insn[t->n - 1].cond ^ 1);
	emit_alu_imm(e, false, ALU_SUB, t->loop.count, 1);
	emit_patch_to(e, emit_jcc(e, CC_NS), emit_pc(e) - (uint64_t)(e->p - body));
	emit_strip_mark(t);
	leave_state(t);
	emit_goto(t, 0, 0);
	emit_patch_here(e, out);
	emit_strip_mark(t);
	leave_state(t);
	emit_goto(t, t->guest_off[t->n], t->live[t->n]);
}
