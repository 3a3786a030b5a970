/* SPDX-License-Identifier: Apache-2.0 */
/* Local APIC and IOAPIC with one processor: timer, HLT, self-IPIs, lines, MSIs, priority. */
#include "guest.h"

#define ICR_SELF (1u << 18)
#define LEVEL (1u << 15)
#define MASKED (1u << 16)

static uint32_t order[8];
static unsigned norder;

static void note(struct trap_frame *f)
{
	if (norder < 8)
		order[norder++] = (uint32_t)f->vector;
}

/* Lets everything pending in.  The port write makes emulating hosts look, too. */
static void spin(void)
{
	for (int i = 0; i < 8; i++)
		asm volatile("sti\n\tnop\n\toutb %%al, $0x80\n\tnop\n\tcli" : : "a"(0) : "memory");
}

static void test_registers(void)
{
	check_equal("APIC id", apic_read(APIC_ID), 0);
	check_equal("APIC version", apic_read(APIC_VERSION) & 0xff, 0x14);
	check_equal("base MSR: enabled, boot processor", rdmsr(MSR_APIC_BASE), 0xfee00900);
	apic_write(APIC_TPR, 0x35);
	check_equal("TPR holds", apic_read(APIC_TPR), 0x35);
	check_equal("PPR follows TPR", apic_read(APIC_PPR), 0x35);
	write_cr8(2);
	check_equal("CR8 is TPR's high digit", apic_read(APIC_TPR), 0x20);
	write_cr8(0);
}

static void test_self_ipi(const char *name)
{
	uint32_t before = irq_count[0x41];

	apic_icr(0, ICR_SELF | 0x41);
	spin();
	check(name, irq_count[0x41] == before + 1);
}

static void test_halt(void)
{
	uint32_t before = irq_count[0x42];

	apic_icr(0, 0x42);
	asm volatile("sti\n\thlt\n\tcli" : : : "memory");
	check_equal("HLT wakes for a pending interrupt", irq_count[0x42], before + 1);
}

static void test_priority(void)
{
	irq_handler[0x51] = note;
	irq_handler[0x71] = note;
	irq_handler[0x61] = note;
	norder = 0;
	apic_icr(0, ICR_SELF | 0x51);
	apic_icr(0, ICR_SELF | 0x71);
	apic_icr(0, ICR_SELF | 0x61);
	spin();
	check("the highest vector comes first",
	      norder == 3 && order[0] == 0x71 && order[1] == 0x61 && order[2] == 0x51);
	norder = 0;
	apic_write(APIC_TPR, 0x60);
	apic_icr(0, ICR_SELF | 0x51);
	apic_icr(0, ICR_SELF | 0x71);
	apic_icr(0, ICR_SELF | 0x61);
	spin();
	check("TPR holds back its class and below", norder == 1 && order[0] == 0x71);
	apic_write(APIC_TPR, 0);
	spin();
	check("lowering TPR lets them in", norder == 3 && order[1] == 0x61 && order[2] == 0x51);
}

static void set_deadline(uint64_t tsc)
{
	apic_write(APIC_LVT_TIMER, 0x40 | 2 << 17);
	asm volatile("mfence" : : : "memory");
	wrmsr(MSR_TSC_DEADLINE, tsc);
}

static void test_timer(const char *oneshot, const char *periodic, const char *deadline)
{
	uint32_t before = irq_count[0x40];

	apic_write(APIC_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, 0x40);
	apic_write(APIC_INITIAL, 100000);
	while (irq_count[0x40] == before)
		asm volatile("sti\n\thlt\n\tcli" : : : "memory");
	check(oneshot, irq_count[0x40] == before + 1 && apic_read(APIC_CURRENT) == 0);

	before = irq_count[0x40];
	apic_write(APIC_LVT_TIMER, 0x40 | 1 << 17);
	apic_write(APIC_INITIAL, 200000);
	check(periodic, wait_irq(0x40, before + 3));
	apic_write(APIC_LVT_TIMER, MASKED);
	apic_write(APIC_INITIAL, 0);
	spin();

	before = irq_count[0x40];
	set_deadline(rdtsc() + 1000000);
	while (irq_count[0x40] == before)
		asm volatile("sti\n\thlt\n\tcli" : : : "memory");
	check(deadline, irq_count[0x40] == before + 1 && rdmsr(MSR_TSC_DEADLINE) == 0);
	apic_write(APIC_LVT_TIMER, MASKED);
}

static void lower_line(struct trap_frame *f)
{
	note(f);
	write64(DEV_LOWER, 12);
}

static void test_lines(void)
{
	uint32_t before = irq_count[0x45];

	ioapic_route(11, 0x45);
	write64(DEV_PULSE, 11);
	check("an edge interrupts", wait_irq(0x45, before + 1));
	ioapic_route(11, 0x45 | MASKED);
	write64(DEV_PULSE, 11);
	spin();
	check_equal("a masked input does not", irq_count[0x45], before + 1);

	irq_handler[0x46] = lower_line;
	ioapic_route(12, 0x46 | LEVEL);
	before = irq_count[0x46];
	norder = 0;
	write64(DEV_RAISE, 12);
	check("a level interrupts", wait_irq(0x46, before + 1));
	spin();
	spin();
	check_equal("remote IRR is clear in the end", ioapic_entry(12) >> 14 & 1, 0);

	irq_handler[0x46] = 0;
	before = irq_count[0x46];
	write64(DEV_RAISE, 12);
	check("a level that stays up interrupts again after EOI", wait_irq(0x46, before + 3));
	write64(DEV_LOWER, 12);
	spin();
	before = irq_count[0x46];
	spin();
	check_equal("and stops when it goes down", irq_count[0x46], before);
	ioapic_route(12, MASKED);
}

static void test_msi(void)
{
	uint32_t before = irq_count[0x47];

	write64(DEV_MSI_ADDR, LAPIC_BASE);
	write64(DEV_MSI_DATA, 0x47);
	check("an MSI interrupts", wait_irq(0x47, before + 1));
}

static void test_doorbell(void)
{
	uint32_t before = irq_count[0x48];

	ioapic_route(DOORBELL_GSI, 0x48);
	write32(DEV_DOORBELL, 1);
	check("a doorbell reaches its eventfd", wait_irq(0x48, before + 1));
	write32(DEV_DOORBELL_MATCH, 7);
	check("a doorbell with the right value too", wait_irq(0x48, before + 2));
	write32(DEV_DOORBELL_MATCH, 8);
	check_equal("another value goes to the device", read64(DEV_MATCH_MISSES), 1);
}

/* Minutes ahead, and days. */
static void test_skip(void)
{
	uint64_t deadline = rdtsc() + (1ull << 40), skipped;
	uint32_t before = irq_count[0x40];

	set_deadline(deadline);
	skipped = dev_command(CMD_SKIP_TIME);
	check("time goes on to the next timer, where the engine can", !skipped || (wait_irq(0x40, before + 1) && rdtsc() >= deadline));
	set_deadline(rdtsc() + (1ull << 50));
	check_equal("but not to one too far away", dev_command(CMD_SKIP_TIME), 0);
	set_deadline(0);
	check_equal("nor without one", dev_command(CMD_SKIP_TIME), 0);
}

int guest_main(void)
{
	apic_enable();
	test_registers();
	test_self_ipi("self-IPI by shorthand");
	test_halt();
	test_priority();
	test_timer("one-shot timer", "periodic timer", "deadline timer");
	test_lines();
	test_msi();
	test_doorbell();
	x2apic_enable();
	check_equal("x2APIC id", apic_read(APIC_ID), 0);
	check_equal("x2APIC logical id", apic_read(APIC_LDR), 1);
	test_self_ipi("x2APIC self-IPI by shorthand");
	apic_write(0x3f0, 0x49);
	spin();
	check_equal("x2APIC self-IPI register", irq_count[0x49], 1);
	test_timer("x2APIC one-shot timer", "x2APIC periodic timer", "x2APIC deadline timer");
	test_msi();
	test_skip();
	return check_status();
}
