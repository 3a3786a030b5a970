/* SPDX-License-Identifier: Apache-2.0 */
#include "vmm/irqchip.h"
#include "vmm/vcpu_state.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#define CPUS 4
#define KHZ 2000000u	/* 2 GHz: two ticks a nanosecond of the APIC timer */

enum { TPR = 0x80, PPR = 0xa0, EOI = 0xb0, LDR = 0xd0, DFR = 0xe0, SVR = 0xf0, ISR = 0x100,
       IRR = 0x200, ESR = 0x280, ICR = 0x300, ICR2 = 0x310, LVT_TIMER = 0x320, LVT_ERROR = 0x370,
       INITIAL = 0x380, CURRENT = 0x390, DIVIDE = 0x3e0 };
#define LEVEL (1u << 15)
#define MASKED (1u << 16)

/* A machine of four processors whose time stands still unless moved. */
struct host {
	struct irqchip *chip;
	unsigned kicks[CPUS];
	uint64_t deadline[CPUS], tsc;
	int sipi_cpu, sipi_vector;
};

static void kick(void *ctx, unsigned vcpu)
{
	((struct host *)ctx)->kicks[vcpu]++;
}

static void timer_set(void *ctx, unsigned vcpu, uint64_t tsc)
{
	((struct host *)ctx)->deadline[vcpu] = tsc;
}

static uint64_t tsc(void *ctx, unsigned vcpu)
{
	return ((struct host *)ctx)->tsc;
}

static void init_sipi(void *ctx, unsigned vcpu, int vector)
{
	struct host *h = ctx;

	h->sipi_cpu = (int)vcpu;
	h->sipi_vector = vector;
}

static const struct irqchip_ops ops = { kick, timer_set, tsc, init_sipi };

static int setup(void **state)
{
	static struct host h;

	memset(&h, 0, sizeof(h));
	h.tsc = 1000;
	h.sipi_cpu = -1;
	if (irqchip_create(CPUS, KHZ, &ops, &h, &h.chip, NULL) < 0)
		return -1;
	for (unsigned i = 0; i < CPUS; i++)
		irqchip_lapic_write(h.chip, i, SVR, 0x1ff);
	*state = &h;
	return 0;
}

static int teardown(void **state)
{
	irqchip_destroy(((struct host *)*state)->chip);
	return 0;
}

static void route(struct host *h, unsigned pin, uint64_t entry)
{
	irqchip_ioapic_write(h->chip, 0, 0x10 + 2 * pin + 1);
	irqchip_ioapic_write(h->chip, 0x10, (uint32_t)(entry >> 32));
	irqchip_ioapic_write(h->chip, 0, 0x10 + 2 * pin);
	irqchip_ioapic_write(h->chip, 0x10, (uint32_t)entry);
}

static uint32_t entry_low(struct host *h, unsigned pin)
{
	irqchip_ioapic_write(h->chip, 0, 0x10 + 2 * pin);
	return irqchip_ioapic_read(h->chip, 0x10);
}

static void x2apic(struct host *h)
{
	for (unsigned i = 0; i < CPUS; i++) {
		uint64_t base;

		assert_int_equal(irqchip_msr_read(h->chip, i, 0x1b, &base), 0);
		assert_int_equal(irqchip_msr_write(h->chip, i, 0x1b, base | 1 << 10), 0);
	}
}

/* Bit i set: processor i has @vector pending; all of it is taken and ended. */
static unsigned takers(struct host *h, int vector)
{
	unsigned got = 0;

	for (unsigned i = 0; i < CPUS; i++) {
		int v = irqchip_take(h->chip, i);

		if (v < 0)
			continue;
		assert_int_equal(v, vector);
		got |= 1u << i;
		if (irqchip_msr_write(h->chip, i, 0x80b, 0) < 0)
			irqchip_lapic_write(h->chip, i, EOI, 0);
	}
	return got;
}

static void test_higher_vectors_come_first_and_nest(void **state)
{
	struct host *h = *state;

	irqchip_msi(h->chip, 0xfee00000, 0x41);
	irqchip_msi(h->chip, 0xfee00000, 0x71);
	assert_int_equal(h->kicks[0], 2);
	assert_true(irqchip_pending(h->chip, 0));
	assert_int_equal(irqchip_take(h->chip, 0), 0x71);
	assert_int_equal(irqchip_lapic_read(h->chip, 0, PPR), 0x70);
	assert_false(irqchip_pending(h->chip, 0));
	assert_int_equal(irqchip_take(h->chip, 0), -1);
	irqchip_msi(h->chip, 0xfee00000, 0x7f);	/* same class: waits */
	assert_false(irqchip_pending(h->chip, 0));
	irqchip_msi(h->chip, 0xfee00000, 0x81);
	assert_int_equal(irqchip_take(h->chip, 0), 0x81);
	irqchip_lapic_write(h->chip, 0, EOI, 0);
	irqchip_lapic_write(h->chip, 0, EOI, 0);
	assert_int_equal(irqchip_take(h->chip, 0), 0x7f);
	irqchip_lapic_write(h->chip, 0, EOI, 0);
	assert_int_equal(irqchip_take(h->chip, 0), 0x41);
}

static void test_task_priority_holds_back_its_class(void **state)
{
	struct host *h = *state;

	irqchip_set_cr8(h->chip, 0, 4);
	assert_int_equal(irqchip_lapic_read(h->chip, 0, TPR), 0x40);
	irqchip_msi(h->chip, 0xfee00000, 0x4f);
	assert_false(irqchip_pending(h->chip, 0));
	irqchip_set_cr8(h->chip, 0, 3);
	assert_true(irqchip_pending(h->chip, 0));
	assert_int_equal(irqchip_cr8(h->chip, 0), 3);
}

static void test_a_pending_vector_kicks_only_once(void **state)
{
	struct host *h = *state;

	irqchip_msi(h->chip, 0xfee00000, 0x50);
	irqchip_msi(h->chip, 0xfee00000, 0x50);
	assert_int_equal(h->kicks[0], 1);
	assert_int_equal(irqchip_take(h->chip, 0), 0x50);
	irqchip_lapic_write(h->chip, 0, EOI, 0);
	assert_int_equal(irqchip_take(h->chip, 0), -1);
}

static void test_a_disabled_apic_takes_nothing(void **state)
{
	struct host *h = *state;

	irqchip_lapic_write(h->chip, 0, LVT_TIMER, 0x40);
	irqchip_lapic_write(h->chip, 0, SVR, 0xff);
	irqchip_msi(h->chip, 0xfee00000, 0x50);
	assert_false(irqchip_pending(h->chip, 0));
	assert_int_equal(irqchip_lapic_read(h->chip, 0, LVT_TIMER), 0x40 | MASKED);
}

static void test_spurious_eoi_changes_nothing(void **state)
{
	struct host *h = *state;

	irqchip_lapic_write(h->chip, 0, EOI, 0);
	irqchip_msi(h->chip, 0xfee00000, 0x50);
	assert_int_equal(irqchip_take(h->chip, 0), 0x50);
}

static void test_edges_interrupt_once_per_edge(void **state)
{
	struct host *h = *state;

	route(h, 5, 0x45);
	irqchip_line_set(h->chip, 5, true);
	irqchip_line_set(h->chip, 5, true);
	assert_int_equal(takers(h, 0x45), 1);
	assert_int_equal(takers(h, 0x45), 0);
	irqchip_line_set(h->chip, 5, false);
	irqchip_line_set(h->chip, 5, true);
	assert_int_equal(takers(h, 0x45), 1);
	route(h, 5, 0x45 | MASKED);
	irqchip_line_set(h->chip, 5, false);
	irqchip_line_set(h->chip, 5, true);
	assert_int_equal(takers(h, 0x45), 0);
	irqchip_line_set(h->chip, 24, true);	/* no such input */
}

static void test_levels_repeat_until_the_line_falls(void **state)
{
	struct host *h = *state;

	route(h, 6, 0x46 | LEVEL);
	irqchip_line_set(h->chip, 6, true);
	assert_int_equal(entry_low(h, 6) >> 14 & 1, 1);
	assert_int_equal(irqchip_take(h->chip, 0), 0x46);
	assert_false(irqchip_pending(h->chip, 0));	/* remote IRR holds it */
	irqchip_lapic_write(h->chip, 0, EOI, 0);
	assert_int_equal(irqchip_take(h->chip, 0), 0x46);
	irqchip_line_set(h->chip, 6, false);
	irqchip_lapic_write(h->chip, 0, EOI, 0);
	assert_false(irqchip_pending(h->chip, 0));
	assert_int_equal(entry_low(h, 6) >> 14 & 1, 0);
}

static void test_a_level_masked_while_up_comes_after_unmasking(void **state)
{
	struct host *h = *state;

	route(h, 6, 0x46 | LEVEL | MASKED);
	irqchip_line_set(h->chip, 6, true);
	assert_false(irqchip_pending(h->chip, 0));
	route(h, 6, 0x46 | LEVEL);
	assert_int_equal(takers(h, 0x46), 1);
}

static void test_writing_an_entry_as_edge_clears_remote_irr(void **state)
{
	struct host *h = *state;

	route(h, 6, 0x46 | LEVEL);
	irqchip_line_set(h->chip, 6, true);
	route(h, 6, 0x46 | MASKED);
	assert_int_equal(entry_low(h, 6) >> 14 & 1, 0);
	route(h, 6, 0x46 | LEVEL | 1 << 14);	/* read-only for the guest */
	assert_int_equal(entry_low(h, 6) >> 14 & 1, 1);	/* set by delivery: the line is up */
}

static void test_physical_destinations_and_broadcast(void **state)
{
	struct host *h = *state;

	irqchip_msi(h->chip, 0xfee00000 | 2 << 12, 0x50);
	assert_int_equal(takers(h, 0x50), 4);
	irqchip_msi(h->chip, 0xfee00000 | 9 << 12, 0x50);
	assert_int_equal(takers(h, 0x50), 0);
	irqchip_msi(h->chip, 0xfee00000 | 0xff << 12, 0x50);
	assert_int_equal(takers(h, 0x50), 0xf);
}

static void test_flat_and_cluster_logical_destinations(void **state)
{
	struct host *h = *state;

	for (unsigned i = 0; i < CPUS; i++)
		irqchip_lapic_write(h->chip, i, LDR, 1u << (24 + i));
	irqchip_msi(h->chip, 0xfee00004 | 0x0a << 12, 0x50);
	assert_int_equal(takers(h, 0x50), 0xa);
	for (unsigned i = 0; i < CPUS; i++) {
		irqchip_lapic_write(h->chip, i, DFR, 0x0fffffff);
		irqchip_lapic_write(h->chip, i, LDR, (i / 2) << 28 | 1u << (24 + i % 2));
	}
	irqchip_msi(h->chip, 0xfee00004 | 0x13 << 12, 0x50);
	assert_int_equal(takers(h, 0x50), 0xc);
}

static void test_lowest_priority_goes_to_one_idle_processor(void **state)
{
	struct host *h = *state;

	for (unsigned i = 0; i < CPUS; i++)
		irqchip_lapic_write(h->chip, i, LDR, 1u << (24 + i));
	irqchip_set_cr8(h->chip, 0, 5);
	irqchip_set_cr8(h->chip, 1, 3);
	irqchip_msi(h->chip, 0xfee00004 | 0x03 << 12, 0x150);	/* delivery mode 1 */
	assert_int_equal(takers(h, 0x50), 2);
}

static void test_xapic_icr_and_shorthands(void **state)
{
	struct host *h = *state;

	irqchip_lapic_write(h->chip, 0, ICR2, 3u << 24);
	irqchip_lapic_write(h->chip, 0, ICR, 0x50);
	assert_int_equal(takers(h, 0x50), 8);
	irqchip_lapic_write(h->chip, 1, ICR, 1u << 18 | 0x51);
	assert_int_equal(takers(h, 0x51), 2);
	irqchip_lapic_write(h->chip, 1, ICR, 2u << 18 | 0x52);
	assert_int_equal(takers(h, 0x52), 0xf);
	irqchip_lapic_write(h->chip, 1, ICR, 3u << 18 | 0x53);
	assert_int_equal(takers(h, 0x53), 0xd);
}

static void test_x2apic_registers_and_icr(void **state)
{
	struct host *h = *state;
	uint64_t v;

	assert_int_equal(irqchip_msr_read(h->chip, 2, 0x802, &v), -1);	/* still xAPIC */
	x2apic(h);
	assert_int_equal(irqchip_msr_read(h->chip, 2, 0x802, &v), 0);
	assert_int_equal(v, 2);
	assert_int_equal(irqchip_msr_read(h->chip, 2, 0x80d, &v), 0);
	assert_int_equal(v, 4);
	assert_int_equal(irqchip_msr_write(h->chip, 0, 0x80d, 0), -1);	/* LDR is read-only */
	assert_int_equal(irqchip_msr_write(h->chip, 0, 0x80e, 0), -1);	/* no DFR */
	assert_int_equal(irqchip_msr_write(h->chip, 0, 0x80b, 1), -1);	/* EOI takes only 0 */
	assert_int_equal(irqchip_msr_write(h->chip, 0, 0x808, 1ull << 32), -1);
	assert_int_equal(irqchip_msr_write(h->chip, 0, 0x830, 2ull << 32 | 0x50), 0);
	assert_int_equal(takers(h, 0x50), 4);
	assert_int_equal(irqchip_msr_write(h->chip, 0, 0x830, 0xbull << 32 | 1 << 11 | 0x51), 0);
	assert_int_equal(takers(h, 0x51), 0xb);
	assert_int_equal(irqchip_msr_write(h->chip, 0, 0x830, 0x1000full << 32 | 1 << 11 | 0x51), 0);
	assert_int_equal(takers(h, 0x51), 0);	/* another cluster */
	assert_int_equal(irqchip_msr_write(h->chip, 0, 0x830, 0xffffffffull << 32 | 0x52), 0);
	assert_int_equal(takers(h, 0x52), 0xf);
	assert_int_equal(irqchip_msr_write(h->chip, 3, 0x83f, 0x53), 0);
	assert_int_equal(takers(h, 0x53), 8);
	assert_int_equal(irqchip_lapic_read(h->chip, 0, SVR), 0);	/* no window any more */
}

static void test_mode_changes_follow_the_state_diagram(void **state)
{
	struct host *h = *state;
	const uint64_t base = 0xfee00000, on = 1 << 11, x2 = 1 << 10;

	assert_int_equal(irqchip_msr_write(h->chip, 1, 0x1b, base | x2), -1);
	assert_int_equal(irqchip_msr_write(h->chip, 1, 0x1b, 0xfed00000 | on), -1);
	assert_int_equal(irqchip_msr_write(h->chip, 1, 0x1b, base | on | x2), 0);
	assert_int_equal(irqchip_msr_write(h->chip, 1, 0x1b, base | on), -1);
	assert_int_equal(irqchip_msr_write(h->chip, 1, 0x1b, base), 0);
	assert_int_equal(irqchip_msr_write(h->chip, 1, 0x1b, base | on | x2), -1);
	assert_int_equal(irqchip_msr_write(h->chip, 1, 0x1b, base | on), 0);
}

static void test_nmi_init_and_startup(void **state)
{
	struct host *h = *state;

	irqchip_lapic_write(h->chip, 0, ICR2, 1u << 24);
	irqchip_lapic_write(h->chip, 0, ICR, 4 << 8);
	assert_int_equal(h->kicks[1], 1);
	assert_true(irqchip_nmi_pending(h->chip, 1));
	assert_true(irqchip_take_nmi(h->chip, 1));
	assert_false(irqchip_take_nmi(h->chip, 1));
	irqchip_lapic_write(h->chip, 0, ICR, 5 << 8 | 1 << 14);
	assert_int_equal(h->sipi_cpu, 1);
	assert_int_equal(h->sipi_vector, -1);
	irqchip_lapic_write(h->chip, 0, ICR, 6 << 8 | 0x9a);
	assert_int_equal(h->sipi_vector, 0x9a);
	h->sipi_cpu = -1;
	irqchip_lapic_write(h->chip, 0, ICR, 5 << 8 | LEVEL);	/* INIT de-assert */
	assert_int_equal(h->sipi_cpu, -1);
}

static void test_illegal_vectors_are_errors(void **state)
{
	struct host *h = *state;

	irqchip_lapic_write(h->chip, 0, LVT_ERROR, 0x60);
	irqchip_lapic_write(h->chip, 0, ICR, 1u << 18 | 5);
	assert_int_equal(irqchip_take(h->chip, 0), 0x60);
	irqchip_lapic_write(h->chip, 0, ESR, 0);
	assert_int_equal(irqchip_lapic_read(h->chip, 0, ESR), 1 << 5);
	irqchip_lapic_write(h->chip, 0, ESR, 0);
	assert_int_equal(irqchip_lapic_read(h->chip, 0, ESR), 0);
}

static void test_one_shot_timer(void **state)
{
	struct host *h = *state;

	irqchip_lapic_write(h->chip, 0, DIVIDE, 0xb);
	irqchip_lapic_write(h->chip, 0, LVT_TIMER, 0x40);
	irqchip_lapic_write(h->chip, 0, INITIAL, 1000);
	assert_int_equal(h->deadline[0], 1000 + 2000);
	h->tsc += 500;
	assert_in_range(irqchip_lapic_read(h->chip, 0, CURRENT), 749, 750);
	irqchip_timer_expired(h->chip, 0);	/* early: armed again, nothing happens */
	assert_false(irqchip_pending(h->chip, 0));
	h->tsc += 1500;
	irqchip_timer_expired(h->chip, 0);
	assert_int_equal(irqchip_take(h->chip, 0), 0x40);
	assert_int_equal(irqchip_lapic_read(h->chip, 0, CURRENT), 0);
	irqchip_lapic_write(h->chip, 0, EOI, 0);
	irqchip_timer_expired(h->chip, 0);
	assert_false(irqchip_pending(h->chip, 0));
	irqchip_lapic_write(h->chip, 0, DIVIDE, 0);	/* by 2 */
	irqchip_lapic_write(h->chip, 0, INITIAL, 1000);
	assert_int_equal(h->deadline[0], h->tsc + 4000);
	irqchip_lapic_write(h->chip, 0, INITIAL, 0);
	assert_int_equal(h->deadline[0], 0);
}

static void test_periodic_timer_skips_what_was_slept_through(void **state)
{
	struct host *h = *state;

	irqchip_lapic_write(h->chip, 0, DIVIDE, 0xb);
	irqchip_lapic_write(h->chip, 0, LVT_TIMER, 0x40 | 1 << 17);
	irqchip_lapic_write(h->chip, 0, INITIAL, 1000);
	h->tsc += 5100;
	irqchip_timer_expired(h->chip, 0);
	assert_int_equal(irqchip_take(h->chip, 0), 0x40);
	assert_int_equal(h->deadline[0], 1000 + 6000);
}

static void test_deadline_timer(void **state)
{
	struct host *h = *state;
	uint64_t v;

	assert_int_equal(irqchip_msr_write(h->chip, 0, 0x6e0, 5000), 0);
	assert_int_equal(h->deadline[0], 0);	/* not in deadline mode: ignored */
	irqchip_lapic_write(h->chip, 0, LVT_TIMER, 0x40 | 2 << 17);
	assert_int_equal(irqchip_msr_write(h->chip, 0, 0x6e0, 5000), 0);
	assert_int_equal(h->deadline[0], 5000);
	assert_int_equal(irqchip_msr_read(h->chip, 0, 0x6e0, &v), 0);
	assert_int_equal(v, 5000);
	irqchip_lapic_write(h->chip, 0, INITIAL, 7);	/* has no effect in this mode */
	assert_int_equal(h->deadline[0], 5000);
	h->tsc = 5000;
	irqchip_timer_expired(h->chip, 0);
	assert_int_equal(irqchip_take(h->chip, 0), 0x40);
	assert_int_equal(irqchip_msr_read(h->chip, 0, 0x6e0, &v), 0);
	assert_int_equal(v, 0);
	assert_int_equal(irqchip_msr_write(h->chip, 0, 0x6e0, 9000), 0);
	irqchip_lapic_write(h->chip, 0, LVT_TIMER, 0x40);	/* leaving the mode disarms */
	assert_int_equal(h->deadline[0], 0);
}

static void test_state_moves_to_another_chip(void **state)
{
	struct host *h = *state, other = { .tsc = 1000000 };
	uint8_t page[LAPIC_PAGE_SIZE];
	struct ioapic_state io;

	x2apic(h);
	assert_int_equal(irqchip_msr_write(h->chip, 1, 0x83e, 0xb), 0);
	assert_int_equal(irqchip_msr_write(h->chip, 1, 0x832, 0x40), 0);
	assert_int_equal(irqchip_msr_write(h->chip, 1, 0x838, 1000), 0);
	h->tsc += 500;
	irqchip_msi(h->chip, 0xfee00000 | 1 << 12, 0x61);
	irqchip_msi(h->chip, 0xfee00000 | 1 << 12, 0x71);
	assert_int_equal(irqchip_take(h->chip, 1), 0x71);
	route(h, 6, 0x86 | LEVEL | 1ull << 56);
	irqchip_line_set(h->chip, 6, true);
	irqchip_save_lapic(h->chip, 1, page);
	irqchip_save_ioapic(h->chip, &io);

	assert_int_equal(irqchip_create(CPUS, KHZ, &ops, &other, &other.chip, NULL), 0);
	irqchip_restore_msrs(other.chip, 1, 0xfee00c00, 0);
	irqchip_restore_lapic(other.chip, 1, page);
	irqchip_restore_ioapic(other.chip, &io);
	assert_in_range(other.deadline[1], 1000000 + 1490, 1000000 + 1500);
	assert_int_equal(other.kicks[1], 1);
	assert_int_equal(irqchip_take(other.chip, 1), 0x86);
	assert_int_equal(irqchip_msr_write(other.chip, 1, 0x80b, 0), 0);
	assert_int_equal(irqchip_take(other.chip, 1), 0x86);	/* its line is still up */
	irqchip_line_set(other.chip, 6, false);
	assert_int_equal(irqchip_msr_write(other.chip, 1, 0x80b, 0), 0);
	assert_int_equal(irqchip_take(other.chip, 1), -1);	/* 0x71 is in service */
	assert_int_equal(irqchip_msr_write(other.chip, 1, 0x80b, 0), 0);
	assert_int_equal(irqchip_take(other.chip, 1), 0x61);
	irqchip_destroy(other.chip);
}

/* Saved when its time has come, and nobody has told the chip. */
static void move_expired(struct host *h, struct host *other, uint32_t lvt)
{
	uint8_t page[LAPIC_PAGE_SIZE];

	irqchip_lapic_write(h->chip, 0, DIVIDE, 0xb);
	irqchip_lapic_write(h->chip, 0, LVT_TIMER, lvt);
	irqchip_lapic_write(h->chip, 0, INITIAL, 1000);
	h->tsc = h->deadline[0];
	assert_int_equal(irqchip_lapic_read(h->chip, 0, CURRENT), 0);
	irqchip_save_lapic(h->chip, 0, page);
	assert_int_equal(irqchip_create(CPUS, KHZ, &ops, other, &other->chip, NULL), 0);
	irqchip_restore_lapic(other->chip, 0, page);
	assert_int_equal(other->deadline[0], other->tsc + 2);
	other->tsc += 2;
	irqchip_timer_expired(other->chip, 0);
	assert_int_equal(irqchip_take(other->chip, 0), 0x40);
}

static void test_a_timer_that_runs_out_while_it_is_saved(void **state)
{
	struct host *h = *state, other = { .tsc = 1000000 }, third = { .tsc = 0 };
	uint8_t page[LAPIC_PAGE_SIZE];

	move_expired(h, &other, 0x40);
	assert_int_equal(other.deadline[0], other.tsc);
	irqchip_timer_expired(other.chip, 0);
	irqchip_lapic_write(other.chip, 0, EOI, 0);
	assert_false(irqchip_pending(other.chip, 0));	/* once */
	irqchip_destroy(other.chip);

	other = (struct host){ .tsc = 1000000 };
	move_expired(h, &other, 0x40 | 1 << 17);
	assert_int_equal(other.deadline[0], other.tsc + 2000);
	irqchip_save_lapic(other.chip, 0, page);
	memset(page + CURRENT, 0, 4);	/* as other engines may say it of one that just began */
	assert_int_equal(irqchip_create(CPUS, KHZ, &ops, &third, &third.chip, NULL), 0);
	irqchip_restore_lapic(third.chip, 0, page);
	assert_int_equal(third.deadline[0], 2000);
	irqchip_destroy(third.chip);
	irqchip_destroy(other.chip);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_higher_vectors_come_first_and_nest),
		T(test_task_priority_holds_back_its_class),
		T(test_a_pending_vector_kicks_only_once),
		T(test_a_disabled_apic_takes_nothing),
		T(test_spurious_eoi_changes_nothing),
		T(test_edges_interrupt_once_per_edge),
		T(test_levels_repeat_until_the_line_falls),
		T(test_a_level_masked_while_up_comes_after_unmasking),
		T(test_writing_an_entry_as_edge_clears_remote_irr),
		T(test_physical_destinations_and_broadcast),
		T(test_flat_and_cluster_logical_destinations),
		T(test_lowest_priority_goes_to_one_idle_processor),
		T(test_xapic_icr_and_shorthands),
		T(test_x2apic_registers_and_icr),
		T(test_mode_changes_follow_the_state_diagram),
		T(test_nmi_init_and_startup),
		T(test_illegal_vectors_are_errors),
		T(test_one_shot_timer),
		T(test_periodic_timer_skips_what_was_slept_through),
		T(test_deadline_timer),
		T(test_state_moves_to_another_chip),
		T(test_a_timer_that_runs_out_while_it_is_saved),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
