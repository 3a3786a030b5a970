/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Architectural state of one x86-64 vCPU, the same for every engine.  A
 * snapshot taken on one engine restores on another because both speak this.
 * All fields little-endian, as the machine is.
 */
#ifndef VMM_VCPU_STATE_H
#define VMM_VCPU_STATE_H

#include <stdint.h>

/* Index of a register in vcpu_state.gpr: the hardware encoding. */
enum gpr { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15, GPR_COUNT };

/* Index of a segment in vcpu_state.seg: the hardware encoding. */
enum seg { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_COUNT };

/*
 * A segment register with its hidden part.  @attr has the bits of a descriptor
 * (SDM vol. 3, 3.4.5): type 0-3, S 4, DPL 5-6, P 7, AVL 8, L 9, D/B 10, G 11;
 * bit 15 set means unusable (a null selector was loaded).
 */
struct seg_reg {
	uint64_t base;
	uint32_t limit;	/* in bytes, granularity applied */
	uint16_t sel;
	uint16_t attr;
};

struct desc_table {
	uint64_t base;
	uint16_t limit;
	uint16_t pad[3];
};

enum mp_state { MP_RUNNABLE, MP_HALTED, MP_WAIT_FOR_SIPI };

#define VCPU_XSAVE_MAX 4096	/* bytes, standard (non-compacted) format */
#define VCPU_MSRS_MAX 64

struct vcpu_msr {
	uint32_t index;
	uint32_t pad;
	uint64_t value;
};

struct vcpu_state {
	uint64_t gpr[GPR_COUNT];
	uint64_t rip, rflags;
	uint64_t cr0, cr2, cr3, cr4, cr8, xcr0, efer;
	uint64_t dr[8];	/* 4 and 5 unused */
	struct seg_reg seg[SEG_COUNT];
	struct seg_reg ldtr, tr;
	struct desc_table gdtr, idtr;
	uint64_t apic_base;	/* IA32_APIC_BASE */
	uint64_t tsc;	/* guest TSC at the moment of capture; 0: set_state leaves it running */
	uint32_t nmsrs;
	uint32_t mp_state;	/* enum mp_state */
	struct vcpu_msr msr[VCPU_MSRS_MAX];	/* the others: STAR, LSTAR, PAT, KVM clock, ... */

	/*
	 * Events in flight (SDM vol. 3, 6.8 and 6.15).  An interrupt that the engine
	 * has accepted but not delivered is handed back: from ISR to IRR in @lapic.
	 */
	uint8_t exception_pending;	/* deliver @exception_vector before the next instruction */
	uint8_t exception_vector;
	uint8_t exception_has_error;
	uint8_t interrupt_shadow;	/* STI or MOV SS just executed */
	uint32_t exception_error;
	uint8_t nmi_pending, nmi_masked;
	uint8_t pad[6];

	uint8_t lapic[1024];	/* register page, 16-byte spaced registers as in xAPIC */
	uint8_t xsave[VCPU_XSAVE_MAX];
};

/* What belongs to no vCPU.  The IOAPIC's redirection entries hold delivery status
 * and remote IRR as the guest would read them. */
struct ioapic_state {
	uint64_t redir[24];
	uint32_t lines;	/* input levels, one bit a pin */
	uint32_t id, ioregsel;
	uint32_t pad;
};

struct vm_state {
	struct ioapic_state ioapic;
	uint64_t clock_ns;	/* KVM clock at the moment of capture */
	uint64_t tsc;	/* the guest's, at that moment */
};

#endif /* VMM_VCPU_STATE_H */
