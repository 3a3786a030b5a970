/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interrupts in service: ISR, PPR, nesting, and levels that interrupt exactly once.
 * An emulating host's KVM shows no ISR and delivers levels twice.
 */
#include "guest.h"

#define LEVEL (1u << 15)
#define ICR_SELF (1u << 18)

static uint32_t isr_in_handler, ppr_in_handler, nested_order[4], nested;

static void spin(void)
{
	for (int i = 0; i < 8; i++)
		asm volatile("sti\n\tnop\n\tnop\n\tcli" : : : "memory");
}

static void lower_line(struct trap_frame *f)
{
	(void)f;
	isr_in_handler = apic_read(APIC_ISR + 0x20);
	ppr_in_handler = apic_read(APIC_PPR);
	write64(DEV_LOWER, 12);
}

static void test_level(void)
{
	irq_handler[0x46] = lower_line;
	ioapic_route(12, 0x46 | LEVEL);
	write64(DEV_RAISE, 12);
	check("a level interrupts", wait_irq(0x46, 1));
	spin();
	check_equal("once, when its handler lowers the line", irq_count[0x46], 1);
	check_equal("its ISR bit was set", isr_in_handler, 0x40);
	check_equal("PPR showed its class", ppr_in_handler, 0x40);
	check_equal("remote IRR is clear after EOI", ioapic_entry(12) >> 14 & 1, 0);
	check_equal("ISR too", apic_read(APIC_ISR + 0x20), 0);
}

static void on_low(struct trap_frame *f)
{
	(void)f;
	nested_order[nested++ & 3] = 1;
	apic_icr(0, ICR_SELF | 0x42);	/* lower class: has to wait */
	apic_icr(0, ICR_SELF | 0x61);	/* higher class: comes in between */
	spin();
	nested_order[nested++ & 3] = 2;
}

static void on_high(struct trap_frame *f)
{
	(void)f;
	nested_order[nested++ & 3] = 3;
}

static void on_lowest(struct trap_frame *f)
{
	(void)f;
	nested_order[nested++ & 3] = 4;
}

static void test_nesting(void)
{
	irq_handler[0x51] = on_low;
	irq_handler[0x61] = on_high;
	irq_handler[0x42] = on_lowest;
	apic_icr(0, ICR_SELF | 0x51);
	spin();
	spin();
	check("a higher class nests, a lower one waits",
	      nested == 4 && nested_order[0] == 1 && nested_order[1] == 3 &&
	      nested_order[2] == 2 && nested_order[3] == 4);
}

static void test_shadow(void)
{
	uint64_t taken = 0;

	irq_handler[0x43] = 0;
	apic_icr(0, ICR_SELF | 0x43);
	/* STI holds interrupts back for one instruction: CLI right behind lets none in. */
	asm volatile("sti\n\tcli" : : : "memory");
	taken = irq_count[0x43];
	check_equal("STI, CLI lets nothing in", taken, 0);
	asm volatile("sti\n\tnop\n\tcli" : : : "memory");
	check_equal("STI, NOP, CLI does", irq_count[0x43], 1);
}

int guest_main(void)
{
	apic_enable();
	test_level();
	test_nesting();
	test_shadow();
	return check_status();
}
