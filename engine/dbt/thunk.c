/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few pieces of host code between C and translated code, generated so that
 * they share the offsets of struct cpu with the translator.
 *
 *   enter(cpu, code)   C -> translated; returns when a dbt_*() returned 0
 *   exit, stray, indirect, fault
 *                      save registers, switch to the host stack, call
 *                      dbt_*(cpu), go on where it says
 *
 *   miss               the same, but first tries dbt_miss_quick() without saving registers, then
 *                      dbt_miss_fill(), after which only those that C code may have changed
 *                      are loaded again
 *
 *   return             where a return goes when no call is known: see returns.c
 *
 *   polled             between a jump and the block in entry 0 of a jump cache
 *
 * Vector registers are loaded in enter() and saved only when it returns: the
 * dbt_*() functions are compiled not to touch them.
 */
#include "engine/dbt/run.h"

#include "engine/dbt/emit.h"

#include "base/checked.h"

enum { THUNK_EXIT, THUNK_STRAY, THUNK_MISS, THUNK_INDIRECT, THUNK_FAULT, THUNK_POLLED, THUNK_POLLED_USER, THUNK_RETURN, THUNKS };

struct thunk_places {
	uint64_t enter, entry[THUNKS];
};

static struct thunk_places places_of(const struct dbt_vm *dv)
{
	struct thunk_places p;

	/* The last bytes of the thunk page hold the entry points. */
	copy_bytes(&p, dv->thunks + THUNK_BYTES - sizeof(p), sizeof(p));
	return p;
}

/* Where a thunk keeps host register @r: the guest's R10 and R11 are at home already. */
static uint32_t place_of(unsigned r)
{
	return is_scratch(r) ? GS(scratch) + 8 * (r - T0) : GS(gpr) + 8 * r;
}

static void save_registers(struct emit *e)
{
	for (unsigned r = RAX; r <= R15; r++)
		emit_gs_store(e, place_of(r), r);
}

static void push_gs(struct emit *e, uint32_t off)
{
	emit_gs_abs(e, false, 0xff, 6, off);
}

static void pop_gs(struct emit *e, uint32_t off)
{
	emit_gs_abs(e, false, 0x8f, 0, off);
}

/* T1 = where to go.  Loads flags and registers and goes there. */
static void emit_resume(struct emit *e)
{
	emit_gs_store(e, GS(resume_pc), T1);
	emit_gs_store_imm8(e, GS(in_code), 1);
	push_gs(e, GS(flags));
	emit_u8(e, 0x9d);	/* popfq */
	for (unsigned r = RAX; r <= R15; r++)
		emit_gs_load(e, r, place_of(r));
	emit_gs_jmp(e, GS(resume_pc));
}

static void emit_xsave(struct emit *e, bool restore)
{
	emit_gs_abs(e, false, 0x8b, RAX, GS(xcr0_host));
	emit_gs_abs(e, false, 0x8b, RDX, GS(xcr0_host) + 4);
	emit_gs_load(e, RCX, GS(xsave_area));
	emit_u8(e, 0x48), emit_u8(e, 0x0f), emit_u8(e, 0xae);	/* xsave64/xrstor64 [rcx] */
	emit_u8(e, restore ? 0x29 : 0x21);
}

static void emit_leave_to_c(struct emit *e)
{
	emit_xsave(e, false);
	emit_u8(e, 0xdb), emit_u8(e, 0xe3);	/* fninit: C code expects masked exceptions */
	emit_u8(e, 0x65), emit_u8(e, 0x0f), emit_u8(e, 0xae);	/* ldmxcsr gs:[default_mxcsr] */
	emit_u8(e, 2 << 3 | 4), emit_u8(e, 0x25), emit_u32(e, GS(default_mxcsr));
	emit_u8(e, 0xc5), emit_u8(e, 0xf8), emit_u8(e, 0x77);	/* vzeroupper */
	emit_u8(e, 0x31), emit_u8(e, 0xc0);	/* xor eax, eax */
	emit_lea(e, RSP, RSP, NO_INDEX, 0, 8);
	for (unsigned k = 0; k < 4; k++)
		emit_u8(e, 0x41), emit_u8(e, 0x58 + 7 - k);	/* pop r15 .. r12 */
	emit_u8(e, 0x5d);	/* pop rbp */
	emit_u8(e, 0x5b);	/* pop rbx */
	emit_u8(e, 0xc3);
}

static uint64_t emit_enter(struct emit *e, uint8_t **ret_resume)
{
	uint64_t at = emit_pc(e);

	emit_u8(e, 0x53);	/* push rbx */
	emit_u8(e, 0x55);	/* push rbp */
	for (unsigned k = 0; k < 4; k++)
		emit_u8(e, 0x41), emit_u8(e, 0x50 + 4 + k);	/* push r12 .. r15 */
	emit_lea(e, RSP, RSP, NO_INDEX, 0, -8);
	emit_load(e, RAX, RDI, (int32_t)GS(gs_window));
	emit_u8(e, 0xf3), emit_u8(e, 0x48), emit_u8(e, 0x0f), emit_u8(e, 0xae), emit_u8(e, 0xd8);	/* wrgsbase rax */
	emit_gs_store(e, GS(host_rsp), RSP);
	emit_mov(e, T1, RSI);
	emit_xsave(e, true);
	*ret_resume = e->p;
	emit_resume(e);
	return at;
}

/* RAX = the function at @fn (cpu, RSI), on the host stack; flags say whether it is 0. */
static void emit_call_c(struct emit *e, uint64_t fn)
{
	emit_gs_load(e, RDI, GS(self));
	emit_mov_imm(e, RAX, fn);
	emit_u8(e, 0xff), emit_u8(e, 0xd0);	/* call rax */
	emit_op_reg(e, true, 0x85, RAX, RAX);	/* test rax, rax */
}

/* Calls the function at @fn and goes where it says. */
static void emit_go_by_c(struct emit *e, uint64_t fn, uint8_t *resume)
{
	uint8_t *zero;

	emit_call_c(e, fn);
	zero = emit_short(e, 0x74);
	emit_mov(e, T1, RAX);
	emit_patch_to(e, emit_jmp(e), (uint64_t)((intptr_t)resume + e->delta));
	emit_patch_short(e, zero);
	emit_leave_to_c(e);
}

/* Saves everything, calls @fn(cpu, T1) and goes where it says. */
static uint64_t emit_thunk(struct emit *e, uint64_t fn, uint8_t *resume)
{
	uint64_t at = emit_pc(e);

	save_registers(e);
	emit_gs_load(e, RSP, GS(host_rsp));
	emit_u8(e, 0x9c);	/* pushfq */
	pop_gs(e, GS(flags));
	emit_gs_store_imm8(e, GS(in_code), 0);
	emit_mov(e, RSI, T1);
	emit_go_by_c(e, fn, resume);
	return at;
}

/* Registers that the C calling convention does not preserve, RAX and RDI apart. */
static const uint8_t scratched[] = { RCX, RDX, RSI, R8, R9 };

/* Goes on where a look-up missed: cpu.resume_pc. */
static void emit_look_again(struct emit *e)
{
	emit_gs_load(e, RAX, GS(miss_flags));
	emit_flags_from_ax(e);
	emit_gs_load(e, RAX, GS(gpr) + 8 * RAX);
	emit_gs_load(e, RDI, GS(gpr) + 8 * RDI);
	emit_gs_load(e, RSP, GS(gpr) + 8 * RSP);
	emit_gs_jmp(e, GS(resume_pc));
}

static uint64_t emit_miss(struct emit *e, uint8_t *resume)
{
	uint64_t at = emit_pc(e);
	uint8_t *more, *slow;

	emit_gs_store(e, GS(gpr) + 8 * RAX, RAX);
	emit_gs_store(e, GS(gpr) + 8 * RDI, RDI);
	emit_gs_store(e, GS(gpr) + 8 * RSP, RSP);
	emit_flags_to_ax(e);
	emit_gs_store(e, GS(miss_flags), RAX);
	emit_gs_load(e, RSP, GS(host_rsp));
	emit_call_c(e, (uint64_t)(uintptr_t)&dbt_miss_quick);
	emit_gs_store(e, GS(resume_pc), RAX);
	more = emit_jcc(e, CC_E);
	emit_look_again(e);

	emit_patch_here(e, more);
	for (unsigned r = RCX; r <= R15; r++)
		if (r != RSP && r != RDI && !(SCRATCH_REGISTERS & 1u << r))
			emit_gs_store(e, GS(gpr) + 8 * r, r);
	emit_gs_store(e, GS(scratch), T0);
	emit_gs_store(e, GS(scratch) + 8, T1);
	emit_gs_store_imm8(e, GS(in_code), 0);
	emit_call_c(e, (uint64_t)(uintptr_t)&dbt_miss_fill);
	slow = emit_jcc(e, CC_E);
	emit_gs_store(e, GS(resume_pc), RAX);
	emit_gs_store_imm8(e, GS(in_code), 1);
	for (unsigned k = 0; k < ARRAY_SIZE(scratched); k++)
		emit_gs_load(e, scratched[k], GS(gpr) + 8u * scratched[k]);
	emit_gs_load(e, T0, GS(scratch));
	emit_gs_load(e, T1, GS(scratch) + 8);
	emit_look_again(e);

	emit_patch_here(e, slow);
	emit_go_by_c(e, (uint64_t)(uintptr_t)&dbt_miss, resume);
	return at;
}

/* Arrives as an entry does (emit_entry()).  Flags survive. */
static uint64_t emit_polled(struct emit *e, uint32_t jc)
{
	uint64_t at = emit_pc(e);
	uint8_t *none;

	emit_gs_store(e, GS(tmp), RCX);
	emit_gs_load(e, RCX, GS(exit_request));
	none = emit_short(e, 0xe3);	/* jrcxz */
	emit_gs_load(e, RCX, GS(tmp));
	emit_gs_jmp(e, GS(thunk_indirect));
	emit_patch_short(e, none);
	emit_gs_load(e, RCX, GS(tmp));
	emit_gs_jmp(e, jc + (uint32_t)offsetof(struct jump_cache, polled));
	return at;
}

/* T0 = where the guest goes, T1 = its RSP.  Flags survive. */
static uint64_t emit_return(struct emit *e)
{
	uint64_t at = emit_pc(e);

	emit_mov(e, RSP, T1);
	emit_gs_load(e, T1, GS(returns_empty));
	emit_gs_store(e, GS(returns), T1);
	emit_jmp_table(e, T0, T1, JC_FOLD, GS(jc_mask[JC_USER]), GS_JC_CODE(true));
	return at;
}

/*
 * Entered from a signal handler, which has put the registers and flags at the
 * fault into the block and pointed RSP at the host stack.
 */
static uint64_t emit_fault(struct emit *e, uint8_t *resume)
{
	uint64_t at = emit_pc(e);

	emit_go_by_c(e, (uint64_t)(uintptr_t)&dbt_fault, resume);
	return at;
}

void thunks_emit(struct dbt_vm *dv, uint8_t *rw, uint8_t *rx)
{
	struct emit e = { .p = rw, .end = rw + THUNK_BYTES - sizeof(struct thunk_places), .delta = rx - rw };
	struct thunk_places p;
	uint8_t *resume;

	p.enter = emit_enter(&e, &resume);
	p.entry[THUNK_EXIT] = emit_thunk(&e, (uint64_t)(uintptr_t)&dbt_exit, resume);
	p.entry[THUNK_STRAY] = emit_thunk(&e, (uint64_t)(uintptr_t)&dbt_stray, resume);
	p.entry[THUNK_MISS] = emit_miss(&e, resume);
	p.entry[THUNK_INDIRECT] = emit_pc(&e);
	emit_gs_store(&e, GS(rip), T0);
	(void)emit_thunk(&e, (uint64_t)(uintptr_t)&dbt_indirect, resume);
	p.entry[THUNK_FAULT] = emit_fault(&e, resume);
	p.entry[THUNK_POLLED] = emit_polled(&e, (uint32_t)GS_KJC);
	p.entry[THUNK_POLLED_USER] = emit_polled(&e, (uint32_t)GS_UJC);
	p.entry[THUNK_RETURN] = emit_return(&e);
	copy_bytes(rw + THUNK_BYTES - sizeof(p), &p, sizeof(p));
	dv->thunks = rx;
	dv->enter = (int (*)(struct cpu *, uint64_t))(uintptr_t)p.enter;
}

uint64_t thunk_fault_entry(const struct dbt_vm *dv)
{
	return places_of(dv).entry[THUNK_FAULT];
}

void thunks_bind(const struct dbt_vm *dv, struct cpu *cpu)
{
	struct thunk_places p = places_of(dv);

	cpu->thunk_exit = p.entry[THUNK_EXIT];
	cpu->thunk_stray = p.entry[THUNK_STRAY];
	cpu->thunk_miss = p.entry[THUNK_MISS];
	cpu->thunk_indirect = p.entry[THUNK_INDIRECT];
	cpu->thunk_return = p.entry[THUNK_RETURN];
	cpu->thunk_polled[0] = p.entry[THUNK_POLLED];
	cpu->thunk_polled[1] = p.entry[THUNK_POLLED_USER];
}

void cpu_heavy(struct cpu *cpu, void (*fn)(struct cpu *, void *), void *arg)
{
	uint32_t lo = (uint32_t)cpu->xcr0_host, hi = (uint32_t)(cpu->xcr0_host >> 32);

	cpu->stats.heavy++;
	if (!cpu->vectors_live) {	/* on the way in: xsave[] holds what the guest has, the registers are ours */
		fn(cpu, arg);
		return;
	}
	__asm__ volatile("xsave64 (%2)\n\tfninit\n\tldmxcsr %3"
			 : : "a"(lo), "d"(hi), "r"(cpu->xsave), "m"(cpu->default_mxcsr) : "memory");
	fn(cpu, arg);
	__asm__ volatile("xrstor64 (%2)" : : "a"(lo), "d"(hi), "r"(cpu->xsave) : "memory");
}
