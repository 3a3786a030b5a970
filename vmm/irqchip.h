/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupt controllers in user space, for engines whose host has none: a local
 * APIC per vCPU (xAPIC and x2APIC) and one IOAPIC with 24 inputs.
 *
 *   line, MSI --> IOAPIC --\
 *                           +--> IRR bit --kick--> irqchip_take() --> guest IDT
 *   ICR of any vCPU -------/                            |
 *   APIC timer ------------/                           EOI --> IOAPIC (level)
 *
 * Nothing here takes a lock or waits.  A sender sets an IRR bit of the target
 * with an atomic operation and calls ops->kick when the bit was clear before.
 *
 * Threads: functions marked [owner] are called only on the thread that runs the
 * vCPU named (or while that vCPU is parked); all others from any thread.
 *
 * The guest-visible functions use no floating point and no library beyond
 * memcpy and memset, so that translated code may call them with the guest's
 * vector registers live (the file is compiled with -mgeneral-regs-only).
 *
 * Source: SDM vol. 3, chapter 11 (APIC); Intel 82093AA data sheet (IOAPIC).
 */
#ifndef VMM_IRQCHIP_H
#define VMM_IRQCHIP_H

#include <stdbool.h>
#include <stdint.h>

struct err;
struct ioapic_state;
struct irqchip;

#define LAPIC_MMIO_BASE 0xfee00000ull
#define IOAPIC_MMIO_BASE 0xfec00000ull
#define IRQCHIP_MMIO_SIZE 0x1000u
#define IOAPIC_PINS 24

#define LAPIC_PAGE_SIZE 1024	/* bytes of vcpu_state.lapic */

struct irqchip_ops {
	/*
	 * Required.  Something became pending for @vcpu: an interrupt, an NMI.  Must
	 * wake it from HLT and make it look at irqchip_pending() soon.
	 */
	void (*kick)(void *ctx, unsigned vcpu);

	/*
	 * Required.  Arranges for irqchip_timer_expired() once the vCPU's TSC has
	 * reached @tsc; 0 disarms.  Called on the owner's thread.
	 */
	void (*timer_set)(void *ctx, unsigned vcpu, uint64_t tsc);

	/* Required.  The vCPU's time stamp counter now. */
	uint64_t (*tsc)(void *ctx, unsigned vcpu);

	/* Optional.  INIT (@sipi_vector < 0) or a start-up IPI reached @vcpu. */
	void (*init_sipi)(void *ctx, unsigned vcpu, int sipi_vector);
};

/*
 * Makes the controllers in reset state.  @ops and @ctx are borrowed; @tsc_khz is
 * the rate of ops->tsc.  The APIC timer counts at 1 GHz.  0 or -ENOMEM.
 */
int irqchip_create(unsigned nvcpus, uint32_t tsc_khz, const struct irqchip_ops *ops, void *ctx,
		   struct irqchip **ret_chip, struct err *err);
void irqchip_destroy(struct irqchip *chip);	/* NULL is fine */

/* --- Between guest instructions [owner] --- */

/* True when irqchip_take() would return a vector.  Ignores RFLAGS.IF and shadows. */
bool irqchip_pending(const struct irqchip *chip, unsigned vcpu);

/*
 * Takes the highest deliverable vector: it moves from IRR to ISR.  Returns the
 * vector, or -1.
 */
int irqchip_take(struct irqchip *chip, unsigned vcpu);

/* True once for every NMI or group of NMIs that arrived since the last call. */
bool irqchip_take_nmi(struct irqchip *chip, unsigned vcpu);
bool irqchip_nmi_pending(const struct irqchip *chip, unsigned vcpu);

/* The deadline given to timer_set has passed.  Harmless when early. */
void irqchip_timer_expired(struct irqchip *chip, unsigned vcpu);

/* INIT puts the APIC back to power-up state, except its id. */
void irqchip_reset_vcpu(struct irqchip *chip, unsigned vcpu);

/* --- Guest accesses [owner] --- */

/* 32-bit registers; other offsets than multiples of 16 read 0.  Nothing in x2APIC mode. */
uint32_t irqchip_lapic_read(struct irqchip *chip, unsigned vcpu, uint32_t off);
void irqchip_lapic_write(struct irqchip *chip, unsigned vcpu, uint32_t off, uint32_t value);

/* True for the MSRs of this module: IA32_APIC_BASE, IA32_TSC_DEADLINE, 0x800-0x8ff. */
bool irqchip_has_msr(uint32_t msr);
/* 0, or -1 when the access raises #GP. */
int irqchip_msr_read(struct irqchip *chip, unsigned vcpu, uint32_t msr, uint64_t *ret_value);
int irqchip_msr_write(struct irqchip *chip, unsigned vcpu, uint32_t msr, uint64_t value);

/* CR8 is bits 7:4 of the task priority. */
uint8_t irqchip_cr8(const struct irqchip *chip, unsigned vcpu);
void irqchip_set_cr8(struct irqchip *chip, unsigned vcpu, uint8_t cr8);

/* --- Devices --- */

uint32_t irqchip_ioapic_read(struct irqchip *chip, uint32_t off);
void irqchip_ioapic_write(struct irqchip *chip, uint32_t off, uint32_t value);

/* Input @gsi of the IOAPIC; out of range is ignored. */
void irqchip_line_set(struct irqchip *chip, unsigned gsi, bool level);

/* A message-signalled interrupt, SDM vol. 3, 11.11. */
void irqchip_msi(struct irqchip *chip, uint64_t addr, uint32_t data);

/* Raises NMI on one vCPU. */
void irqchip_nmi(struct irqchip *chip, unsigned vcpu);

/* --- State, while the vCPU is parked --- */

/* @page is vcpu_state.lapic.  APIC base and deadline are the MSRs above. */
void irqchip_save_lapic(const struct irqchip *chip, unsigned vcpu, uint8_t page[LAPIC_PAGE_SIZE]);
/* IA32_APIC_BASE and IA32_TSC_DEADLINE are set before, by irqchip_restore_msrs(). */
void irqchip_restore_lapic(struct irqchip *chip, unsigned vcpu,
			   const uint8_t page[LAPIC_PAGE_SIZE]);
/* Sets both without the checks a guest's WRMSR is subject to, and without arming. */
void irqchip_restore_msrs(struct irqchip *chip, unsigned vcpu, uint64_t apic_base,
			  uint64_t tsc_deadline);
void irqchip_save_ioapic(const struct irqchip *chip, struct ioapic_state *ret_state);
void irqchip_restore_ioapic(struct irqchip *chip, const struct ioapic_state *state);

#endif /* VMM_IRQCHIP_H */
