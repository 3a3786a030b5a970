/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between blocks: what translated code calls through the thunks.
 *
 * Every function here that returns to translated code returns a host address;
 * 0 leaves to the run loop with cpu->leave saying why.  On entry guest
 * registers are in cpu->gpr (R10 and R11 always) unless a thunk came out
 * of the middle of a block: then cpu_canonicalize() makes them so.
 */
#include "engine/dbt/run.h"

#include "engine/dbt/miss.h"
#include "vmm/irqchip.h"
#include "vmm/vm.h"

void cpu_update_mode(struct cpu *cpu)
{
	uint32_t mode = 0;

	if (cpu->cpl == 3)
		mode |= BLOCK_USER;
	if (!(cpu->efer & EFER_LMA) || !(cpu->seg[SEG_CS].attr & ATTR_L))
		mode |= BLOCK_32;
	if (cpu->cr0 & (CR0_TS | CR0_EM))
		mode |= BLOCK_NO_FPU;
	if (cpu->debug.exec)
		mode |= BLOCK_BREAK;
	cpu->mode = mode;
	if (mode & BLOCK_32 && !(cpu->seg[SEG_CS].attr & ATTR_DB) && cpu->cr0 & CR0_PE)
		cpu->fatal = "the guest entered 16-bit protected mode, which the dbt engine does not run";
	else if (!(cpu->cr0 & CR0_PE))
		cpu->fatal = "the guest entered real mode, which the dbt engine does not run";
	else if (cpu->cr0 & CR0_PG && !(cpu->efer & EFER_LMA))
		cpu->fatal = "the guest turned on 32-bit paging, which the dbt engine does not run";
	if (cpu->fatal)
		cpu->leave = LEAVE_ERROR;
}

void cpu_canonicalize(struct cpu *cpu, const struct block *b)
{
	for (unsigned r = T0; r <= T1; r++)
		if (b->at_home & 1u << r)
			cpu->gpr[r] = cpu->scratch[r - T0];
	for (unsigned r = RAX; r <= R15; r++)
		if (b->borrowed & 1u << r)
			cpu->gpr[r] = cpu->spill[r];
}

static uint64_t block_rip(const struct cpu *cpu, const struct block *b, unsigned off)
{
	uint64_t rip = (b->absolute ? b->va : cpu->vbase + (uint64_t)b->off) + off;

	return b->mode & BLOCK_32 ? (uint32_t)rip : rip;
}

/* ------------------------------------------------------------------- events */

static void take_interrupt(struct cpu *cpu)
{
	struct irqchip *chip = cpu->vm->irqchip;
	int vector;

	if (!cpu->nmi_masked && irqchip_take_nmi(chip, cpu->index)) {
		cpu->nmi_masked = true;
		cpu->halted = false;
		cpu->pending = (struct event){ .vector = VEC_NMI, .kind = EVENT_NMI };
		cpu->has_pending = true;
		deliver_pending(cpu);
		return;
	}
	if (!cpu->intr_enabled) {
		cpu->deferred = irqchip_pending(chip, cpu->index);
		return;
	}
	cpu->deferred = 0;
	vector = irqchip_take(chip, cpu->index);
	if (vector < 0)
		return;
	cpu->halted = false;
	cpu->stats.interrupts++;
	deliver_interrupt(cpu, (unsigned)vector);
	/* More may wait; they are deferred by the cleared IF. */
	cpu->deferred = irqchip_pending(chip, cpu->index);
}

/* Everything that asked this vCPU to look up.  May set cpu->leave. */
static void handle_requests(struct cpu *cpu)
{
	jc_open(cpu);	/* in this order: a request that comes between stays seen */
	atomic_store(&cpu->exit_request, 0);
	atomic_fetch_add(&cpu->looks, 1);
	cpu->exit_self = 0;
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load(&cpu->kicked))
		cpu->leave = LEAVE_KICKED;
	if (atomic_load(&cpu->vm->vm->request) != VM_REQUEST_NONE)
		cpu->leave = LEAVE_REQUEST;
	if (atomic_load(&cpu->vm->stop_wanted))
		cpu->leave = LEAVE_STOP;
	if (atomic_exchange(&cpu->timer_fired, false))
		irqchip_timer_expired(cpu->vm->irqchip, cpu->index);
	if (cpu->leave)
		ask_to_exit(cpu);	/* look again on return */
	else if (!cpu->debug.outside.single_step || cpu->halted)
		take_interrupt(cpu);
}

/* -------------------------------------------------------------- next block */

/* Jump caches hold code of one mode; changing it empties them. */
static void check_jc_mode(struct cpu *cpu)
{
	struct window_private *w = cpu_window(cpu, cpu->context);

	if (cpu->mode & BLOCK_USER) {
		if (w->jc_mode != cpu->mode) {
			jc_flush_user(cpu);
			w->jc_mode = cpu->mode;
		}
	} else if (cpu->kjc_mode != cpu->mode) {
		jc_flush_kernel(cpu);
		cpu->kjc_mode = cpu->mode;
		cpu->syscall_ready = 0;
	}
}

static bool requests_wait(const struct cpu *cpu)
{
	return atomic_load_explicit(&cpu->exit_request, memory_order_relaxed) | cpu->exit_self;
}

/* Settles everything between two instructions and finds the next block. */
static struct block *next_block(struct cpu *cpu, enum arrival arrival)
{
	for (;;) {
		bool shadow, resume;
		struct block *b;

		if (cpu->stepping && !cpu->has_pending)
			debug_after_insn(cpu);
		if (cpu->has_pending && !cpu->leave) {	/* a fault or INT n: no trap for the instruction */
			cpu->intr_shadow = false;
			deliver_pending(cpu);
			cpu->stepping &= STEP_OUTSIDE;	/* nor do watchpoints see the delivery's own accesses */
			cpu->debug.hits = 0;
			if (cpu->stepping && !cpu->leave)
				debug_after_insn(cpu);
		}
		if (cpu->leave)
			return NULL;
		shadow = cpu->intr_shadow && !atomic_load(&cpu->kicked);
		if (requests_wait(cpu) && !shadow) {
			bool held = cpu->intr_shadow;

			cpu->intr_shadow = false;
			handle_requests(cpu);
			if (cpu->leave) {	/* the shadow lasts until the next instruction, whenever that is */
				cpu->intr_shadow = held;
				return NULL;
			}
		}
		cpu->intr_shadow = false;
		if (cpu->halted) {
			cpu->leave = LEAVE_HALT;
			return NULL;
		}
		check_jc_mode(cpu);
		if (cpu->debug.exec && debug_stops_here(cpu))
			continue;
		resume = cpu->debug.exec && cpu->sysflags & FLAG_RF;
		if (cpu->sysflags & FLAG_TF || cpu->debug.outside.single_step || resume ||
		    (shadow && requests_wait(cpu))) {
			b = cpu_find_block(cpu, cpu->mode | BLOCK_SINGLE, ARRIVE_WITHIN);
			if (b) {
				cpu->stepping = (cpu->sysflags & FLAG_TF ? STEP_TF : 0) |
						(cpu->debug.outside.single_step ? STEP_OUTSIDE : 0);
				cpu->sysflags &= resume ? ~FLAG_RF : ~0u;
			}
		} else {
			b = cpu_find_block(cpu, cpu->mode, arrival);
		}
		if (b)
			return b;
		if (cpu->leave)
			return NULL;
	}
}

static uint64_t enter_block(struct cpu *cpu, const struct block *b)
{
	if (!b->absolute)
		cpu->vbase = cpu->rip - (uint64_t)b->off;
	return (uint64_t)(uintptr_t)b->code;
}

/* What the jump cache knows about cpu->rip, when nothing else needs settling; 0: ask next_block(). */
static uint64_t cached_code(struct cpu *cpu)
{
	const struct jump_cache *jc = cpu->mode & BLOCK_USER ? &cpu_window(cpu, cpu->context)->ujc : &cpu->kjc;
	const struct jc_entry *e;
	unsigned n;

	if (cpu->has_pending | cpu->leave | cpu->halted | cpu->stepping || requests_wait(cpu) ||
	    cpu->sysflags & FLAG_TF || cpu->debug.outside.single_step ||
	    (cpu->debug.exec && cpu->sysflags & FLAG_RF))
		return 0;
	check_jc_mode(cpu);
	n = jc_index(jc, cpu->rip);
	e = &jc->entry[n];
	if (cpu->rip + e->ntag != 0 || e->code == cpu->thunk_indirect)
		return 0;
	cpu->intr_shadow = false;	/* nothing waited; what has come since waits for the next poll */
	cpu->scratch[0] = cpu->rip;	/* as an indirect jump comes: see emit_entry() */
	cpu->scratch[1] = 2 * n;
	return n ? e->code : jc->polled;
}

uint64_t dispatch(struct cpu *cpu)
{
	struct block *b;
	uint64_t code;

	if (cpu->has_pending && !(cpu->leave | cpu->stepping | cpu->debug.hits)) {	/* as next_block() does */
		cpu->intr_shadow = false;
		deliver_pending(cpu);
	}
	code = cached_code(cpu);
	if (code)
		return code;
	b = next_block(cpu, ARRIVE_INDIRECT);
	if (!b)
		return 0;
	return enter_block(cpu, b);
}

/* The rest of a block, or a loop for one round, with a look-up for each operand. */
static uint64_t dispatch_plain(struct cpu *cpu)
{
	struct block *b = cpu_find_block(cpu, cpu->mode | BLOCK_PLAIN, ARRIVE_WITHIN);

	return b ? enter_block(cpu, b) : dispatch(cpu);
}

uint64_t dispatch_slow(struct cpu *cpu)
{
	struct block *b = cpu_find_block(cpu, cpu->mode | BLOCK_SLOW, ARRIVE_WITHIN);

	return b ? enter_block(cpu, b) : dispatch(cpu);
}

/* -------------------------------------------------------------------- links */

#define GUESS_NEAR (1ll << 16)	/* bytes: what finds out what a pointer is to be lies beside the jump through it */
#define WRONG_MAX 64u	/* that often a guess may be wrong with code that is near; */
#define WRONG_NEAR_MAX 4u	/* if what it guesses is that */

static bool same_vbase(const struct cpu *cpu, const struct block *b)
{
	return b->absolute || cpu->rip - (uint64_t)b->off == cpu->exit_vbase;
}

/*
 * Decides whether exit @x may from now on jump straight to @b, which is what
 * cpu->rip leads to at this moment.
 */
static bool may_link(struct cpu *cpu, const struct exit *x, struct block *b)
{
	const struct block *from = x->from;

	if (!from->valid || !b->valid || b->mode != (from->mode & ~BLOCK_PLAIN) || !may_cache(cpu, b) ||
	    b->pa2 != ~0ull || b->absolute != from->absolute)
		return false;
	if (x->kind == EXIT_GUESS)
		return !code_cache_full(cpu->vm->cc);
	if (!same_vbase(cpu, b))
		return false;
	if (x->leaves_page || x->calls)
		return !(x->leaves_page && b->contested) && has_entry(cpu, b, exit_arrival(x));
	if (from->pa2 == ~0ull && (b->pa & PAGE_MASK) == (from->pa & PAGE_MASK))
		return true;
	return b->absolute && cpu->rip >> 63 && !cpu->kernel_code_moves;	/* another page: only where CR3 does not matter */
}

/* A page whose blocks are relative to another vbase than the code that goes there: make them anew. */
static bool move_page(struct cpu *cpu, const struct exit *x, const struct block *b)
{
	int64_t off = (int64_t)((cpu->rip & PAGE_MASK) - cpu->exit_vbase);
	bool moved;

	if (!x->from->valid || b->absolute || x->from->absolute || same_vbase(cpu, b) || off <= -VBASE_REACH || off >= VBASE_REACH)
		return false;
	lock_take(&cpu->vm->cc->lock);
	moved = code_page_move(cpu->vm->cc, b->pa & PAGE_MASK, off);
	lock_drop(&cpu->vm->cc->lock);
	return moved;
}

static void run_divert(struct cpu *cpu, void *arg)
{
	uint8_t *code = exit_dispatch(cpu->vm->cc, arg);

	if (code)
		exit_divert(cpu->vm->cc, arg, code);
}

struct guess_job {
	struct exit *x;
	struct block *to;
};

static void run_guess(struct cpu *cpu, void *arg)
{
	const struct guess_job *j = arg;

	guess_make(cpu->vm->cc, j->x, j->to);
}

static void link_exit(struct cpu *cpu, struct exit *x, struct block *b)
{
	if (x->kind == EXIT_GUESS)
		cpu_heavy(cpu, run_guess, &(struct guess_job){ x, b });
	else
		exit_link(cpu->vm->cc, x, b);
	cpu->stats.links++;
}

/* Links @x to @b, or sees to it that it does not come here for ever.  Lock held. */
static void settle_exit(struct cpu *cpu, struct exit *x, struct block *b)
{
	struct code_cache *cc = cpu->vm->cc;

	if (!exit_flags_agree(cc, x, b) || !code_worth_owning(cc, x->patch)) {
		/* the block is gone, or the exit too rare */
	} else if (x->relinks < EXIT_RELINKS_MAX) {
		x->relinks++;
		if (may_link(cpu, x, b))
			link_exit(cpu, x, b);
	} else if (x->from->valid && !(b->absolute && cpu->kernel_code_moves) && !code_cache_full(cc)) {
		exit_unlink(cc, x);
		cpu_heavy(cpu, run_divert, x);
	}
}

/*
 * Whether guess @x, which has now led to @b, @distance bytes from it, is as good as another.  Each process that binds its functions
 * lazily first goes through code that lies beside the jump.
 */
static bool guess_is_good(struct exit *x, const struct block *b, int64_t distance)
{
	bool near = distance > -GUESS_NEAR && distance < GUESS_NEAR;

	if (x->to == b || (x->to && near && ++x->wrong < (x->near ? WRONG_NEAR_MAX : WRONG_MAX)))
		return true;
	x->near = near;
	x->wrong = 0;
	return false;
}

static uint64_t follow_exit(struct cpu *cpu, struct exit *x)
{
	enum arrival arrival = exit_arrival(x);
	uint64_t rip = cpu->rip;
	struct block *b = next_block(cpu, arrival);

	if (b && cpu->rip == rip && move_page(cpu, x, b))
		b = next_block(cpu, arrival);
	if (!b)
		return 0;
	if (cpu->rip == rip) {
		lock_take(&cpu->vm->cc->lock);
		settle_exit(cpu, x, b);
		lock_drop(&cpu->vm->cc->lock);
	}
	return enter_block(cpu, b);
}

/* An indirect jump to @to from in front of cpu->rip that was guessed wrong, or not yet. */
static uint64_t follow_guess(struct cpu *cpu, struct exit *x, uint64_t to)
{
	int64_t distance = (int64_t)(to - cpu->rip);
	struct block *b;

	cpu->rip = to;
	b = next_block(cpu, ARRIVE_INDIRECT);
	if (!b)
		return 0;
	if (cpu->rip == to) {
		lock_take(&cpu->vm->cc->lock);
		if (!guess_is_good(x, b, distance))
			settle_exit(cpu, x, b);
		lock_drop(&cpu->vm->cc->lock);
	}
	return enter_block(cpu, b);
}

/* The rest of a block whose look-up for several operands met the end of a page. */
static uint64_t follow_to_plain(struct cpu *cpu, struct exit *x)
{
	struct block *b = cpu_find_block(cpu, cpu->mode | BLOCK_PLAIN, ARRIVE_WITHIN);

	if (!b)
		return dispatch(cpu);
	lock_take(&cpu->vm->cc->lock);
	if (exit_flags_agree(cpu->vm->cc, x, b) && x->from->valid && b->valid && b->pa2 == ~0ull && same_vbase(cpu, b) &&
	    code_worth_owning(cpu->vm->cc, x->patch))
		exit_link(cpu->vm->cc, x, b);
	lock_drop(&cpu->vm->cc->lock);
	return enter_block(cpu, b);
}

/* ------------------------------------------------------------------- thunks */

static void tidy_flags(struct cpu *cpu)
{
	cpu->flags = (cpu->flags & FLAGS_ARITH) | 2;
}

uint64_t dbt_exit(struct cpu *cpu, uint64_t exit_index)
{
	struct exit *x = &cpu->vm->cc->exits[exit_index];

	tidy_flags(cpu);
	cpu->stats.exits++;
	cpu->exit_vbase = cpu->vbase;
	cpu->rip = (uint64_t)x->target + (x->from->absolute ? 0 : cpu->vbase);
	if (x->from->mode & BLOCK_32)
		cpu->rip = (uint32_t)cpu->rip;
	switch ((enum exit_kind)x->kind) {
	case EXIT_DIRECT:
		return follow_exit(cpu, x);
	case EXIT_PLAIN:
		return follow_to_plain(cpu, x);
	case EXIT_POLL:
		break;
	case EXIT_HELPER:
		cpu->stats.helpers++;
		interpret(cpu, x->insn);
		break;
	case EXIT_COMMIT:
		slow_commit(cpu);
		break;
	case EXIT_GUESS:
		return follow_guess(cpu, x, cpu->scratch[0]);
	}
	return dispatch(cpu);
}

uint64_t dbt_stray(struct cpu *cpu, uint64_t block_index)
{
	struct block *b = &cpu->vm->cc->blocks[block_index], *now;
	uint64_t rip = cpu->vbase + (uint64_t)b->off;

	tidy_flags(cpu);
	cpu->stats.strays++;
	cpu->rip = rip;
	now = next_block(cpu, ARRIVE_FROM_PAGE);
	if (!now)
		return 0;
	if (cpu->rip == rip && now != b && now->mode == b->mode) {	/* mostly it was only not known to be there yet */
		lock_take(&cpu->vm->cc->lock);
		block_strayed(cpu->vm->cc, b, now);
		lock_drop(&cpu->vm->cc->lock);
	}
	return enter_block(cpu, now);
}

uint64_t dbt_indirect(struct cpu *cpu)
{
	tidy_flags(cpu);
	cpu->stats.jc_miss++;
	if (!atomic_load(&cpu->jc_mask[JC_USER]) && !atomic_load(&cpu->exit_request)) {
		/* What was asked for has been done already. */
		jc_open(cpu);
		if (atomic_load(&cpu->exit_request))
			jc_close(cpu);
	}
	return dispatch(cpu);
}

/* Flags from AH as LAHF left it and AL as SETO did. */
static void take_flags(struct cpu *cpu, uint64_t image)
{
	cpu->flags = (image >> 8 & 0xff & FLAGS_ARITH) | (image & 1 ? FLAG_OF : 0) | 2;
}

static const struct miss_site *missed_site(const struct cpu *cpu)
{
	return (const struct miss_site *)(uintptr_t)cpu->miss_data;
}

uint64_t dbt_miss_fill(struct cpu *cpu)
{
	const struct miss_site *site = missed_site(cpu);
	struct translation tr;
	uint32_t error;
	int vector;

	cpu->stats.tlb_miss++;
	if ((cpu->miss_address & 4095) + site->size > PAGE_SIZE ||
	    mmu_fill(cpu, cpu->miss_address, site->rw, site->user, &tr, &vector, &error) != FILL_OK)
		return 0;
	return site_pc(cpu->miss_data, site);
}

/* Translated code was left in the middle of a block for good: it holds no look-ups any more. */
static void end_strip(struct cpu *cpu)
{
	if (atomic_load_explicit(&cpu->strips, memory_order_relaxed) & 1)
		atomic_fetch_add(&cpu->strips, 1);
}

uint64_t dbt_miss(struct cpu *cpu)
{
	const struct miss_site *site = missed_site(cpu);
	uint64_t ea = cpu->miss_address;
	const struct block *b = block_of_pc(cpu->vm->cc, site_pc(cpu->miss_data, site));
	struct translation tr;
	uint32_t error;
	enum fill r;
	int vector;

	r = mmu_fill(cpu, ea, site->rw, site->user, &tr, &vector, &error);
	end_strip(cpu);
	cpu_canonicalize(cpu, b);
	cpu->rip = block_rip(cpu, b, block_guest_off(b, site_pc(cpu->miss_data, site)));
	take_flags(cpu, site->flags_saved ? cpu->tmp[3] : cpu->miss_flags);
	if (site->instead == MISS_PLAIN)
		return dispatch_plain(cpu);
	/* What may not be this fault after all, and #GP, which may be #SS, get a closer look in slow.c. */
	if (r == FILL_FAULT && vector == VEC_PF && insn_fault_is_sure(site->careful, ea)) {
		raise_access(cpu, vector, ea, error);
		return dispatch(cpu);
	}
	cpu->stats.slow++;
	return slow_start(cpu, ea, site->size, site->rw, site->user);
}

/* A fault of the host CPU inside translated code; the signal handler filled cpu->fault. */
uint64_t dbt_fault(struct cpu *cpu)
{
	const struct block *b = block_of_pc(cpu->vm->cc, cpu->fault.pc);

	tidy_flags(cpu);
	end_strip(cpu);
	if (!b) {
		cpu->fatal = "the translator itself faulted (please report this)";
		cpu->leave = LEAVE_ERROR;
		return 0;
	}
	cpu_canonicalize(cpu, b);
	cpu->rip = block_rip(cpu, b, block_guest_off(b, cpu->fault.pc));
	if (cpu->fault.vector == VEC_PF)
		slow_raise(cpu, cpu->fault.address);
	else if (cpu->fault.vector == VEC_GP || cpu->fault.vector == VEC_SS)
		raise_error(cpu, VEC_GP, 0);
	else
		raise_vector(cpu, cpu->fault.vector);
	return dispatch(cpu);
}
