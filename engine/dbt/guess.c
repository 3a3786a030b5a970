/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Indirect jumps that go where they went before.
 *
 * A program's calls of its libraries, and many of those of a library's own functions, go through a pointer that is written
 * once in the life of a process, next to code (JMP [RIP + n], a PLT).  To look its target up in the jump cache is a jump that the
 * host must have a place for among those it remembers, and a chain of loads until it knows whether it was right.  Such a
 * jump is an exit instead that is linked to a guess:
 *
 *              T0 = where the guest goes
 *              jmp   guess
 *      guess:  if T0 is not where this block is, in this address space (window_private.nbase): to the exit's stub
 *              if somebody wants the vCPU: through thunk_indirect
 *              vbase = that of the block, and go on in it
 *
 * One that was wrong is made anew, unless it mostly is right: each process that binds its functions lazily first goes through
 * the code behind its pointers, which is near.
 */
#include "engine/dbt/run.h"
#include "engine/dbt/translator.h"

bool may_guess(const struct translator *t, unsigned i)
{
	return pairs_calls(t) && t->insn[i].mem && t->insn[i].mem_base == INSN_REG_RIP;
}

void emit_guess(struct translator *t)
{
	emit_exit_jump(t, new_exit(t, EXIT_GUESS, t->guest_off[t->n]));
}

/* The code in front of @to for @x; NULL: there is no room. */
static uint8_t *make_guess(struct code_cache *cc, const struct exit *x, const struct block *to, uint32_t number)
{
	struct emit e = { .p = cc->rw + cc->used, .end = cc->rw + COLD_START, .delta = cc->rx - cc->rw };
	int32_t back = (int32_t)-to->off;
	uint64_t wrong = emit_pc(&e), poll;
	uint8_t *at;

	emit_mov(&e, RCX, T1);
	emit_patch_to(&e, emit_jmp(&e), (uint64_t)(uintptr_t)(x->stub + e.delta));
	poll = emit_pc(&e);
	if (to->live_in)
		emit_mov(&e, RCX, T1);
	emit_gs_jmp(&e, GS(thunk_indirect));
	at = e.p;
	emit_compare_place(&e, number, back);
	emit_jmp_back_unless_one(&e, T1, wrong);
	emit_patch_to(&e, emit_poll_jump(&e, to->live_in), poll);
	emit_set_vbase(&e, back);
	emit_patch_to(&e, emit_jmp(&e), (uint64_t)(uintptr_t)to->code);
	if (e.full)
		return NULL;
	cc->used = (size_t)(e.p - cc->rw);
	return at;
}

void guess_make(struct code_cache *cc, struct exit *x, struct block *to)
{
	const struct code_page *page = code_page_find(cc, to->pa & PAGE_MASK);
	uint8_t *at = page->number < CODE_NUMBERS ? make_guess(cc, x, to, page->number) : NULL;

	exit_unlink(cc, x);
	if (at)
		exit_link_at(cc, x, to, at);
}
