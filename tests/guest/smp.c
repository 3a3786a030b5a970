/* SPDX-License-Identifier: Apache-2.0 */
/* Four processors: start through the mailbox, IPIs, shared memory, locked operations. */
#include "guest.h"

#define CPUS 4
#define ROUNDS 2000
#define NMIS 3000
#define IPI_VECTOR 0x51
#define STOP_VECTOR 0x52
#define ICR_OTHERS (3u << 18)
#define ICR_NMI (4u << 8)

static volatile uint32_t started, ids, phase, counted, ipis[8], nmis, stopped;
static volatile uint64_t locked_sum, bit_word;
static volatile uint32_t turn;

static unsigned own_id(void)
{
	return apic_read(APIC_ID) >> 24;
}

static void on_ipi(struct trap_frame *f)
{
	(void)f;
	ipis[own_id()]++;
}

static void on_nmi(struct trap_frame *f)
{
	(void)f;
	__atomic_fetch_add(&nmis, 1, __ATOMIC_SEQ_CST);
}

static void wait_phase(uint32_t p)
{
	while (phase < p)
		asm volatile("pause");
}

static void work(unsigned cpu)
{
	for (int i = 0; i < ROUNDS; i++) {
		asm volatile("lock; addq $1, %0" : "+m"(locked_sum));
		asm volatile("lock; btcq %1, %0" : "+m"(bit_word) : "r"((uint64_t)cpu));
	}
	__atomic_fetch_add(&counted, 1, __ATOMIC_SEQ_CST);
}

void guest_ap_main(unsigned cpu)
{
	apic_enable();
	__atomic_fetch_or(&ids, 1u << own_id(), __ATOMIC_SEQ_CST);
	if (own_id() == cpu)
		__atomic_fetch_add(&started, 1, __ATOMIC_SEQ_CST);
	wait_phase(1);
	work(cpu);
	wait_phase(2);
	for (int i = 0; i < 20; i++) {	/* pass a token round */
		while (turn % CPUS != cpu)
			asm volatile("pause");
		turn++;
	}
	while (!irq_count[STOP_VECTOR])
		asm volatile("sti\n\thlt\n\tcli" : : : "memory");
	__atomic_fetch_add(&stopped, 1, __ATOMIC_SEQ_CST);
}

static bool wait_for(volatile uint32_t *v, uint32_t want)
{
	uint64_t start = rdtsc();

	while (*v < want)
		if (rdtsc() - start > 20000000000ull)
			return false;
	return *v == want;
}

static void test_ipis(void)
{
	bool ok = true;

	for (unsigned cpu = 1; cpu < CPUS; cpu++) {
		apic_icr(cpu, IPI_VECTOR);
		ok = ok && wait_for(&ipis[cpu], 1);
	}
	check("an IPI reaches each processor in HLT", ok);
	check("and no other", ipis[0] == 0 && ipis[1] == 1 && ipis[2] == 1 && ipis[3] == 1);
	apic_icr(0, ICR_OTHERS | IPI_VECTOR);
	ok = wait_for(&ipis[1], 2) && wait_for(&ipis[2], 2) && wait_for(&ipis[3], 2);
	check("all-but-self reaches all but self", ok && ipis[0] == 0);
	ok = true;
	for (uint32_t i = 1; ok && i <= NMIS; i++) {
		apic_icr(2, ICR_NMI);
		ok = wait_for(&nmis, i);
	}
	check("an NMI wakes a processor, each time", ok);
}

int guest_main(void)
{
	apic_enable();
	irq_handler[IPI_VECTOR] = on_ipi;
	irq_handler[2] = on_nmi;
	for (unsigned cpu = 1; cpu < CPUS; cpu++)
		start_ap(cpu);
	check("every processor starts", wait_for(&started, CPUS - 1));
	check_equal("each with its own APIC id", ids, 0xe);
	phase = 1;
	work(0);
	check("all have counted", wait_for(&counted, CPUS));
	check_equal("locked additions are not lost", locked_sum, CPUS * ROUNDS);
	check_equal("nor locked bit changes", bit_word, 0);
	phase = 2;
	for (int i = 0; i < 20; i++) {
		while (turn % CPUS != 0)
			asm volatile("pause");
		turn++;
	}
	check("a token goes round in order", wait_for(&turn, 20 * CPUS));
	test_ipis();
	apic_icr(0, ICR_OTHERS | STOP_VECTOR);
	check("all stop", wait_for(&stopped, CPUS - 1));
	return check_status();
}
