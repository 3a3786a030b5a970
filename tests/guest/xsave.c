/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Images of the XSAVE family (SDM vol. 1, chapter 13; vol. 2 for the instructions) and
 * of FXSAVE: what is written, what is left alone, what is refused.  AVX-512 and the
 * optimised forms are checked where CPUID offers them; the output is the same anyway.
 */
#include "guest.h"

#define X87 1u
#define SSE 2u
#define AVX 4u
#define AVX512 0xe0u
#define COMPACTED (1ull << 63)
#define HEADER 512
#define YMM 576	/* of the standard format, and of every compacted image that has it */
#define NOWHERE 0x4000000000ull
#define SIZE 4096

static uint8_t area[SIZE] __attribute__((aligned(4096)));
static uint8_t image[SIZE] __attribute__((aligned(64)));
static uint64_t offered;	/* XCR0 bits */
static bool has_opt, has_compact, has_xgetbv1;

static uint64_t at64(unsigned off)
{
	return *(volatile uint64_t *)(area + off);
}

static void put64(unsigned off, uint64_t v)
{
	*(volatile uint64_t *)(area + off) = v;
}

static void fill(uint8_t byte)
{
	for (unsigned i = 0; i < SIZE; i++)
		area[i] = byte;
}

static bool filled(unsigned from, unsigned to, uint8_t byte)
{
	for (unsigned i = from; i < to; i++)
		if (area[i] != byte)
			return false;
	return true;
}

/* An area whose header may be given to XSAVE, the rest 0xcc. */
static void clean(void)
{
	fill(0xcc);
	for (unsigned i = HEADER; i < YMM; i++)
		area[i] = 0;
}

static void xsetbv(uint64_t v)
{
	asm volatile("xsetbv" : : "a"((uint32_t)v), "d"((uint32_t)(v >> 32)), "c"(0));
}

static uint64_t xgetbv(uint32_t index)
{
	uint32_t lo, hi;

	asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(index));
	return (uint64_t)hi << 32 | lo;
}

static void xsave(uint64_t mask)
{
	asm volatile("xsave64 %0" : "+m"(area) : "a"((uint32_t)mask), "d"(0));
}

static void xrstor(uint64_t mask)
{
	asm volatile("xrstor64 %0" : : "m"(area), "a"((uint32_t)mask), "d"(0));
}

/* YMM3 (XMM3 and its upper half), ST0 and, where offered, ZMM3, ZMM19 and K3. */
static void set_state(uint64_t seed)
{
	asm volatile("vmovq %0, %%xmm3\n\tvinsertf128 $1, %%xmm3, %%ymm3, %%ymm3\n\tfninit\n\tpushq %0\n\tandl $0x7fff, (%%rsp)\n\t"
		     "fildl (%%rsp)\n\tadd $8, %%rsp" : : "r"(seed) : "memory", "cc");
	if (offered & AVX512)
		asm volatile("vinserti64x4 $1, %%ymm3, %%zmm3, %%zmm3\n\tvpbroadcastq %0, %%zmm19\n\tkmovw %k0, %%k3" : : "r"(seed));
}

static uint64_t xmm3(void)
{
	uint64_t v;

	asm volatile("vmovq %%xmm3, %0" : "=r"(v));
	return v;
}

static uint64_t ymm3_high(void)
{
	uint64_t v;

	asm volatile("vextractf128 $1, %%ymm3, %%xmm4\n\tvmovq %%xmm4, %0" : "=r"(v));
	return v;
}

static uint64_t zmm3_high(uint64_t otherwise)
{
	uint64_t v = otherwise;

	if (offered & AVX512)
		asm volatile("vextracti64x4 $1, %%zmm3, %%ymm4\n\tvmovq %%xmm4, %0" : "=r"(v));
	return v;
}

static uint64_t zmm19(uint64_t otherwise)
{
	uint64_t v = otherwise;

	if (offered & AVX512)
		asm volatile("vmovdqu64 %%zmm19, %%zmm4\n\tvmovq %%xmm4, %0" : "=r"(v));
	return v;
}

static uint64_t k3(uint64_t otherwise)
{
	uint32_t v = (uint32_t)otherwise;

	if (offered & AVX512)
		asm volatile("kmovw %%k3, %0" : "=r"(v));
	return (uint16_t)v;
}

static bool state_is(uint64_t seed)
{
	return xmm3() == seed && ymm3_high() == seed && zmm3_high(seed) == seed && zmm19(seed) == seed &&
	       k3(seed) == (uint16_t)seed;
}

static void test_control(void)
{
	uint64_t at = TRAPPING("xgetbv", "c"(0));
	uint32_t r[4];

	check_trap("XGETBV without CR4.OSXSAVE is #UD", 6, 0, at);
	at = TRAPPING("xsave64 (%1)", "r"(area), "a"(3), "d"(0));
	check_trap("so is XSAVE", 6, 0, at);
	cpuid(1, 0, r);
	check("CPUID says that it is off", !(r[2] >> 27 & 1));
	write_cr4(read_cr4() | 1 << 18);
	cpuid(1, 0, r);
	check("and that it is on", r[2] >> 27 & 1);
	at = TRAPPING("xsetbv", "c"(0), "a"(0), "d"(0));
	check_trap("XCR0 without x87 is #GP", 13, 0, at);
	at = TRAPPING("xsetbv", "c"(0), "a"(5), "d"(0));
	check_trap("AVX without SSE", 13, 0, at);
	at = TRAPPING("xsetbv", "c"(0), "a"(0x27), "d"(0));
	check_trap("a part of AVX-512", 13, 0, at);
	at = TRAPPING("xsetbv", "c"(0), "a"(0xe3), "d"(0));
	check_trap("AVX-512 without AVX", 13, 0, at);
	at = TRAPPING("xsetbv", "c"(0), "a"(3), "d"(1u << 31));
	check_trap("a reserved bit", 13, 0, at);
	at = TRAPPING("xsetbv", "c"(1), "a"(3), "d"(0));
	check_trap("XCR1", 13, 0, at);
	at = TRAPPING("xgetbv", "c"(7));
	check_trap("XGETBV of XCR7", 13, 0, at);
	cpuid(13, 0, r);
	offered = r[0] & (X87 | SSE | AVX | AVX512);
	xsetbv(offered);
	check_equal("XCR0 holds what is offered", xgetbv(0), offered);
	cpuid(13, 0, r);
	check("the size of an image by XCR0 is the largest", r[1] == r[2]);
	xsetbv(X87 | SSE);
	cpuid(13, 0, r);
	check_equal("and smaller for SSE alone", r[1], 576);
	xsetbv(offered);
	cpuid(13, 1, r);
	has_opt = r[0] & 1, has_compact = r[0] & 2, has_xgetbv1 = r[0] & 4;
	cpuid(13, 2, r);
	check("YMM lies behind the header", r[0] == 256 && r[1] == YMM);
}

static void test_standard(void)
{
	clean();
	set_state(0x1111222233334444);
	xsave(offered);
	check_equal("XSAVE marks x87, SSE and AVX as in use", at64(HEADER) & 7, 7);
	check_equal("XCOMP_BV is 0", at64(HEADER + 8), 0);
	check_equal("XMM3", at64(160 + 48), 0x1111222233334444);
	check_equal("the upper half of YMM3", at64(YMM + 48), 0x1111222233334444);
	check_equal("ST0", at64(32) == 0 ? 0 : at64(32) >> 63, 1);
	set_state(0x5555);
	xrstor(offered);
	check("XRSTOR brings all back", state_is(0x1111222233334444));
	check("AVX-512 components lie where CPUID says", ({
		bool ok = true;
		uint32_t r[4];

		if (offered & AVX512) {
			cpuid(13, 5, r);
			ok = ok && at64(r[1] + 24) == 0x4444;
			cpuid(13, 6, r);
			ok = ok && at64(r[1] + 3 * 32) == 0x1111222233334444;
			cpuid(13, 7, r);
			ok = ok && at64(r[1] + 3 * 64 + 56) == 0x1111222233334444;
		}
		ok; }));
}

static void test_partial(void)
{
	clean();
	put64(HEADER, X87 | AVX);	/* as an earlier XSAVE had left it */
	set_state(0xabcd);
	xsave(SSE);
	check_equal("XSAVE of SSE leaves the other bits", at64(HEADER), X87 | SSE | AVX);
	check_equal("it writes XMM3", at64(160 + 48), 0xabcd);
	check("but neither x87", filled(32, 160, 0xcc));
	check("nor YMM", filled(YMM, YMM + 256, 0xcc));
	check_equal("it writes MXCSR", at64(24) & 0xffffffff, 0x1f80);

	clean();
	set_state(0x77);
	xsave(offered);
	set_state(0x88);
	xrstor(AVX);
	check("XRSTOR of AVX alone leaves XMM", xmm3() == 0x88);
	check_equal("and brings the upper half", ymm3_high(), 0x77);
	xrstor(SSE);
	check("XRSTOR of SSE alone", xmm3() == 0x77 && ymm3_high() == 0x77);
	put64(HEADER, at64(HEADER) & ~(uint64_t)AVX);
	xrstor(AVX);
	check("a component that the image says is initial becomes that", ymm3_high() == 0 && xmm3() == 0x77);
	put64(HEADER, 0);
	xrstor(offered);
	check("all of them", xmm3() == 0 && ymm3_high() == 0 && zmm19(0) == 0 && k3(0) == 0);
	check("in use, as XGETBV(1) says, agrees with XSTATE_BV", ({
		bool ok = !has_xgetbv1;

		for (unsigned i = 0; !ok && i < 10; i++) {	/* a switch of the host's tasks between the two may change what is in use */
			clean();
			uint64_t use = xgetbv(1);
			xsave(offered);
			ok = at64(HEADER) == (use & offered);
		}
		ok; }));
}

static void test_optimised(void)
{
	bool ok = true;

	clean();
	put64(24, 0x1f80);
	xrstor(offered);
	asm volatile("vpcmpeqd %xmm3, %xmm3, %xmm3");
	if (has_opt) {
		clean();
		asm volatile("xsaveopt64 %0" : "+m"(area) : "a"((uint32_t)offered), "d"(0));
		ok = at64(HEADER) & SSE && at64(160 + 48) == ~0ull;
		/* Not writing an initial component is a right, not a duty. */
		ok = ok && (filled(YMM, YMM + 256, 0) || (!(at64(HEADER) & AVX) && filled(YMM, YMM + 256, 0xcc)));
	}
	check("XSAVEOPT says what is in use", ok);
	/* What XRSTOR read from one place must still reach another. */
	ok = true;
	set_state(0x9999);
	clean();
	xsave(offered);
	xrstor(offered);
	for (unsigned i = 0; i < SIZE && has_opt; i++)
		image[i] = i < HEADER || i >= YMM ? 0xcc : 0;
	if (has_opt) {
		asm volatile("xsaveopt64 %0" : "+m"(image) : "a"((uint32_t)offered), "d"(0));
		for (unsigned i = 160; i < 160 + 256; i++)
			ok = ok && image[i] == area[i];
		for (unsigned i = YMM; i < YMM + 256; i++)
			ok = ok && image[i] == area[i];
	}
	check("XSAVEOPT elsewhere than the last XRSTOR writes everything", ok);
}

static void test_compacted(void)
{
	uint32_t r[4];
	bool ok = true;

	if (has_compact) {
		clean();
		set_state(0x1234567);
		asm volatile("xsavec64 %0" : "+m"(area) : "a"((uint32_t)offered), "d"(0));
		ok = at64(HEADER + 8) == (COMPACTED | offered) && (at64(HEADER) & 7) == 7 && at64(YMM + 48) == 0x1234567;
	}
	check("XSAVEC writes a compacted image", ok);
	if (has_compact && offered & AVX512) {
		unsigned off = YMM + 256;

		for (unsigned i = 5; i < 8 && ok; i++) {
			cpuid(13, i, r);
			off = r[2] & 2 ? (off + 63) & ~63u : off;
			ok = at64(off + (i == 5 ? 24 : i == 6 ? 96 : 192)) == (i == 5 ? 0x4567 : 0x1234567);
			off += r[0];
		}
	}
	check("whose components follow each other", ok);
	if (has_compact) {
		set_state(0x55);
		xrstor(offered);
		ok = state_is(0x1234567);
	}
	check("XRSTOR takes it", ok);
	if (has_compact) {	/* without SSE, the upper halves of YMM are all there is behind the header */
		clean();
		set_state(0x66);
		asm volatile("xsavec64 %0" : "+m"(area) : "a"(AVX), "d"(0));
		ok = at64(HEADER + 8) == (COMPACTED | AVX) && at64(HEADER) == AVX && at64(YMM + 48) == 0x66 &&
		     filled(0, HEADER, 0xcc) && filled(YMM + 256, SIZE, 0xcc);
		set_state(0x77);
		put64(24, 0);
		xrstor(AVX);
		ok = ok && ymm3_high() == 0x66 && xmm3() == 0x77;
	}
	check("of AVX alone, too", ok);
}

static void refused(const char *name)
{
	uint64_t at = TRAPPING("xrstor64 (%1)", "r"(area), "a"((uint32_t)offered), "d"(0));

	check_trap(name, 13, 0, at);
}

static void fresh(bool compact)
{
	clean();
	set_state(0x1357);
	xsave(offered);
	if (compact)
		put64(HEADER + 8, COMPACTED | X87 | SSE | AVX), put64(HEADER, X87 | SSE | AVX);
}

static void test_headers(void)
{
	uint64_t at;

	fresh(false);
	put64(HEADER, at64(HEADER) | 1ull << 62);
	refused("XSTATE_BV with a bit that XCR0 has not");
	fresh(false);
	put64(HEADER + 8, 2);
	refused("XCOMP_BV without the compacted bit");
	fresh(false);
	put64(HEADER + 16, 1);
	refused("bytes 16 to 23 of a standard header");
	fresh(false);
	put64(HEADER + 24, 1);
	put64(HEADER + 56, 1);
	at = TRAPPING("xrstor64 (%1)", "r"(area), "a"((uint32_t)offered), "d"(0));
	check("but not those from 24 on", trap.count == 0 && at);
	fresh(true);
	put64(HEADER + 8, at64(HEADER + 8) | 1ull << 40);
	refused("XCOMP_BV with a bit that XCR0 has not");
	fresh(true);
	put64(HEADER + 8, COMPACTED | X87 | SSE);
	refused("XSTATE_BV with a bit that XCOMP_BV has not");
	fresh(true);
	put64(HEADER + 56, 1);
	refused("the last bytes of a compacted header");
	fresh(false);
	*(volatile uint32_t *)(area + 24) = 0x1f80 | 1 << 16;
	refused("a reserved bit of MXCSR");
	put64(HEADER, X87);
	refused("even where SSE is initial, in the standard format");
	at = TRAPPING("xrstor64 (%1)", "r"(area), "a"(X87), "d"(0));
	check("but not where x87 alone is asked for", trap.count == 0 && at);
	check_equal("a refused image changes nothing", xmm3(), 0x1357);
	at = TRAPPING("ldmxcsr (%1)", "r"(area + 24));
	check_trap("a reserved bit by LDMXCSR", 13, 0, at);
	at = TRAPPING("xsave64 (%1)", "r"(area + 32), "a"(7), "d"(0));
	check_trap("an unaligned area", 13, 0, at);
	at = TRAPPING("xrstor64 (%1)", "r"(NOWHERE), "a"(7), "d"(0));
	check_trap("an absent one", 14, 0, at);
	at = TRAPPING("xsave64 (%1)", "r"(NOWHERE), "a"(7), "d"(0));
	check_trap("one to be written", 14, 2, at);
}

static void test_fxsave(void)
{
	uint64_t at;

	fill(0xcc);
	set_state(0x2468);
	asm volatile("ldmxcsr %0" : : "m"((const uint32_t){ 0x1fa0 }));
	asm volatile("fxsave64 %0" : "+m"(area));
	check_equal("FXSAVE: FCW", at64(0) & 0xffff, 0x37f);
	check_equal("top of stack", at64(0) >> 16 & 0xffff, 7 << 11);
	check_equal("abridged tags", at64(0) >> 32 & 0xff, 0x80);
	check_equal("MXCSR", at64(24) & 0xffffffff, 0x1fa0);
	check("MXCSR_MASK allows what is always there", (at64(24) >> 32 & 0xffff) == 0xffff);
	check_equal("XMM3", at64(160 + 48), 0x2468);
	check("the last bytes are the program's own", filled(464, 512, 0xcc));
	set_state(0);
	asm volatile("ldmxcsr %0" : : "m"((const uint32_t){ 0x1f80 }));
	asm volatile("fxrstor64 %0" : : "m"(area));
	check("FXRSTOR brings it back and leaves YMM", xmm3() == 0x2468 && ymm3_high() == 0);
	asm volatile("stmxcsr %0" : "=m"(area));
	check_equal("and MXCSR", *(volatile uint32_t *)area, 0x1fa0);
	*(volatile uint32_t *)(area + 24) = 1 << 16;
	at = TRAPPING("fxrstor64 (%1)", "r"(area));
	check_trap("reserved bits of MXCSR", 13, 0, at);
	at = TRAPPING("fxsave64 (%1)", "r"(area + 8));
	check_trap("an unaligned area of FXSAVE", 13, 0, at);
}

static void test_not_available(void)
{
	uint64_t at;

	write_cr0(read_cr0() | 8);
	at = TRAPPING("xsave64 (%1)", "r"(area), "a"(7), "d"(0));
	check_trap("CR0.TS: XSAVE is #NM", 7, 0, at);
	at = TRAPPING("xrstor64 (%1)", "r"(area), "a"(7), "d"(0));
	check_trap("XRSTOR", 7, 0, at);
	at = TRAPPING("fxsave64 (%1)", "r"(area));
	check_trap("FXSAVE", 7, 0, at);
	at = TRAPPING("vmovq %%xmm3, %%rax", "r"(0));
	check_trap("AVX", 7, 0, at);
	at = TRAPPING("ldmxcsr (%1)", "r"(area + 24));
	check_trap("LDMXCSR", 7, 0, at);
	at = TRAPPING("fld1", "r"(0));
	check_trap("x87", 7, 0, at);
	asm volatile("clts");
	at = TRAPPING("xgetbv", "c"(0));
	check("XGETBV does not mind", trap.count == 0 && at);
}

int guest_main(void)
{
	write_cr0((read_cr0() & ~0xcull) | 2);
	write_cr4(read_cr4() | 0x600);
	test_control();
	test_standard();
	test_partial();
	test_optimised();
	test_compacted();
	test_headers();
	test_fxsave();
	test_not_available();
	return check_status();
}
