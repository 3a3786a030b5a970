/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory ordering: litmus tests on two and four processors.  Only outcomes that x86-TSO
 * allows may be seen (SDM vol. 3, 9.2; Owens, Sarkar, Sewell: "A better x86 memory
 * model: x86-TSO", 2009).  Store buffering without fences may end either way; whatever
 * it does, nothing is printed about it.
 *
 * Each thread goes through an array of cells, one after the other, in one loop, so that
 * a million rounds need few barriers.  Every test comes with the accesses in a loop of
 * one block and, for the engine, in one of several.
 */
#include "guest.h"

#define CELLS 4096
#define BATCHES 256	/* CELLS * BATCHES: a million rounds */
#define BATCHES_4 32
#define PATIENCE 400000000ull	/* TSC ticks a test: where processors share a host CPU, a barrier is slow */
#define THREADS_MAX 4

/* Locations in cache lines of their own; results beside their thread's others. */
struct cell {
	volatile uint64_t x, pad0[7], y, pad1[7];
};

static struct cell cells[CELLS] __attribute__((aligned(64)));
static volatile uint64_t results[THREADS_MAX][CELLS][2];

typedef void thread_fn(struct cell *cell, volatile uint64_t (*result)[2], uint64_t n);

/*
 * @body works on (%rdi), its x, and 64(%rdi), its y, and leaves what it read in R8 and R9.
 * NAME is the loop in one block; NAME_split has jumps in it.
 */
#define THREAD(name, first, second) \
	asm(".text\n\t.balign 64\n" #name ":\n\tmov %rdx, %rcx\n\tmov $1, %eax\n\tpush %rbx\n\t" \
	    "xor %r8d, %r8d\n\txor %r9d, %r9d\n\t.balign 16\n" \
	    "1:\t" first "\n\t" second "\n\tmov %r8, (%rsi)\n\tmov %r9, 8(%rsi)\n\tadd $16, %rsi\n\tsub $-128, %rdi\n\t" \
	    "dec %rcx\n\tjnz 1b\n\tpop %rbx\n\tret\n" \
	    "\t.balign 64\n" #name "_split:\n\tmov %rdx, %rcx\n\tmov $1, %eax\n\tpush %rbx\n\t" \
	    "xor %r8d, %r8d\n\txor %r9d, %r9d\n\t.balign 16\n" \
	    "1:\t" first "\n\tcall 4f\n2:\t" second "\n\tjmp 3f\n3:\tmov %r8, (%rsi)\n\tmov %r9, 8(%rsi)\n\tadd $16, %rsi\n\t" \
	    "sub $-128, %rdi\n\tdec %rcx\n\tjnz 1b\n\tpop %rbx\n\tret\n4:\tret\n"); \
	thread_fn name, name##_split

#define WRITE_X "mov %rax, (%rdi)"
#define WRITE_Y "mov %rax, 64(%rdi)"
#define READ_X(r) "mov (%rdi), " r
#define READ_Y(r) "mov 64(%rdi), " r

THREAD(sb_0, WRITE_X, READ_Y("%r8"));
THREAD(sb_1, WRITE_Y, READ_X("%r8"));
THREAD(sb_fence_0, WRITE_X "\n\tmfence", READ_Y("%r8"));
THREAD(sb_fence_1, WRITE_Y "\n\tmfence", READ_X("%r8"));
THREAD(sb_lock_0, WRITE_X "\n\tlock addq $0, (%rsp)", READ_Y("%r8"));
THREAD(sb_lock_1, WRITE_Y "\n\tlock addq $0, (%rsp)", READ_X("%r8"));
THREAD(sb_xchg_0, "mov %eax, %ebx\n\txchg %rbx, (%rdi)", READ_Y("%r8"));
THREAD(sb_xchg_1, "mov %eax, %ebx\n\txchg %rbx, 64(%rdi)", READ_X("%r8"));
THREAD(lb_0, READ_X("%r8"), WRITE_Y);
THREAD(lb_1, READ_Y("%r8"), WRITE_X);
THREAD(mp_0, WRITE_X, WRITE_Y);
THREAD(mp_1, READ_Y("%r8"), READ_X("%r9"));
THREAD(mp_lock_0, WRITE_X, "lock incq 64(%rdi)");
THREAD(mp_lock_1, "mov $0, %r8d\n\tlock xadd %r8, 64(%rdi)", READ_X("%r9"));
THREAD(mp_narrow_0, "movb $1, 3(%rdi)", "movw $1, 66(%rdi)");
THREAD(mp_narrow_1, "movzwl 66(%rdi), %r8d", "movzbl 3(%rdi), %r9d");
THREAD(coherence_0, WRITE_X, "movq $2, (%rdi)");
THREAD(coherence_1, READ_X("%r8"), READ_X("%r9"));
THREAD(two_0, WRITE_X, "movq $2, 64(%rdi)");
THREAD(two_1, WRITE_Y, "movq $2, (%rdi)");
THREAD(r_0, WRITE_X, WRITE_Y);
THREAD(r_1, "movq $2, 64(%rdi)\n\tmfence", READ_X("%r8"));
THREAD(iriw_0, WRITE_X, "nop");
THREAD(iriw_1, WRITE_Y, "nop");
THREAD(iriw_2, READ_X("%r8"), READ_Y("%r9"));
THREAD(iriw_3, READ_Y("%r8"), READ_X("%r9"));
THREAD(own_0, WRITE_X "\n\tmov (%rdi), %r8", READ_Y("%r9"));
THREAD(own_1, WRITE_Y "\n\tmov 64(%rdi), %r8", READ_X("%r9"));
THREAD(count_0, "mov $1, %r8d\n\tlock xadd %r8, (%rdi)", "lock incq 64(%rdi)");
THREAD(exchange_0, "xor %r8d, %r8d\n\tmov %rax, %rbx\n\txchg %rbx, (%rdi)\n\tmov %rbx, %r8", "nop");

static thread_fn *volatile work[THREADS_MAX];
static volatile uint32_t at_start, at_end, generation, ready;
static volatile uint32_t nthreads;

static void run_part(unsigned cpu)
{
	/* All begin at the same moment, or as near to it as the host allows. */
	__atomic_fetch_add(&at_start, 1, __ATOMIC_SEQ_CST);
	while (at_start < nthreads)
		asm volatile("pause");
	work[cpu](cells, results[cpu], CELLS);
	__atomic_fetch_add(&at_end, 1, __ATOMIC_SEQ_CST);
}

void guest_ap_main(unsigned cpu)
{
	uint32_t seen = generation;

	__atomic_fetch_add(&ready, 1, __ATOMIC_SEQ_CST);
	for (;;) {
		while (generation == seen)
			asm volatile("pause");
		seen = generation;
		if (cpu < nthreads)
			run_part(cpu);
	}
}

static void run_batch(void)
{
	for (unsigned i = 0; i < CELLS; i++)
		cells[i].x = cells[i].y = 0;
	at_start = at_end = 0;
	generation++;
	run_part(0);
	while (at_end < nthreads)
		asm volatile("pause");
}

struct outcome {
	uint64_t a0, a1, b0, b1, c0, c1, d0, d1;	/* what R8 and R9 of the four threads read */
	uint64_t x, y;	/* in the end */
};

struct litmus {
	const char *name;
	bool (*forbidden)(const struct outcome *o);
	thread_fn *thread[2][THREADS_MAX];	/* in one block, split */
	unsigned n;
};

static struct outcome outcome_of(unsigned i)
{
	return (struct outcome){ results[0][i][0], results[0][i][1], results[1][i][0], results[1][i][1], results[2][i][0],
				 results[2][i][1], results[3][i][0], results[3][i][1], cells[i].x, cells[i].y };
}

static uint64_t count_forbidden(const struct litmus *l, unsigned form, unsigned batches)
{
	uint64_t start = rdtsc(), seen = 0;

	nthreads = l->n;
	for (unsigned k = 0; k < THREADS_MAX; k++)
		work[k] = l->thread[form][k];
	for (unsigned b = 0; b < batches && rdtsc() - start < PATIENCE; b++) {
		run_batch();
		for (unsigned i = 0; i < CELLS; i++) {
			struct outcome o = outcome_of(i);

			seen += l->forbidden(&o);
		}
	}
	return seen;
}

static bool none(const struct outcome *o)
{
	return o->x != 1 || o->y != 1;
}

static bool both_zero(const struct outcome *o)
{
	return !o->a0 && !o->b0;
}

static bool both_one(const struct outcome *o)
{
	return o->a0 && o->b0;
}

static bool new_then_old(const struct outcome *o)
{
	return o->b0 && !o->b1;
}

static bool backwards(const struct outcome *o)
{
	return o->b0 > o->b1 || o->x != 2;
}

static bool both_first(const struct outcome *o)
{
	return o->x == 1 && o->y == 1;
}

static bool r_outcome(const struct outcome *o)
{
	return o->y == 2 && !o->b0;
}

static bool readers_disagree(const struct outcome *o)
{
	return o->c0 && !o->c1 && o->d0 && !o->d1;
}

static bool not_own(const struct outcome *o)
{
	return o->a0 != 1 || o->b0 != 1;
}

static bool lost_count(const struct outcome *o)
{
	return o->x != 2 || o->y != 2 || o->a0 + o->b0 != 1;
}

static bool both_won(const struct outcome *o)
{
	return o->a0 + o->b0 != 1;
}

#define TWO(a, b) { { a, b }, { a##_split, b##_split } }, 2
#define FOUR(a, b, c, d) { { a, b, c, d }, { a##_split, b##_split, c##_split, d##_split } }, 4

static const struct litmus tests[] = {
	{ "store buffering loses no store", none, TWO(sb_0, sb_1) },
	{ "store buffering with MFENCE", both_zero, TWO(sb_fence_0, sb_fence_1) },
	{ "store buffering with a locked instruction", both_zero, TWO(sb_lock_0, sb_lock_1) },
	{ "store buffering with XCHG", both_zero, TWO(sb_xchg_0, sb_xchg_1) },
	{ "load buffering", both_one, TWO(lb_0, lb_1) },
	{ "message passing", new_then_old, TWO(mp_0, mp_1) },
	{ "message passing with locked instructions", new_then_old, TWO(mp_lock_0, mp_lock_1) },
	{ "message passing in bytes and words", new_then_old, TWO(mp_narrow_0, mp_narrow_1) },
	{ "coherence", backwards, TWO(coherence_0, coherence_1) },
	{ "two writes each way", both_first, TWO(two_0, two_1) },
	{ "a write and a fenced read", r_outcome, TWO(r_0, r_1) },
	{ "a thread sees its own store", not_own, TWO(own_0, own_1) },
	{ "locked additions", lost_count, TWO(count_0, count_0) },
	{ "XCHG has one winner", both_won, TWO(exchange_0, exchange_0) },
	{ "independent reads of independent writes", readers_disagree, FOUR(iriw_0, iriw_1, iriw_2, iriw_3) },
};

/* Processors that a test does not need yet are not started: they would spin where others want to run. */
static void start_until(unsigned n)
{
	while (ready + 1 < n) {
		uint32_t before = ready;

		start_ap(before + 1);
		while (ready == before)
			asm volatile("pause");
	}
}

int guest_main(void)
{
	for (unsigned i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		unsigned batches = tests[i].n == 4 ? BATCHES_4 : BATCHES;
		uint64_t bad;

		start_until(tests[i].n);
		bad = count_forbidden(&tests[i], 0, batches) + count_forbidden(&tests[i], 1, batches);

		check_equal(tests[i].name, bad, 0);
	}
	return check_status();
}
