/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Vector state, cmpxchg16b, INT3, #NM: what every real kernel does in ring 0 and
 * emulating hosts' KVM cannot.
 */
#include "guest.h"

static uint8_t area[4096] __attribute__((aligned(64)));

static void enable(void)
{
	write_cr0((read_cr0() & ~0xcull) | 2);
	write_cr4(read_cr4() | 0x40600);
	asm volatile("xsetbv" : : "a"(3), "d"(0), "c"(0));
}

static void test_xsave(void)
{
	uint64_t v = 0x1122334455667788, got = 0;

	asm volatile("movq %0, %%xmm3" : : "r"(v));
	asm volatile("xsave %0" : "+m"(area) : "a"(3), "d"(0));
	check_equal("XSAVE stores XMM3", *(uint64_t *)(area + 160 + 48), v);
	check_equal("and says so in XSTATE_BV", *(uint64_t *)(area + 512) & 2, 2);
	asm volatile("pxor %%xmm3, %%xmm3\n\txrstor %1\n\tmovq %%xmm3, %0"
		     : "=r"(got) : "m"(area), "a"(3), "d"(0));
	check_equal("XRSTOR brings it back", got, v);
	asm volatile("fxsave %0" : "=m"(area));
	check_equal("FXSAVE has the default MXCSR", *(uint32_t *)(area + 24), 0x1f80);
}

static void test_arithmetic(void)
{
	uint64_t got;
	uint32_t flags;

	asm volatile("cvtsi2sd %1, %%xmm0\n\tcvtsi2sd %2, %%xmm1\n\tmulsd %%xmm1, %%xmm0\n\t"
		     "cvttsd2si %%xmm0, %0" : "=r"(got) : "r"(6ull), "r"(7ull));
	check_equal("six times seven in double precision", got, 42);
	asm volatile("fninit\n\tfld1\n\tfldpi\n\tfaddp\n\tfisttpl %0" : "=m"(flags));
	check_equal("pi plus one, truncated, by the x87", flags, 4);
}

static void test_cmpxchg16b(void)
{
	static uint64_t word[2] __attribute__((aligned(16)));
	uint8_t zero;

	asm volatile("lock cmpxchg16b %0\n\tsetz %1"
		     : "+m"(word), "=q"(zero) : "a"(0ull), "d"(0ull), "b"(3ull), "c"(4ull));
	check("cmpxchg16b exchanges", zero && word[0] == 3 && word[1] == 4);
	asm volatile("lock cmpxchg16b %0\n\tsetz %1"
		     : "+m"(word), "=q"(zero) : "a"(0ull), "d"(0ull), "b"(5ull), "c"(6ull));
	check("and does not when it differs", !zero && word[0] == 3 && word[1] == 4);
}

static void test_traps(void)
{
	uint64_t at = TRAPPING("int3", "r"(0));

	check("INT3 points behind itself", trap.vector == 3 && trap.rip == at + 1);
	write_cr0(read_cr0() | 8);
	at = TRAPPING("pxor %%xmm0, %%xmm0", "r"(0));
	check_trap("#NM while CR0.TS is set", 7, 0, at);
	asm volatile("clts");
	at = TRAPPING("movaps (%1), %%xmm0", "r"(area + 1));
	check_trap("#GP by an unaligned MOVAPS", 13, 0, at);
	asm volatile("ldmxcsr %0" : : "m"((const uint32_t){ 0x1f80 & ~0x200u }));
	at = TRAPPING("divss %%xmm2, %%xmm1", "r"(({ asm volatile("pxor %xmm2, %xmm2\n\tpcmpeqd %xmm1, %xmm1\n\tpsrld $25, %xmm1\n\tpslld $23, %xmm1"); 0; })));
	check_trap("#XM by an unmasked division by zero", 19, 0, at);
}

int guest_main(void)
{
	enable();
	test_xsave();
	test_arithmetic();
	test_cmpxchg16b();
	test_traps();
	return check_status();
}
