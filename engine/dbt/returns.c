/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls and returns of the guest as calls and returns of the host.
 *
 * A return is an indirect jump, and where a function has many callers the host cannot tell from the past where that one
 * goes.  It can from its own stack of return addresses, which only its CALL and RET work on.  So a guest's call makes one
 * of the host's, on a stack for that:
 *
 *   call:   [push the guest's return address on the guest's stack]
 *           mov  T1, RSP
 *           mov  RSP, gs:[returns]
 *           call target             if that is known: to the block itself (ARRIVE_BY_CALL)
 *   landing:
 *           mov  gs:[returns], RSP
 *           mov  RSP, T1
 *           if T0 is where the guest's call returns to, and the caller's page is there (user_code.c),
 *           vbase = that of the caller, and go on there; otherwise through the jump cache
 *   target: mov  gs:[returns], RSP
 *           mov  RSP, T1
 *           go to where the guest's call goes
 *
 * and a return, with T0 = where the guest goes:
 *
 *           mov  T1, RSP
 *           mov  RSP, gs:[returns]
 *           ret
 *
 * The two need not be in step, as they are not after longjmp() or a switch of tasks: then landings are the wrong ones, until
 * the calls that they are of are all undone.  At the bottom of the stack lies the address of thunk_return, as if it were a
 * landing.  A stack that is full begins anew: see on_fault().
 *
 * Landings go on with code of their block's mode, so only user code of the usual mode does all this.  The kernel's returns
 * are foretold well enough without, and what it takes made system calls 11 % slower.  Nothing loops by returns alone: they
 * need no poll.
 */
#include "engine/dbt/run.h"
#include "engine/dbt/translator.h"

bool pairs_calls(const struct translator *t)
{
	return (t->b->mode & ~(uint32_t)BLOCK_PLAIN) == BLOCK_USER;
}

/* The guest's RSP waits in T1. */
static void enter_returns(struct emit *e)
{
	emit_mov(e, T1, RSP);
	emit_gs_load(e, RSP, GS(returns));
}

void emit_leave_returns(struct emit *e)
{
	emit_gs_store(e, GS(returns), RSP);
	emit_mov(e, RSP, T1);
}

static void emit_landing(struct translator *t)
{
	struct emit *e = &t->e;
	int32_t back = (int32_t)-block_va(t, t->guest_off[t->n]);

	emit_leave_returns(e);
	if (!same_page(t, t->guest_off[t->n]) || t->number >= CODE_NUMBERS) {
		emit_dispatch(t, true);
		return;
	}
	emit_compare_place(e, t->number, back);
	t->strayed = emit_jmp_unless_one(e, T1);
	emit_set_vbase(e, back);
	emit_goto(t, t->guest_off[t->n], live_at(t, t->guest_off[t->n]));
	t->last_jump->returns = true;
}

void emit_paired_call(struct translator *t, int64_t off)
{
	uint32_t live = t->live[t->n];

	emit_poll_backward(t, off, live);
	enter_returns(&t->e);
	emit_call_exit(t, off, live);
	emit_landing(t);
}

void emit_paired_call_indirect(struct translator *t)
{
	struct emit *e = &t->e;
	uint8_t *target;

	enter_returns(e);
	target = emit_call_near(e);
	emit_landing(t);
	emit_patch_here(e, target);
	emit_leave_returns(e);
}

void emit_paired_return(struct translator *t)
{
	enter_returns(&t->e);
	emit_u8(&t->e, 0xc3);
}

void emit_strayed_return(struct translator *t)
{
	if (!t->strayed)
		return;
	emit_patch_here(&t->e, t->strayed);
	emit_mov(&t->e, RCX, T1);
	emit_dispatch(t, true);
}
