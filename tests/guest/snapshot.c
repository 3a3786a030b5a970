/* SPDX-License-Identifier: Apache-2.0 */
/* The machine is saved and goes on in another one: registers, APIC, IOAPIC, timer, clock. */
#include "guest.h"

#define MASKED (1u << 16)

/* One instruction sequence with a known value in every register around the save. */
static bool registers_survive(void)
{
	static volatile uint64_t out[14];
	bool ok = true;

	asm volatile(
		"mov $101, %%rcx\n\tmov $102, %%rdx\n\tmov $103, %%rbx\n\tmov $104, %%rsi\n\t"
		"mov $105, %%rdi\n\tmov $106, %%r8\n\tmov $107, %%r9\n\tmov $108, %%r10\n\t"
		"mov $109, %%r11\n\tmov $110, %%r12\n\tmov $111, %%r13\n\tmov $112, %%r14\n\t"
		"mov $113, %%r15\n\tmovabs %[cmd], %%rax\n\tmovq %[save], (%%rax)\n"
		"1:\tcmpq $0, (%%rax)\n\tjne 1b\n\t"
		"mov %%rcx, out_%=\n\tmov %%rdx, out_%=+8\n\tmov %%rbx, out_%=+16\n\t"
		"mov %%rsi, out_%=+24\n\tmov %%rdi, out_%=+32\n\tmov %%r8, out_%=+40\n\t"
		"mov %%r9, out_%=+48\n\tmov %%r10, out_%=+56\n\tmov %%r11, out_%=+64\n\t"
		"mov %%r12, out_%=+72\n\tmov %%r13, out_%=+80\n\tmov %%r14, out_%=+88\n\t"
		"mov %%r15, out_%=+96\n\t.set out_%=, %c[out]"
		: : [cmd] "i"(DEV_COMMAND), [save] "i"(CMD_SAVE_RESTORE), [out] "i"(out)
		: "rax", "rcx", "rdx", "rbx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
		  "r14", "r15", "memory", "cc");
	for (unsigned i = 0; i < 13; i++)
		ok = ok && out[i] == 101 + i;
	return ok && read64(DEV_RESULT) == 0;
}

int guest_main(void)
{
	uint64_t before, tsc;

	check("general registers survive", registers_survive());

	apic_enable();
	wrmsr(0xc0000082, 0x123456789abc);
	wrmsr(0xc0000102, 0xffff800012345678);
	asm volatile("mov %0, %%dr0" : : "r"(0x4444ull));
	apic_write(APIC_TPR, 0x10);
	ioapic_route(11, 0x45);
	apic_icr(0, 1u << 18 | 0x46);	/* pending over the save: interrupts are off */
	tsc = rdtsc();
	check_equal("state moves to another machine", dev_command(CMD_SAVE_RESTORE), 0);
	check_equal("LSTAR survives", rdmsr(0xc0000082), 0x123456789abc);
	check_equal("KERNEL_GS_BASE survives", rdmsr(0xc0000102), 0xffff800012345678);
	asm volatile("mov %%dr0, %0" : "=r"(before));
	check_equal("DR0 survives", before, 0x4444);
	check_equal("TPR survives", apic_read(APIC_TPR), 0x10);
	check("the TSC does not go back", rdtsc() > tsc);
	check("a pending interrupt arrives afterwards", wait_irq(0x46, 1));
	write64(DEV_PULSE, 11);
	check("the IOAPIC still routes", wait_irq(0x45, 1));

	apic_write(APIC_LVT_TIMER, 0x40 | 2 << 17);
	asm volatile("mfence" : : : "memory");
	wrmsr(MSR_TSC_DEADLINE, rdtsc() + 200000000);
	check_equal("saved again with a timer armed", dev_command(CMD_SAVE_RESTORE), 0);
	check("the timer still fires", wait_irq(0x40, 1));
	apic_write(APIC_LVT_TIMER, 0x40 | 1 << 17);
	apic_write(APIC_DIVIDE, 0xb);
	apic_write(APIC_INITIAL, 1000000);
	check_equal("saved with a periodic timer", dev_command(CMD_SAVE_RESTORE), 0);
	check("which goes on", wait_irq(0x40, 4));
	apic_write(APIC_LVT_TIMER, MASKED);
	x2apic_enable();
	check_equal("saved in x2APIC mode", dev_command(CMD_SAVE_RESTORE), 0);
	check_equal("which survives", rdmsr(MSR_APIC_BASE) >> 10 & 1, 1);
	apic_icr(0, 1u << 18 | 0x47);
	check("and works", wait_irq(0x47, 1));
	return check_status();
}
