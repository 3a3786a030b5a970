/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Translation between KVM's structures and struct vcpu_state.  Order matters when
 * setting: CR4 and EFER before MSRs that depend on them, the APIC base before the
 * APIC page, the APIC page and the TSC before the TSC deadline.
 */
#include "engine/kvm/internal.h"

#include "base/checked.h"
#include "os/err.h"
#include "vmm/vm.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

enum { MSR_TSC = 0x10, MSR_TSC_DEADLINE = 0x6e0 };

/* MSRs that are part of a vCPU's state; those a host lacks are skipped. */
static const uint32_t saved_msrs[] = {
	0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084,	/* STAR, LSTAR, CSTAR, SFMASK */
	0xc0000102, 0xc0000103,	/* KERNEL_GS_BASE, TSC_AUX */
	0x174, 0x175, 0x176,	/* SYSENTER_CS, ESP, EIP */
	0x1a0, 0x277,	/* MISC_ENABLE, PAT */
	MSR_KVM_WALL_CLOCK_NEW, MSR_KVM_SYSTEM_TIME_NEW, MSR_TSC_DEADLINE,
};
_Static_assert(ARRAY_SIZE(saved_msrs) <= VCPU_MSRS_MAX, "they fit");

struct msr_list {
	struct kvm_msrs head;
	struct kvm_msr_entry entry[VCPU_MSRS_MAX];
};

static int fail(struct err *err, const struct vcpu *vcpu, const char *what)
{
	int r = -errno;

	return err_set(err, r, "vCPU %u: KVM: cannot %s: %s", vcpu->index, what, strerror(-r));
}

/* --- General registers: KVM's order is not the hardware's --- */

static void regs_from_kvm(const struct kvm_regs *k, struct vcpu_state *s)
{
	const uint64_t gpr[GPR_COUNT] = { k->rax, k->rcx, k->rdx, k->rbx, k->rsp, k->rbp,
					  k->rsi, k->rdi, k->r8, k->r9, k->r10, k->r11,
					  k->r12, k->r13, k->r14, k->r15 };

	memcpy(s->gpr, gpr, sizeof(gpr));
	s->rip = k->rip;
	s->rflags = k->rflags;
}

static struct kvm_regs regs_to_kvm(const struct vcpu_state *s)
{
	const uint64_t *g = s->gpr;

	return (struct kvm_regs){
		.rax = g[RAX], .rcx = g[RCX], .rdx = g[RDX], .rbx = g[RBX], .rsp = g[RSP],
		.rbp = g[RBP], .rsi = g[RSI], .rdi = g[RDI], .r8 = g[R8], .r9 = g[R9],
		.r10 = g[R10], .r11 = g[R11], .r12 = g[R12], .r13 = g[R13], .r14 = g[R14],
		.r15 = g[R15], .rip = s->rip, .rflags = s->rflags };
}

/* --- Segments and control registers --- */

#define ATTR_UNUSABLE 0x8000u

static struct seg_reg seg_from_kvm(const struct kvm_segment *k)
{
	return (struct seg_reg){
		.base = k->base, .limit = k->limit, .sel = k->selector,
		.attr = (uint16_t)(k->type | k->s << 4 | k->dpl << 5 | k->present << 7 |
				   k->avl << 8 | k->l << 9 | k->db << 10 | k->g << 11 |
				   (k->unusable ? ATTR_UNUSABLE : 0)) };
}

static struct kvm_segment seg_to_kvm(const struct seg_reg *r)
{
	uint16_t a = r->attr;

	return (struct kvm_segment){
		.base = r->base, .limit = r->limit, .selector = r->sel, .type = a & 0xf,
		.s = a >> 4 & 1, .dpl = a >> 5 & 3, .present = a >> 7 & 1, .avl = a >> 8 & 1,
		.l = a >> 9 & 1, .db = a >> 10 & 1, .g = a >> 11 & 1,
		.unusable = (a & ATTR_UNUSABLE) != 0 };
}

static void sregs_from_kvm(const struct kvm_sregs *k, struct vcpu_state *s)
{
	s->seg[SEG_ES] = seg_from_kvm(&k->es);
	s->seg[SEG_CS] = seg_from_kvm(&k->cs);
	s->seg[SEG_SS] = seg_from_kvm(&k->ss);
	s->seg[SEG_DS] = seg_from_kvm(&k->ds);
	s->seg[SEG_FS] = seg_from_kvm(&k->fs);
	s->seg[SEG_GS] = seg_from_kvm(&k->gs);
	s->ldtr = seg_from_kvm(&k->ldt);
	s->tr = seg_from_kvm(&k->tr);
	s->gdtr = (struct desc_table){ .base = k->gdt.base, .limit = k->gdt.limit };
	s->idtr = (struct desc_table){ .base = k->idt.base, .limit = k->idt.limit };
	s->cr0 = k->cr0;
	s->cr2 = k->cr2;
	s->cr3 = k->cr3;
	s->cr4 = k->cr4;
	s->cr8 = k->cr8;
	s->efer = k->efer;
	s->apic_base = k->apic_base;
}

static struct kvm_sregs sregs_to_kvm(const struct vcpu_state *s)
{
	return (struct kvm_sregs){
		.es = seg_to_kvm(&s->seg[SEG_ES]), .cs = seg_to_kvm(&s->seg[SEG_CS]),
		.ss = seg_to_kvm(&s->seg[SEG_SS]), .ds = seg_to_kvm(&s->seg[SEG_DS]),
		.fs = seg_to_kvm(&s->seg[SEG_FS]), .gs = seg_to_kvm(&s->seg[SEG_GS]),
		.ldt = seg_to_kvm(&s->ldtr), .tr = seg_to_kvm(&s->tr),
		.gdt = { .base = s->gdtr.base, .limit = s->gdtr.limit },
		.idt = { .base = s->idtr.base, .limit = s->idtr.limit },
		.cr0 = s->cr0, .cr2 = s->cr2, .cr3 = s->cr3, .cr4 = s->cr4, .cr8 = s->cr8,
		.efer = s->efer, .apic_base = s->apic_base };
}

/* --- MSRs --- */

/* KVM_GET_MSRS stops at the first MSR it does not know: go on behind it. */
static int get_msrs(const struct vcpu *vcpu, const struct kvm_vcpu *kv, struct vcpu_state *s,
		    struct err *err)
{
	unsigned at = 0;
	uint32_t wanted[ARRAY_SIZE(saved_msrs) + 1] = { MSR_TSC };

	memcpy(wanted + 1, saved_msrs, sizeof(saved_msrs));
	s->nmsrs = 0;
	while (at < ARRAY_SIZE(wanted)) {
		struct msr_list list = { .head.nmsrs = ARRAY_SIZE(wanted) - at };
		int n;

		for (unsigned i = 0; i < list.head.nmsrs; i++)
			list.entry[i].index = wanted[at + i];
		n = ioctl(kv->fd, KVM_GET_MSRS, &list);
		if (n < 0)
			return fail(err, vcpu, "read MSRs");
		for (int i = 0; i < n; i++) {
			if (list.entry[i].index == MSR_TSC)
				s->tsc = list.entry[i].data;
			else
				s->msr[s->nmsrs++] = (struct vcpu_msr){
					.index = list.entry[i].index, .value = list.entry[i].data };
		}
		at += (unsigned)n + 1;
	}
	return 0;
}

static int set_msrs(const struct vcpu *vcpu, const struct kvm_vcpu *kv, const struct vcpu_state *s,
		    struct err *err)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry[VCPU_MSRS_MAX + 1];
	} list = { 0 };
	int n;

	if (s->nmsrs > VCPU_MSRS_MAX)
		return err_set(err, -EINVAL, "vCPU %u: %u MSRs in its state", vcpu->index, s->nmsrs);
	if (s->tsc)
		list.entry[list.head.nmsrs++] = (struct kvm_msr_entry){ .index = MSR_TSC,
									.data = s->tsc };
	for (unsigned i = 0; i < s->nmsrs; i++)
		list.entry[list.head.nmsrs++] = (struct kvm_msr_entry){
			.index = s->msr[i].index, .data = s->msr[i].value };
	n = ioctl(kv->fd, KVM_SET_MSRS, &list);
	if (n < 0)
		return fail(err, vcpu, "write MSRs");
	if ((unsigned)n < list.head.nmsrs)
		return err_set(err, -EINVAL, "vCPU %u: KVM refuses MSR 0x%x = 0x%llx", vcpu->index,
			       list.entry[n].index, (unsigned long long)list.entry[n].data);
	return 0;
}

/* --- Events --- */

enum { LAPIC_ISR = 0x100, LAPIC_IRR = 0x200 };

/* An interrupt on its way to the guest goes back to where it was pending. */
static void hand_back_interrupt(struct vcpu_state *s, unsigned vector)
{
	unsigned at = vector / 32 * 16 + vector % 32 / 8;
	uint8_t bit = (uint8_t)(1u << vector % 8);

	s->lapic[LAPIC_ISR + at] &= (uint8_t)~bit;
	s->lapic[LAPIC_IRR + at] |= bit;
}

static int get_events(const struct vcpu *vcpu, const struct kvm_vcpu *kv, struct vcpu_state *s,
		      struct err *err)
{
	struct kvm_vcpu_events e;

	if (ioctl(kv->fd, KVM_GET_VCPU_EVENTS, &e) < 0)
		return fail(err, vcpu, "read pending events");
	s->exception_pending = e.exception.injected || e.exception.pending;
	s->exception_vector = e.exception.nr;
	s->exception_has_error = e.exception.has_error_code;
	s->exception_error = e.exception.error_code;
	s->interrupt_shadow = e.interrupt.shadow != 0;
	s->nmi_pending = e.nmi.injected || e.nmi.pending;
	/* One that KVM was about to deliver already masks the next: it is to be delivered again, by whoever takes the state. */
	s->nmi_masked = e.nmi.masked && !e.nmi.injected;
	if (e.interrupt.injected && !e.interrupt.soft)
		hand_back_interrupt(s, e.interrupt.nr);
	return 0;
}

static int set_events(const struct vcpu *vcpu, const struct kvm_vcpu *kv,
		      const struct vcpu_state *s, struct err *err)
{
	struct kvm_vcpu_events e = {
		.exception = { .injected = s->exception_pending, .nr = s->exception_vector,
			       .has_error_code = s->exception_has_error,
			       .error_code = s->exception_error },
		.interrupt.shadow = s->interrupt_shadow ? KVM_X86_SHADOW_INT_STI : 0,
		.nmi = { .pending = s->nmi_pending, .masked = s->nmi_masked },
		.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
	};

	return ioctl(kv->fd, KVM_SET_VCPU_EVENTS, &e) < 0 ? fail(err, vcpu, "set pending events") : 0;
}

static uint32_t mp_state_from_kvm(uint32_t k)
{
	switch (k) {
	case KVM_MP_STATE_HALTED: return MP_HALTED;
	case KVM_MP_STATE_UNINITIALIZED:
	case KVM_MP_STATE_INIT_RECEIVED: return MP_WAIT_FOR_SIPI;
	default: return MP_RUNNABLE;
	}
}

static struct kvm_mp_state mp_state_to_kvm(uint32_t s)
{
	return (struct kvm_mp_state){ .mp_state = s == MP_HALTED ? KVM_MP_STATE_HALTED
						: s == MP_WAIT_FOR_SIPI ? KVM_MP_STATE_INIT_RECEIVED
						: KVM_MP_STATE_RUNNABLE };
}

/* --- All of it --- */

_Static_assert(sizeof(struct kvm_xsave) == VCPU_XSAVE_MAX, "same standard-format area");
_Static_assert(sizeof(struct kvm_lapic_state) == sizeof(((struct vcpu_state *)0)->lapic),
	       "same register page");

int kvm_get_state(struct vcpu *vcpu, struct vcpu_state *ret_state, struct err *err)
{
	const struct kvm_vcpu *kv = vcpu->engine_data;
	struct vcpu_state *s = ret_state;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_debugregs debug;
	struct kvm_xcrs xcrs;
	struct kvm_mp_state mp;
	int r;

	memset(s, 0, sizeof(*s));
	/* First: the kernel acts on start-up events when asked for this. */
	if (ioctl(kv->fd, KVM_GET_MP_STATE, &mp) < 0 || ioctl(kv->fd, KVM_GET_REGS, &regs) < 0 ||
	    ioctl(kv->fd, KVM_GET_SREGS, &sregs) < 0 || ioctl(kv->fd, KVM_GET_XSAVE, s->xsave) < 0 ||
	    ioctl(kv->fd, KVM_GET_XCRS, &xcrs) < 0 ||
	    ioctl(kv->fd, KVM_GET_DEBUGREGS, &debug) < 0 || ioctl(kv->fd, KVM_GET_LAPIC, s->lapic) < 0)
		return fail(err, vcpu, "read registers");
	regs_from_kvm(&regs, s);
	sregs_from_kvm(&sregs, s);
	s->xcr0 = xcrs.nr_xcrs ? xcrs.xcrs[0].value : 1;
	memcpy(s->dr, debug.db, sizeof(debug.db));
	s->dr[6] = debug.dr6;
	s->dr[7] = debug.dr7;
	s->mp_state = mp_state_from_kvm(mp.mp_state);
	r = get_events(vcpu, kv, s, err);
	return r < 0 ? r : get_msrs(vcpu, kv, s, err);
}

int kvm_set_state(struct vcpu *vcpu, const struct vcpu_state *state, struct err *err)
{
	const struct kvm_vcpu *kv = vcpu->engine_data;
	const struct vcpu_state *s = state;
	struct kvm_regs regs = regs_to_kvm(s);
	struct kvm_sregs sregs = sregs_to_kvm(s);
	struct kvm_debugregs debug = { .dr6 = s->dr[6], .dr7 = s->dr[7] };
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0] = { .value = s->xcr0 } };
	struct kvm_mp_state mp = mp_state_to_kvm(s->mp_state);
	struct kvm_xsave xsave;
	struct kvm_lapic_state lapic;
	int r;

	memcpy(debug.db, s->dr, sizeof(debug.db));
	memcpy(&xsave, s->xsave, sizeof(xsave));
	memcpy(&lapic, s->lapic, sizeof(lapic));
	if (ioctl(kv->fd, KVM_SET_REGS, &regs) < 0)
		return fail(err, vcpu, "set registers");
	if (ioctl(kv->fd, KVM_SET_SREGS, &sregs) < 0)
		return fail(err, vcpu, "set segment and control registers");
	if (ioctl(kv->fd, KVM_SET_XCRS, &xcrs) < 0)
		return fail(err, vcpu, "set XCR0");
	if (ioctl(kv->fd, KVM_SET_XSAVE, &xsave) < 0)
		return fail(err, vcpu, "set floating-point state");
	if (ioctl(kv->fd, KVM_SET_DEBUGREGS, &debug) < 0)
		return fail(err, vcpu, "set debug registers");
	if (ioctl(kv->fd, KVM_SET_LAPIC, &lapic) < 0)
		return fail(err, vcpu, "set the local APIC");
	r = set_msrs(vcpu, kv, s, err);
	if (r == 0)
		r = set_events(vcpu, kv, s, err);
	if (r == 0 && ioctl(kv->fd, KVM_SET_MP_STATE, &mp) < 0)
		r = fail(err, vcpu, "set its run state");
	return r;
}

/* --- Shared by all vCPUs --- */

static int read_tsc(const struct kvm_vcpu *kv, uint64_t *ret_tsc, struct err *err)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} list = { .head.nmsrs = 1, .entry.index = MSR_TSC };
	int r;

	if (ioctl(kv->fd, KVM_GET_MSRS, &list) != 1) {
		r = -errno;
		return err_set(err, r, "KVM: cannot read the guest's time stamp counter: %s", strerror(-r));
	}
	*ret_tsc = list.entry.data;
	return 0;
}

int kvm_get_vm_state(struct vm *vm, struct vm_state *ret_state, struct err *err)
{
	const struct kvm_vm *kvm = vm->engine_data;
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_IOAPIC };
	struct kvm_clock_data clock = { 0 };

	if (ioctl(kvm->fd, KVM_GET_IRQCHIP, &chip) < 0 || ioctl(kvm->fd, KVM_GET_CLOCK, &clock) < 0) {
		int r = -errno;

		return err_set(err, r, "KVM: cannot read the machine's state: %s", strerror(-r));
	}
	memset(ret_state, 0, sizeof(*ret_state));
	for (unsigned i = 0; i < ARRAY_SIZE(ret_state->ioapic.redir); i++)
		ret_state->ioapic.redir[i] = chip.chip.ioapic.redirtbl[i].bits;
	ret_state->ioapic.lines = chip.chip.ioapic.irr;
	ret_state->ioapic.id = chip.chip.ioapic.id;
	ret_state->ioapic.ioregsel = chip.chip.ioapic.ioregsel;
	ret_state->clock_ns = clock.clock;
	return read_tsc(vm->vcpu[0].engine_data, &ret_state->tsc, err);
}

int kvm_set_vm_state(struct vm *vm, const struct vm_state *state, struct err *err)
{
	const struct kvm_vm *kvm = vm->engine_data;
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_IOAPIC };
	struct kvm_clock_data clock = { .clock = state->clock_ns };

	chip.chip.ioapic.base_address = 0xfec00000;
	chip.chip.ioapic.ioregsel = state->ioapic.ioregsel;
	chip.chip.ioapic.id = state->ioapic.id;
	chip.chip.ioapic.irr = state->ioapic.lines;
	for (unsigned i = 0; i < ARRAY_SIZE(state->ioapic.redir); i++)
		chip.chip.ioapic.redirtbl[i].bits = state->ioapic.redir[i];
	if (ioctl(kvm->fd, KVM_SET_IRQCHIP, &chip) < 0 || ioctl(kvm->fd, KVM_SET_CLOCK, &clock) < 0) {
		int r = -errno;

		return err_set(err, r, "KVM: cannot set the machine's state: %s", strerror(-r));
	}
	return 0;
}
