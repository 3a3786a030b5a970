/* SPDX-License-Identifier: Apache-2.0 */
/* Ports, MMIO of every width, CPUID, time, boot state. */
#include "guest.h"

static void test_mmio(void)
{
	volatile uint8_t *b = (volatile uint8_t *)DEV_SCRATCH;
	uint64_t v = 0x1122334455667788;

	write64(DEV_SCRATCH, v);
	check_equal("mmio read of 8 bytes", read64(DEV_SCRATCH), v);
	check_equal("mmio read of 4 bytes", read32(DEV_SCRATCH + 4), 0x11223344);
	check_equal("mmio read of 2 bytes", *(volatile uint16_t *)(DEV_SCRATCH + 2), 0x5566);
	check_equal("mmio read of 1 byte", b[7], 0x11);
	b[0] = 0xaa;
	*(volatile uint16_t *)(DEV_SCRATCH + 2) = 0xbbcc;
	write32(DEV_SCRATCH + 4, 0xddeeff00);
	check_equal("mmio writes of 1, 2 and 4 bytes", read64(DEV_SCRATCH), 0xddeeff00bbcc77aa);
	check_equal("sign extension of an mmio byte", (uint64_t)(int64_t)*(volatile int8_t *)b,
		    0xffffffffffffffaa);
	check_equal("zero extension of an mmio byte", b[0], 0xaa);
	asm volatile("orb $0x55, (%0)" : : "r"(DEV_SCRATCH) : "memory");
	check_equal("read-modify-write on mmio", b[0], 0xff);
	asm volatile("movq %0, (%1)" : : "r"(5ull), "r"(DEV_SCRATCH) : "memory");
	asm volatile("addq $3, (%0)" : : "r"(DEV_SCRATCH) : "memory");
	check_equal("add to mmio", read64(DEV_SCRATCH), 8);
	check_equal("mmio nobody answers reads ones", read32(DEV_BASE + 0x100000), 0xffffffff);
	write32(DEV_BASE + 0x100000, 1);
	check("mmio nobody answers takes writes", true);
}

static void test_ports(void)
{
	uint16_t v = 0;

	check_equal("port 0xe9 reads its number", inb(0xe9), 0xe9);
	check_equal("a port nobody answers reads ones", inl(0x1234), 0xffffffff);
	asm volatile("inw %w1, %w0" : "=a"(v) : "Nd"((uint16_t)0x1234));
	check_equal("a 16-bit port read", v, 0xffff);
	outb(0x80, 0);
	check("port 0x80 takes writes", true);
}

static void test_string_port(void)
{
	const char *s = "ok string output to a port\n";
	uint64_t n = 27;

	asm volatile("rep outsb" : "+S"(s), "+c"(n) : "d"((uint16_t)0xe9) : "memory");
	check_equal("rep outsb counts down", n, 0);
}

static void test_cpuid(void)
{
	uint32_t r[4];

	cpuid(0x40000000, 0, r);
	check("cpuid names KVM", r[1] == 0x4b4d564b && r[2] == 0x564b4d56 && r[3] == 0x4d);
	cpuid(0x40000001, 0, r);
	check("cpuid offers the KVM clock", (r[0] & (1 << 3)) && (r[0] & (1 << 24)));
	cpuid(1, 0, r);
	check("cpuid has x2APIC, TSC deadline and a hypervisor",
	      (r[2] >> 21 & 1) && (r[2] >> 24 & 1) && (r[2] >> 31 & 1));
	check_equal("cpuid tells APIC id 0", r[1] >> 24, 0);
	cpuid(0xb, 0, r);
	check_equal("leaf 0xb level 0 is one thread", r[1] << 16 | (r[2] >> 8 & 0xff), 0x10001);
	check_equal("leaf 0xb tells x2APIC id 0", r[3], 0);
	cpuid(0x80000007, 0, r);
	check("the TSC is invariant", r[3] >> 8 & 1);
	cpuid(0x15, 0, r);
	check("leaf 0x15 tells the TSC rate", r[0] && r[1] && r[2]);
}

static void test_clock(void)
{
	static struct {
		uint32_t version, pad;
		uint64_t tsc, ns;
		uint32_t mul;
		int8_t shift;
		uint8_t flags, pad2[2];
	} page __attribute__((aligned(64)));
	static struct {
		uint32_t version, sec, nsec;
	} wall __attribute__((aligned(64)));
	uint64_t before;

	wrmsr(0x4b564d01, (uint64_t)&page | 1);
	check("the clock page is filled", page.version && !(page.version & 1) && page.mul);
	check("the clock is stable", page.flags & 1);
	wrmsr(0x4b564d00, (uint64_t)&wall);
	check("wall clock is after 2020", wall.sec > 1577836800);
	before = rdtsc();
	check("the TSC advances", rdtsc() - before > 0);
}

int guest_main(void)
{
	check_equal("long mode is active", rdmsr(0xc0000080) >> 10 & 1, 1);
	test_ports();
	test_string_port();
	test_mmio();
	test_cpuid();
	test_clock();
	return check_status();
}
