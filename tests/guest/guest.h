/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the freestanding test guests share.  A guest is one file with
 * guest_main(); it prints one line a check, so that the outputs of two engines
 * can be compared byte for byte: no address, time or count that depends on the
 * host may be printed.
 */
#ifndef TESTS_GUEST_GUEST_H
#define TESTS_GUEST_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The runner's test device, run.c: registers of 8 bytes unless said otherwise. */
#define DEV_BASE 0xd0000000ull
#define DEV_SCRATCH (DEV_BASE + 0x00)	/* keeps what is written, any width */
#define DEV_PULSE (DEV_BASE + 0x08)	/* edge on the IOAPIC input written */
#define DEV_RAISE (DEV_BASE + 0x10)	/* the input written goes high */
#define DEV_LOWER (DEV_BASE + 0x18)	/* ... low */
#define DEV_MSI_ADDR (DEV_BASE + 0x20)
#define DEV_MSI_DATA (DEV_BASE + 0x28)	/* sends */
#define DEV_DOORBELL (DEV_BASE + 0x30)	/* 4 bytes: eventfd; answered by an edge on input 10 */
#define DEV_COMMAND (DEV_BASE + 0x38)	/* the host pauses the machine and does: */
#define DEV_RESULT (DEV_BASE + 0x40)	/* of the last command */
#define DEV_DOORBELL_MATCH (DEV_BASE + 0x48)	/* 4 bytes: only the value 7 rings */
#define DEV_MATCH_MISSES (DEV_BASE + 0x50)	/* writes to the above that reached the device */
#define DOORBELL_GSI 10

enum dev_command {
	CMD_NONE,
	CMD_DIRTY_ON,
	CMD_DIRTY_COUNT,	/* result: pages written since, from 16 MiB to the end */
	CMD_DIRTY_OFF,
	CMD_HOST_WRITE,	/* the host writes to the page at 17 MiB */
	CMD_SAVE_RESTORE,	/* state to a new machine over the same memory */
	CMD_SKIP_TIME,	/* result: ns that time went on by to the next timer within an hour; 0: there is none, or the engine cannot */
};

/* Runs a command and returns the result. */
uint64_t dev_command(enum dev_command command);

int guest_main(void);	/* returns the exit status */
void guest_ap_main(unsigned cpu);
_Noreturn void guest_exit(unsigned status);

void print(const char *s);
void print_hex(uint64_t v);

/* Prints "ok NAME" or "FAIL NAME". */
void check(const char *name, bool ok);
/* The same with both values on failure. */
void check_equal(const char *name, uint64_t got, uint64_t want);
/* 0 when all checks passed so far. */
int check_status(void);

/* --- Traps and interrupts --- */

struct trap_frame {
	uint64_t rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15;
	uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

/* The last expected exception.  count is 0 when the instruction did not fault. */
struct trap {
	unsigned count, vector;
	uint64_t error, rip, cr2, rcx, rsi, rdi, rflags;
};
extern volatile struct trap trap;
extern volatile uint64_t trap_resume;	/* where to go on after an expected exception */

/*
 * Executes @insn, expecting that it may fault, and goes on behind it either way.
 * The instruction may change RAX, RCX, RDX, RSI and RDI, its inputs among them.
 * Returns the address of the instruction; `trap` says what happened.
 */
#define TRAPPING(insn, ...) ({ \
	uint64_t at_; \
	trap.count = 0; \
	asm volatile("push %%rax\n\tpush %%rcx\n\tpush %%rdx\n\tpush %%rsi\n\tpush %%rdi\n\t" \
		     "lea 2f(%%rip), %0\n\tmov %0, trap_resume\n\tlea 1f(%%rip), %0\n1:\t" insn \
		     "\n2:\tmovq $0, trap_resume\n\t" \
		     "pop %%rdi\n\tpop %%rsi\n\tpop %%rdx\n\tpop %%rcx\n\tpop %%rax" \
		     : "=&b"(at_) : __VA_ARGS__ : "memory", "cc"); \
	at_; })

/* Checks vector, error code and exact instruction of the last trap. */
void check_trap(const char *name, unsigned vector, uint64_t error, uint64_t rip);

/* Interrupts by vector, counted; a handler may add to that.  EOI is sent after it. */
extern volatile uint32_t irq_count[256];
extern void (*volatile irq_handler[256])(struct trap_frame *frame);
extern volatile uint64_t syscall_count;

/* Sleeps (STI, HLT) until irq_count[@vector] reaches @count, or gives up. */
bool wait_irq(unsigned vector, uint32_t count);

/* --- Registers --- */

static inline void outb(uint16_t port, uint8_t v)
{
	asm volatile("outb %0, %1" : : "a"(v), "Nd"(port));
}
static inline void outl(uint16_t port, uint32_t v)
{
	asm volatile("outl %0, %1" : : "a"(v), "Nd"(port));
}
static inline uint8_t inb(uint16_t port)
{
	uint8_t v;

	asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}
static inline uint32_t inl(uint16_t port)
{
	uint32_t v;

	asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
	return v;
}
static inline void write64(uint64_t at, uint64_t v)
{
	*(volatile uint64_t *)at = v;
}
static inline uint64_t read64(uint64_t at)
{
	return *(volatile uint64_t *)at;
}
static inline void write32(uint64_t at, uint32_t v)
{
	*(volatile uint32_t *)at = v;
}
static inline uint32_t read32(uint64_t at)
{
	return *(volatile uint32_t *)at;
}
static inline uint64_t rdmsr(uint32_t msr)
{
	uint32_t lo, hi;

	asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
	return (uint64_t)hi << 32 | lo;
}
static inline void wrmsr(uint32_t msr, uint64_t v)
{
	asm volatile("wrmsr" : : "c"(msr), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}
static inline uint64_t rdtsc(void)
{
	uint32_t lo, hi;

	asm volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return (uint64_t)hi << 32 | lo;
}
static inline void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
	asm volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
		     : "a"(leaf), "c"(subleaf));
}
static inline uint64_t read_cr3(void)
{
	uint64_t v;

	asm volatile("mov %%cr3, %0" : "=r"(v));
	return v;
}
static inline void write_cr3(uint64_t v)
{
	asm volatile("mov %0, %%cr3" : : "r"(v) : "memory");
}
static inline uint64_t read_cr0(void)
{
	uint64_t v;

	asm volatile("mov %%cr0, %0" : "=r"(v));
	return v;
}
static inline void write_cr0(uint64_t v)
{
	asm volatile("mov %0, %%cr0" : : "r"(v) : "memory");
}
static inline uint64_t read_cr4(void)
{
	uint64_t v;

	asm volatile("mov %%cr4, %0" : "=r"(v));
	return v;
}
static inline void write_cr4(uint64_t v)
{
	asm volatile("mov %0, %%cr4" : : "r"(v) : "memory");
}
static inline void write_cr8(uint64_t v)
{
	asm volatile("mov %0, %%cr8" : : "r"(v) : "memory");
}
static inline void invlpg(uint64_t va)
{
	asm volatile("invlpg (%0)" : : "r"(va) : "memory");
}
static inline void sti(void)
{
	asm volatile("sti" : : : "memory");
}
static inline void cli(void)
{
	asm volatile("cli" : : : "memory");
}

/* --- Local APIC, in whichever mode it is --- */

#define LAPIC_BASE 0xfee00000ull
enum {
	APIC_ID = 0x20, APIC_VERSION = 0x30, APIC_TPR = 0x80, APIC_PPR = 0xa0, APIC_EOI = 0xb0,
	APIC_LDR = 0xd0, APIC_SVR = 0xf0, APIC_ISR = 0x100, APIC_IRR = 0x200, APIC_ESR = 0x280,
	APIC_ICR = 0x300, APIC_ICR2 = 0x310, APIC_LVT_TIMER = 0x320, APIC_LVT_LINT0 = 0x350,
	APIC_INITIAL = 0x380, APIC_CURRENT = 0x390, APIC_DIVIDE = 0x3e0,
};
#define SPURIOUS_VECTOR 0xffu
#define MSR_APIC_BASE 0x1bu
#define MSR_TSC_DEADLINE 0x6e0u

uint32_t apic_read(uint32_t reg);
void apic_write(uint32_t reg, uint32_t v);
void apic_icr(uint32_t dest, uint32_t low);	/* @dest: APIC id */
void apic_enable(void);	/* software enable, spurious vector */
void x2apic_enable(void);

/* Programs input @gsi of the IOAPIC. */
void ioapic_route(unsigned gsi, uint64_t entry);
uint64_t ioapic_entry(unsigned gsi);

/* Starts processor @cpu at guest_ap_main() through the ACPI mailbox. */
void start_ap(unsigned cpu);

/* --- Paging: tables are taken from memory at 8 MiB, entries are edited directly --- */

enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_A = 0x20, PTE_D = 0x40, PTE_PS = 0x80, PTE_G = 0x100 };
#define PTE_NX (1ull << 63)

/* Returns the entry that maps @va at @level (1: 4 KiB, 2: 2 MiB, 3: 1 GiB), making tables. */
volatile uint64_t *pte_of(uint64_t va, unsigned level);
/* Maps one page of that level and flushes it. */
void map(uint64_t va, uint64_t pa, unsigned level, uint64_t flags);

#endif /* TESTS_GUEST_GUEST_H */
