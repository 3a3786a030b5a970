/* SPDX-License-Identifier: Apache-2.0 */
/* System registers: control and debug registers, XCR0, MSRs, and the clock and the timer that some of them are. */
#include "engine/dbt/interpret.h"

#include "engine/dbt/run.h"

#include "vmm/irqchip.h"
#include "vmm/vm.h"

#define MSR_TSC 0x10u
#define MSR_APIC_BASE 0x1bu
#define MSR_SPEC_CTRL 0x48u
#define MSR_PRED_CMD 0x49u
#define MSR_UCODE_REV 0x8bu
#define MSR_MTRR_CAP 0xfeu
#define MSR_SYSENTER_CS 0x174u
#define MSR_SYSENTER_ESP 0x175u
#define MSR_SYSENTER_EIP 0x176u
#define MSR_MCG_CAP 0x179u
#define MSR_MCG_STATUS 0x17au
#define MSR_MISC_ENABLE 0x1a0u
#define MSR_DEBUGCTL 0x1d9u
#define MSR_PAT 0x277u
#define MSR_MTRR_DEF_TYPE 0x2ffu
#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_CSTAR 0xc0000083u
#define MSR_SFMASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define MSR_TSC_AUX 0xc0000103u
#define MSR_HWCR 0xc0010015u
#define MSR_AMD_PATCH 0xc0010020u
#define MSR_SYSCFG 0xc0010010u
#define MSR_NB_CFG 0xc001001fu
#define MSR_INT_PENDING 0xc0010055u
#define MSR_DE_CFG 0xc0011029u
#define MSR_VIRT_SPEC_CTRL 0xc001011fu

uint64_t guest_tsc(const struct cpu *cpu)
{
	return __builtin_ia32_rdtsc() + cpu->tsc_offset;
}

void dbt_timer_set(struct cpu *cpu, uint64_t tsc)
{
	uint64_t now = guest_tsc(cpu), ns = 0;
	struct {
		int64_t interval_s, interval_ns, s, ns;
	} spec = { 0 };

	cpu->timer_tsc = tsc;
	if (!cpu->timer_ready)
		return;	/* armed when the vCPU's thread exists */
	if (tsc) {
		ns = tsc > now ? (uint64_t)((unsigned __int128)(tsc - now) * 1000000 / cpu->vm->tsc_khz) : 0;
		if (ns > 1ull << 55)
			ns = 1ull << 55;
		spec.s = (int64_t)(ns / 1000000000);
		spec.ns = (int64_t)(ns % 1000000000) + (ns == 0);
	}
	(void)raw_syscall4(SYS_timer_settime, cpu->timer_id, 0, (long)&spec, 0);
}

/* --------------------------------------------------------- control registers */

bool set_cr0(struct cpu *cpu, uint64_t v)
{
	uint64_t old = cpu->cr0;

	if (v >> 32 || (v & CR0_PG && !(v & CR0_PE)) || ((v & (1u << 29)) && !(v & (1u << 30)))) {
		raise_error(cpu, VEC_GP, 0);
		return false;
	}
	if (v & CR0_PG && !(old & CR0_PG) && cpu->efer & EFER_LME) {
		if (!(cpu->cr4 & CR4_PAE)) {
			raise_error(cpu, VEC_GP, 0);
			return false;
		}
		cpu->efer |= EFER_LMA;
	} else if (!(v & CR0_PG)) {
		cpu->efer &= ~(uint64_t)EFER_LMA;
	}
	cpu->cr0 = v | 1u << 4;	/* ET is fixed */
	if ((old ^ v) & (CR0_PG | CR0_WP))
		mmu_flush_all(cpu);
	return true;
}

static bool set_cr4(struct cpu *cpu, uint64_t v)
{
	/* What the CPUID table offers: VME PVI TSD DE PSE PAE MCE PGE PCE OSFXSR OSXMM FSGSBASE PCIDE OSXSAVE */
	const uint64_t known = 0x7ff | CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE;
	uint64_t old = cpu->cr4;

	if (v & ~known || ((v & CR4_PCIDE) && !(old & CR4_PCIDE) && (cpu->cr3 & 0xfff || !(cpu->efer & EFER_LMA))) ||
	    (!(v & CR4_PAE) && cpu->efer & EFER_LMA)) {
		raise_error(cpu, VEC_GP, 0);
		return false;
	}
	cpu->cr4 = v;
	if ((old ^ v) & CR4_DE)
		debug_update(cpu);
	if ((old ^ v) & (CR4_PAE | CR4_PGE | CR4_PCIDE | 1u << 4))
		mmu_flush_all(cpu);
	return true;
}

bool mov_cr(struct cpu *cpu, const struct insn *in)
{
	unsigned cr = insn_reg(in), size = cpu->mode & BLOCK_32 ? 4 : 8, gpr = insn_rm(in);
	uint64_t v = read_gpr(cpu, gpr, size);

	if (in->sys == SYS_MOV_FROM_CR) {
		switch (cr) {
		case 0: v = cpu->cr0; break;
		case 2: v = cpu->cr2; break;
		case 3: v = cpu->cr3; break;
		case 4: v = cpu->cr4; break;
		case 8: v = irqchip_cr8(cpu->vm->irqchip, cpu->index); break;
		default: raise_vector(cpu, VEC_UD); return false;
		}
		write_gpr(cpu, gpr, size, v);
		return true;
	}
	switch (cr) {
	case 0: return set_cr0(cpu, v);
	case 2: cpu->cr2 = v; return true;
	case 3: {
		bool keep = cpu->cr4 & CR4_PCIDE && v >> 63;

		mmu_load_cr3(cpu, v & ~(1ull << 63), keep);
		return true;
	}
	case 4: return set_cr4(cpu, v);
	case 8:
		if (v & ~15ull) {
			raise_error(cpu, VEC_GP, 0);
			return false;
		}
		irqchip_set_cr8(cpu->vm->irqchip, cpu->index, (uint8_t)v);
		cpu->exit_self = 1;
		return true;
	default:
		raise_vector(cpu, VEC_UD);
		return false;
	}
}

bool mov_dr(struct cpu *cpu, const struct insn *in)
{
	unsigned dr = insn_reg(in), size = cpu->mode & BLOCK_32 ? 4 : 8, gpr = insn_rm(in);

	if (dr > 7 || ((dr == 4 || dr == 5) && cpu->cr4 & CR4_DE)) {
		raise_vector(cpu, VEC_UD);
		return false;
	}
	if (dr == 4 || dr == 5)
		dr += 2;
	if (cpu->dr[7] & DR7_GD) {
		debug_raise(cpu, DR6_BD, EVENT_FAULT);
		return false;
	}
	if (in->sys == SYS_MOV_FROM_DR) {
		write_gpr(cpu, gpr, size, cpu->dr[dr]);
	} else {
		uint64_t v = read_gpr(cpu, gpr, size);

		if (dr >= 6 && v >> 32) {
			raise_error(cpu, VEC_GP, 0);
			return false;
		}
		cpu->dr[dr] = dr == 6 ? (v & 0xe00f) | 0xffff0ff0 : dr == 7 ? (v & ~0xd800ull) | 0x400 : v;
		if (dr != 6)
			debug_update(cpu);
	}
	return true;
}

static void take_xsave_size(struct cpu *cpu, void *arg)
{
	(void)arg;
	cpu->xsave_size = cpuid_xsave_size(cpu->vm->cpuid, cpu->xcr0);
}

bool xcr_insn(struct cpu *cpu, const struct insn *in)
{
	uint64_t v = (uint32_t)cpu->gpr[RAX] | cpu->gpr[RDX] << 32, known = cpu->vm->xcr0_mask;
	uint32_t index = (uint32_t)cpu->gpr[RCX];

	if (!(cpu->cr4 & CR4_OSXSAVE)) {
		raise_vector(cpu, VEC_UD);
		return false;
	}
	if (in->sys == SYS_XGETBV) {
		if (index > 1 || (index == 1 && !(known & ~0ull))) {
			raise_error(cpu, VEC_GP, 0);
			return false;
		}
		if (index == 1) {	/* which components are in use: true state, minus what is off */
			uint32_t lo, hi;

			__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(1));
			v = ((uint64_t)hi << 32 | lo) & cpu->xcr0;
		} else {
			v = cpu->xcr0;
		}
		cpu->gpr[RAX] = (uint32_t)v;
		cpu->gpr[RDX] = v >> 32;
		return true;
	}
	if (index != 0 || !(v & 1) || v & ~known || ((v & 4) && !(v & 2)) ||
	    ((v & 0xe0) && ((v & 0xe0) != 0xe0 || !(v & 4)))) {
		raise_error(cpu, VEC_GP, 0);
		return false;
	}
	cpu->xcr0 = v;
	cpu_heavy(cpu, take_xsave_size, NULL);
	return true;
}

/* --------------------------------------------------------------------- MSRs */

int msr_read(struct cpu *cpu, uint32_t msr, uint64_t *ret)
{
	*ret = 0;
	if (irqchip_has_msr(msr))
		return irqchip_msr_read(cpu->vm->irqchip, cpu->index, msr, ret);
	switch (msr) {
	case MSR_TSC: *ret = guest_tsc(cpu); break;
	case MSR_EFER: *ret = cpu->efer; break;
	case MSR_STAR: *ret = cpu->star; break;
	case MSR_LSTAR: *ret = cpu->lstar; break;
	case MSR_CSTAR: *ret = cpu->cstar; break;
	case MSR_SFMASK: *ret = cpu->sfmask; break;
	case MSR_FS_BASE: *ret = cpu->fs_base; break;
	case MSR_GS_BASE: *ret = cpu->gs_base; break;
	case MSR_KERNEL_GS_BASE: *ret = cpu->kernel_gs_base; break;
	case MSR_TSC_AUX: *ret = cpu->tsc_aux; break;
	case MSR_PAT: *ret = cpu->pat; break;
	case MSR_SYSENTER_CS: *ret = cpu->sysenter_cs; break;
	case MSR_SYSENTER_ESP: *ret = cpu->sysenter_esp; break;
	case MSR_SYSENTER_EIP: *ret = cpu->sysenter_eip; break;
	case MSR_MISC_ENABLE: *ret = cpu->misc_enable; break;
	case MSR_MTRR_DEF_TYPE: *ret = cpu->mtrr_def_type; break;
	case MSR_KVM_SYSTEM_TIME_NEW: *ret = cpu->kvm_system_time; break;
	case MSR_KVM_WALL_CLOCK_NEW: *ret = cpu->kvm_wall_clock; break;
	case MSR_UCODE_REV: *ret = 1ull << 32; break;
	case MSR_DE_CFG: *ret = 2; break;	/* LFENCE serialises */
	case MSR_HWCR: *ret = 1u << 24; break;	/* the TSC counts at the P0 rate */
	case MSR_MTRR_CAP:
	case MSR_MCG_CAP:
	case MSR_MCG_STATUS:
	case MSR_SPEC_CTRL:
	case MSR_DEBUGCTL:
	case MSR_SYSCFG:
	case MSR_NB_CFG:
	case MSR_INT_PENDING:
		break;
	default:
		return -1;
	}
	return 0;
}

static int write_efer(struct cpu *cpu, uint64_t v)
{
	const uint64_t known = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | 1u << 14;	/* FFXSR */
	const bool flush = (v ^ cpu->efer) & EFER_NXE;

	if (v & ~known || ((v ^ cpu->efer) & EFER_LME && cpu->cr0 & CR0_PG))
		return -1;
	cpu->efer = (v & ~(uint64_t)EFER_LMA) | (cpu->efer & EFER_LMA);
	if (flush)
		mmu_flush_all(cpu);
	cpu->syscall_ready = 0;
	return 0;
}

static int set_canonical(uint64_t *field, uint64_t v)
{
	if (!canonical(v))
		return -1;
	*field = v;
	return 0;
}

struct clock_job {
	uint64_t value;
	bool wall;
	int result;
};

static void run_clock(struct cpu *cpu, void *arg)
{
	struct clock_job *j = arg;

	j->result = j->wall ? kvmclock_write_wall_clock(&cpu->vm->clock, j->value, guest_tsc(cpu)) :
		kvmclock_write_system_time(&cpu->vm->clock, j->value);
}

int msr_write(struct cpu *cpu, uint32_t msr, uint64_t v)
{
	if (irqchip_has_msr(msr)) {
		cpu->exit_self = 1;	/* as for an access to its page: see slow.c */
		return irqchip_msr_write(cpu->vm->irqchip, cpu->index, msr, v);
	}
	switch (msr) {
	case MSR_TSC: return 0;	/* all vCPUs share the host's TSC: guests may not move it */
	case MSR_EFER: return write_efer(cpu, v);
	case MSR_STAR: cpu->star = v; cpu->syscall_ready = 0; return 0;
	case MSR_LSTAR: return set_canonical(&cpu->lstar, v);
	case MSR_CSTAR: return set_canonical(&cpu->cstar, v);
	case MSR_SFMASK: cpu->sfmask = v & 0xffffffff; cpu->syscall_ready = 0; return 0;
	case MSR_FS_BASE: return set_canonical(&cpu->fs_base, v);
	case MSR_GS_BASE: return set_canonical(&cpu->gs_base, v);
	case MSR_KERNEL_GS_BASE: return set_canonical(&cpu->kernel_gs_base, v);
	case MSR_TSC_AUX: cpu->tsc_aux = (uint32_t)v; return v >> 32 ? -1 : 0;
	case MSR_PAT: cpu->pat = v; return 0;
	case MSR_SYSENTER_CS: cpu->sysenter_cs = v; return 0;
	case MSR_SYSENTER_ESP: return set_canonical(&cpu->sysenter_esp, v);
	case MSR_SYSENTER_EIP: return set_canonical(&cpu->sysenter_eip, v);
	case MSR_MISC_ENABLE: cpu->misc_enable = v; return 0;
	case MSR_MTRR_DEF_TYPE: cpu->mtrr_def_type = v; return 0;
	case MSR_KVM_SYSTEM_TIME_NEW:
	case MSR_KVM_WALL_CLOCK_NEW: {
		struct clock_job j = { .value = v, .wall = msr == MSR_KVM_WALL_CLOCK_NEW };

		*(j.wall ? &cpu->kvm_wall_clock : &cpu->kvm_system_time) = v;
		cpu_heavy(cpu, run_clock, &j);
		return j.result;
	}
	case MSR_UCODE_REV:
	case MSR_MCG_STATUS:
	case MSR_SPEC_CTRL:
	case MSR_PRED_CMD:
	case MSR_DEBUGCTL:
	case MSR_HWCR:
	case MSR_SYSCFG:
	case MSR_NB_CFG:
	case MSR_INT_PENDING:
	case MSR_DE_CFG:
	case MSR_AMD_PATCH:
	case MSR_VIRT_SPEC_CTRL:
		return 0;
	default:
		return -1;
	}
}

bool msr_insn(struct cpu *cpu, const struct insn *in)
{
	uint32_t msr = (uint32_t)cpu->gpr[RCX];
	uint64_t v = (uint32_t)cpu->gpr[RAX] | cpu->gpr[RDX] << 32;
	int r = in->sys == SYS_RDMSR ? msr_read(cpu, msr, &v) : msr_write(cpu, msr, v);

	if (r < 0) {
		raise_error(cpu, VEC_GP, 0);
		return false;
	}
	if (in->sys == SYS_RDMSR) {
		cpu->gpr[RAX] = (uint32_t)v;
		cpu->gpr[RDX] = v >> 32;
	}
	return true;
}

bool write_base(struct cpu *cpu, const struct insn *in)
{
	uint64_t v = read_gpr(cpu, insn_rm(in), in->opsize);

	if (!(cpu->cr4 & CR4_FSGSBASE)) {
		raise_vector(cpu, VEC_UD);
		return false;
	}
	if (set_canonical(in->op == INSN_WRFSBASE ? &cpu->fs_base : &cpu->gs_base, v) < 0) {
		raise_error(cpu, VEC_GP, 0);
		return false;
	}
	return true;
}
