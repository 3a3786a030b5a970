/* SPDX-License-Identifier: Apache-2.0 */
/* State as engines exchange it: vmm/vcpu_state.h. */
#include "engine/dbt/vcpu.h"

#include "base/checked.h"
#include "engine/dbt/run.h"
#include "os/err.h"
#include "vmm/irqchip.h"
#include "vmm/vm.h"

#include <errno.h>
#include <string.h>

#define XSAVE_HEADER 512u
#define XSAVE_HEADER_BYTES 64u

/* MSRs of vcpu_state.msr[], beyond those with a field of their own. */
static const uint32_t state_msrs[] = {
	0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000102, 0xc0000103, 0x174, 0x175, 0x176,
	0x277, 0x1a0, 0x2ff, 0x6e0, MSR_KVM_SYSTEM_TIME_NEW, MSR_KVM_WALL_CLOCK_NEW,
};

int dbt_get_state(struct vcpu *vcpu, struct vcpu_state *st, struct err *err)
{
	struct dbt_vcpu *dv = vcpu->engine_data;
	struct cpu *cpu = dv->cpu;

	(void)err;
	memset(st, 0, sizeof(*st));
	memcpy(st->gpr, cpu->gpr, sizeof(st->gpr));
	st->rip = cpu->rip;
	st->rflags = cpu_rflags(cpu);
	st->cr0 = cpu->cr0;
	st->cr2 = cpu->cr2;
	st->cr3 = cpu->cr3;
	st->cr4 = cpu->cr4;
	st->cr8 = irqchip_cr8(cpu->vm->irqchip, cpu->index);
	st->xcr0 = cpu->xcr0;
	st->efer = cpu->efer;
	memcpy(st->dr, cpu->dr, sizeof(st->dr));
	memcpy(st->seg, cpu->seg, sizeof(st->seg));
	st->seg[SEG_FS].base = cpu->fs_base;
	st->seg[SEG_GS].base = cpu->gs_base;
	st->ldtr = cpu->ldtr;
	st->tr = cpu->tr;
	st->gdtr = cpu->gdtr;
	st->idtr = cpu->idtr;
	(void)irqchip_msr_read(cpu->vm->irqchip, cpu->index, 0x1b, &st->apic_base);
	st->tsc = guest_tsc(cpu);
	st->mp_state = cpu->wait_for_sipi ? MP_WAIT_FOR_SIPI : cpu->halted ? MP_HALTED : MP_RUNNABLE;
	for (unsigned i = 0; i < ARRAY_SIZE(state_msrs); i++) {
		uint64_t v;

		if (msr_read(cpu, state_msrs[i], &v) == 0)
			st->msr[st->nmsrs++] = (struct vcpu_msr){ .index = state_msrs[i], .value = v };
	}
	st->exception_pending = cpu->has_pending;
	st->exception_vector = cpu->pending.vector;
	st->exception_has_error = cpu->pending.has_error;
	st->exception_error = cpu->pending.error;
	/* Ours may also be of an IRET, which hardware does not know, nor one without IF (SDM vol. 3, 26.3.1.5). */
	st->interrupt_shadow = cpu->intr_shadow && cpu->intr_enabled;
	st->nmi_masked = cpu->nmi_masked;
	st->nmi_pending = irqchip_nmi_pending(cpu->vm->irqchip, cpu->index);
	irqchip_save_lapic(cpu->vm->irqchip, cpu->index, st->lapic);
	memcpy(st->xsave, cpu->xsave, sizeof(st->xsave));
	return 0;
}

/*
 * Vector state may be of another engine, and somebody may have changed it: what XRSTOR would
 * fault at is left out (SDM vol. 1, 13.8.1).
 */
static void take_xsave(struct cpu *cpu, const uint8_t image[VCPU_XSAVE_MAX])
{
	uint64_t components;
	uint32_t mxcsr;

	memcpy(cpu->xsave, image, VCPU_XSAVE_MAX);
	memcpy(&mxcsr, cpu->xsave + XSAVE_MXCSR, sizeof(mxcsr));
	memcpy(&components, cpu->xsave + XSAVE_HEADER, sizeof(components));
	mxcsr &= cpu->mxcsr_mask;
	components &= cpu->xcr0_host;
	memcpy(cpu->xsave + XSAVE_MXCSR, &mxcsr, sizeof(mxcsr));
	memset(cpu->xsave + XSAVE_HEADER, 0, XSAVE_HEADER_BYTES);
	memcpy(cpu->xsave + XSAVE_HEADER, &components, sizeof(components));
}

int dbt_set_state(struct vcpu *vcpu, const struct vcpu_state *st, struct err *err)
{
	struct dbt_vcpu *dv = vcpu->engine_data;
	struct cpu *cpu = dv->cpu;
	uint64_t deadline = 0;

	if (st->nmsrs > VCPU_MSRS_MAX)
		return err_set(err, -EINVAL, "vCPU state names too many MSRs");
	memcpy(cpu->gpr, st->gpr, sizeof(cpu->gpr));
	cpu->rip = st->rip;
	cpu->cr0 = st->cr0;
	cpu->cr2 = st->cr2;
	cpu->cr4 = st->cr4;
	cpu->xcr0 = (st->xcr0 & cpu->vm->xcr0_mask) | 1;
	cpu->xsave_size = cpuid_xsave_size(cpu->vm->cpuid, cpu->xcr0);
	cpu->efer = st->efer;
	cpu->syscall_ready = 0;
	memcpy(cpu->dr, st->dr, sizeof(cpu->dr));
	memcpy(cpu->seg, st->seg, sizeof(cpu->seg));
	cpu->fs_base = st->seg[SEG_FS].base;
	cpu->gs_base = st->seg[SEG_GS].base;
	cpu->ldtr = st->ldtr;
	cpu->tr = st->tr;
	cpu->gdtr = st->gdtr;
	cpu->idtr = st->idtr;
	mmu_init(cpu);
	mmu_load_cr3(cpu, st->cr3, false);
	cpu->stepping = 0;
	cpu->debug.hits = 0;
	debug_update(cpu);
	cpu->cpl = (uint8_t)(st->seg[SEG_SS].attr >> 5 & 3);
	if (st->seg[SEG_CS].attr & ATTR_L)
		cpu->cpl = (uint8_t)(st->seg[SEG_CS].sel & 3);
	cpu_set_rflags(cpu, st->rflags, ~0ull);
	for (unsigned i = 0; i < st->nmsrs; i++) {
		if (st->msr[i].index == 0x6e0)
			deadline = st->msr[i].value;
		else
			(void)msr_write(cpu, st->msr[i].index, st->msr[i].value);
	}
	irqchip_restore_msrs(cpu->vm->irqchip, cpu->index, st->apic_base, deadline);
	irqchip_restore_lapic(cpu->vm->irqchip, cpu->index, st->lapic);
	irqchip_set_cr8(cpu->vm->irqchip, cpu->index, (uint8_t)st->cr8);
	cpu->wait_for_sipi = st->mp_state == MP_WAIT_FOR_SIPI;
	cpu->halted = st->mp_state == MP_HALTED;
	cpu->has_pending = st->exception_pending;
	cpu->pending = (struct event){ .vector = st->exception_vector, .kind = EVENT_FAULT,
		.has_error = st->exception_has_error, .error = st->exception_error };
	cpu->intr_shadow = st->interrupt_shadow;
	cpu->nmi_masked = st->nmi_masked;
	if (st->nmi_pending)	/* the local APIC has forgotten it with the rest */
		irqchip_nmi(cpu->vm->irqchip, cpu->index);
	take_xsave(cpu, st->xsave);
	cpu->fatal = NULL;
	cpu->leave = LEAVE_NONE;
	if (!cpu->wait_for_sipi)
		cpu_update_mode(cpu);
	if (cpu->fatal)
		return err_set(err, -ENOTSUP, "%s", cpu->fatal);
	dbt_take_jumps(vcpu->vm->engine_data, cpu);
	return 0;
}

int dbt_debug(struct vcpu *vcpu, const struct vcpu_debug *debug, struct err *err)
{
	struct cpu *cpu = ((struct dbt_vcpu *)vcpu->engine_data)->cpu;

	(void)err;
	cpu->debug.outside = *debug;
	if (debug->inject_int3)
		software_interrupt(cpu, VEC_BP, cpu->rip + 1);
	cpu->debug.outside.inject_int3 = false;
	debug_update(cpu);
	if (!debug->single_step) {
		cpu->stepping &= STEP_TF;
		ask_to_exit(cpu);	/* interrupts may have waited for the step */
	}
	return 0;
}

int dbt_get_vm_state(struct vm *vm, struct vm_state *ret_state, struct err *err)
{
	struct dbt_vm *dv = vm->engine_data;

	(void)err;
	memset(ret_state, 0, sizeof(*ret_state));
	irqchip_save_ioapic(dv->irqchip, &ret_state->ioapic);
	ret_state->tsc = guest_tsc(dv->cpu[0]);
	ret_state->clock_ns = kvmclock_ns(&dv->clock, ret_state->tsc);
	return 0;
}

int dbt_set_vm_state(struct vm *vm, const struct vm_state *state, struct err *err)
{
	uint64_t offset = state->tsc - __builtin_ia32_rdtsc();
	struct dbt_vm *dv = vm->engine_data;

	(void)err;
	irqchip_restore_ioapic(dv->irqchip, &state->ioapic);
	/* Time stood still for the guest: it goes on where it was. */
	for (unsigned i = 0; i < dv->ncpus; i++)
		dv->cpu[i]->tsc_offset = offset;
	kvmclock_init(&dv->clock, vm->mem, dv->tsc_khz, state->tsc, state->clock_ns);
	return 0;
}

int64_t dbt_skip_time(struct vm *vm, uint64_t most)
{
	const struct dbt_vm *dv = vm->engine_data;
	uint64_t ticks = UINT64_MAX, ns;

	for (unsigned i = 0; i < dv->ncpus; i++) {
		uint64_t now = guest_tsc(dv->cpu[i]), timer = dv->cpu[i]->timer_tsc;

		if (timer && timer <= now)
			return -EAGAIN;
		if (timer && timer - now < ticks)
			ticks = timer - now;
	}
	ns = (uint64_t)((unsigned __int128)ticks * 1000000 / dv->tsc_khz);
	if (ticks == UINT64_MAX || ns > most)
		return 0;
	for (unsigned i = 0; i < dv->ncpus; i++) {
		dv->cpu[i]->tsc_offset += ticks;
		dbt_timer_set(dv->cpu[i], dv->cpu[i]->timer_tsc);
	}
	return ns ? (int64_t)ns : 1;
}
