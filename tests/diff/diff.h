/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Differential tests of the binary translator: the same user-mode code, from
 * the same state, on the host CPU (native.c) and in a guest (guest.c).
 *
 * An item is some bytes of code and a seed.  The seed alone decides registers
 * and memory (state.c), so an item can be written down in one line and shrunk by
 * dropping instructions.  Both sides see the pages of diff_pages[] at the same
 * addresses, and nothing else in their neighbourhood.  Code is surrounded by
 * INT3, whose #BP is the regular end; any other exception ends an item as well.
 *
 * One thread; one native side and one guest side a process.
 */
#ifndef TESTS_DIFF_DIFF_H
#define TESTS_DIFF_DIFF_H

#include "vmm/vcpu_state.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;

#define CODE_VA 0x10000000ull
#define DATA_VA 0x20000000ull
#define STACK_VA 0x30000000ull
#define HIGH_VA 0x5a5a00000000ull	/* for 64-bit code only */
#define PAGE 4096u
#define CODE_BYTES_MAX 400

enum { DIFF_READ = 1, DIFF_WRITE = 2, DIFF_EXEC = 4 };

/* A page that both sides map.  Its neighbours are mapped only if they are in the table too. */
struct diff_page {
	uint64_t va;
	unsigned prot;
	unsigned frame;	/* which guest page frame: neighbours by address need not be neighbours there */
};

enum { CODE_PAGE = 0, DIFF_PAGES = 12 };
extern const struct diff_page diff_pages[DIFF_PAGES];

struct item {
	uint64_t seed;
	bool code32;	/* compatibility mode */
	uint16_t off;	/* of the first instruction from CODE_VA */
	uint16_t len;
	uint8_t code[CODE_BYTES_MAX];
};

/* What registers are for in the initial state, bit per register. */
struct roles {
	uint16_t pointers;	/* into the data pages */
	uint16_t indices;	/* small numbers */
};

struct regs {
	uint64_t gpr[GPR_COUNT];
	uint64_t rip, rflags, fs_base, gs_base;
	_Alignas(64) uint8_t xsave[VCPU_XSAVE_MAX];	/* standard format */
};

/* How an item ended. */
struct outcome {
	struct regs regs;
	int vector;	/* or OUTCOME_* */
	uint32_t error;	/* code of the exception */
	uint64_t cr2;	/* valid for #PF */
	char why[232];	/* for OUTCOME_BROKEN */
};
enum { OUTCOME_HANG = -1, OUTCOME_BROKEN = -2 };

/* --- state.c --- */
/* State components compared: what this host and the guests have in common. */
extern uint64_t diff_xcr0;
/* Fills in registers, and all pages as DIFF_PAGES * PAGE bytes, for @item. */
void state_init(const struct item *item, struct regs *ret_regs, uint8_t *ret_pages);
void state_roles(uint64_t seed, bool code32, struct roles *ret_roles);

/* --- native.c --- */
/* Maps the pages and takes the fault signals.  Call after guest_create().  0, or a negative errno. */
int native_create(struct err *err);
/* True when this kernel runs 32-bit code. */
bool native_has_32(void);
void native_run(const struct item *item, const struct regs *regs, const uint8_t *pages,
		struct outcome *ret_outcome);
const uint8_t *native_page(unsigned page);

/* --- guest.c --- */
struct guest_options {
	bool single;	/* RFLAGS.TF: one instruction at a time */
	bool flush;	/* start with empty TLBs */
	bool slow_loop;	/* translate as on a host whose LOOP is slow */
};
int guest_create(struct err *err);
void guest_run(const struct item *item, const struct regs *regs, const uint8_t *pages,
	       const struct guest_options *options, struct outcome *ret_outcome);
const uint8_t *guest_page(unsigned page);
/* Makes the guest run in progress end as OUTCOME_HANG.  Any thread. */
void guest_stop(void);

/* --- generate.c --- */
struct generate_options {
	bool gather;	/* VSIB instructions too */
	/* False when the host does not know the instruction. */
	bool (*supported)(const uint8_t *insn, unsigned len, bool code32);
};
/* Fills in off, len and code from seed and code32. */
void generate(struct item *item, const struct generate_options *options);

/* --- random.h in a few lines: splitmix64 --- */
struct rng {
	uint64_t s;
};

static inline uint64_t rng_next(struct rng *r)
{
	uint64_t z = r->s += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* Less than @n, which is not 0. */
static inline unsigned rng_below(struct rng *r, unsigned n)
{
	return (unsigned)((rng_next(r) >> 32) * n >> 32);
}

static inline bool rng_chance(struct rng *r, unsigned percent)
{
	return rng_below(r, 100) < percent;
}

/* In [@lo, @hi]. */
static inline int rng_range(struct rng *r, int lo, int hi)
{
	return lo + (int)rng_below(r, (unsigned)(hi - lo + 1));
}

#endif /* TESTS_DIFF_DIFF_H */
