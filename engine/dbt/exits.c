/* SPDX-License-Identifier: Apache-2.0 */
/* Ways out of a block, and the stubs behind it. */
#include "engine/dbt/translator.h"

#include <string.h>

_Static_assert(sizeof(struct jc_entry) == 16, "the look-up scales by 16");

/* ------------------------------------------------------- borrowed registers */

void enter_state(struct translator *t)
{
	for (unsigned r = RAX; r <= R15; r++)
		if (t->b->borrowed & 1u << r)
			emit_gs_store(&t->e, GS(spill) + 8 * r, r);
	for (unsigned r = T0; r <= T1; r++)
		if (t->b->at_home & 1u << r)
			emit_gs_load(&t->e, r, GS(gpr) + 8 * r);
}

static void save_home(struct translator *t)
{
	for (unsigned r = T0; r <= T1; r++)
		if (t->b->at_home & t->written & 1u << r)
			emit_gs_store(&t->e, GS(gpr) + 8 * r, r);
}

static void give_back(struct translator *t)
{
	for (unsigned r = RAX; r <= R15; r++)
		if (t->b->borrowed & 1u << r)
			emit_gs_load(&t->e, r, GS(spill) + 8 * r);
}

void leave_state(struct translator *t)
{
	save_home(t);
	give_back(t);
}

void leave_state_keep_s0(struct translator *t)
{
	save_home(t);
	if (t->s0 != T0)
		emit_mov(&t->e, T0, t->s0);
	give_back(t);
}

/* ------------------------------------------------------------------- exits */

/*
 * Pads so that the @bytes from @skip bytes ahead lie in an aligned quadword: a
 * processor that executes them while they are patched must fetch all of the old or
 * all of the new ones, and it may fetch as little as 16 bytes at a time.
 */
static void align_patch(struct emit *e, unsigned skip, unsigned bytes)
{
	unsigned at = (unsigned)(emit_pc(e) + skip) % 8;

	if (at + bytes > 8)
		emit_nops(e, 8 - at);
}

struct exit *new_exit(struct translator *t, unsigned kind, int64_t off)
{
	struct exit *x = &t->cc->exits[t->cc->nexits++];

	*x = (struct exit){ .from = t->b, .kind = (uint8_t)kind, .target = block_va(t, off) };
	t->b->nexits++;
	return x;
}

/* @x, whose stub @jump leads to. */
static void add_stub(struct translator *t, const struct exit *x, uint8_t *jump)
{
	t->stub[t->nstubs++] = (struct exit_stub){ .exit = (uint32_t)(x - t->cc->exits), .jump = jump };
}

void emit_exit_jump(struct translator *t, struct exit *x)
{
	align_patch(&t->e, 0, 5);
	x->patch = emit_jmp(&t->e);
	add_stub(t, x, x->patch);
	t->last_jump = x;
}

void emit_exit_now(struct translator *t, const struct exit *x)
{
	emit_mov_imm(&t->e, T1, (uint64_t)(x - t->cc->exits));
	emit_gs_jmp(&t->e, GS(thunk_exit));
}

uint8_t *emit_poll_jump(struct emit *e, bool live)
{
	if (!live) {
		emit_gs_abs(e, true, 0x83, 7, GS(exit_request));	/* cmp qword, 0 */
		emit_u8(e, 0);
		return emit_jcc(e, CC_NE);
	}
	emit_gs_load(e, T1, GS(exit_request));
	emit_lea(e, T1, T1, NO_INDEX, 0, 1);
	return emit_jmp_unless_one(e, T1);
}

void emit_poll(struct translator *t, int64_t target_off, bool live)
{
	const struct exit *x = new_exit(t, EXIT_POLL, target_off);

	add_stub(t, x, emit_poll_jump(&t->e, live));
	t->stub[t->nstubs - 1].rcx_in_t1 = live;
}

void emit_compare_place(struct emit *e, uint32_t number, int32_t back)
{
	emit_gs_load(e, T1, GS_NBASE(true, number));
	emit_lea(e, T1, T1, T0, 0, back + 1);
}

void emit_set_vbase(struct emit *e, int32_t back)
{
	emit_lea(e, T1, T0, NO_INDEX, 0, back);
	emit_gs_store(e, GS(vbase), T1);
}

void emit_dispatch(struct translator *t, bool user)
{
	struct emit *e = &t->e;

	if (t->code32)
		emit_op_reg(e, false, 0x8b, T0, T0);
	if (t->n >= 2 && t->insn[t->n - 2].op == INSN_STI) {	/* waiting interrupts come now */
		emit_gs_jmp(e, GS(thunk_indirect));
		return;
	}
	emit_jmp_table(e, T0, T1, JC_FOLD, user ? GS(jc_mask[JC_USER]) : GS(jc_mask[JC_KERNEL]), GS_JC_CODE(user));	/* jc_index() */
}

/*
 * In front of a block: T0 = guest address jumped to, T1 = what the jump cache was
 * indexed by.  Goes on with the block if the entry is of this address.  Flags kept:
 * they may be those of whatever else the jump was to.  Returns the address.
 */
uint8_t *emit_entry(struct emit *e, const struct block *b)
{
	uint64_t other = emit_pc(e), at;

	emit_mov(e, RCX, T1);
	emit_gs_jmp(e, GS(thunk_indirect));
	at = emit_pc(e);
	if (b->absolute) {
		emit_lea(e, T1, T0, NO_INDEX, 0, (int32_t)(1 - b->va));
	} else {
		emit_gs_idx(e, true, 0x8b, T1, T1, 3, (uint32_t)(b->mode & BLOCK_USER ? GS_UJC : GS_KJC) +
			    (uint32_t)offsetof(struct jc_entry, ntag));
		emit_lea(e, T1, T1, T0, 0, 1);
	}
	emit_jmp_back_unless_one(e, T1, other);
	if (!b->absolute)
		emit_set_vbase(e, (int32_t)-b->off);
	return (uint8_t *)(uintptr_t)at;
}

/*
 * The same for jumps that are linked to a block of relocatable code, which need not be at their target in every address space:
 * whether it is is what window_private.nbase says.  @b->live_in survives.  @called: calls arrive right in front of what is
 * returned.
 */
uint8_t *emit_checked_entry(struct emit *e, const struct code_cache *cc, const struct block *b, uint32_t number, bool called)
{
	uint64_t stray = emit_pc(e);
	uint8_t *at;

	if (b->live_in)
		emit_mov(e, RCX, T1);
	emit_mov_imm(e, T1, (uint64_t)(b - cc->blocks));
	emit_gs_jmp(e, GS(thunk_stray));
	if (called)
		emit_leave_returns(e);
	at = (uint8_t *)(uintptr_t)emit_pc(e);
	emit_gs_load(e, T1, GS(vbase));
	if (!b->live_in) {
		emit_gs_abs(e, true, 0x03, T1, GS_NBASE(b->mode & BLOCK_USER, number));	/* add */
		emit_patch_to(e, emit_jcc(e, CC_NE), stray);
	} else {
		emit_gs_load(e, T0, GS_NBASE(b->mode & BLOCK_USER, number));
		emit_lea(e, T1, T1, T0, 0, 1);
		emit_jmp_back_unless_one(e, T1, stray);
	}
	return at;
}

bool same_page(const struct translator *t, int64_t off)
{
	int64_t at = (int64_t)(t->b->pa & 4095) + off;

	return t->b->pa2 == ~0ull && at >= 0 && at < (int64_t)PAGE_SIZE;
}

static struct exit *new_direct_exit(struct translator *t, int64_t off, uint32_t live)
{
	struct exit *x = new_exit(t, EXIT_DIRECT, off);

	x->dead = FLAGS_ARITH & ~live;
	x->leaves_page = !t->absolute && !same_page(t, off);
	return x;
}

void emit_call_exit(struct translator *t, int64_t off, uint32_t live)
{
	struct exit *x = new_direct_exit(t, off, live);

	x->calls = true;
	align_patch(&t->e, 1, 4);
	x->patch = emit_call_near(&t->e);
	add_stub(t, x, x->patch);
}

static bool is_backward(const struct translator *t, int64_t off)
{
	return off <= t->guest_off[t->n - 1];
}

void emit_poll_backward(struct translator *t, int64_t off, uint32_t live)
{
	if (is_backward(t, off))
		emit_poll(t, off, live);
}

void emit_goto(struct translator *t, int64_t off, uint32_t live)
{
	emit_poll_backward(t, off, live);
	emit_exit_jump(t, new_direct_exit(t, off, live));
}

/* A conditional jump that is a way out by itself. */
static void emit_jcc_exit(struct translator *t, unsigned cond, int64_t taken, uint32_t live)
{
	struct exit *x = new_direct_exit(t, taken, live);

	align_patch(&t->e, 2, 4);
	x->patch = emit_jcc(&t->e, cond);
	add_stub(t, x, x->patch);
}

void emit_jcc_exits(struct translator *t, const struct insn *in)
{
	struct emit *e = &t->e;
	int64_t next = t->guest_off[t->n], taken = next + in->imm;
	uint32_t live = t->live[t->n];

	if (t->code32)
		taken = next + (int32_t)in->imm;
	if (!is_backward(t, taken)) {
		emit_jcc_exit(t, in->cond, taken, live);
	} else {
		uint8_t *around = emit_jcc(e, in->cond ^ 1);

		emit_goto(t, taken, live);
		emit_patch_here(e, around);
	}
	emit_goto(t, next, live);
}

void emit_side_exit(struct translator *t, const struct insn *in, struct side_exit *side)
{
	if (t->b->borrowed || t->b->at_home)
		side->jump = emit_jcc(&t->e, in->cond);
	else
		emit_jcc_exit(t, in->cond, side->off, side->live);
}

void emit_rest_of_side_exit(struct translator *t, const struct side_exit *side)
{
	if (!side->jump)
		return;
	emit_patch_here(&t->e, side->jump);
	leave_state(t);
	emit_goto(t, side->off, side->live);
}

void emit_loop_exits(struct translator *t, const struct insn *in)
{
	struct emit *e = &t->e;
	int64_t next = t->guest_off[t->n], taken = next + in->imm;
	uint32_t live = t->live[t->n];
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
		emit_goto(t, next, live);
		emit_patch_here(e, go);
		emit_goto(t, taken, live);
		return;
	}
	if (in->addrsize == 4)
		emit_u8(e, 0x67);
	fall = emit_short(e, 0xe3);
	go = emit_jmp(e);
	emit_patch_short(e, fall);
	emit_goto(t, taken, live);
	emit_patch_here(e, go);
	emit_goto(t, next, live);
}

void emit_helper_exit(struct translator *t, unsigned i)
{
	struct exit *x;
	struct insn *copy = code_arena(t->cc, sizeof(*copy));

	x = new_exit(t, EXIT_HELPER, t->guest_off[i]);
	if (copy)
		*copy = t->insn[i];
	else
		t->e.full = true;
	x->insn = copy;
	emit_exit_now(t, x);
}

void emit_helper(struct translator *t, unsigned i)
{
	leave_state(t);
	emit_helper_exit(t, i);
}

/* ------------------------------------------------------------------- stubs */

/* Goes on at the instruction in a block that looks each of its operands up. */
static void emit_go_plain(struct translator *t, const struct miss_stub *m)
{
	struct exit *x;

	emit_strip_mark(t);
	leave_state(t);
	x = new_exit(t, EXIT_PLAIN, t->guest_off[m->insn]);
	x->dead = FLAGS_ARITH & ~t->live[m->insn];
	emit_exit_jump(t, x);
}

/* S0 is the address of several operands' bytes: leaves if they lie in two pages.  Keeps the flags of a look-up that does. */
static void emit_check_crossing(struct translator *t, const struct miss_stub *m)
{
	struct emit *e = &t->e;
	uint8_t *same;

	emit_lea(e, t->s1, t->s0, NO_INDEX, 0, (int32_t)m->site.size - 1);
	if (m->live) {	/* RCX = page of the last byte + ~page of the first + 1 */
		emit_gs_store(e, GS(tmp), RCX);
		emit_pext_gs(e, RCX, t->s1, GS(page_mask));
		emit_pext_gs(e, t->s1, t->s0, GS(page_mask));
		emit_not(e, t->s1);
		emit_lea(e, RCX, RCX, t->s1, 0, 1);
		same = emit_short(e, 0xe3);
		emit_gs_load(e, RCX, GS(tmp));
		emit_go_plain(t, m);
		emit_patch_short(e, same);
		emit_gs_load(e, RCX, GS(tmp));
	} else {
		emit_op_reg(e, true, 0x33, t->s1, t->s0);
		emit_shift(e, true, SHIFT_SHR, t->s1, 12);
		same = emit_jcc(e, CC_E);
		if (m->remake.on)
			flags_make(t, &m->remake, t->s1);
		emit_go_plain(t, m);
		emit_patch_here(e, same);
	}
}

void emit_miss_stub(struct translator *t, struct miss_stub *m)
{
	struct emit *e = &t->e;
	uint8_t *data;

	emit_patch_here(e, m->jump);
	if (m->live) {
		emit_mov(e, RCX, m->base != NO_REG ? t->s0 : t->s1);	/* emit_jmp_unless_one() */
		if (m->base != NO_REG)
			emit_lea(e, t->s0, m->base, NO_INDEX, 0, m->disp);
		if (m->site.instead == MISS_PLAIN && !t->loop.on)	/* its way out may be too long for JRCXZ */
			emit_check_crossing(t, m);
	} else {
		emit_gs_idx(e, true, 0x2b, t->s0, t->s1, 0, TLB_FIELD(t, m->site.rw, ntag));
		if (m->site.instead == MISS_PLAIN)
			emit_check_crossing(t, m);
		if (m->remake.on)
			flags_make(t, &m->remake, t->s1);
	}
	emit_gs_store(e, GS(miss_address), t->s0);
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

void emit_exit_stub(struct translator *t, const struct exit_stub *s)
{
	struct exit *x = &t->cc->exits[s->exit];

	x->stub = t->e.p;
	emit_patch_here(&t->e, s->jump);
	if (s->rcx_in_t1)
		emit_mov(&t->e, RCX, T1);
	if (x->calls)
		emit_leave_returns(&t->e);
	emit_exit_now(t, x);
}

bool block_make_entry(struct code_cache *cc, struct block *b, enum arrival arrival)
{
	struct emit e = { .p = cc->rw + cc->used, .end = cc->rw + COLD_START, .delta = cc->rx - cc->rw };
	const struct code_page *page = code_page_find(cc, b->pa & PAGE_MASK);
	bool called = arrival == ARRIVE_BY_CALL;
	uint8_t *at;

	if (arrival == ARRIVE_INDIRECT)
		at = emit_entry(&e, b);
	else if (page->number < CODE_NUMBERS)
		at = emit_checked_entry(&e, cc, b, page->number, called);
	else
		return false;
	emit_patch_to(&e, emit_jmp(&e), (uint64_t)(uintptr_t)b->code);
	if (e.full)
		return false;
	cc->used = (size_t)(e.p - cc->rw);
	if (arrival == ARRIVE_INDIRECT) {
		b->entry = at;
	} else {
		b->checked = at;
		b->called = called;
	}
	return true;
}

uint8_t *exit_dispatch(struct code_cache *cc, const struct exit *x)
{
	const struct block *b = x->from;
	struct translator t = {	/* what emit_dispatch() looks at */
		.cc = cc, .b = (struct block *)(uintptr_t)b, .va = b->va, .absolute = b->absolute,
		.user = b->mode & BLOCK_USER, .code32 = b->mode & BLOCK_32,
		.e = { .p = cc->rw + cc->used, .end = cc->rw + COLD_START, .delta = cc->rx - cc->rw },
	};
	uint8_t *code = t.e.p;

	if (x->calls)
		emit_leave_returns(&t.e);
	if (x->kind != EXIT_GUESS)
		emit_guest_va(&t, T0, x->target);
	emit_dispatch(&t, t.user);
	if (t.e.full)
		return NULL;
	cc->used = (size_t)(t.e.p - cc->rw);
	return code;
}
