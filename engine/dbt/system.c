/* SPDX-License-Identifier: Apache-2.0 */
/* System instructions, and the odd ones that nobody uses often. */
#include "engine/dbt/interpret.h"

#include "engine/dbt/run.h"

#include "vmm/vm.h"

/* The table and the clock are ordinary code: they may use vector registers. */
static void run_cpuid(struct cpu *cpu, void *arg)
{
	struct cpuid_dynamic dyn = { .apic_id = cpu->index, .osxsave = !!(cpu->cr4 & CR4_OSXSAVE), .xcr0 = cpu->xcr0 };

	cpuid_query(cpu->vm->cpuid, &dyn, (uint32_t)cpu->gpr[RAX], (uint32_t)cpu->gpr[RCX], arg);
}

static void do_cpuid(struct cpu *cpu)
{
	uint32_t r[4];

	cpu_heavy(cpu, run_cpuid, r);
	cpu->gpr[RAX] = r[CPUID_EAX];
	cpu->gpr[RBX] = r[CPUID_EBX];
	cpu->gpr[RCX] = r[CPUID_ECX];
	cpu->gpr[RDX] = r[CPUID_EDX];
}

/* IOPL, else the bitmap in the TSS (SDM vol. 1, 19.5.2). */
bool port_allowed(struct cpu *cpu, uint16_t port, unsigned size)
{
	uint16_t map, bits;
	uint32_t error;

	if (cpu->cpl <= (cpu->sysflags >> 12 & 3))
		return true;
	if (cpu->tr.limit < 0x67 || mem_load(cpu, cpu->tr.base + 0x66, &map, 2, false, &error) ||
	    map + port / 8u + 1 > cpu->tr.limit ||
	    mem_load(cpu, cpu->tr.base + map + port / 8, &bits, 2, false, &error))
		return false;
	return !(bits >> (port & 7) & ((1u << size) - 1));
}

static bool port_insn(struct cpu *cpu, const struct insn *in)
{
	bool write = in->sys == SYS_OUT, by_dx = in->opcode & 8;
	unsigned size = in->opcode & 1 ? (in->opsize == 2 ? 2 : 4) : 1;
	uint16_t port = by_dx ? (uint16_t)cpu->gpr[RDX] : (uint8_t)in->imm;
	uint32_t v = (uint32_t)read_gpr(cpu, RAX, size);

	if (!port_allowed(cpu, port, size)) {
		raise_error(cpu, VEC_GP, 0);
		return false;
	}
	(void)port_access(cpu, port, size, write, &v);
	if (!write)
		write_gpr(cpu, RAX, size, v);
	return true;
}

static bool decimal_insn(struct cpu *cpu, const struct insn *in)
{
	uint32_t al = (uint8_t)cpu->gpr[RAX], ah = cpu->gpr[RAX] >> 8 & 0xff, old_al = al;
	bool cf = cpu->flags & FLAG_CF, af = cpu->flags & FLAG_AF, low;
	uint32_t base = (uint8_t)in->imm, result;

	switch (in->opcode) {
	case 0x27:	/* DAA */
	case 0x2f:	/* DAS */
		low = (al & 15) > 9 || af;
		if (low)
			al += in->opcode == 0x27 ? 6 : 0x100 - 6;
		if (old_al > 0x99 || cf) {
			al += in->opcode == 0x27 ? 0x60 : 0x100 - 0x60;
			cf = true;
		} else if (in->opcode == 0x2f && low) {
			cf = old_al < 6;
		} else {
			cf = in->opcode == 0x27 && low && old_al > 0xf9;
		}
		af = low;
		break;
	case 0x37:	/* AAA */
	case 0x3f:	/* AAS */
		low = (al & 15) > 9 || af;
		if (low) {
			uint32_t ax = ah << 8 | al;

			ax += in->opcode == 0x37 ? 0x106u : 0x10000u - 0x106u;
			ah = ax >> 8 & 0xff;
			al = ax;
		}
		al &= 15;
		af = cf = low;
		break;
	case 0xd4:	/* AAM */
		if (base == 0) {
			raise_vector(cpu, VEC_DE);
			return false;
		}
		ah = al / base;
		al %= base;
		af = cf = false;
		break;
	default:	/* AAD */
		al += ah * base;
		ah = 0;
		af = cf = false;
		break;
	}
	result = al & 0xff;
	write_gpr(cpu, RAX, 2, ah << 8 | result);
	cpu->flags = 2 | (cf ? FLAG_CF : 0) | (af ? FLAG_AF : 0) | (result ? 0 : FLAG_ZF) |
		(result & 0x80 ? FLAG_SF : 0) | (__builtin_parity(result) ? 0 : FLAG_PF);
	return true;
}

/* KVM hypercalls: none is offered. */
static bool hypercall(struct cpu *cpu)
{
	cpu->gpr[RAX] = (uint64_t)-1000;	/* KVM_ENOSYS */
	return true;
}

static bool invpcid_insn(struct cpu *cpu, const struct insn *in)
{
	uint64_t type = read_gpr(cpu, insn_reg(in), 8), desc[2];

	if (!load_operand(cpu, in, desc, 16))
		return false;
	if (type > 3 || desc[0] >> 12 || (type == 0 && !canonical(desc[1])) ||
	    (type < 2 && desc[0] && !(cpu->cr4 & CR4_PCIDE))) {
		raise_error(cpu, VEC_GP, 0);
		return false;
	}
	mmu_invpcid(cpu, (unsigned)type, desc[0], desc[1]);
	return true;
}

static bool is_amd(const struct cpu *cpu)
{
	const struct cpuid_entry *e = &cpu->vm->cpuid->entry[0];

	return e->leaf == 0 && e->reg[CPUID_EBX] == 0x68747541;	/* "Auth" */
}

bool system_insn(struct cpu *cpu, const struct insn *in, uint64_t next, bool *ret_jumped)
{
	uint64_t v;

	*ret_jumped = false;
	switch ((enum insn_sys)in->sys) {
	case SYS_SYSCALL: *ret_jumped = true; do_syscall(cpu, next); return true;
	case SYS_SYSRET: *ret_jumped = true; do_sysret(cpu, in); return true;
	case SYS_SYSENTER:
	case SYS_SYSEXIT:
		if (cpu->efer & EFER_LMA && is_amd(cpu))
			break;	/* undefined in long mode there (AMD64 manual, vol. 3) */
		*ret_jumped = true;
		if (in->sys == SYS_SYSENTER)
			do_sysenter(cpu);
		else
			do_sysexit(cpu, in);
		return true;
	case SYS_IRET: *ret_jumped = true; do_iret(cpu, in); return true;
	case SYS_JMP_FAR:
	case SYS_CALL_FAR:
	case SYS_RET_FAR: *ret_jumped = true; do_far(cpu, in, next); return true;
	case SYS_INT: *ret_jumped = true; software_interrupt(cpu, (uint8_t)in->imm, next); return true;
	case SYS_INT3:
		if (cpu->debug.outside.int3) {
			cpu->debug.stop = (struct vcpu_stop){ .kind = VCPU_STOP_INT3 };
			cpu->leave = LEAVE_DEBUG;
			cpu->stepping = 0;
			return false;
		}
		*ret_jumped = true;
		software_interrupt(cpu, VEC_BP, next);
		return true;
	case SYS_INT1:
		cpu->rip = next;
		raise_vector(cpu, VEC_DB);
		cpu->pending.kind = EVENT_TRAP;
		*ret_jumped = true;
		return true;
	case SYS_INTO:
		*ret_jumped = cpu->flags & FLAG_OF;
		if (*ret_jumped)
			software_interrupt(cpu, VEC_OF, next);
		return true;
	case SYS_HLT: cpu->halted = true; return true;
	case SYS_CPUID: do_cpuid(cpu); return true;
	case SYS_RDMSR:
	case SYS_WRMSR: return msr_insn(cpu, in);
	case SYS_XGETBV:
	case SYS_XSETBV: return xcr_insn(cpu, in);
	case SYS_IN:
	case SYS_OUT: return port_insn(cpu, in);
	case SYS_MOV_FROM_CR:
	case SYS_MOV_TO_CR: return mov_cr(cpu, in) && (cpu_update_mode(cpu), true);
	case SYS_MOV_FROM_DR:
	case SYS_MOV_TO_DR: return mov_dr(cpu, in);
	case SYS_CLTS:
		cpu->cr0 &= ~(uint64_t)CR0_TS;
		cpu_update_mode(cpu);
		return true;
	case SYS_LMSW:
		if (!read_rm(cpu, in, 2, &v) ||
		    !set_cr0(cpu, (cpu->cr0 & ~0xeull) | (v & 0xf) | (cpu->cr0 & 1)))
			return false;
		cpu_update_mode(cpu);
		return true;
	case SYS_SMSW: return write_selector(cpu, in, cpu->cr0);
	case SYS_INVLPG: mmu_invlpg(cpu, operand_address(cpu, in)); return true;
	case SYS_INVPCID: return invpcid_insn(cpu, in);
	case SYS_INVD:
	case SYS_WBINVD: return true;
	case SYS_LGDT:
	case SYS_LIDT:
	case SYS_SGDT:
	case SYS_SIDT: return table_insn(cpu, in);
	case SYS_LLDT:
	case SYS_LTR: return system_segment(cpu, in);
	case SYS_SLDT: return write_selector(cpu, in, cpu->ldtr.sel);
	case SYS_STR: return write_selector(cpu, in, cpu->tr.sel);
	case SYS_LAR:
	case SYS_LSL:
	case SYS_VERR:
	case SYS_VERW: return segment_query(cpu, in);
	case SYS_ARPL: {
		uint64_t src = read_gpr(cpu, insn_reg(in), 2);

		if (!read_rm(cpu, in, 2, &v))
			return false;
		if ((v & 3) < (src & 3)) {
			v = (v & ~3ull) | (src & 3);
			if (in->mem) {
				if (!store_operand(cpu, in, &v, 2))
					return false;
			} else {
				write_gpr(cpu, insn_rm(in), 2, v);
			}
			cpu->flags |= FLAG_ZF;
		} else {
			cpu->flags &= ~(uint64_t)FLAG_ZF;
		}
		return true;
	}
	case SYS_MOV_FROM_SEG: return write_selector(cpu, in, cpu->seg[insn_reg(in) & 7].sel);
	case SYS_MOV_TO_SEG:
		if ((in->modrm >> 3 & 7) == SEG_CS || (in->modrm >> 3 & 7) > SEG_GS) {
			raise_vector(cpu, VEC_UD);
			return false;
		}
		if (!read_rm(cpu, in, 2, &v) || !load_segment(cpu, in->modrm >> 3 & 7, (uint16_t)v))
			return false;
		if ((in->modrm >> 3 & 7) == SEG_SS)
			shadow_stack_load(cpu);
		return true;
	case SYS_LOAD_FAR_PTR: return load_far_segment(cpu, in);
	case SYS_XSAVE:
	case SYS_XSAVEC:
	case SYS_XRSTOR:
	case SYS_FXSAVE:
	case SYS_FXRSTOR: return xsave_insn(cpu, in);
	case SYS_VMCALL: return hypercall(cpu);
	case SYS_XLAT: {
		struct insn where = *in;
		uint8_t b;

		where.mem_disp = (uint8_t)cpu->gpr[RAX];
		if (!load_data(cpu, operand_address(cpu, &where), &b, 1))
			return false;
		write_gpr(cpu, RAX, 1, b);
		return true;
	}
	case SYS_BOUND: {
		int32_t bounds[2] = { 0 };
		int32_t index = in->opsize == 2 ? (int16_t)cpu->gpr[insn_reg(in)] : (int32_t)cpu->gpr[insn_reg(in)];

		if (!load_operand(cpu, in, bounds, 2u * in->opsize))
			return false;
		if (in->opsize == 2) {
			bounds[1] = bounds[0] >> 16;
			bounds[0] = (int16_t)bounds[0];
		}
		if (index < bounds[0] || index > bounds[1]) {
			raise_vector(cpu, VEC_BR);
			return false;
		}
		return true;
	}
	case SYS_DECIMAL: return decimal_insn(cpu, in);
	case SYS_SALC: write_gpr(cpu, RAX, 1, cpu->flags & FLAG_CF ? 0xff : 0); return true;
	case SYS_CLZERO: {
		static const uint8_t zero[64];

		return store_data(cpu, operand_address(cpu, in) & ~63ull, zero, 64);
	}
	case SYS_RDPMC: raise_error(cpu, VEC_GP, 0); return false;
	case SYS_NONE:
	case SYS_CLAC:
	case SYS_STAC:
	case SYS_MONITOR:
	case SYS_MWAIT:
	case SYS_X87_ENV:
		break;
	}
	raise_vector(cpu, VEC_UD);
	return false;
}
