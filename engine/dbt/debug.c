/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Debug registers and single steps, for the guest itself and for a debugger
 * outside it.  Source: SDM vol. 3, chapter 17.
 *
 * Instruction breakpoints are linear addresses, blocks are physical.  While one
 * is in force the vCPU runs BLOCK_BREAK blocks: they end in front of, and are not
 * jumped to without dispatch() at, every page offset that any breakpoint of the VM
 * has had (code_cache.break_at), so dispatch() sees each arrival at one.
 *
 * Watchpoints: pages that hold one are not in the TLB for the accesses watched,
 * which therefore are slow ones (slow.c) or the interpreter's (mem_load() and so
 * on); both call debug_accessed().  The trap comes after the instruction, or after
 * the element of a string instruction.
 *
 * Nothing of this costs anything while no debug register is enabled.
 */
#include "engine/dbt/run.h"

static void add_points(struct cpu *cpu, const uint64_t *dr, uint64_t dr7, uint8_t first)
{
	static const uint8_t lengths[] = { 1, 2, 8, 4 };

	for (unsigned i = 0; i < 4; i++) {
		unsigned control = dr7 >> (16 + 4 * i) & 15;
		struct debug_point *p = &cpu->debug.point[cpu->debug.npoints];

		if (!(dr7 >> (2 * i) & 3))	/* neither local nor global */
			continue;
		p->type = control & 3;
		p->len = p->type == DEBUG_EXEC ? 1 : lengths[control >> 2];
		p->addr = dr[i] & ~(uint64_t)(p->len - 1);
		p->index = (uint8_t)(first + i);
		if (p->type == DEBUG_PORT && !(cpu->cr4 & CR4_DE))
			continue;
		cpu->debug.npoints++;
		cpu->debug.exec |= p->type == DEBUG_EXEC;
		cpu->debug.port |= p->type == DEBUG_PORT;
		cpu->debug.data |= p->type == DEBUG_WRITE || p->type == DEBUG_ACCESS;
	}
}

void debug_update(struct cpu *cpu)
{
	cpu->debug.npoints = 0;
	cpu->debug.exec = cpu->debug.data = cpu->debug.port = false;
	add_points(cpu, cpu->dr, cpu->dr[7], 0);
	add_points(cpu, cpu->debug.outside.dr, cpu->debug.outside.dr7, DEBUG_OUTSIDE);
	for (unsigned i = 0; i < cpu->debug.npoints; i++) {
		const struct debug_point *p = &cpu->debug.point[i];

		if (p->type == DEBUG_EXEC)
			code_break_at(cpu->vm->cc, p->addr);
		else
			mmu_forget_page(cpu, p->addr);
	}
	cpu->mode = cpu->debug.exec ? cpu->mode | BLOCK_BREAK : cpu->mode & ~(uint32_t)BLOCK_BREAK;
}

unsigned debug_watched(const struct cpu *cpu, uint64_t va)
{
	unsigned rw = 0;

	for (unsigned i = 0; i < cpu->debug.npoints; i++) {
		const struct debug_point *p = &cpu->debug.point[i];

		if ((p->addr ^ va) & PAGE_MASK || p->type == DEBUG_EXEC || p->type == DEBUG_PORT)
			continue;
		rw |= p->type == DEBUG_WRITE ? MEM_WRITE : MEM_READ | MEM_WRITE;
	}
	return rw;
}

static void hit(struct cpu *cpu, const struct debug_point *p)
{
	cpu->debug.hits |= (uint8_t)(1u << p->index);
	cpu->stepping |= STEP_HIT;
}

void debug_accessed(struct cpu *cpu, uint64_t va, unsigned size, unsigned rw)
{
	for (unsigned i = 0; i < cpu->debug.npoints; i++) {
		const struct debug_point *p = &cpu->debug.point[i];
		bool wanted = p->type == DEBUG_ACCESS || (p->type == DEBUG_WRITE && rw & MEM_WRITE);

		if (wanted && (va - p->addr < p->len || p->addr - va < size))
			hit(cpu, p);
	}
}

void debug_port(struct cpu *cpu, uint16_t port, unsigned size)
{
	for (unsigned i = 0; i < cpu->debug.npoints; i++) {
		const struct debug_point *p = &cpu->debug.point[i];

		if (p->type == DEBUG_PORT && (port - p->addr < p->len || p->addr - port < size))
			hit(cpu, p);
	}
}

void debug_raise(struct cpu *cpu, uint64_t why, enum event_kind kind)
{
	cpu->dr[6] |= why;
	cpu->dr[7] &= ~(uint64_t)DR7_GD;
	raise_vector(cpu, VEC_DB);
	cpu->pending.kind = (uint8_t)kind;
}

static void leave(struct cpu *cpu, enum vcpu_stop_kind kind, unsigned index)
{
	cpu->debug.stop = (struct vcpu_stop){ .kind = kind, .index = index };
	cpu->leave = LEAVE_DEBUG;
}

bool debug_stops_here(struct cpu *cpu)
{
	uint64_t mine = 0;

	for (unsigned i = 0; i < cpu->debug.npoints; i++) {
		const struct debug_point *p = &cpu->debug.point[i];

		if (p->type != DEBUG_EXEC || p->addr != cpu->rip)
			continue;
		if (p->index >= DEBUG_OUTSIDE) {
			leave(cpu, VCPU_STOP_BREAKPOINT, p->index - DEBUG_OUTSIDE);
			return true;
		}
		mine |= 1ull << p->index;
	}
	if (!mine || cpu->sysflags & FLAG_RF)
		return false;
	debug_raise(cpu, mine, EVENT_FAULT);
	return true;
}

void debug_after_insn(struct cpu *cpu)
{
	uint8_t hits = cpu->debug.hits, step = cpu->stepping;
	uint64_t mine = hits & ((1u << DEBUG_OUTSIDE) - 1);

	cpu->stepping = 0;
	cpu->debug.hits = 0;
	if (step & STEP_TF)
		mine |= DR6_BS;
	if (mine)
		debug_raise(cpu, mine, EVENT_TRAP);
	/* The guest's own trap, if any, stays pending meanwhile. */
	if (hits >> DEBUG_OUTSIDE)
		leave(cpu, VCPU_STOP_WATCHPOINT, (unsigned)__builtin_ctz(hits >> DEBUG_OUTSIDE));
	else if (step & STEP_OUTSIDE)
		leave(cpu, VCPU_STOP_STEP, 0);
}
