/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interpreter for instructions whose meaning depends on privilege or on
 * state that translated code does not hold, and for the stack and branch
 * instructions when their memory operand cannot be answered by the TLB.
 *
 * Contract of every case: either an exception is pending and guest state is as
 * before the instruction, or cpu->rip is where execution goes on.
 */
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

bool irq_mmio(struct cpu *cpu, gpa_t gpa, unsigned size, bool write, uint64_t *value)
{
	struct irqchip *chip = cpu->vm->irqchip;
	uint32_t off = (uint32_t)gpa & 0xfff;
	bool local = (gpa & PAGE_MASK) == LAPIC_MMIO_BASE;

	if (!local && (gpa & PAGE_MASK) != IOAPIC_MMIO_BASE)
		return false;
	(void)size;	/* both take 32-bit accesses; what else comes is as good */
	if (write)
		cpu->exit_self = 1;	/* EOI or a lower task priority may free an interrupt */
	if (write && local)
		irqchip_lapic_write(chip, cpu->index, off, (uint32_t)*value);
	else if (write)
		irqchip_ioapic_write(chip, off, (uint32_t)*value);
	else
		*value = local ? irqchip_lapic_read(chip, cpu->index, off) : irqchip_ioapic_read(chip, off);
	return true;
}

/* ---------------------------------------------------------------- registers */

uint64_t read_gpr(const struct cpu *cpu, unsigned reg, unsigned size)
{
	uint64_t v = cpu->gpr[reg];

	return size == 8 ? v : size == 4 ? (uint32_t)v : size == 2 ? (uint16_t)v : (uint8_t)v;
}

void write_gpr(struct cpu *cpu, unsigned reg, unsigned size, uint64_t value)
{
	uint64_t *r = &cpu->gpr[reg];

	switch (size) {
	case 8: *r = value; break;
	case 4: *r = (uint32_t)value; break;
	case 2: *r = (*r & ~0xffffull) | (uint16_t)value; break;
	default: *r = (*r & ~0xffull) | (uint8_t)value; break;
	}
}

uint64_t operand_address(const struct cpu *cpu, const struct insn *in)
{
	uint64_t ea = (uint64_t)in->mem_disp;

	if (in->mem_base == INSN_REG_RIP)
		ea += cpu->rip + in->len;
	else if (in->mem_base != INSN_REG_NONE)
		ea += cpu->gpr[in->mem_base];
	if (in->mem_index != INSN_REG_NONE)
		ea += cpu->gpr[in->mem_index] << in->mem_scale;
	ea = in->addrsize == 8 ? ea : in->addrsize == 4 ? (uint32_t)ea : (uint16_t)ea;
	ea += segment_base(cpu, in);
	return cpu->mode & BLOCK_32 ? (uint32_t)ea : ea;
}

static bool load(struct cpu *cpu, uint64_t va, void *dst, unsigned size)
{
	uint32_t error = 0;
	int vector = mem_load(cpu, va, dst, size, cpu->cpl == 3, &error);

	if (vector)
		raise_access(cpu, vector, cpu->fault_va, error);
	return !vector;
}

static bool store(struct cpu *cpu, uint64_t va, const void *src, unsigned size)
{
	uint32_t error = 0;
	int vector = mem_store(cpu, va, src, size, cpu->cpl == 3, &error);

	if (vector)
		raise_access(cpu, vector, cpu->fault_va, error);
	return !vector;
}

/* Accesses through SS: #SS where others raise #GP. */
static void raise_stack(struct cpu *cpu, int vector, uint32_t error)
{
	raise_access(cpu, vector == VEC_GP ? VEC_SS : vector, cpu->fault_va, error);
}

static bool load_stack(struct cpu *cpu, uint64_t va, void *dst, unsigned size)
{
	uint32_t error = 0;
	int vector = mem_load(cpu, va, dst, size, cpu->cpl == 3, &error);

	if (vector)
		raise_stack(cpu, vector, error);
	return !vector;
}

static bool store_stack(struct cpu *cpu, uint64_t va, const void *src, unsigned size)
{
	uint32_t error = 0;
	int vector = mem_store(cpu, va, src, size, cpu->cpl == 3, &error);

	if (vector)
		raise_stack(cpu, vector, error);
	return !vector;
}

/* The memory operand of @in. */
static bool load_operand(struct cpu *cpu, const struct insn *in, void *dst, unsigned size)
{
	uint64_t va = operand_address(cpu, in);

	return through_stack_segment(in) ? load_stack(cpu, va, dst, size) : load(cpu, va, dst, size);
}

static bool store_operand(struct cpu *cpu, const struct insn *in, const void *src, unsigned size)
{
	uint64_t va = operand_address(cpu, in);

	return through_stack_segment(in) ? store_stack(cpu, va, src, size) : store(cpu, va, src, size);
}

/* The register or memory operand selected by ModRM.rm. */
static bool read_rm(struct cpu *cpu, const struct insn *in, unsigned size, uint64_t *ret)
{
	*ret = 0;
	if (in->mem)
		return load_operand(cpu, in, ret, size);
	*ret = read_gpr(cpu, insn_rm(in), size);
	return true;
}

/* Memory gets 2 bytes, a register the operand size: SLDT, STR, SMSW, MOV from segment. */
static bool write_selector(struct cpu *cpu, const struct insn *in, uint64_t value)
{
	if (in->mem)
		return store_operand(cpu, in, &value, 2);
	write_gpr(cpu, insn_rm(in), in->opsize, value);
	return true;
}

/* -------------------------------------------------------------------- stack */

static uint64_t stack_address(const struct cpu *cpu, int64_t off)
{
	uint64_t va = cpu->gpr[RSP] + (uint64_t)off;

	return cpu->mode & BLOCK_32 ? (uint32_t)va : va;
}

static void move_rsp(struct cpu *cpu, int64_t off)
{
	cpu->gpr[RSP] = stack_address(cpu, off);
}

static bool push(struct cpu *cpu, uint64_t value, unsigned size)
{
	if (!store_stack(cpu, stack_address(cpu, -(int64_t)size), &value, size))
		return false;
	move_rsp(cpu, -(int64_t)size);
	return true;
}

static bool peek(struct cpu *cpu, uint64_t *ret, unsigned size)
{
	*ret = 0;
	return load_stack(cpu, cpu->gpr[RSP], ret, size);
}

static bool push_insn(struct cpu *cpu, const struct insn *in)
{
	uint64_t v;

	if (in->mem || (in->map == 0 && in->opcode == 0xff)) {
		if (!read_rm(cpu, in, in->opsize, &v))
			return false;
	} else if (in->imm_size) {
		v = (uint64_t)in->imm;
	} else {
		v = cpu->gpr[(in->opcode & 7) | (in->rex & 1 ? 8 : 0)];
	}
	return push(cpu, v, in->opsize);
}

static bool pop_insn(struct cpu *cpu, const struct insn *in)
{
	uint64_t v, old = cpu->gpr[RSP];

	if (!peek(cpu, &v, in->opsize))
		return false;
	move_rsp(cpu, in->opsize);
	if (in->mem) {
		if (store_operand(cpu, in, &v, in->opsize))
			return true;
		cpu->gpr[RSP] = old;
		return false;
	}
	write_gpr(cpu, in->opcode == 0x8f ? insn_rm(in) : ((in->opcode & 7) | (in->rex & 1 ? 8u : 0u)), in->opsize, v);
	return true;
}

static bool popf_insn(struct cpu *cpu, const struct insn *in)
{
	uint64_t v, mask = FLAGS_ARITH | FLAG_TF | FLAG_DF | FLAG_NT;

	if (!peek(cpu, &v, in->opsize))
		return false;
	move_rsp(cpu, in->opsize);
	if (in->opsize > 2)
		mask |= FLAG_AC | FLAG_ID;
	if (cpu->cpl <= (cpu->sysflags >> 12 & 3))
		mask |= FLAG_IF;
	if (cpu->cpl == 0)
		mask |= FLAG_IOPL;
	cpu_set_rflags(cpu, v, mask);
	cpu->sysflags &= ~FLAG_RF;
	return true;
}

static bool enter_insn(struct cpu *cpu, const struct insn *in)
{
	unsigned size = in->opsize, level = (unsigned)in->imm2 & 31;
	uint64_t old_rsp = cpu->gpr[RSP], frame, rbp = cpu->gpr[RBP];
	uint32_t error = 0;
	int vector;

	if (!push(cpu, rbp, size))
		return false;
	frame = cpu->gpr[RSP];
	for (unsigned i = 1; i <= level; i++) {
		uint64_t v = frame;

		if (i < level) {
			rbp -= size;
			if (!load_stack(cpu, cpu->mode & BLOCK_32 ? (uint32_t)rbp : rbp, &v, size))
				goto undo;
		}
		if (!push(cpu, v, size))
			goto undo;
	}
	move_rsp(cpu, -(int64_t)(uint16_t)in->imm);
	/* The frame must be writable at its new end (SDM vol. 2, ENTER). */
	vector = mem_probe(cpu, cpu->gpr[RSP], 1, MEM_WRITE, cpu->cpl == 3, &error);
	if (vector) {
		raise_stack(cpu, vector, error);
		goto undo;
	}
	write_gpr(cpu, RBP, size, frame);
	return true;

undo:
	cpu->gpr[RSP] = old_rsp;
	return false;
}

static bool pusha_insn(struct cpu *cpu, unsigned size)
{
	uint64_t old = cpu->gpr[RSP];

	for (unsigned r = RAX; r <= RDI; r++)
		if (!push(cpu, r == RSP ? old : cpu->gpr[r], size)) {
			cpu->gpr[RSP] = old;
			return false;
		}
	return true;
}

/* One register after the other: those in front of a fault have been written (SDM vol. 2, POPA: its operation). */
static bool popa_insn(struct cpu *cpu, unsigned size)
{
	for (unsigned k = 0; k < 8; k++) {
		uint64_t v = 0;

		if (RDI - k == RSP)
			continue;
		if (!load_stack(cpu, stack_address(cpu, (int64_t)(k * size)), &v, size))
			return false;
		write_gpr(cpu, RDI - k, size, v);
	}
	move_rsp(cpu, 8 * (int64_t)size);
	return true;
}

static bool leave_insn(struct cpu *cpu, const struct insn *in)
{
	uint64_t v = 0, rbp = cpu->gpr[RBP];

	if (!load_stack(cpu, cpu->mode & BLOCK_32 ? (uint32_t)rbp : rbp, &v, in->opsize))
		return false;
	cpu->gpr[RSP] = rbp;
	move_rsp(cpu, in->opsize);
	write_gpr(cpu, RBP, in->opsize, v);
	return true;
}

/*
 * Neither an interrupt nor a single-step trap comes between a load of SS and the
 * next instruction, which loads RSP (SDM vol. 3, 6.8.3).  LSS needs no such thing.
 */
static void shadow_stack_load(struct cpu *cpu)
{
	cpu->intr_shadow = true;
	cpu->stepping &= ~STEP_TF;
}

static bool seg_stack(struct cpu *cpu, const struct insn *in, bool is_push)
{
	static const uint8_t legacy[] = { SEG_ES, SEG_CS, SEG_SS, SEG_DS };
	unsigned seg = in->map == 1 ? (in->opcode & 8 ? SEG_GS : SEG_FS) : legacy[in->opcode >> 3 & 3];
	uint64_t v;

	if (is_push)
		return push(cpu, cpu->seg[seg].sel, in->opsize);
	if (!peek(cpu, &v, in->opsize) || !load_segment(cpu, seg, (uint16_t)v))
		return false;
	move_rsp(cpu, in->opsize);
	if (seg == SEG_SS)
		shadow_stack_load(cpu);
	return true;
}

/* Branches whose operand was out of the TLB's reach. */
static bool branch_insn(struct cpu *cpu, const struct insn *in, uint64_t next)
{
	unsigned size = cpu->mode & BLOCK_32 ? 4 : 8;
	uint64_t target = 0;

	switch ((int)in->op) {
	case INSN_CALL:
		target = next + (uint64_t)in->imm;
		break;
	case INSN_RET:
		if (!peek(cpu, &target, size))
			return false;
		move_rsp(cpu, (int64_t)size + (in->imm_size ? (uint16_t)in->imm : 0));
		break;
	default:
		if (!read_rm(cpu, in, size, &target))
			return false;
		break;
	}
	if ((in->op == INSN_CALL || in->op == INSN_CALL_IND) && !push(cpu, next, size))
		return false;
	cpu->rip = size == 4 ? (uint32_t)target : target;
	return true;
}

/* --------------------------------------------------------- control registers */

static bool set_cr0(struct cpu *cpu, uint64_t v)
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

static bool mov_cr(struct cpu *cpu, const struct insn *in)
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

static bool mov_dr(struct cpu *cpu, const struct insn *in)
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
		cpu->exit_self = 1;	/* as in irq_mmio() */
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

static bool msr_insn(struct cpu *cpu, const struct insn *in)
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

/* ------------------------------------------------------------------- others */

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

static void take_xsave_size(struct cpu *cpu, void *arg)
{
	(void)arg;
	cpu->xsave_size = cpuid_xsave_size(cpu->vm->cpuid, cpu->xcr0);
}

static bool xcr_insn(struct cpu *cpu, const struct insn *in)
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

static bool table_insn(struct cpu *cpu, const struct insn *in)
{
	struct desc_table *t = in->sys == SYS_LGDT || in->sys == SYS_SGDT ? &cpu->gdtr : &cpu->idtr;
	unsigned n = cpu->mode & BLOCK_32 ? 4 : 8;
	uint64_t at = operand_address(cpu, in);
	uint8_t raw[10] = { 0 };
	uint64_t base = 0;

	if (in->sys == SYS_SGDT || in->sys == SYS_SIDT) {
		copy_bytes(raw, &t->limit, 2);
		copy_bytes(raw + 2, &t->base, 8);
		return store(cpu, at, raw, n + 2);
	}
	if (!load(cpu, at, raw, n + 2))
		return false;
	copy_bytes(&base, raw + 2, n);
	if (!canonical(base)) {
		raise_error(cpu, VEC_GP, 0);
		return false;
	}
	copy_bytes(&t->limit, raw, 2);
	t->base = base;
	return true;
}

/* LLDT and LTR: system descriptors are 16 bytes in long mode. */
static bool system_segment(struct cpu *cpu, const struct insn *in)
{
	struct seg_reg *seg = in->sys == SYS_LTR ? &cpu->tr : &cpu->ldtr;
	uint64_t raw[2] = { 0, 0 }, v;
	uint32_t error, limit;
	uint16_t sel;
	int vector;

	if (!read_rm(cpu, in, 2, &v))
		return false;
	sel = (uint16_t)v;
	if (!(sel & 0xfffc)) {
		if (in->sys == SYS_LTR) {
			raise_error(cpu, VEC_GP, 0);
			return false;
		}
		*seg = (struct seg_reg){ .sel = sel, .attr = ATTR_UNUSABLE };
		return true;
	}
	if (sel & 4 || (sel & ~7u) + (cpu->efer & EFER_LMA ? 15 : 7) > cpu->gdtr.limit) {
		raise_error(cpu, VEC_GP, sel & 0xfffc);
		return false;
	}
	vector = mem_load(cpu, cpu->gdtr.base + (sel & ~7u), raw, cpu->efer & EFER_LMA ? 16 : 8, false, &error);
	if (vector) {
		raise_access(cpu, vector, cpu->fault_va, error);
		return false;
	}
	if ((raw[0] >> 40 & 0x1f) != (in->sys == SYS_LTR ? 9 : 2) || !(raw[0] >> 47 & 1)) {
		raise_error(cpu, raw[0] >> 47 & 1 ? VEC_GP : VEC_NP, sel & 0xfffc);
		return false;
	}
	limit = (uint32_t)((raw[0] & 0xffff) | (raw[0] >> 32 & 0xf0000));
	*seg = (struct seg_reg){
		.base = (raw[0] >> 16 & 0xffffff) | (raw[0] >> 56 & 0xff) << 24 | raw[1] << 32,
		.limit = raw[0] >> 55 & 1 ? limit << 12 | 0xfff : limit,
		.sel = sel,
		.attr = (uint16_t)((raw[0] >> 40 & 0xff) | (raw[0] >> 44 & 0xf00)),
	};
	if (in->sys == SYS_LTR) {	/* mark busy */
		uint8_t type = (uint8_t)(raw[0] >> 40) | 2;

		seg->attr |= 2;
		(void)mem_store(cpu, cpu->gdtr.base + (sel & ~7u) + 5, &type, 1, false, &error);
	}
	return true;
}

/* LAR, LSL, VERR, VERW: results go to ZF instead of exceptions. */
static bool segment_query(struct cpu *cpu, const struct insn *in)
{
	uint64_t v, raw = 0;
	uint32_t error = 0;
	bool ok = false, code, conforming;
	uint16_t sel;
	unsigned type, dpl;

	if (!read_rm(cpu, in, 2, &v))
		return false;
	sel = (uint16_t)v;
	if (sel & 0xfffc && (sel & ~7u) + 7 <= (sel & 4 ? cpu->ldtr.limit : cpu->gdtr.limit) &&
	    !(sel & 4 && cpu->ldtr.attr & ATTR_UNUSABLE) &&
	    !mem_load(cpu, (sel & 4 ? cpu->ldtr.base : cpu->gdtr.base) + (sel & ~7u), &raw, 8, false, &error)) {
		type = raw >> 40 & 0x1f;
		dpl = raw >> 45 & 3;
		code = (type & 0x18) == 0x18;
		conforming = (type & 0x1c) == 0x1c;
		ok = conforming || (dpl >= cpu->cpl && dpl >= (sel & 3u));
		if (in->sys == SYS_VERR)
			ok = ok && type & 0x10 && (!code || type & 2);
		else if (in->sys == SYS_VERW)
			ok = ok && type & 0x10 && !code && type & 2;
		else if (!(type & 0x10))
			ok = ok && (type == 2 || type == 9 || type == 0xb || (type == 0xc && in->sys == SYS_LAR));
		else
			ok = ok && (in->sys == SYS_LAR || in->sys == SYS_LSL);
	}
	if (ok && in->sys == SYS_LAR)
		write_gpr(cpu, insn_reg(in), in->opsize, raw >> 32 & 0xffff00);
	if (ok && in->sys == SYS_LSL) {
		uint32_t limit = (uint32_t)((raw & 0xffff) | (raw >> 32 & 0xf0000));

		write_gpr(cpu, insn_reg(in), in->opsize, raw >> 55 & 1 ? (limit << 12 | 0xfff) : limit);
	}
	cpu->flags = (cpu->flags & ~(uint64_t)FLAG_ZF) | (ok ? FLAG_ZF : 0);
	return true;
}

static bool load_far_segment(struct cpu *cpu, const struct insn *in)
{
	unsigned seg = in->map == 0 ? (in->opcode == 0xc4 ? SEG_ES : SEG_DS) :
		in->opcode == 0xb2 ? SEG_SS : in->opcode == 0xb4 ? SEG_FS : SEG_GS;
	uint8_t raw[10] = { 0 };
	uint64_t off = 0;
	uint16_t sel;

	if (!load_operand(cpu, in, raw, in->opsize + 2u))
		return false;
	copy_bytes(&off, raw, in->opsize);
	copy_bytes(&sel, raw + in->opsize, 2);
	if (!load_segment(cpu, seg, sel))
		return false;
	write_gpr(cpu, insn_reg(in), in->opsize, off);
	return true;
}

/*
 * XSAVE family: on the guest's memory itself where it is one piece of host
 * memory (the optimised forms remember addresses), else through a copy.
 */
static bool xsave_insn(struct cpu *cpu, const struct insn *in)
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
	if (write && !store(cpu, at, area, size))
		return false;
	return true;
}

/* A malformed image makes the host instruction fault: check what can be wrong first. */
bool xrstor_checked(struct cpu *cpu, const struct insn *in, const uint8_t *area, uint64_t mask)
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

static bool system_insn(struct cpu *cpu, const struct insn *in, uint64_t next, bool *ret_jumped)
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
		if (!load(cpu, operand_address(cpu, &where), &b, 1))
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

		return store(cpu, operand_address(cpu, in) & ~63ull, zero, 64);
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

static bool write_base(struct cpu *cpu, const struct insn *in)
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

void interpret(struct cpu *cpu, const struct insn *in)
{
	uint64_t next = cpu->rip + in->len;
	bool ok = true, jumped = false;

	if (cpu->mode & BLOCK_32)
		next = (uint32_t)next;
	if (in->lock && in->op != INSN_COPY && in->op != INSN_UD) {
		raise_vector(cpu, VEC_UD);
		return;
	}
	if (in->privileged && cpu->cpl != 0 && !(in->op == INSN_CLI || in->op == INSN_STI)) {
		raise_error(cpu, VEC_GP, 0);
		return;
	}
	if (cpu->mode & BLOCK_NO_FPU && in->uses_fpu) {
		raise_vector(cpu, VEC_NM);
		return;
	}
	switch ((enum insn_op)in->op) {
	case INSN_PUSH: ok = push_insn(cpu, in); break;
	case INSN_POP: ok = pop_insn(cpu, in); break;
	case INSN_PUSHF: ok = push(cpu, cpu_rflags(cpu) & ~(FLAG_RF | FLAG_VM), in->opsize); break;
	case INSN_POPF: ok = popf_insn(cpu, in); break;
	case INSN_ENTER: ok = enter_insn(cpu, in); break;
	case INSN_LEAVE: ok = leave_insn(cpu, in); break;
	case INSN_PUSHA: ok = pusha_insn(cpu, in->opsize); break;
	case INSN_POPA: ok = popa_insn(cpu, in->opsize); break;
	case INSN_PUSH_SEG: ok = seg_stack(cpu, in, true); break;
	case INSN_POP_SEG: ok = seg_stack(cpu, in, false); break;
	case INSN_CALL:
	case INSN_CALL_IND:
	case INSN_JMP_IND:
	case INSN_RET:
		ok = branch_insn(cpu, in, next);
		jumped = true;
		break;
	case INSN_CLI:
	case INSN_STI:
		if (cpu->cpl > (cpu->sysflags >> 12 & 3)) {
			raise_error(cpu, VEC_GP, 0);
			return;
		}
		cpu_set_rflags(cpu, in->op == INSN_STI ? FLAG_IF : 0, FLAG_IF);
		break;
	case INSN_WRFSBASE:
	case INSN_WRGSBASE:
		ok = write_base(cpu, in);
		break;
	case INSN_MOVS:
	case INSN_STOS:
	case INSN_LODS:
	case INSN_SCAS:
	case INSN_CMPS:
	case INSN_INS:
	case INSN_OUTS:
		string_insn(cpu, in);	/* moves rip itself */
		return;
	case INSN_GATHER:
		ok = gather_insn(cpu, in);
		break;
	case INSN_SYSTEM:
		ok = system_insn(cpu, in, next, &jumped);
		break;
	case INSN_UD:
	case INSN_COPY:
	case INSN_LEA:
	case INSN_NOP:
	case INSN_JMP:
	case INSN_JCC:
	case INSN_JCXZ:
	case INSN_LOOP:
	case INSN_LOOPE:
	case INSN_LOOPNE:
	case INSN_CLD:
	case INSN_STD:
	case INSN_RDFSBASE:
	case INSN_RDGSBASE:
	case INSN_SWAPGS:
	case INSN_RDTSC:
	case INSN_RDTSCP:
	case INSN_RDPID:
		if (in->op == INSN_UD && in->len == INSN_LEN_MAX)
			raise_error(cpu, VEC_GP, 0);
		else
			raise_vector(cpu, VEC_UD);
		return;
	}
	if (ok && !jumped)
		cpu->rip = next;
	if (!cpu->debug.exec)	/* else it may be news, from IRET, and next_block() sees to it */
		cpu->sysflags &= ~FLAG_RF;
}
