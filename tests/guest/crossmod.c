/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two processors: one changes code or page tables, the other uses them.
 *
 * With serialisation (an IPI whose handler executes CPUID and acknowledges, then IRET)
 * the other processor must run the new code, or use the new mapping, from then on.
 * Without, and with single stores that do not cross 8 bytes, it must run the old or the
 * new instruction and nothing else (SDM vol. 3, 9.1.3; Linux relies on both).
 *
 * Processor 1 runs one worker after the other; the number of rounds is bounded by time,
 * too, since two processors may have to share one host CPU.
 */
#include "guest.h"

#define SYNC_VECTOR 0x51
#define VEC_BP 3
#define CODE 0x1c00000ull
#define DATA_VA 0x7000000000ull
#define DATA_PAGES 4
#define DATA_A 0x2000000ull
#define DATA_B 0x2100000ull
#define PATIENCE 1000000000ull	/* TSC ticks a test */

typedef uint64_t (*code_fn)(void);

enum { IDLE, WORK, DONE };
static void (*volatile worker)(void);
static volatile uint32_t worker_state, stop;
static volatile uint64_t acknowledged, announced, bad, runs;
static volatile uint64_t sync_va;	/* to flush from the TLB, 0 none */
static volatile uint32_t parked, hold;

void guest_ap_main(unsigned cpu)
{
	(void)cpu;
	apic_enable();
	for (;;) {
		while (worker_state != WORK)
			asm volatile("pause");
		worker();
		worker_state = DONE;
	}
}

static void serialize(void)
{
	uint32_t r[4];

	cpuid(0, 0, r);
}

/* On processor 1: announced before, acknowledged after it has been made serial. */
static void on_sync(struct trap_frame *f)
{
	uint64_t seq = announced;

	(void)f;
	if (hold) {
		parked = 1;
		while (hold)
			asm volatile("pause");
		parked = 0;
	}
	for (unsigned i = 0; i < DATA_PAGES && sync_va; i++)
		invlpg(sync_va + i * 4096);
	serialize();
	acknowledged = seq;
}

/* What was written before is in force on processor 1 when this returns. */
static void sync_other(uint64_t seq)
{
	announced = seq;
	apic_icr(1, SYNC_VECTOR);
	while (acknowledged != seq)
		asm volatile("pause");
}

static void start(void (*fn)(void))
{
	stop = 0;
	bad = runs = 0;
	announced = acknowledged = 0;
	worker = fn;
	worker_state = WORK;
	while (!runs)
		asm volatile("pause");
}

static void finish(void)
{
	stop = 1;
	while (worker_state != DONE)
		asm volatile("pause");
	worker_state = IDLE;
}

/* Calls @round with 1, 2, ... while the worker runs. */
static void test(const char *name, void (*fn)(void), void (*round)(uint64_t i), unsigned rounds)
{
	uint64_t begin, i;

	start(fn);
	begin = rdtsc();
	for (i = 1; i <= rounds && rdtsc() - begin < PATIENCE; i++)
		round(i);
	finish();
	check(name, !bad);
	if (!bad)
		return;
	print("  bad ");
	print_hex(bad);
	print(" of ");
	print_hex(runs);
	print(", rounds ");
	print_hex(i - 1);
	print("\n");
}

/* --- Code rewritten with serialisation --- */

/* The worker runs code that returns a number between what is in force and the last announced, plus one. */
static void run_numbered(void)
{
	sti();
	while (!stop) {
		uint64_t before = acknowledged, v = ((code_fn)CODE)();

		bad += v < before || v > announced + 1;
		runs++;
	}
	cli();
}

/* The same, but never interrupted inside that code, whose instructions do not stay where they are. */
static void run_numbered_closed(void)
{
	while (!stop) {
		uint64_t before = acknowledged, v = ((code_fn)CODE)();

		bad += v < before || v > announced + 1;
		runs++;
		asm volatile("sti\n\tnop\n\tcli" : : : "memory");
	}
}

/* mov $number, %eax; ret: the number is aligned. */
static void begin_numbered(void)
{
	static const uint8_t code[] = { 0x90, 0x90, 0x90, 0xb8, 0, 0, 0, 0, 0xc3 };

	for (unsigned i = 0; i < sizeof(code); i++)
		((volatile uint8_t *)CODE)[i] = code[i];
}

static void renumber(uint64_t i)
{
	write32(CODE + 4, (uint32_t)i);
	sync_other(i);
}

/* As text_poke does under stop_machine(): the other is held in its handler while many instructions change. */
static void rewrite_parked(uint64_t i)
{
	volatile uint8_t *p = (volatile uint8_t *)CODE;
	unsigned pad = i % 23;

	hold = 1;
	announced = i;
	apic_icr(1, SYNC_VECTOR);
	while (!parked)
		asm volatile("pause");
	for (unsigned k = 0; k < pad; k++)
		p[k] = 0x90;
	p[pad] = 0x48, p[pad + 1] = 0x31, p[pad + 2] = 0xc0;	/* xor %rax, %rax */
	p[pad + 3] = 0x48, p[pad + 4] = 0x05;	/* add $i, %rax */
	for (unsigned k = 0; k < 4; k++)
		p[pad + 5 + k] = (uint8_t)(i >> 8 * k);
	p[pad + 9] = 0xc3;
	hold = 0;
	while (acknowledged != i)
		asm volatile("pause");
}

/* --- Static keys: NOP and CALL, or jumps, exchanged by single aligned stores --- */

/* call target (or nop); ret, with the patched instruction inside 8 aligned bytes. */
static uint64_t nop5, call5;

static void begin_site(void)
{
	volatile uint8_t *p = (volatile uint8_t *)CODE;
	const uint64_t target = CODE + 0x100;

	/* xor %eax, %eax; (nop to 8); [patched 5 bytes]; ret; int3 int3 */
	p[0] = 0x31, p[1] = 0xc0;
	for (unsigned k = 2; k < 8; k++)
		p[k] = 0x90;
	nop5 = 0x0000441f0full | 0xc3ull << 40 | 0xccccull << 48;
	call5 = 0xe8ull | (uint64_t)(uint32_t)(target - (CODE + 13)) << 8 | 0xc3ull << 40 | 0xccccull << 48;
	write64(CODE + 8, nop5);
	p = (volatile uint8_t *)target;
	p[0] = 0xff, p[1] = 0xc0, p[2] = 0xc3;	/* inc %eax; ret */
}

static void run_site(void)
{
	sti();
	while (!stop) {
		bad += ((code_fn)CODE)() > 1;
		runs++;
	}
	cli();
}

static void pause_a_little(uint64_t i)
{
	for (uint64_t k = 0; k < i % 64; k++)
		asm volatile("pause");
}

static void toggle_site(uint64_t i)
{
	write64(CODE + 8, i & 1 ? call5 : nop5);
	pause_a_little(i);
}

/* jmp to one of two targets, by its rel32, which lies in 4 aligned bytes. */
static void begin_jump(void)
{
	volatile uint8_t *p = (volatile uint8_t *)CODE;

	p[0] = p[1] = p[2] = 0x90;
	p[3] = 0xe9;
	write32(CODE + 4, 0xf8);	/* to CODE + 0x100 */
	for (unsigned k = 0; k < 2; k++) {	/* mov $k, %eax; ret; the second in another page */
		p = (volatile uint8_t *)(CODE + (k ? 0x1080 : 0x100));
		p[0] = 0xb8, p[1] = (uint8_t)k, p[2] = p[3] = p[4] = 0, p[5] = 0xc3;
	}
}

static void toggle_jump(uint64_t i)
{
	write32(CODE + 4, i & 1 ? 0x1078 : 0xf8);
	pause_a_little(i);
}

/* A loop whose immediate changes under it: it never leaves by itself until it is told. */
static void run_immediate(void)
{
	sti();
	while (!stop) {
		uint64_t sum = ((code_fn)CODE)();

		/* 1000 rounds that add 3 or 5 each */
		bad += sum < 3000 || sum > 5000 || sum & 1;
		runs++;
	}
	cli();
}

static void begin_immediate(void)
{
	/* xor %eax,%eax; mov $1000,%ecx; nop; 1: add $3, %eax; dec %ecx; jnz 1b; ret */
	static const uint8_t code[] = { 0x31, 0xc0, 0xb9, 0xe8, 3, 0, 0, 0x90, 0x90, 0x90, 0x90, 0x05, 3, 0, 0, 0,
					0xff, 0xc9, 0x75, 0xf7, 0xc3 };

	for (unsigned i = 0; i < sizeof(code); i++)
		((volatile uint8_t *)CODE)[i] = code[i];
}

static void toggle_immediate(uint64_t i)
{
	write32(CODE + 12, i & 1 ? 5 : 3);
	pause_a_little(i);
}

/* --- Linux' text_poke: INT3 first, with the handler standing in, then the rest --- */

static volatile uint64_t traps;

static void skip_site(struct trap_frame *f)
{
	traps++;
	if (f->rip == CODE + 9)
		f->rip = CODE + 13;	/* the NOP */
	else
		bad++;
}

static void poke_site(uint64_t i)
{
	const uint64_t v = i & 1 ? call5 : nop5;
	volatile uint8_t *p = (volatile uint8_t *)(CODE + 8);

	p[0] = 0xcc;
	sync_other(3 * i);
	for (unsigned k = 1; k < 5; k++)
		p[k] = (uint8_t)(v >> 8 * k);
	sync_other(3 * i + 1);
	p[0] = (uint8_t)v;
	sync_other(3 * i + 2);
}

static void run_poked(void)
{
	sti();
	while (!stop) {
		uint64_t before = acknowledged, old_traps = traps, v = ((code_fn)CODE)(), after = announced;

		/* Between two pokes it is what the last one made it; INT3 says that the next has begun. */
		bad += v > 1 || (before == after && before % 3 == 2 && traps == old_traps && v != (before / 3 & 1));
		runs++;
	}
	cli();
}

/* --- Pages of code written by a loop that walks over them --- */

#define SLOTS 256	/* of 64 bytes: 4 pages */

static void begin_slots(void)
{
	for (unsigned i = 0; i < SLOTS; i++) {	/* mov $0, %eax; ret at slot + 3 */
		volatile uint8_t *p = (volatile uint8_t *)(CODE + 64 * i);

		p[3] = 0xb8, p[4] = p[5] = p[6] = p[7] = 0, p[8] = 0xc3;
	}
}

static void run_slots(void)
{
	uint32_t seed = 1;

	sti();
	while (!stop) {
		uint64_t before = acknowledged, v;

		seed = seed * 1664525 + 1013904223;
		v = ((code_fn)(CODE + 64 * (seed >> 24) + 3))();
		bad += v < before || v > announced + 1;
		runs++;
	}
	cli();
}

static void write_slots(uint64_t i)
{
	uint64_t at = CODE + 4, n = SLOTS;

	asm volatile("1:\tmov %k2, (%0)\n\tadd $64, %0\n\tdec %1\n\tjnz 1b" : "+r"(at), "+r"(n) : "r"(i) : "memory", "cc");
	sync_other(i);
}

/* The same by REP MOVS, whole pages at once. */
static void copy_slots(uint64_t i)
{
	uint64_t from = DATA_B, to = CODE, n = SLOTS * 64, at = DATA_B + 4, k = SLOTS;

	if (i == 1)
		for (uint64_t off = 0; off < SLOTS * 64; off += 8)
			write64(DATA_B + off, read64(CODE + off));
	asm volatile("1:\tmov %k2, (%0)\n\tadd $64, %0\n\tdec %1\n\tjnz 1b" : "+r"(at), "+r"(k) : "r"(i) : "memory", "cc");
	asm volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(n) : : "memory");
	sync_other(i);
}

/* --- TLB shoot-down --- */

#define POISON (1ull << 63)
#define WORDS (DATA_PAGES * 512ull)

static void map_data(uint64_t pa, uint64_t flags)
{
	for (unsigned i = 0; i < DATA_PAGES; i++)
		*pte_of(DATA_VA + i * 4096, 1) = (pa + i * 4096) | flags;
}

static void fill(uint64_t pa, uint64_t value)
{
	for (uint64_t i = 0; i < WORDS; i++)
		write64(pa + 8 * i, value);
}

/* Reads all over the pages; a word of the pages that are no longer mapped has a bit that shows. */
static void run_reads(void)
{
	sti();
	while (!stop) {
		uint64_t at = DATA_VA, n = WORDS, seen = 0;

		asm volatile("1:\tor (%0), %2\n\tadd $8, %0\n\tdec %1\n\tjnz 1b" : "+r"(at), "+r"(n), "+r"(seen) : : "cc");
		bad += !!(seen & POISON);
		runs++;
	}
	cli();
}

/* The same one by one, not in a loop of one block. */
static void run_scattered_reads(void)
{
	uint32_t seed = 7;

	sti();
	while (!stop) {
		seed = seed * 1664525 + 1013904223;
		bad += !!(read64(DATA_VA + (seed >> 20) % WORDS * 8) & POISON);
		runs++;
	}
	cli();
}

static void exchange_for_reads(uint64_t i)
{
	uint64_t old = i & 1 ? DATA_A : DATA_B, new = i & 1 ? DATA_B : DATA_A;

	fill(new, i);
	map_data(new, PTE_P | PTE_W);
	sync_other(i);
	fill(old, POISON);
}

static void run_writes(void)
{
	uint64_t v = 0;

	sti();
	while (!stop) {
		uint64_t at = DATA_VA, n = WORDS;

		v++;
		asm volatile("1:\tmov %2, (%0)\n\tadd $8, %0\n\tdec %1\n\tjnz 1b" : "+r"(at), "+r"(n) : "r"(v) : "memory", "cc");
		runs++;
	}
	cli();
}

static void run_copies(void)
{
	sti();
	while (!stop) {
		uint64_t to = DATA_VA, n = WORDS;

		asm volatile("rep stosq" : "+D"(to), "+c"(n) : "a"(runs + 1) : "memory");
		write64(DATA_VA + 8 * (runs % WORDS), runs);
		asm volatile("lock addq $1, (%0)" : : "r"(DATA_VA + 8 * (runs * 7 % WORDS)) : "memory", "cc");
		runs++;
	}
	cli();
}

/* The writer must not touch the old pages any more: they keep what they are filled with now. */
static void exchange_for_writes(uint64_t i)
{
	uint64_t old = i & 1 ? DATA_A : DATA_B, new = i & 1 ? DATA_B : DATA_A;

	map_data(new, PTE_P | PTE_W);
	sync_other(i);
	fill(old, POISON);
	pause_a_little(i);
	for (uint64_t k = 0; k < WORDS; k++)
		bad += read64(old + 8 * k) != POISON;
}

static void test_exchange(const char *name, void (*fn)(void), void (*round)(uint64_t i))
{
	fill(DATA_A, 0);
	fill(DATA_B, 0);
	map_data(DATA_A, PTE_P | PTE_W);
	write_cr3(read_cr3());
	test(name, fn, round, 2000);
}

static void test_shoot_down(void)
{
	sync_va = DATA_VA;
	test_exchange("a page taken from a loop that reads it", run_reads, exchange_for_reads);
	test_exchange("from single reads", run_scattered_reads, exchange_for_reads);
	test_exchange("from a loop that writes it", run_writes, exchange_for_writes);
	test_exchange("from REP STOS and locked instructions", run_copies, exchange_for_writes);
	sync_va = 0;
}

int guest_main(void)
{
	apic_enable();
	irq_handler[SYNC_VECTOR] = on_sync;
	irq_handler[VEC_BP] = skip_site;
	start_ap(1);
	begin_numbered();
	test("an operand rewritten, serialised", run_numbered, renumber, 4000);
	begin_numbered();
	test("instructions rewritten while the other waits", run_numbered_closed, rewrite_parked, 3000);
	begin_site();
	test("NOP and CALL exchanged by one store", run_site, toggle_site, 20000);
	begin_jump();
	test("the target of a jump", run_site, toggle_jump, 20000);
	begin_immediate();
	test("an operand inside a loop", run_immediate, toggle_immediate, 20000);
	begin_site();
	test("a static key, patched through INT3", run_poked, poke_site, 1500);
	begin_slots();
	test("code written by a loop over its pages", run_slots, write_slots, 2000);
	begin_slots();
	test("code written by REP MOVS", run_slots, copy_slots, 1000);
	test_shoot_down();
	return check_status();
}
