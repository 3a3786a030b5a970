/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state items start from.  Everything follows from the seed, so a change
 * here changes what the lines of regressions.txt test: keep it stable.
 */
#include "tests/diff/diff.h"

#include "base/checked.h"

#include <cpuid.h>
#include <string.h>

const struct diff_page diff_pages[DIFF_PAGES] = {
	{ CODE_VA, DIFF_READ | DIFF_WRITE | DIFF_EXEC, 0 },
	{ CODE_VA + PAGE, DIFF_READ | DIFF_WRITE | DIFF_EXEC, 5 },
	{ DATA_VA, DIFF_READ | DIFF_WRITE, 1 },
	{ DATA_VA + PAGE, DIFF_READ | DIFF_WRITE, 2 },
	{ DATA_VA + 2 * PAGE, DIFF_READ | DIFF_WRITE, 7 },
	{ DATA_VA + 3 * PAGE, DIFF_READ | DIFF_WRITE, 4 },
	{ DATA_VA + 4 * PAGE, DIFF_READ, 9 },
	{ STACK_VA, DIFF_READ | DIFF_WRITE, 11 },
	{ STACK_VA + PAGE, DIFF_READ | DIFF_WRITE, 3 },
	{ STACK_VA + 2 * PAGE, DIFF_READ | DIFF_WRITE, 6 },
	{ HIGH_VA, DIFF_READ | DIFF_WRITE, 8 },
	{ HIGH_VA + PAGE, DIFF_READ | DIFF_WRITE, 10 },
};

uint64_t diff_xcr0;

static const uint8_t pointer_choice[] = { RAX, RBX, RBP, RSI, RDI, R8, R10, R11, R12, R14, R15, R10, R11, RSI, RDI };

void state_roles(uint64_t seed, bool code32, struct roles *ret_roles)
{
	struct rng r = { seed ^ 0x726f6c6573ull };

	*ret_roles = (struct roles){ 0 };
	for (unsigned n = 0; n < 5; n++)
		ret_roles->pointers |= (uint16_t)(1u << (pointer_choice[rng_below(&r, ARRAY_SIZE(pointer_choice))] &
							  (code32 ? 7 : 15)));
	for (unsigned n = 0; n < 3; n++)
		ret_roles->indices |= (uint16_t)(1u << rng_below(&r, code32 ? 8 : 16));
	ret_roles->pointers &= (uint16_t)~(1u << RSP);
	ret_roles->indices &= (uint16_t)~(1u << RSP | ret_roles->pointers);
}

static uint64_t interesting(struct rng *r)
{
	static const uint64_t edge[] = { 0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000,
					 0xffffffff, 0x7fffffffffffffff, 0x8000000000000000, ~0ull, 31, 32, 63, 64 };

	switch (rng_below(r, 4)) {
	case 0: return edge[rng_below(r, ARRAY_SIZE(edge))];
	case 1: return rng_next(r) >> rng_below(r, 64);
	case 2: return (uint64_t)((int64_t)rng_next(r) >> rng_below(r, 64));
	default: return rng_next(r);
	}
}

static uint64_t raw_pointer(struct rng *r, bool code32)
{
	uint64_t border;

	if (!code32 && rng_chance(r, 12)) {
		border = HIGH_VA + (uint64_t)rng_range(r, 0, 2) * PAGE;
		border += border == HIGH_VA ? 256 : border == HIGH_VA + 2 * PAGE ? -256 : 0;
		return border + (uint64_t)(int64_t)rng_range(r, -96, 64);
	}
	border = DATA_VA + (uint64_t)rng_range(r, 1, 3) * PAGE;
	switch (rng_below(r, 10)) {
	case 0: return DATA_VA + 4 * PAGE + (uint64_t)(int64_t)rng_range(r, -160, 64);	/* read-only from here */
	case 1: return DATA_VA + (uint64_t)rng_range(r, 0, 128);
	case 2: return DATA_VA + (uint64_t)rng_range(r, 512, 3 * PAGE);
	case 3: return (border & ~63ull) + 64u * rng_below(r, 8);
	case 4: return (border & ~63ull) - 64u * rng_below(r, 8);
	case 5: return border + (uint64_t)(int64_t)rng_range(r, -16, 16);
	default: return border + (uint64_t)(int64_t)rng_range(r, -160, 128);
	}
}

static uint64_t pointer(struct rng *r, bool code32)
{
	uint64_t at = raw_pointer(r, code32);

	return rng_chance(r, 50) ? at & ~15ull : at;
}

static void init_gpr(struct rng *r, const struct item *item, struct regs *regs)
{
	struct roles roles;

	state_roles(item->seed, item->code32, &roles);
	for (unsigned i = 0; i < GPR_COUNT; i++) {
		uint64_t value = interesting(r);

		if (roles.pointers & 1u << i)
			value = pointer(r, item->code32);
		else if (roles.indices & 1u << i)
			value = (uint64_t)(int64_t)rng_range(r, -8, 24);
		regs->gpr[i] = item->code32 ? (uint32_t)value : value;
	}
	regs->gpr[RSP] = STACK_VA + (uint64_t)rng_range(r, 1, 2) * PAGE;
	switch (rng_below(r, 5)) {
	case 0: regs->gpr[RSP] += (uint64_t)(int64_t)rng_range(r, -1024, 1024); break;
	case 1: regs->gpr[RSP] += (uint64_t)(int64_t)rng_range(r, -64, 64); break;
	default: regs->gpr[RSP] += (uint64_t)(int64_t)(8 * rng_range(r, -6, 12)); break;
	}
	if (rng_chance(r, 4))
		regs->gpr[RSP] = STACK_VA + 8u * rng_below(r, 8);
	regs->fs_base = pointer(r, item->code32);
	regs->gs_base = pointer(r, item->code32);
	if (item->code32)
		regs->fs_base = regs->gs_base = 0;
	regs->rip = CODE_VA + item->off;
	regs->rflags = 0x202 | (rng_next(r) & 0x8d5);
}

/* A double or two floats that are not all noise. */
static uint64_t number(struct rng *r)
{
	static const uint64_t edge[] = { 0, 0x8000000000000000, 0x3ff0000000000000, 0x7ff0000000000000,
					 0x7ff8000000000000, 0x7ff0000000000001, 0x3f80000040000000, 0x7f800000ff800000,
					 1, 0x0000000100800000, 0x7fc000007f800001 };
	double d = (double)rng_range(r, -100000, 100000) / 64;
	float f[2] = { (float)rng_range(r, -1000, 1000), (float)rng_range(r, -100000, 100000) / 128 };
	uint64_t v;

	switch (rng_below(r, 6)) {
	case 0: return edge[rng_below(r, ARRAY_SIZE(edge))];
	case 1: memcpy(&v, &d, 8); return v;
	case 2: memcpy(&v, f, 8); return v;
	case 3: return interesting(r);
	default: return rng_next(r);
	}
}

static void init_x87(struct rng *r, uint8_t *area)
{
	uint16_t control = (uint16_t)(0x7f | rng_below(r, 4) << 8 | rng_below(r, 4) << 10);
	uint16_t status = (uint16_t)(rng_below(r, 8) << 11 | rng_below(r, 8) << 8);
	uint8_t tags = (uint8_t)(rng_chance(r, 30) ? 0 : rng_next(r));

	if (rng_chance(r, 60))
		control = 0x37f;
	if (rng_chance(r, 8))
		control &= (uint16_t)~(1u << rng_below(r, 6));
	memcpy(area, &control, 2);
	memcpy(area + 2, &status, 2);
	area[4] = tags;
	for (unsigned i = 0; i < 8; i++) {
		uint64_t fraction = rng_next(r) | (rng_chance(r, 90) ? 1ull << 63 : 0);
		uint16_t exponent = (uint16_t)(0x3fff + rng_range(r, -40, 70));

		if (rng_chance(r, 10))
			exponent = rng_chance(r, 50) ? 0x7fff : 0;
		if (rng_chance(r, 30))
			fraction = number(r);	/* an MMX register */
		exponent |= (uint16_t)(rng_next(r) & 0x8000);
		memcpy(area + 32 + 16 * i, &fraction, 8);
		memcpy(area + 40 + 16 * i, &exponent, 2);
	}
}

static void init_xsave(struct rng *r, uint8_t *area)
{
	uint32_t mxcsr = 0x1f80 | (rng_chance(r, 30) ? rng_below(r, 4) << 13 : 0);
	uint64_t present = diff_xcr0;
	uint32_t a, b, c, d;

	memset(area, 0, VCPU_XSAVE_MAX);
	init_x87(r, area);
	if (rng_chance(r, 10))
		mxcsr |= rng_chance(r, 50) ? 0x8000 : 0x40;	/* FTZ, DAZ */
	if (rng_chance(r, 6))
		mxcsr &= ~(0x80u << rng_below(r, 6));
	memcpy(area + 24, &mxcsr, 4);
	for (unsigned i = 160; i < 416; i += 8) {
		uint64_t v = number(r);

		memcpy(area + i, &v, 8);
	}
	for (unsigned k = 2; k < 8; k++) {
		if (!(diff_xcr0 & 1u << k))
			continue;
		__cpuid_count(0xd, k, a, b, c, d);
		for (unsigned i = 0; i < a; i += 8) {
			uint64_t v = k == 5 ? rng_next(r) & rng_next(r) : number(r);

			memcpy(area + b + i, &v, 8);
		}
	}
	for (unsigned k = 0; k < 8; k++)
		if (rng_chance(r, 4))
			present &= ~(1ull << k);
	memcpy(area + 512, &present, 8);
}

void state_init(const struct item *item, struct regs *ret_regs, uint8_t *ret_pages)
{
	struct rng r = { item->seed };

	init_gpr(&r, item, ret_regs);
	init_xsave(&r, ret_regs->xsave);
	memset(ret_pages, 0xcc, 2 * PAGE);
	memcpy(ret_pages + item->off, item->code, item->len);
	for (size_t i = 2 * PAGE; i < (size_t)DIFF_PAGES * PAGE; i += 8) {
		uint64_t v = rng_next(&r);

		if (!(v & 0x700))
			v = number(&r);
		memcpy(ret_pages + i, &v, 8);
	}
}
