/* SPDX-License-Identifier: Apache-2.0 */
/* The XSAVE family. */
#include "engine/dbt/interpret.h"

#include "engine/dbt/run.h"

/* A malformed image makes the host instruction fault: check what can be wrong first. */
static bool xrstor_checked(struct cpu *cpu, const struct insn *in, const uint8_t *area, uint64_t mask)
{
	uint32_t lo = (uint32_t)mask, hi = (uint32_t)(mask >> 32), mxcsr;
	uint64_t bv, comp;
	uint32_t reserved = ~cpu->mxcsr_mask;
	bool bad = false, fx = in->sys == SYS_FXRSTOR;

	copy_bytes(&mxcsr, area + 24, 4);
	copy_bytes(&bv, area + 512, 8);
	copy_bytes(&comp, area + 520, 8);
	if (fx) {
		bad = mxcsr & reserved;
	} else {
		const uint64_t *rest = (const uint64_t *)(const void *)(area + 528);

		bad = bv & ~cpu->xcr0;
		if (comp >> 63)
			bad = bad || (comp & ~(1ull << 63) & ~cpu->xcr0) || (bv & ~comp);
		else
			bad = bad || comp;
		/* Standard format: bytes 23:8 of the header; compacted: 63:16 (SDM vol. 1, 13.8). */
		for (unsigned i = 0; i < (comp >> 63 ? 6 : 1); i++)
			bad = bad || rest[i];
		if (mask & 6 && (!(comp >> 63) || bv & 2))
			bad = bad || mxcsr & reserved;
	}
	if (bad) {
		raise_error(cpu, VEC_GP, 0);
		return false;
	}
	if (fx)
		__asm__ volatile("fxrstor64 (%0)" : : "r"(area) : "memory");
	else
		__asm__ volatile("xrstor64 (%0)" : : "r"(area), "a"(lo), "d"(hi) : "memory");
	return true;
}

/*
 * XSAVE family: on the guest's memory itself where it is one piece of host
 * memory (the optimised forms remember addresses), else through a copy.
 */
bool xsave_insn(struct cpu *cpu, const struct insn *in)
{
	uint64_t at = operand_address(cpu, in);
	uint64_t mask = ((uint32_t)cpu->gpr[RAX] | cpu->gpr[RDX] << 32) & cpu->xcr0;
	bool fx = in->sys == SYS_FXSAVE || in->sys == SYS_FXRSTOR;
	bool write = in->sys == SYS_XSAVE || in->sys == SYS_XSAVEC || in->sys == SYS_FXSAVE;
	unsigned size = fx ? 512 : cpu->xsave_size;
	uint8_t *area = cpu->xsave_copy;
	uint32_t lo = (uint32_t)mask, hi = (uint32_t)(mask >> 32), error = 0;
	int vector;

	if (cpu->cr0 & (CR0_TS | CR0_EM)) {
		raise_vector(cpu, VEC_NM);
		return false;
	}
	if (!fx && !(cpu->cr4 & CR4_OSXSAVE)) {
		raise_vector(cpu, VEC_UD);
		return false;
	}
	if (at & (fx ? 15 : 63)) {
		raise_error(cpu, VEC_GP, 0);
		return false;
	}
	/* The area as it is, so that components left alone stay, and so that all of it is accessible. */
	vector = write ? mem_probe(cpu, at, size, MEM_WRITE, cpu->cpl == 3, &error) : 0;
	if (!vector)
		vector = mem_load(cpu, at, area, size, cpu->cpl == 3, &error);
	if (vector) {
		raise_access(cpu, vector, cpu->fault_va, error);
		return false;
	}
	switch ((int)in->sys) {
	case SYS_FXSAVE:
		__asm__ volatile("fxsave64 (%0)" : : "r"(area) : "memory");
		break;
	case SYS_XSAVE:
		__asm__ volatile("xsave64 (%0)" : : "r"(area), "a"(lo), "d"(hi) : "memory");
		break;
	case SYS_XSAVEC:
		__asm__ volatile("xsavec64 (%0)" : : "r"(area), "a"(lo), "d"(hi) : "memory");
		break;
	default:
		return xrstor_checked(cpu, in, area, mask);
	}
	if (write && !store_data(cpu, at, area, size))
		return false;
	return true;
}
