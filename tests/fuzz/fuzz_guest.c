/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes as guest code, in ring 3 or ring 0, on the binary translator.
 *
 * Whatever they are, the run ends in time, the process survives, the machine can be
 * put back and thrown away, and the processor's state is one that a processor can
 * have.  Where the code is in ring 3 and its kernel is sane, more must hold: the
 * machine goes on, nothing that the kernel keeps to itself has changed, and every
 * exception is one that the page tables and the kernel's tables account for.
 *
 * The input is a struct header and then the code, which is mapped at CODE_VA with
 * pages of data and a stack beside it (see mapping[]).  Two processors run the two
 * halves of it.
 */
#include "tests/fuzz/guest_machine.h"

#include "isa/paging.h"
#include "tests/fuzz/check.h"
#include "tests/fuzz/guest_kernel.h"
#include "vmm/irqchip.h"

#include <stddef.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define PAGE 4096ull
#define RUNS_PER_MACHINE 4096	/* then it is thrown away */
#define CODE_MAX 1024u	/* bytes */

struct header {
	uint8_t where, flags, control, around;	/* bits below */
	uint8_t regs[GPR_COUNT / 2];	/* enum value of each register, 4 bits; RSP 0: a good stack */
	uint32_t seed;	/* of what is random in them */
};
_Static_assert(sizeof(struct header) == 16, "read from bytes");

/* header.where */
enum { W_USER = 1, W_CODE32 = 2, W_IDT = 0x0c, W_PLACE = 0x30, W_TWO_CPUS = 0x40, W_TABLES_MAPPED = 0x80 };
enum { IDT_SANE = 0, IDT_OWN_STACK = 0x04, IDT_ABSENT = 0x08, IDT_OUTSIDE = 0x0c };	/* W_IDT */
enum { AT_START = 0, ACROSS = 0x10, AT_END = 0x20 };	/* W_PLACE: in the two pages of code */
/* header.flags */
enum { F_TF = 1, F_DF = 2, F_IF = 4, F_NT = 8, F_AC = 0x10, F_RF = 0x20, F_IOPL = 0xc0 };
/* header.control */
enum { C_TS = 1, C_EM = 2, C_NO_WP = 4, C_NO_NX = 8, C_NO_SYSCALL = 0x10, C_PCID = 0x20, C_NO_SSE = 0x40,
       C_CODE_READ_ONLY = 0x80 };
/* header.around */
enum { A_USER_DEVICE = 1, A_DEVICE_BEHIND = 2, A_IRQ = 4, A_LDT = 8, A_BREAKPOINTS = 0x10 };

struct input {
	struct header h;
	const uint8_t *code;
	unsigned len;	/* bytes */
	uint64_t at;	/* address of the code */
};

struct guest_event {
	uint64_t vector, error, rip, cs, rflags, rsp, ss, cr2;
};
_Static_assert(sizeof(struct guest_event) == EVENT_BYTES, "written by guest_kernel.S");

extern const uint8_t fuzz_kernel_begin[], fuzz_kernel_end[], fuzz_kernel_syscall[], fuzz_kernel_syscall32[],
	fuzz_kernel_done[];

/* --- Page tables --- */

#define TABLES_PA 0x10000ull	/* from here up to TABLES_END */
#define TABLES_END 0x40000ull
#define TABLES_SLOT 510u	/* of the root: the tables themselves */
#define TABLES_VA 0xffffff0000000000ull
#define DIRECT_VA 0xffff888000000000ull	/* all RAM, for the supervisor */
#define DATA_VA 0x150000ull
#define STACK_VA 0x158000ull
#define STACK_TOP 0x15a000ull
#define BEHIND_VA (CODE_VA + CODE_AREA)
#define APIC_VA 0xfee00000ull
#define IOAPIC_VA 0xfec00000ull
#define IRQ_VECTOR 0x31u

/* Pages that the code is given; those of data are not in the order of their addresses. */
static const struct mapping {
	uint64_t va, pa, bits;
} mapping[] = {
	{ CODE_VA, CODE_VA, PTE_U | PTE_W },
	{ CODE_VA + PAGE, CODE_VA + PAGE, PTE_U | PTE_W },
	{ BEHIND_VA, MACHINE_MMIO, 0 },	/* not there by default */
	{ DATA_VA, 0x162000, PTE_U | PTE_W | PTE_NX },
	{ DATA_VA + PAGE, 0x160000, PTE_U | PTE_W | PTE_NX },
	{ DATA_VA + 2 * PAGE, 0x163000, PTE_U | PTE_NX },
	{ DATA_VA + 3 * PAGE, 0x161000, PTE_U | PTE_W | PTE_NX },
	{ STACK_VA, STACK_VA, PTE_U | PTE_W | PTE_NX },
	{ STACK_VA + PAGE, STACK_VA + PAGE, PTE_U | PTE_W | PTE_NX },
	{ MACHINE_MMIO, MACHINE_MMIO, PTE_W | PTE_NX },
	{ APIC_VA, LAPIC_MMIO_BASE, PTE_W | PTE_NX },
	{ IOAPIC_VA, IOAPIC_MMIO_BASE, PTE_W | PTE_NX },
};

static uint64_t tables_end;

static uint64_t *table_at(uint8_t *image, uint64_t pa)
{
	return (uint64_t *)(void *)(image + pa);
}

/* The entry for @va at the level that @shift belongs to; makes the levels above. */
static uint64_t *entry_of(uint8_t *image, uint64_t va, unsigned shift)
{
	uint64_t table = TABLES_PA;

	for (unsigned s = 39; s > shift; s -= 9) {
		uint64_t *entry = &table_at(image, table)[va >> s & 511];

		if (!(*entry & PTE_P)) {
			want(tables_end < TABLES_END);
			*entry = tables_end | PTE_P | PTE_W | PTE_U;
			tables_end += PAGE;
		}
		table = *entry & ~0xfffull;
	}
	return &table_at(image, table)[va >> shift & 511];
}

/* What @in says about mapping[i]. */
static uint64_t mapping_bits(const struct input *in, const struct mapping *m)
{
	uint64_t bits = m->bits | PTE_P;

	if (m->va - CODE_VA < CODE_AREA && in->h.control & C_CODE_READ_ONLY)
		bits &= ~PTE_W;
	if (m->va == BEHIND_VA)
		bits = in->h.around & A_DEVICE_BEHIND ? PTE_P | PTE_U : 0;
	if (m->va == MACHINE_MMIO && in->h.around & A_USER_DEVICE)
		bits |= PTE_U;
	return in->h.control & C_NO_NX ? bits & ~PTE_NX : bits;
}

static void fill_tables(uint8_t *image, const struct input *in)
{
	for (unsigned i = 0; i < sizeof(mapping) / sizeof(mapping[0]); i++)
		*entry_of(image, mapping[i].va, 12) = mapping[i].pa | mapping_bits(in, &mapping[i]);
	*entry_of(image, TABLES_VA, 39) = in->h.where & W_TABLES_MAPPED ?
		TABLES_PA | PTE_P | PTE_W | (in->h.where & W_USER ? PTE_U : 0) : 0;
}

/* --- The kernel's image --- */

static uint64_t kernel_va(const uint8_t *symbol)
{
	return KERNEL_VA + K_TEXT + (uint64_t)(symbol - fuzz_kernel_begin);
}

static uint64_t tss_va(unsigned cpu)
{
	return KERNEL_VA + K_TSS + cpu * K_TSS_STEP;
}

static void make_descriptors(uint8_t *kernel)
{
	static const uint64_t odd[] = {
		0x0000fb000000ffff,	/* 16-bit code, ring 3 */
		0x00009b000000ffff,	/* 16-bit code, ring 0 */
		0x00cff7000000000f,	/* expand-down data */
		0x00af7b000000ffff,	/* 64-bit code, not present */
		0x0000ec0000100000 | (KERNEL_VA & 0xffff), KERNEL_VA >> 32,	/* call gate */
		0x00af9f000000ffff,	/* conforming code */
		0x00cff1000000ffff,	/* read-only data */
	};
	uint64_t *gdt = (uint64_t *)(void *)(kernel + K_GDT), *idt = (uint64_t *)(void *)(kernel + K_IDT);
	uint16_t no_ports = 104;

	gdt[SEL_KERNEL_CODE / 8] = 0x00af9b000000ffff;
	gdt[SEL_KERNEL_DATA / 8] = 0x00cf93000000ffff;
	gdt[SEL_USER_CODE32 / 8] = 0x00cffb000000ffff;
	gdt[SEL_USER_DATA / 8] = 0x00cff3000000ffff;
	gdt[SEL_USER_CODE64 / 8] = 0x00affb000000ffff;
	gdt[SEL_KERNEL_CODE32 / 8] = 0x00cf9b000000ffff;
	gdt[SEL_LDT / 8] = 0x000082000000003f | ((KERNEL_VA + K_LDT) & 0xffffff) << 16 |
			   ((KERNEL_VA + K_LDT) >> 24 & 0xff) << 56;
	gdt[SEL_LDT / 8 + 1] = (KERNEL_VA + K_LDT) >> 32;
	memcpy(kernel + K_LDT, odd, sizeof(odd));
	for (unsigned i = 0; i < MACHINE_CPUS_MAX; i++) {
		uint64_t tss = tss_va(i), stack = KERNEL_VA + K_STACKS + (i + 1) * K_STACK_STEP, ist = stack - 0x400;
		uint8_t *at = kernel + K_TSS + i * K_TSS_STEP;

		gdt[SEL_TSS / 8 + 2 * i] = 0x00008b0000000067 | (tss & 0xffffff) << 16 | (tss >> 24 & 0xff) << 56;
		gdt[SEL_TSS / 8 + 2 * i + 1] = tss >> 32;
		memcpy(at + 4, &stack, 8);
		memcpy(at + 36, &ist, 8);
		memcpy(at + 102, &no_ports, 2);
	}
	for (unsigned v = 0; v < 256; v++) {
		uint64_t stub = KERNEL_VA + K_STUBS + 16ull * v;
		uint64_t dpl = v == 3 || v == 4 || v == 0x80 ? 3 : 0;

		idt[2 * v] = (stub & 0xffff) | SEL_KERNEL_CODE << 16 | (0x8eull | dpl << 5) << 40 |
			     (stub >> 16 & 0xffff) << 48;
		idt[2 * v + 1] = stub >> 32;
	}
}

/* What is the same for every input. */
static void make_image(uint8_t *image)
{
	uint8_t *kernel = image + KERNEL_PA;

	tables_end = TABLES_PA + PAGE;
	memcpy(kernel + K_TEXT, fuzz_kernel_begin, (size_t)(fuzz_kernel_end - fuzz_kernel_begin));
	make_descriptors(kernel);
	for (unsigned i = 0; i < K_PAGES; i++)
		*entry_of(image, KERNEL_VA + i * PAGE, 12) = (KERNEL_PA + i * PAGE) | PTE_P | PTE_W;
	*entry_of(image, DIRECT_VA, 21) = PTE_P | PTE_W | PTE_PS;
	for (unsigned i = 0; i < 4 * PAGE; i++)
		image[0x160000 + i] = (uint8_t)(i * 7 + (i >> 8));
}

/* --- Registers --- */

struct rng {
	uint64_t s;
};

static uint64_t rng_next(struct rng *r)	/* splitmix64 */
{
	uint64_t z = r->s += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

enum value { V_ZERO, V_SMALL, V_DATA, V_PAGE_END, V_STACK, V_CODE, V_TABLES, V_DEVICE, V_KERNEL, V_APIC,
	    V_NOT_CANONICAL, V_MINUS, V_RANDOM64, V_RANDOM32, V_MSR, V_CONTROL };

static const uint32_t msrs[] = { 0x10, 0x1b, 0x48, 0x174, 0x175, 0x176, 0x1a0, 0x1d9, 0x277, 0x2ff, 0x6e0, 0x802,
				 0x80b, 0x830, 0x832, 0xc0000080, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084,
				 0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103, 0x4b564d00, 0x4b564d01 };

static uint64_t value_of(enum value kind, struct rng *rng)
{
	uint64_t r = rng_next(rng);

	switch (kind) {
	case V_ZERO: return 0;
	case V_SMALL: return r & 0xff;
	case V_DATA: return DATA_VA + (r & 0x3fff);
	case V_PAGE_END: return DATA_VA + (r >> 8 & 3) * PAGE + PAGE - (r & 0x3f);
	case V_STACK: return STACK_VA + (r & 0x1ff8);
	case V_CODE: return CODE_VA + (r & (CODE_AREA - 1));
	case V_TABLES: return (r & 1 ? TABLES_VA : DIRECT_VA + TABLES_PA) + (r >> 8 & 0x1fff8);
	case V_DEVICE: return (r & 1 ? MACHINE_MMIO : BEHIND_VA) + (r >> 8 & 0xfff);
	case V_KERNEL: return KERNEL_VA + (r & 0x7fff);
	case V_APIC: return (r & 1 ? APIC_VA : IOAPIC_VA) + (r >> 8 & 0xff0);
	case V_NOT_CANONICAL: return 0x7ffffffffff8ull + (r & 0xffff00000000000f);
	case V_MINUS: return 0 - (r & 0xff);
	case V_RANDOM64: return r;
	case V_RANDOM32: return (uint32_t)r;
	case V_MSR: return msrs[r % (sizeof(msrs) / sizeof(msrs[0]))];
	case V_CONTROL: break;
	}
	return (r & 1 ? 0x80010033 : 0x506a0) ^ 1ull << (r >> 8 & 63);
}

static struct seg_reg flat(uint16_t sel, uint16_t attr)
{
	return (struct seg_reg){ .limit = 0xffffffff, .sel = sel, .attr = attr };
}

static void set_segments(struct vcpu_state *st, const struct input *in, unsigned cpu)
{
	bool user = in->h.where & W_USER, code32 = in->h.where & W_CODE32;

	for (unsigned s = 0; s < SEG_COUNT; s++)
		st->seg[s] = user ? flat(SEL_USER_DATA, 0xcf3) : flat(SEL_KERNEL_DATA, 0xc93);
	if (user)
		st->seg[SEG_CS] = code32 ? flat(SEL_USER_CODE32, 0xcfb) : flat(SEL_USER_CODE64, 0xafb);
	else
		st->seg[SEG_CS] = code32 ? flat(SEL_KERNEL_CODE32, 0xc9b) : flat(SEL_KERNEL_CODE, 0xa9b);
	st->seg[SEG_FS].base = code32 ? 0 : DATA_VA;
	st->seg[SEG_GS].base = code32 ? 0 : DATA_VA + PAGE - 8;
	st->tr = (struct seg_reg){ .base = tss_va(cpu), .limit = 103, .sel = (uint16_t)(SEL_TSS + 16 * cpu), .attr = 0x8b };
	st->ldtr = in->h.around & A_LDT ?
		(struct seg_reg){ .base = KERNEL_VA + K_LDT, .limit = 63, .sel = SEL_LDT, .attr = 0x82 } :
		(struct seg_reg){ .attr = 1u << 15 };
	st->gdtr = (struct desc_table){ .base = KERNEL_VA + K_GDT, .limit = SEL_TSS + 16 * MACHINE_CPUS_MAX - 1 };
	st->idtr = (struct desc_table){ .base = KERNEL_VA + K_IDT, .limit = 4095 };
	if ((in->h.where & W_IDT) == IDT_ABSENT)
		st->idtr = (struct desc_table){ 0 };
	else if ((in->h.where & W_IDT) == IDT_OUTSIDE)
		st->idtr.base = 0x7fff00000000;
}

static void set_control(struct vcpu_state *st, const struct input *in)
{
	uint8_t c = in->h.control;

	st->cr0 = 0x80010033 | (c & C_TS ? 8 : 0) | (c & C_EM ? 4 : 0);	/* PG WP NE ET MP PE */
	if (c & C_NO_WP)
		st->cr0 &= ~0x10000ull;
	st->cr3 = TABLES_PA;
	st->cr4 = 0x106a0 | (c & C_PCID ? 0x20000 : 0) | (c & C_NO_SSE ? 0 : 0x40000);	/* FSGSBASE ... PGE PAE */
	if (c & C_NO_SSE)
		st->cr4 &= ~0x600ull;
	st->efer = 0xd01;	/* NXE LMA LME SCE */
	if (c & C_NO_NX)
		st->efer &= ~0x800ull;
	if (c & C_NO_SYSCALL)
		st->efer &= ~1ull;
	if (in->h.around & A_BREAKPOINTS) {
		st->dr[0] = in->at + in->h.seed % 64;
		st->dr[1] = DATA_VA + (in->h.seed >> 8 & 0x3ff8);
		st->dr[2] = STACK_TOP - 8;
		st->dr[7] = 0x400 | 0x2a | 0xbull << 20 | 0x9ull << 24;	/* 0 executes, 1 is accessed, 2 written */
	}
}

static void set_msr(struct vcpu_state *st, uint32_t index, uint64_t value)
{
	for (unsigned i = 0; i < st->nmsrs; i++)
		if (st->msr[i].index == index)
			st->msr[i].value = value;
}

static uint64_t initial_flags(const struct input *in)
{
	uint8_t f = in->h.flags;

	return 2 | (f & F_TF ? 0x100 : 0) | (f & F_IF ? 0x200 : 0) | (f & F_DF ? 0x400 : 0) |
	       (f & F_IOPL) << 6 | (f & F_NT ? 0x4000 : 0) | (f & F_RF ? 0x10000 : 0) | (f & F_AC ? 0x40000 : 0);
}

static void make_state(struct vcpu_state *st, const struct vcpu_state *power_on, const struct input *in, unsigned cpu)
{
	struct rng rng = { in->h.seed + cpu };
	uint32_t spurious = 0x1ff;	/* the APIC is on */

	*st = *power_on;
	set_segments(st, in, cpu);
	set_control(st, in);
	for (unsigned r = 0; r < GPR_COUNT; r++)
		st->gpr[r] = value_of(in->h.regs[r / 2] >> (r & 1) * 4 & 15, &rng);
	if (!(in->h.regs[RSP / 2] & 15))
		st->gpr[RSP] = STACK_TOP - 256 - PAGE * cpu;
	st->rip = in->at + (cpu ? in->len / 2 : 0);
	st->rflags = initial_flags(in);
	st->mp_state = MP_RUNNABLE;
	st->tsc = 0;
	set_msr(st, 0xc0000081, (uint64_t)SEL_USER_CODE32 << 48 | (uint64_t)SEL_KERNEL_CODE << 32);
	set_msr(st, 0xc0000082, kernel_va(fuzz_kernel_syscall));
	set_msr(st, 0xc0000083, kernel_va(fuzz_kernel_syscall32));
	set_msr(st, 0xc0000084, 0x47700);
	set_msr(st, 0x174, SEL_KERNEL_CODE);
	set_msr(st, 0x175, KERNEL_VA + K_STACKS + (cpu + 1) * K_STACK_STEP);
	set_msr(st, 0x176, kernel_va(fuzz_kernel_done));
	memcpy(st->lapic + 0xf0, &spurious, 4);
}

/* --- Oracles --- */

/* The code runs in ring 3, and nothing was left open on purpose. */
static bool is_confined(const struct input *in)
{
	return in->h.where & W_USER && !(in->h.where & W_TABLES_MAPPED) && !(in->h.where & 8) &&
	       (in->h.flags & F_IOPL) != F_IOPL && !(in->h.around & (A_USER_DEVICE | A_DEVICE_BEHIND | A_LDT)) &&
	       !(in->h.control & C_NO_NX);
}

/* What the engine may say when it gives up: things of CAVEATS.md, never a failure of its own. */
static bool is_known_end(const char *msg)
{
	static const char *const known[] = { "16-bit protected mode", "real mode", "32-bit paging",
					     "executes device memory", "continues in device memory" };

	for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strstr(msg, known[i]))
			return true;
	(void)fprintf(stderr, "%s\n", msg);
	return false;
}

static void check_exits(const struct machine *m, const struct input *in, const struct machine_run *run)
{
	for (unsigned i = 0; i < run->ncpus; i++) {
		enum vcpu_exit e = run->exit[i];

		want(e != VCPU_EXIT_DEBUG);
		want(e != VCPU_EXIT_ERROR || is_known_end(run->err[i].msg));
		want(e != VCPU_EXIT_RESET || atomic_load(&m->vm->request) == VM_REQUEST_RESET);
		want(e != VCPU_EXIT_POWEROFF || atomic_load(&m->vm->request) == VM_REQUEST_POWEROFF);
		if (is_confined(in))
			want(e == VCPU_EXIT_KICKED);
	}
	if (is_confined(in))
		want(run->done || run->out_of_time);
}

static bool canonical(uint64_t va)
{
	return (uint64_t)((int64_t)(va << 16) >> 16) == va;
}

/* SDM vol. 3, 2.5 and 2.2.1; vol. 1, 3.4.3: what no processor can be found in. */
static void check_state(const struct vcpu_state *st)
{
	const uint64_t cr4_not_offered = 1ull << 11 | 1ull << 12 | 1ull << 13 | 1ull << 14 | 1ull << 20 | 1ull << 21 |
		1ull << 22;	/* UMIP LA57 VMXE SMXE SMEP SMAP PKE */

	want((st->rflags & 0xffffffffffc0802aull) == 2 && !(st->rflags & 1u << 17));
	want(!(st->cr0 >> 32) && (!(st->cr0 & 1u << 31) || st->cr0 & 1));
	want(!(st->cr0 & 1u << 29) || st->cr0 & 1u << 30);
	want(!(st->cr4 & cr4_not_offered) && !(st->cr4 >> 32));
	want(!(st->efer & ~0xd01ull));
	want(!!(st->efer & 0x400) == (st->efer & 0x100 && st->cr0 & 1u << 31));
	want(!(st->efer & 0x400) || st->cr4 & 0x20);
	want(st->xcr0 & 1 && st->cr8 < 16);
	want(canonical(st->seg[SEG_FS].base) && canonical(st->seg[SEG_GS].base));
	want(canonical(st->gdtr.base) && canonical(st->idtr.base));
	want((st->seg[SEG_CS].attr & 0x600) != 0x600);
	want(!(st->dr[6] >> 32) && !(st->dr[7] >> 32));
}

static bool is_user_page(const struct input *in, uint64_t va, uint64_t *ret_bits)
{
	for (unsigned i = 0; i < sizeof(mapping) / sizeof(mapping[0]); i++)
		if (mapping[i].va == (va & ~0xfffull)) {
			*ret_bits = mapping_bits(in, &mapping[i]);
			return *ret_bits & PTE_U;
		}
	return false;
}

/* Is the page one of the supervisor's that is there? */
static bool is_kernel_page(uint64_t va)
{
	return va - KERNEL_VA < K_PAGES * PAGE || va - DIRECT_VA < MACHINE_RAM || va - MACHINE_MMIO < PAGE ||
	       va - APIC_VA < PAGE || va - IOAPIC_VA < PAGE;
}

/* SDM vol. 3, 4.7: a page fault of ring 3 is one that the page tables call for. */
static void check_page_fault(const struct input *in, const struct guest_event *ev)
{
	bool write = ev->error & 2, fetch = ev->error & 16;
	uint64_t bits = 0;
	bool user = is_user_page(in, ev->cr2, &bits);

	want(!(ev->error & ~0x17ull) && ev->error & 4 && !(write && fetch));
	want(canonical(ev->cr2));
	want(!!(ev->error & 1) == (user || is_kernel_page(ev->cr2)));
	if (user)
		want((write && !(bits & PTE_W)) || (fetch && bits & PTE_NX));
}

static void check_event(const struct input *in, const struct guest_event *ev)
{
	const uint64_t faults = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 12 | 1 << 13 |
		1 << 14 | 1 << 16 | 1 << 19;
	bool code32 = ev->cs == SEL_USER_CODE32;

	want(ev->vector < 32 ? faults >> ev->vector & 1 :
	     ev->vector == 0x80 || (ev->vector == IRQ_VECTOR && in->h.around & A_IRQ));
	want(code32 || ev->cs == SEL_USER_CODE64);
	/* The engine goes to an address that is not canonical and faults there (CAVEATS.md). */
	want(code32 ? ev->rip <= 0xffffffff :
	     canonical(ev->rip) || ev->vector == 13 || ev->vector == 1 || ev->vector == IRQ_VECTOR);
	want((ev->ss & 3) == 3);
	want(((ev->rflags ^ initial_flags(in)) & 0x3200) == 0);	/* IF and IOPL are the kernel's */
	want((ev->rflags & 0xffffffffffc2802aull) == 2);
	if (ev->vector == 14)
		check_page_fault(in, ev);
	else
		want(ev->error <= 0xffff);
}

/* The event log, which only the kernel's handlers write. */
static void check_events(const struct machine *m, const struct input *in, bool confined)
{
	bool print_events = getenv("FUZZ_GUEST_EVENTS");
	const uint8_t *kernel = machine_page(m, KERNEL_PA / PAGE);
	struct guest_event ev;
	uint32_t count;

	memcpy(&count, kernel + K_COUNT, sizeof(count));
	for (unsigned i = 0; i < count && i < EVENTS_MAX; i++) {
		memcpy(&ev, kernel + K_LOG + i * sizeof(ev), sizeof(ev));
		if (print_events)
			(void)fprintf(stderr, "%2u: vector %llu error 0x%llx at %llx:0x%llx flags 0x%llx stack %llx:0x%llx cr2 0x%llx\n",
				      i, (unsigned long long)ev.vector, (unsigned long long)ev.error,
				      (unsigned long long)ev.cs, (unsigned long long)ev.rip, (unsigned long long)ev.rflags,
				      (unsigned long long)ev.ss, (unsigned long long)ev.rsp, (unsigned long long)ev.cr2);
		if (confined && ev.ss)	/* else a system call, or a handler was stopped before it had written all */
			check_event(in, &ev);
	}
}

/* Page tables, but for what the processor itself sets in them. */
static bool same_tables(const struct machine *m, unsigned page)
{
	for (unsigned i = 0; i < PAGE; i += 8) {
		uint64_t was, is;

		memcpy(&was, m->image + page * PAGE + i, 8);
		memcpy(&is, machine_page(m, page) + i, 8);
		if ((is & ~(PTE_A | PTE_D)) != was)
			return false;
	}
	return true;
}

static bool may_change(const struct machine *m, const struct input *in, unsigned page)
{
	uint64_t pa = page * PAGE;

	if (pa >= TABLES_PA && pa < TABLES_END)
		return same_tables(m, page);
	if (pa >= KERNEL_PA && pa < KERNEL_PA + K_PAGES * PAGE)
		return pa >= KERNEL_PA + K_STATE;
	for (unsigned i = 0; i < sizeof(mapping) / sizeof(mapping[0]); i++)
		if (mapping[i].pa == pa)
			return mapping_bits(in, &mapping[i]) & PTE_W;
	return false;
}

/* Ring 3 has changed nothing but its own pages and registers. */
static void check_confined(const struct machine *m, const struct input *in, const struct vcpu_state *before,
			   const struct vcpu_state *after)
{
	const uint64_t ts = 8;	/* the handler of #NM clears it */

	want((before->cr0 & ~ts) == (after->cr0 & ~ts) && before->cr3 == after->cr3 && before->cr4 == after->cr4);
	want(before->efer == after->efer && before->xcr0 == after->xcr0 && before->cr8 == after->cr8);
	want(before->gdtr.base == after->gdtr.base && before->gdtr.limit == after->gdtr.limit);
	want(before->idtr.base == after->idtr.base && before->idtr.limit == after->idtr.limit);
	want(before->tr.base == after->tr.base && after->ldtr.attr & 1u << 15);
	want(before->dr[7] == after->dr[7] && after->mp_state == MP_RUNNABLE);
	want(atomic_load(&m->accesses) == 0);
	for (unsigned p = machine_changed_page(m, 0); p < MACHINE_PAGES; p = machine_changed_page(m, p + 1))
		if (!may_change(m, in, p)) { fprintf(stderr, "page %x\n", p); for (unsigned i = 0; i < 4096; i++) if (machine_page(m,p)[i] != m->image[p*4096+i]) fprintf(stderr, "%x: %x %x\n", i, m->image[p*4096+i], machine_page(m,p)[i]); abort(); }
}

/* --- One input --- */

static bool read_input(const uint8_t *data, size_t len, struct input *in)
{
	if (len <= sizeof(in->h))
		return false;
	memcpy(&in->h, data, sizeof(in->h));
	in->code = data + sizeof(in->h);
	in->len = len - sizeof(in->h) < CODE_MAX ? (unsigned)(len - sizeof(in->h)) : CODE_MAX;
	switch (in->h.where & W_PLACE) {
	case AT_START: in->at = CODE_VA; break;
	case ACROSS: in->at = CODE_VA + PAGE - in->len / 2; break;
	case AT_END: in->at = CODE_VA + CODE_AREA - in->len; break;
	default: in->at = CODE_VA + in->h.seed % (CODE_AREA - CODE_MAX); break;
	}
	return true;
}

static void fill_image(struct machine *m, const struct input *in)
{
	uint8_t *kernel = m->image + KERNEL_PA;
	struct rng rng = { in->h.seed };

	fill_tables(m->image, in);
	memset(m->image + CODE_VA, 0xcc, CODE_AREA);
	memcpy(m->image + in->at, in->code, in->len);
	for (unsigned i = 0; i < EVENTS_MAX; i++) {
		uint16_t at = (uint16_t)(in->at - CODE_VA + rng_next(&rng) % in->len);

		memcpy(kernel + K_RESUME + 2 * i, &at, sizeof(at));
	}
	for (unsigned v = 0; v < 256; v++)
		kernel[K_IDT + 16 * v + 4] = (in->h.where & W_IDT) == IDT_OWN_STACK;
}

/* Now and then all machines are thrown away, and nothing of them may stay. */
static struct machine *get_machine(unsigned ncpus)
{
	static struct machine *kept[MACHINE_CPUS_MAX];
	static unsigned runs;
	static int unused;
	struct machine **m = &kept[ncpus - 1];

	if (runs++ % RUNS_PER_MACHINE == 0) {
		for (unsigned i = 0; i < MACHINE_CPUS_MAX; i++) {
			machine_destroy(kept[i]);
			kept[i] = NULL;
		}
		want(!unused || unused == free_descriptor());
		unused = free_descriptor();
	}
	if (!*m) {
		*m = machine_create(ncpus);
		make_image((*m)->image);
	}
	return *m;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct vcpu_state before[MACHINE_CPUS_MAX], after;
	struct vm_state vm_state;
	struct machine_run run;
	struct machine *m;
	struct input in;

	if (!read_input(data, len, &in))
		return 0;
	m = get_machine(in.h.where & W_TWO_CPUS ? 2 : 1);
	fill_image(m, &in);
	for (unsigned i = 0; i < m->vm->nvcpus; i++)
		make_state(&before[i], &m->power_on, &in, i);
	vm_state = m->vm_power_on;
	vm_state.ioapic.redir[MACHINE_IRQ] = IRQ_VECTOR;
	machine_reset(m, before, &vm_state);
	machine_run(m, in.h.around & A_IRQ ? 4 : 0, &run);
	check_events(m, &in, is_confined(&in));
	check_exits(m, &in, &run);
	for (unsigned i = 0; i < run.ncpus; i++) {
		want(m->vm->engine->get_state(&m->vm->vcpu[i], &after, NULL) == 0);
		check_state(&after);
		if (is_confined(&in))
			check_confined(m, &in, &before[i], &after);
	}
	return 0;
}
