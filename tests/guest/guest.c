/* SPDX-License-Identifier: Apache-2.0 */
#include "guest.h"

#define MAILBOX 0xdffff000ull
#define IOAPIC 0xfec00000ull
#define DEBUG_TEXT 0xe9
#define DEBUG_EXIT 0xf4
#define TABLES_START 0x800000ull	/* page tables made by pte_of() */
#define PTE_ADDR 0x000ffffffffff000ull

struct gate {
	uint16_t lo, sel, flags, mid;
	uint32_t hi, zero;
};

static struct gate idt[256];
static struct {
	uint32_t reserved0;
	uint64_t rsp0;
	uint64_t rest[12];
} __attribute__((packed)) tss;
static uint8_t trap_stack[16384];

extern uint64_t gdt[];
extern const uint8_t trap_stubs[];
extern void ap_entry(void);
void guest_setup(void);
void ap_setup(unsigned cpu);
void trap_handler(struct trap_frame *f);

volatile struct trap trap;
volatile uint64_t trap_resume;
volatile uint32_t irq_count[256];
void (*volatile irq_handler[256])(struct trap_frame *frame);

static bool x2apic;
static int failures;

/* GCC calls these by name even in freestanding code. */
void *memset(void *p, int v, size_t n);
void *memcpy(void *d, const void *s, size_t n);

void *memset(void *p, int v, size_t n)
{
	uint8_t *b = p;

	while (n-- > 0)
		*b++ = (uint8_t)v;
	return p;
}

void *memcpy(void *d, const void *s, size_t n)
{
	uint8_t *a = d;
	const uint8_t *b = s;

	while (n-- > 0)
		*a++ = *b++;
	return d;
}

void print(const char *s)
{
	while (*s)
		outb(DEBUG_TEXT, (uint8_t)*s++);
}

void print_hex(uint64_t v)
{
	print("0x");
	for (int shift = v >> 32 ? 60 : 28; shift >= 0; shift -= 4)
		outb(DEBUG_TEXT, (uint8_t)"0123456789abcdef"[v >> shift & 15]);
}

_Noreturn void guest_exit(unsigned status)
{
	outl(DEBUG_EXIT, status);
	for (;;)
		asm volatile("cli; hlt");
}

void check(const char *name, bool ok)
{
	print(ok ? "ok " : "FAIL ");
	print(name);
	print("\n");
	failures += !ok;
}

void check_equal(const char *name, uint64_t got, uint64_t want)
{
	check(name, got == want);
	if (got == want)
		return;
	print("  got ");
	print_hex(got);
	print(", want ");
	print_hex(want);
	print("\n");
}

int check_status(void)
{
	return failures ? 1 : 0;
}

void check_trap(const char *name, unsigned vector, uint64_t error, uint64_t rip)
{
	bool ok = trap.count == 1 && trap.vector == vector && trap.error == error &&
		  trap.rip == rip;

	check(name, ok);
	if (ok)
		return;
	print("  count ");
	print_hex(trap.count);
	print(" vector ");
	print_hex(trap.vector);
	print(" error ");
	print_hex(trap.error);
	print(" rip-expected ");
	print_hex(trap.rip - rip);
	print("\n");
}

void trap_handler(struct trap_frame *f)
{
	unsigned vector = (unsigned)f->vector;

	if (irq_handler[vector])
		irq_handler[vector](f);
	if (vector >= 32 || irq_handler[vector]) {
		__atomic_fetch_add(&irq_count[vector], 1, __ATOMIC_SEQ_CST);
		if (vector >= 32 && vector != SPURIOUS_VECTOR && vector != 0x80)
			apic_write(APIC_EOI, 0);
		return;
	}
	if (trap_resume) {
		uint64_t cr2;

		asm volatile("mov %%cr2, %0" : "=r"(cr2));
		trap.count++;
		trap.vector = vector;
		trap.error = f->error;
		trap.rip = f->rip;
		trap.cr2 = cr2;
		trap.rcx = f->rcx;
		trap.rsi = f->rsi;
		trap.rdi = f->rdi;
		trap.rflags = f->rflags;
		f->rip = trap_resume;
		return;
	}
	print("unexpected exception ");
	print_hex(vector);
	print(" error ");
	print_hex(f->error);
	print(" rip ");
	print_hex(f->rip);
	print("\n");
	guest_exit(2);
}

static void load_idt(void)
{
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) p = { sizeof(idt) - 1, (uint64_t)idt };

	asm volatile("lidt %0" : : "m"(p));
}

void guest_setup(void)
{
	uint64_t base = (uint64_t)&tss;

	for (unsigned i = 0; i < 256; i++) {
		uint64_t stub = (uint64_t)trap_stubs + 16 * i;

		idt[i] = (struct gate){ (uint16_t)stub, 0x10, i == 0x80 || i == 3 ? 0xee00 : 0x8e00,
					(uint16_t)(stub >> 16), (uint32_t)(stub >> 32), 0 };
	}
	load_idt();
	tss.rsp0 = (uint64_t)(trap_stack + sizeof(trap_stack));
	gdt[6] = (sizeof(tss) - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 |
		 (base >> 24 & 0xff) << 56;
	gdt[7] = base >> 32;
	asm volatile("ltr %w0" : : "r"(0x30));
}

void ap_setup(unsigned cpu)
{
	(void)cpu;
	load_idt();
}

__attribute__((weak)) void guest_ap_main(unsigned cpu)
{
	(void)cpu;
}

uint64_t dev_command(enum dev_command command)
{
	write64(DEV_COMMAND, command);
	while (read64(DEV_COMMAND) != CMD_NONE)
		asm volatile("pause");
	return read64(DEV_RESULT);
}

bool wait_irq(unsigned vector, uint32_t count)
{
	uint64_t start = rdtsc();

	while (irq_count[vector] < count) {
		/* Ten thousand million ticks are seconds on any host. */
		if (rdtsc() - start > 10000000000ull)
			return false;
		asm volatile("sti; nop; nop; cli" : : : "memory");
	}
	return true;
}

uint32_t apic_read(uint32_t reg)
{
	if (x2apic)
		return (uint32_t)rdmsr(0x800 + (reg >> 4));
	return read32(LAPIC_BASE + reg);
}

void apic_write(uint32_t reg, uint32_t v)
{
	if (x2apic)
		wrmsr(0x800 + (reg >> 4), v);
	else
		write32(LAPIC_BASE + reg, v);
}

void apic_icr(uint32_t dest, uint32_t low)
{
	if (x2apic) {
		wrmsr(0x830, (uint64_t)dest << 32 | low);
		return;
	}
	write32(LAPIC_BASE + APIC_ICR2, dest << 24);
	write32(LAPIC_BASE + APIC_ICR, low);
}

void apic_enable(void)
{
	apic_write(APIC_SVR, 0x100 | SPURIOUS_VECTOR);
	apic_write(APIC_TPR, 0);
}

void x2apic_enable(void)
{
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 1 << 10);
	x2apic = true;
}

void ioapic_route(unsigned gsi, uint64_t entry)
{
	write32(IOAPIC, 0x10 + 2 * gsi + 1);
	write32(IOAPIC + 0x10, (uint32_t)(entry >> 32));
	write32(IOAPIC, 0x10 + 2 * gsi);
	write32(IOAPIC + 0x10, (uint32_t)entry);
}

uint64_t ioapic_entry(unsigned gsi)
{
	uint32_t lo, hi;

	write32(IOAPIC, 0x10 + 2 * gsi);
	lo = read32(IOAPIC + 0x10);
	write32(IOAPIC, 0x10 + 2 * gsi + 1);
	hi = read32(IOAPIC + 0x10);
	return (uint64_t)hi << 32 | lo;
}

void start_ap(unsigned cpu)
{
	write32(MAILBOX + 4, cpu);
	write64(MAILBOX + 8, (uint64_t)ap_entry);
	*(volatile uint16_t *)MAILBOX = 1;
	while (*(volatile uint16_t *)MAILBOX)
		asm volatile("pause");
}

static uint64_t *new_table(void)
{
	static uint64_t next = TABLES_START;
	uint64_t *t = (uint64_t *)next;

	next += 4096;
	memset(t, 0, 4096);
	return t;
}

volatile uint64_t *pte_of(uint64_t va, unsigned level)
{
	volatile uint64_t *table = (volatile uint64_t *)(read_cr3() & PTE_ADDR);

	for (unsigned l = 4;; l--) {
		volatile uint64_t *e = &table[va >> (12 + 9 * (l - 1)) & 511];

		if (l == level)
			return e;
		if (!(*e & PTE_P) || (*e & PTE_PS))
			*e = (uint64_t)new_table() | PTE_P | PTE_W | PTE_U;
		table = (volatile uint64_t *)(*e & PTE_ADDR);
	}
}

void map(uint64_t va, uint64_t pa, unsigned level, uint64_t flags)
{
	*pte_of(va, level) = pa | flags | (level > 1 ? PTE_PS : 0);
	invlpg(va);
}
