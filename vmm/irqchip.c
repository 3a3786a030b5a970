/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who writes what, because that is where an interrupt would be lost:
 *
 *   IRR, TMR, NMI, ESR    any thread sets bits; only the owner clears them
 *   ISR, TPR, timer       owner only
 *   id, LDR, DFR, SVR     owner writes, senders read (a sender that reads the
 *                         old value acts as if it had come a moment earlier)
 *   IOAPIC entry          compare-and-swap of its 64 bits, remote IRR included
 *
 * A level interrupt is re-examined after every event that could allow it (line
 * raised, entry rewritten, EOI): each of them first makes its own change
 * visible, then looks at the whole condition, so whichever comes last sees all.
 */
#include "vmm/irqchip.h"

#include "os/err.h"
#include "vmm/vcpu_state.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Register offsets in the xAPIC page; x2APIC MSR n is offset (n - 0x800) * 16. */
enum lapic_reg {
	REG_ID = 0x020,
	REG_VERSION = 0x030,
	REG_TPR = 0x080,
	REG_APR = 0x090,
	REG_PPR = 0x0a0,
	REG_EOI = 0x0b0,
	REG_LDR = 0x0d0,
	REG_DFR = 0x0e0,
	REG_SVR = 0x0f0,
	REG_ISR = 0x100,
	REG_TMR = 0x180,
	REG_IRR = 0x200,
	REG_ESR = 0x280,
	REG_ICR = 0x300,
	REG_ICR2 = 0x310,
	REG_LVT_TIMER = 0x320,
	REG_LVT_ERROR = 0x370,
	REG_TIMER_INITIAL = 0x380,
	REG_TIMER_CURRENT = 0x390,
	REG_TIMER_DIVIDE = 0x3e0,
	REG_SELF_IPI = 0x3f0,	/* x2APIC only */
};

enum lvt { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

enum delivery {
	DELIVER_FIXED,
	DELIVER_LOWEST,
	DELIVER_SMI,
	DELIVER_RESERVED,
	DELIVER_NMI,
	DELIVER_INIT,
	DELIVER_STARTUP,
	DELIVER_EXTINT,
};

#define APIC_VERSION (0x14u | (LVT_COUNT - 1u) << 16)
#define SVR_ENABLE (1u << 8)
#define LVT_MASKED (1u << 16)
#define LVT_TIMER_MODE (3u << 17)
#define TIMER_PERIODIC (1u << 17)
#define TIMER_DEADLINE (2u << 17)
#define DFR_FLAT 0xffffffffu
#define ESR_SEND_ILLEGAL (1u << 5)
#define ESR_RECEIVE_ILLEGAL (1u << 6)
#define ESR_ILLEGAL_REGISTER (1u << 7)
#define ICR_ASSERT (1u << 14)
#define ICR_LEVEL (1u << 15)

#define MSR_APIC_BASE 0x1bu
#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_X2APIC_FIRST 0x800u
#define MSR_X2APIC_LAST 0x8ffu
#define APIC_BASE_BSP (1ull << 8)
#define APIC_BASE_X2APIC (1ull << 10)
#define APIC_BASE_ENABLE (1ull << 11)

#define REDIR_VECTOR 0xffull
#define REDIR_LOGICAL (1ull << 11)
#define REDIR_REMOTE_IRR (1ull << 14)
#define REDIR_LEVEL (1ull << 15)
#define REDIR_MASKED (1ull << 16)
#define REDIR_READ_ONLY ((1ull << 12) | REDIR_REMOTE_IRR)
#define REDIR_WRITABLE (0xff0000000001ffffull & ~REDIR_READ_ONLY)

#define BROADCAST_ANY 0xffffffffu

struct lapic {
	_Atomic uint64_t irr[4], tmr[4];
	_Atomic uint32_t nmi, esr_pending;
	_Atomic uint32_t tpr, ldr, dfr, svr, lvt_error;
	_Atomic uint64_t apic_base;

	uint32_t id;	/* constant */
	uint32_t esr;
	uint64_t icr;
	uint64_t isr[4];
	uint32_t lvt[LVT_COUNT];	/* LVT_ERROR lives in lvt_error: senders read it */
	uint32_t timer_initial, timer_divide;
	uint64_t timer_deadline;	/* TSC of the next expiry, 0 when idle */
} __attribute__((aligned(64)));

struct irqchip {
	struct lapic lapic[8];
	unsigned nvcpus;
	const struct irqchip_ops *ops;
	void *ctx;
	uint64_t tsc_per_ns, ns_per_tsc;	/* 32.32 fixed point */

	_Atomic uint64_t redir[IOAPIC_PINS];
	_Atomic uint32_t lines, ioregsel, ioapic_id;
};

/* --- Bit sets of 256 vectors --- */

static int highest(const uint64_t set[4])
{
	for (int i = 3; i >= 0; i--)
		if (set[i])
			return i * 64 + 63 - __builtin_clzll(set[i]);
	return -1;
}

static int highest_atomic(const _Atomic uint64_t set[4])
{
	for (int i = 3; i >= 0; i--) {
		uint64_t word = atomic_load_explicit(&set[i], memory_order_acquire);

		if (word)
			return i * 64 + 63 - __builtin_clzll(word);
	}
	return -1;
}

static bool set_bit(_Atomic uint64_t set[4], unsigned n)
{
	return atomic_fetch_or(&set[n / 64], 1ull << (n % 64)) >> (n % 64) & 1;
}

static void clear_bit(_Atomic uint64_t set[4], unsigned n)
{
	atomic_fetch_and(&set[n / 64], ~(1ull << (n % 64)));
}

static bool test_bit(const _Atomic uint64_t set[4], unsigned n)
{
	return atomic_load(&set[n / 64]) >> (n % 64) & 1;
}

static uint32_t word32(const uint64_t set[4], unsigned i)
{
	return (uint32_t)(set[i / 2] >> (i % 2 * 32));
}

static uint32_t word32_atomic(const _Atomic uint64_t set[4], unsigned i)
{
	return (uint32_t)(atomic_load(&set[i / 2]) >> (i % 2 * 32));
}

/* --- Acceptance and priority --- */

static bool is_x2apic(const struct lapic *l)
{
	return atomic_load_explicit(&l->apic_base, memory_order_relaxed) & APIC_BASE_X2APIC;
}

/* Processor priority, SDM vol. 3, 11.8.3.1. */
static uint32_t ppr(const struct lapic *l)
{
	uint32_t tpr = atomic_load_explicit(&l->tpr, memory_order_relaxed);
	int in_service = highest(l->isr);
	uint32_t isr_class = in_service < 0 ? 0 : (uint32_t)in_service & 0xf0;

	return (tpr & 0xf0) >= isr_class ? tpr : isr_class;
}

static void kick(struct irqchip *chip, const struct lapic *l)
{
	chip->ops->kick(chip->ctx, l->id);
}

/* Makes @vector pending on @l.  Any thread. */
static void accept_vector(struct irqchip *chip, struct lapic *l, unsigned vector, bool level)
{
	if (!(atomic_load(&l->svr) & SVR_ENABLE))
		return;
	if (level)
		set_bit(l->tmr, vector);
	else
		clear_bit(l->tmr, vector);
	if (!set_bit(l->irr, vector))
		kick(chip, l);
}

static void raise_error(struct irqchip *chip, struct lapic *l, uint32_t bit)
{
	uint32_t lvt = atomic_load(&l->lvt_error);

	if (atomic_fetch_or(&l->esr_pending, bit) & bit)
		return;
	if (!(lvt & LVT_MASKED) && (lvt & 0xff) >= 16)
		accept_vector(chip, l, lvt & 0xff, false);
}

static void deliver(struct irqchip *chip, struct lapic *l, enum delivery mode, unsigned vector,
		    bool level)
{
	switch (mode) {
	case DELIVER_FIXED:
	case DELIVER_LOWEST:
		if (vector < 16)
			raise_error(chip, l, ESR_RECEIVE_ILLEGAL);
		else
			accept_vector(chip, l, vector, level);
		break;
	case DELIVER_NMI:
		irqchip_nmi(chip, l->id);
		break;
	case DELIVER_INIT:
		if (chip->ops->init_sipi)
			chip->ops->init_sipi(chip->ctx, l->id, -1);
		break;
	case DELIVER_STARTUP:
		if (chip->ops->init_sipi)
			chip->ops->init_sipi(chip->ctx, l->id, (int)vector);
		break;
	case DELIVER_SMI:
	case DELIVER_RESERVED:
	case DELIVER_EXTINT:	/* there is no 8259 to ask for a vector */
		break;
	}
}

/* --- Addressing, SDM vol. 3, 11.6.2 --- */

static bool matches_logical(const struct lapic *l, uint32_t dest)
{
	uint32_t ldr = atomic_load(&l->ldr);

	if (is_x2apic(l)) {	/* cluster in the high half, one bit a processor in the low */
		uint32_t own = (l->id >> 4) << 16 | 1u << (l->id & 15);

		return own >> 16 == dest >> 16 && (own & dest & 0xffff);
	}
	ldr >>= 24;
	if (atomic_load(&l->dfr) >> 28 == 0xf)
		return ldr & dest & 0xff;
	return (ldr >> 4) == (dest >> 4 & 0xf) && (ldr & dest & 0xf);
}

static bool matches(const struct lapic *l, uint32_t dest, bool logical)
{
	if (dest == BROADCAST_ANY)
		return true;
	return logical ? matches_logical(l, dest) : l->id == dest;
}

static struct lapic *least_busy(struct irqchip *chip, uint32_t dest, bool logical)
{
	struct lapic *best = NULL;

	for (unsigned i = 0; i < chip->nvcpus; i++) {
		struct lapic *l = &chip->lapic[i];

		if (!matches(l, dest, logical) || !(atomic_load(&l->svr) & SVR_ENABLE))
			continue;
		if (!best || atomic_load(&l->tpr) < atomic_load(&best->tpr))
			best = l;
	}
	return best;
}

static void send(struct irqchip *chip, uint32_t dest, bool logical, enum delivery mode,
		 unsigned vector, bool level)
{
	if (mode == DELIVER_LOWEST) {
		struct lapic *l = least_busy(chip, dest, logical);

		if (l)
			deliver(chip, l, mode, vector, level);
		return;
	}
	for (unsigned i = 0; i < chip->nvcpus; i++)
		if (matches(&chip->lapic[i], dest, logical))
			deliver(chip, &chip->lapic[i], mode, vector, level);
}

static void send_icr(struct irqchip *chip, struct lapic *l)
{
	uint32_t low = (uint32_t)l->icr, dest = (uint32_t)(l->icr >> 32);
	enum delivery mode = (enum delivery)(low >> 8 & 7);
	unsigned vector = low & 0xff, shorthand = low >> 18 & 3;

	if (!is_x2apic(l)) {
		dest >>= 24;
		if (dest == 0xff)
			dest = BROADCAST_ANY;
	}
	if ((mode == DELIVER_FIXED || mode == DELIVER_LOWEST) && vector < 16) {
		raise_error(chip, l, ESR_SEND_ILLEGAL);
		return;
	}
	/* INIT level de-assert only resynchronised arbitration ids, on older processors. */
	if (mode == DELIVER_INIT && (low & ICR_LEVEL) && !(low & ICR_ASSERT))
		return;
	if (shorthand == 0) {
		send(chip, dest, low >> 11 & 1, mode, vector, false);
		return;
	}
	for (unsigned i = 0; i < chip->nvcpus; i++) {
		bool self = &chip->lapic[i] == l;

		if (shorthand == 1 ? self : shorthand == 2 || !self)
			deliver(chip, &chip->lapic[i], mode, vector, false);
	}
}

/* --- Timer: counts nanoseconds divided by 1 to 128, in terms of the TSC --- */

static uint64_t mul_fixed(uint64_t v, uint64_t factor)
{
	return (uint64_t)((unsigned __int128)v * factor >> 32);
}

static unsigned timer_shift(const struct lapic *l)
{
	/* Divide configuration: bits 0, 1 and 3; 0b111 divides by 1. */
	unsigned code = (l->timer_divide & 3) | (l->timer_divide >> 1 & 4);

	return (code + 1) & 7;
}

static bool timer_is_deadline(const struct lapic *l)
{
	return (l->lvt[LVT_TIMER] & LVT_TIMER_MODE) == TIMER_DEADLINE;
}

static bool timer_is_periodic(const struct lapic *l)
{
	return (l->lvt[LVT_TIMER] & LVT_TIMER_MODE) == TIMER_PERIODIC;
}

/* TSC ticks until a count is 0. */
static uint64_t timer_ticks(const struct irqchip *chip, const struct lapic *l, uint32_t count)
{
	return mul_fixed((uint64_t)count << timer_shift(l), chip->tsc_per_ns);
}

static void timer_arm(struct irqchip *chip, struct lapic *l, uint64_t deadline)
{
	l->timer_deadline = deadline;
	chip->ops->timer_set(chip->ctx, l->id, deadline);
}

/* From @count; 0 stops the timer. */
static void timer_count_down(struct irqchip *chip, struct lapic *l, uint32_t count)
{
	timer_arm(chip, l, count ? chip->ops->tsc(chip->ctx, l->id) + timer_ticks(chip, l, count) : 0);
}

static uint32_t timer_current(const struct irqchip *chip, const struct lapic *l)
{
	uint64_t now, left;

	if (timer_is_deadline(l) || !l->timer_deadline)
		return 0;
	now = chip->ops->tsc(chip->ctx, l->id);
	if (now >= l->timer_deadline)
		return 0;
	left = mul_fixed(l->timer_deadline - now, chip->ns_per_tsc) >> timer_shift(l);
	return left < l->timer_initial ? (uint32_t)left : l->timer_initial;
}

void irqchip_timer_expired(struct irqchip *chip, unsigned vcpu)
{
	struct lapic *l = &chip->lapic[vcpu];
	uint32_t lvt = l->lvt[LVT_TIMER];
	uint64_t now, period;

	if (!l->timer_deadline)
		return;
	now = chip->ops->tsc(chip->ctx, vcpu);
	if (now < l->timer_deadline) {
		chip->ops->timer_set(chip->ctx, vcpu, l->timer_deadline);
		return;
	}
	period = timer_is_periodic(l) ? timer_ticks(chip, l, l->timer_initial) : 0;
	if (period)	/* periods the host slept through are one interrupt, as IRR would make them */
		timer_arm(chip, l, now + period - (now - l->timer_deadline) % period);
	else
		l->timer_deadline = 0;
	if (!(lvt & LVT_MASKED))
		deliver(chip, l, DELIVER_FIXED, lvt & 0xff, false);
}

/* Goes on with @count left, of which a periodic timer always has some. */
static void timer_resume(struct irqchip *chip, struct lapic *l, uint32_t count)
{
	if (timer_is_deadline(l))
		timer_arm(chip, l, l->timer_deadline);
	else
		timer_count_down(chip, l, !count && timer_is_periodic(l) ? l->timer_initial : count);
}

static void write_lvt_timer(struct irqchip *chip, struct lapic *l, uint32_t value)
{
	uint32_t old = l->lvt[LVT_TIMER];

	l->lvt[LVT_TIMER] = value;
	/* Going to or from deadline mode disarms (SDM vol. 3, 11.5.4.1). */
	if (((old ^ value) & LVT_TIMER_MODE) &&
	    ((old & LVT_TIMER_MODE) == TIMER_DEADLINE || timer_is_deadline(l))) {
		l->timer_initial = 0;
		timer_arm(chip, l, 0);
	}
}

/* --- End of interrupt and the IOAPIC --- */

/* Delivers a level interrupt whose line is up and which is not in service. */
static void service_level(struct irqchip *chip, unsigned pin)
{
	uint64_t e = atomic_load(&chip->redir[pin]);

	for (;;) {
		if ((e & (REDIR_MASKED | REDIR_REMOTE_IRR)) || !(e & REDIR_LEVEL) ||
		    !(atomic_load(&chip->lines) >> pin & 1))
			return;
		if (atomic_compare_exchange_weak(&chip->redir[pin], &e, e | REDIR_REMOTE_IRR))
			break;
	}
	irqchip_msi(chip, LAPIC_MMIO_BASE | (e >> 56) << 12 | ((e & REDIR_LOGICAL) ? 4 : 0),
		    (uint32_t)(e & 0x7ff) | (uint32_t)REDIR_LEVEL);
}

static void ioapic_eoi(struct irqchip *chip, unsigned vector)
{
	for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
		uint64_t e = atomic_load(&chip->redir[pin]);

		if ((e & REDIR_VECTOR) != vector || !(e & REDIR_REMOTE_IRR))
			continue;
		atomic_fetch_and(&chip->redir[pin], ~REDIR_REMOTE_IRR);
		service_level(chip, pin);
	}
}

static void write_eoi(struct irqchip *chip, struct lapic *l)
{
	int vector = highest(l->isr);

	if (vector < 0)
		return;
	l->isr[vector / 64] &= ~(1ull << (vector % 64));
	if (test_bit(l->tmr, (unsigned)vector))
		ioapic_eoi(chip, (unsigned)vector);
}

void irqchip_line_set(struct irqchip *chip, unsigned gsi, bool level)
{
	uint32_t bit, before;
	uint64_t e;

	if (gsi >= IOAPIC_PINS)
		return;
	bit = 1u << gsi;
	before = level ? atomic_fetch_or(&chip->lines, bit) : atomic_fetch_and(&chip->lines, ~bit);
	if (!level)
		return;
	e = atomic_load(&chip->redir[gsi]);
	if (e & REDIR_LEVEL)
		service_level(chip, gsi);
	else if (!(before & bit) && !(e & REDIR_MASKED))
		irqchip_msi(chip,
			    LAPIC_MMIO_BASE | (e >> 56) << 12 | ((e & REDIR_LOGICAL) ? 4 : 0),
			    (uint32_t)(e & 0x7ff));
}

void irqchip_msi(struct irqchip *chip, uint64_t addr, uint32_t data)
{
	uint32_t dest = (uint32_t)(addr >> 12) & 0xff;
	bool logical = addr >> 2 & 1;
	enum delivery mode = (enum delivery)(data >> 8 & 7);

	/* The redirection hint makes a logical destination lowest-priority. */
	if ((addr >> 3 & 1) && logical && mode == DELIVER_FIXED)
		mode = DELIVER_LOWEST;
	send(chip, dest == 0xff ? BROADCAST_ANY : dest, logical, mode, data & 0xff,
	     data & REDIR_LEVEL);
}

static void write_redir(struct irqchip *chip, unsigned pin, bool high, uint32_t value)
{
	uint64_t old = atomic_load(&chip->redir[pin]), new;

	do {
		new = high ? (old & 0xffffffffull) | (uint64_t)value << 32
			   : (old & ~0xffffffffull) | value;
		new = (new & REDIR_WRITABLE) | (old & REDIR_READ_ONLY);
		if (!(new & REDIR_LEVEL))	/* how an OS forgets a level interrupt */
			new &= ~REDIR_REMOTE_IRR;
	} while (!atomic_compare_exchange_weak(&chip->redir[pin], &old, new));
	service_level(chip, pin);
}

uint32_t irqchip_ioapic_read(struct irqchip *chip, uint32_t off)
{
	uint32_t reg = atomic_load(&chip->ioregsel);

	if (off == 0x00)
		return reg;
	if (off != 0x10)
		return 0;
	if (reg == 0 || reg == 2)	/* identification, arbitration */
		return atomic_load(&chip->ioapic_id) << 24;
	if (reg == 1)	/* version 0x11, as the 82093AA's; no EOI register */
		return 0x11 | (IOAPIC_PINS - 1) << 16;
	if (reg >= 0x10 && reg < 0x10 + 2 * IOAPIC_PINS)
		return (uint32_t)(atomic_load(&chip->redir[(reg - 0x10) / 2]) >> (reg % 2 * 32));
	return 0;
}

void irqchip_ioapic_write(struct irqchip *chip, uint32_t off, uint32_t value)
{
	uint32_t reg = atomic_load(&chip->ioregsel);

	if (off == 0x00)
		atomic_store(&chip->ioregsel, value & 0xff);
	else if (off != 0x10)
		return;
	else if (reg == 0)
		atomic_store(&chip->ioapic_id, value >> 24 & 0xf);
	else if (reg >= 0x10 && reg < 0x10 + 2 * IOAPIC_PINS)
		write_redir(chip, (reg - 0x10) / 2, reg % 2, value);
}

/* --- Between instructions --- */

bool irqchip_pending(const struct irqchip *chip, unsigned vcpu)
{
	const struct lapic *l = &chip->lapic[vcpu];
	int vector = highest_atomic(l->irr);

	return vector >= 0 && ((uint32_t)vector & 0xf0) > (ppr(l) & 0xf0);
}

int irqchip_take(struct irqchip *chip, unsigned vcpu)
{
	struct lapic *l = &chip->lapic[vcpu];
	int vector = highest_atomic(l->irr);

	if (vector < 0 || ((uint32_t)vector & 0xf0) <= (ppr(l) & 0xf0))
		return -1;
	clear_bit(l->irr, (unsigned)vector);
	l->isr[vector / 64] |= 1ull << (vector % 64);
	return vector;
}

void irqchip_nmi(struct irqchip *chip, unsigned vcpu)
{
	if (!atomic_exchange(&chip->lapic[vcpu].nmi, 1))
		kick(chip, &chip->lapic[vcpu]);
}

bool irqchip_take_nmi(struct irqchip *chip, unsigned vcpu)
{
	return atomic_exchange(&chip->lapic[vcpu].nmi, 0);
}

bool irqchip_nmi_pending(const struct irqchip *chip, unsigned vcpu)
{
	return atomic_load_explicit(&chip->lapic[vcpu].nmi, memory_order_acquire);
}

/* --- Register access, the same for MMIO and MSRs --- */

static bool is_lvt(uint32_t off)
{
	return off >= REG_LVT_TIMER && off <= REG_LVT_ERROR;
}

static uint32_t read_id(const struct lapic *l)
{
	return is_x2apic(l) ? l->id : l->id << 24;
}

static uint32_t read_ldr(const struct lapic *l)
{
	return is_x2apic(l) ? (l->id >> 4) << 16 | 1u << (l->id & 15) : atomic_load(&l->ldr);
}

/* Fills @ret and returns true when a register exists at @off. */
static bool reg_read(const struct irqchip *chip, const struct lapic *l, uint32_t off, uint32_t *ret)
{
	unsigned i = (off >> 4) & 7;

	if ((off & ~0x70u) == REG_ISR) {
		*ret = word32(l->isr, i);
		return true;
	}
	if ((off & ~0x70u) == REG_TMR || (off & ~0x70u) == REG_IRR) {
		*ret = word32_atomic((off & ~0x70u) == REG_TMR ? l->tmr : l->irr, i);
		return true;
	}
	if (is_lvt(off)) {
		*ret = off == REG_LVT_ERROR ? atomic_load(&l->lvt_error)
					    : l->lvt[(off - REG_LVT_TIMER) >> 4];
		return true;
	}
	switch (off) {
	case REG_ID: *ret = read_id(l); return true;
	case REG_VERSION: *ret = APIC_VERSION; return true;
	case REG_TPR: *ret = atomic_load(&l->tpr); return true;
	case REG_APR: *ret = 0; return !is_x2apic(l);
	case REG_PPR: *ret = ppr(l); return true;
	case REG_LDR: *ret = read_ldr(l); return true;
	case REG_DFR: *ret = atomic_load(&l->dfr); return !is_x2apic(l);
	case REG_SVR: *ret = atomic_load(&l->svr); return true;
	case REG_ESR: *ret = l->esr; return true;
	case REG_ICR: *ret = (uint32_t)l->icr; return true;
	case REG_ICR2: *ret = (uint32_t)(l->icr >> 32); return !is_x2apic(l);
	case REG_TIMER_INITIAL: *ret = timer_is_deadline(l) ? 0 : l->timer_initial; return true;
	case REG_TIMER_CURRENT: *ret = timer_current(chip, l); return true;
	case REG_TIMER_DIVIDE: *ret = l->timer_divide; return true;
	default: return false;
	}
}

static void write_lvt(struct irqchip *chip, struct lapic *l, uint32_t off, uint32_t value)
{
	static const uint32_t writable[LVT_COUNT] = {
		[LVT_TIMER] = 0x700ff, [LVT_THERMAL] = 0x107ff, [LVT_PERF] = 0x107ff,
		[LVT_LINT0] = 0x1a7ff, [LVT_LINT1] = 0x1a7ff, [LVT_ERROR] = 0x100ff,
	};
	unsigned i = (off - REG_LVT_TIMER) >> 4;

	value &= writable[i];
	if (!(atomic_load(&l->svr) & SVR_ENABLE))
		value |= LVT_MASKED;
	if (i == LVT_ERROR)
		atomic_store(&l->lvt_error, value);
	else if (i == LVT_TIMER)
		write_lvt_timer(chip, l, value);
	else
		l->lvt[i] = value;
}

static void write_svr(struct lapic *l, uint32_t value)
{
	atomic_store(&l->svr, value & 0x3ff);
	if (value & SVR_ENABLE)
		return;
	for (unsigned i = 0; i < LVT_COUNT; i++)	/* software-disabled: SDM vol. 3, 11.4.7.2 */
		l->lvt[i] |= LVT_MASKED;
	atomic_fetch_or(&l->lvt_error, LVT_MASKED);
}

/* Returns false when no writable register is at @off. */
static bool reg_write(struct irqchip *chip, struct lapic *l, uint32_t off, uint32_t value)
{
	if (is_lvt(off)) {
		write_lvt(chip, l, off, value);
		return true;
	}
	switch (off) {
	case REG_TPR:
		atomic_store_explicit(&l->tpr, value & 0xff, memory_order_relaxed);
		return true;
	case REG_EOI:
		write_eoi(chip, l);
		return true;
	case REG_SVR:
		write_svr(l, value);
		return true;
	case REG_ESR:
		l->esr = atomic_exchange(&l->esr_pending, 0);
		return true;
	case REG_TIMER_INITIAL:
		if (!timer_is_deadline(l)) {
			l->timer_initial = value;
			timer_count_down(chip, l, value);
		}
		return true;
	case REG_TIMER_DIVIDE:
		l->timer_divide = value & 0xb;
		return true;
	default:
		return false;
	}
}

uint32_t irqchip_lapic_read(struct irqchip *chip, unsigned vcpu, uint32_t off)
{
	struct lapic *l = &chip->lapic[vcpu];
	uint32_t value = 0;

	if ((off & 0xf) || is_x2apic(l) || reg_read(chip, l, off, &value))
		return value;
	raise_error(chip, l, ESR_ILLEGAL_REGISTER);
	return 0;
}

void irqchip_lapic_write(struct irqchip *chip, unsigned vcpu, uint32_t off, uint32_t value)
{
	struct lapic *l = &chip->lapic[vcpu];

	if ((off & 0xf) || is_x2apic(l))
		return;
	switch (off) {
	case REG_ID:	/* fixed on processors that have x2APIC */
		break;
	case REG_LDR:
		atomic_store(&l->ldr, value & 0xff000000u);
		break;
	case REG_DFR:
		atomic_store(&l->dfr, value | 0x0fffffffu);
		break;
	case REG_ICR:
		l->icr = (l->icr & ~0xffffffffull) | (value & ~(1u << 12));
		send_icr(chip, l);
		break;
	case REG_ICR2:
		l->icr = (l->icr & 0xffffffffull) | (uint64_t)value << 32;
		break;
	default:
		if (!reg_write(chip, l, off, value))
			raise_error(chip, l, ESR_ILLEGAL_REGISTER);
	}
}

/* --- MSRs --- */

bool irqchip_has_msr(uint32_t msr)
{
	return msr == MSR_APIC_BASE || msr == MSR_TSC_DEADLINE ||
	       (msr >= MSR_X2APIC_FIRST && msr <= MSR_X2APIC_LAST);
}

/* Legal changes of mode: SDM vol. 3, figure 11-27. */
static int write_apic_base(struct irqchip *chip, struct lapic *l, uint64_t value)
{
	const uint64_t mode = APIC_BASE_ENABLE | APIC_BASE_X2APIC;
	uint64_t old = atomic_load(&l->apic_base);

	if ((value & ~(mode | APIC_BASE_BSP)) != LAPIC_MMIO_BASE)
		return -1;	/* reserved bits, or a base that roux does not move to */
	if ((value & mode) == APIC_BASE_X2APIC)
		return -1;
	if ((old & mode) == mode && (value & mode) == APIC_BASE_ENABLE)
		return -1;
	if ((old & mode) == 0 && (value & mode) == mode)
		return -1;
	if (!(value & APIC_BASE_ENABLE))
		irqchip_reset_vcpu(chip, l->id);
	atomic_store(&l->apic_base, value);
	return 0;
}

static int write_deadline(struct irqchip *chip, struct lapic *l, uint64_t value)
{
	if (timer_is_deadline(l))
		timer_arm(chip, l, value);
	return 0;
}

int irqchip_msr_read(struct irqchip *chip, unsigned vcpu, uint32_t msr, uint64_t *ret_value)
{
	struct lapic *l = &chip->lapic[vcpu];
	uint32_t off = (msr - MSR_X2APIC_FIRST) << 4, low;

	if (msr == MSR_APIC_BASE) {
		*ret_value = atomic_load(&l->apic_base);
		return 0;
	}
	if (msr == MSR_TSC_DEADLINE) {
		*ret_value = timer_is_deadline(l) ? l->timer_deadline : 0;
		return 0;
	}
	if (!is_x2apic(l))
		return -1;
	if (off == REG_ICR) {
		*ret_value = l->icr;
		return 0;
	}
	if (!reg_read(chip, l, off, &low))
		return -1;
	*ret_value = low;
	return 0;
}

int irqchip_msr_write(struct irqchip *chip, unsigned vcpu, uint32_t msr, uint64_t value)
{
	struct lapic *l = &chip->lapic[vcpu];
	uint32_t off = (msr - MSR_X2APIC_FIRST) << 4;

	if (msr == MSR_APIC_BASE)
		return write_apic_base(chip, l, value);
	if (msr == MSR_TSC_DEADLINE)
		return write_deadline(chip, l, value);
	if (!is_x2apic(l))
		return -1;
	if (off == REG_ICR) {
		l->icr = value & ~(1ull << 12);
		send_icr(chip, l);
		return 0;
	}
	if (value >> 32)
		return -1;
	if (off == REG_SELF_IPI) {
		deliver(chip, l, DELIVER_FIXED, (unsigned)value & 0xff, false);
		return 0;
	}
	/* EOI and ESR take only 0 in x2APIC mode. */
	if ((off == REG_EOI || off == REG_ESR) && value)
		return -1;
	return reg_write(chip, l, off, (uint32_t)value) ? 0 : -1;
}

uint8_t irqchip_cr8(const struct irqchip *chip, unsigned vcpu)
{
	return (uint8_t)(atomic_load_explicit(&chip->lapic[vcpu].tpr, memory_order_relaxed) >> 4);
}

void irqchip_set_cr8(struct irqchip *chip, unsigned vcpu, uint8_t cr8)
{
	atomic_store_explicit(&chip->lapic[vcpu].tpr, (uint32_t)(cr8 & 0xf) << 4,
			      memory_order_relaxed);
}

/* --- Reset, creation, state --- */

static void reset_registers(struct lapic *l)
{
	for (unsigned i = 0; i < 4; i++) {
		atomic_store(&l->irr[i], 0);
		atomic_store(&l->tmr[i], 0);
		l->isr[i] = 0;
	}
	for (unsigned i = 0; i < LVT_COUNT; i++)
		l->lvt[i] = LVT_MASKED;
	atomic_store(&l->lvt_error, LVT_MASKED);
	atomic_store(&l->nmi, 0);
	atomic_store(&l->esr_pending, 0);
	atomic_store(&l->tpr, 0);
	atomic_store(&l->ldr, 0);
	atomic_store(&l->dfr, DFR_FLAT);
	atomic_store(&l->svr, 0xff);
	l->esr = 0;
	l->icr = 0;
	l->timer_initial = 0;
	l->timer_divide = 0;
}

void irqchip_reset_vcpu(struct irqchip *chip, unsigned vcpu)
{
	reset_registers(&chip->lapic[vcpu]);
	timer_arm(chip, &chip->lapic[vcpu], 0);
}

int irqchip_create(unsigned nvcpus, uint32_t tsc_khz, const struct irqchip_ops *ops, void *ctx,
		   struct irqchip **ret_chip, struct err *err)
{
	struct irqchip *chip;

	if (nvcpus == 0 || nvcpus > sizeof(chip->lapic) / sizeof(chip->lapic[0]) || !tsc_khz)
		return err_set(err, -EINVAL, "interrupt controllers for %u vCPUs", nvcpus);
	chip = aligned_alloc(64, sizeof(*chip));
	if (!chip)
		return err_set(err, -ENOMEM, "out of host memory");
	memset(chip, 0, sizeof(*chip));
	chip->nvcpus = nvcpus;
	chip->ops = ops;
	chip->ctx = ctx;
	chip->tsc_per_ns = ((uint64_t)tsc_khz << 32) / 1000000;
	chip->ns_per_tsc = (1000000ull << 32) / tsc_khz;
	for (unsigned i = 0; i < IOAPIC_PINS; i++)
		atomic_store(&chip->redir[i], REDIR_MASKED);
	for (unsigned i = 0; i < nvcpus; i++) {
		chip->lapic[i].id = i;
		atomic_store(&chip->lapic[i].apic_base,
			     LAPIC_MMIO_BASE | APIC_BASE_ENABLE | (i == 0 ? APIC_BASE_BSP : 0));
		reset_registers(&chip->lapic[i]);
	}
	*ret_chip = chip;
	return 0;
}

void irqchip_destroy(struct irqchip *chip)
{
	free(chip);
}

static void put_reg(uint8_t *page, uint32_t off, uint32_t value)
{
	memcpy(page + off, &value, sizeof(value));
}

static uint32_t get_reg(const uint8_t *page, uint32_t off)
{
	uint32_t value;

	memcpy(&value, page + off, sizeof(value));
	return value;
}

void irqchip_save_lapic(const struct irqchip *chip, unsigned vcpu, uint8_t page[LAPIC_PAGE_SIZE])
{
	const struct lapic *l = &chip->lapic[vcpu];
	uint32_t value;

	memset(page, 0, LAPIC_PAGE_SIZE);
	for (uint32_t off = 0; off < LAPIC_PAGE_SIZE; off += 16)
		if (reg_read(chip, l, off, &value))
			put_reg(page, off, value);
	/* One form for both modes: id in the top byte, ICR split. */
	put_reg(page, REG_ID, l->id << 24);
	put_reg(page, REG_DFR, atomic_load(&l->dfr));
	put_reg(page, REG_ICR2, (uint32_t)(l->icr >> 32));
	/* A count that has run out since anybody looked is still to be an interrupt. */
	if (!timer_is_deadline(l) && l->timer_deadline && !get_reg(page, REG_TIMER_CURRENT))
		put_reg(page, REG_TIMER_CURRENT, 1);
}

void irqchip_restore_msrs(struct irqchip *chip, unsigned vcpu, uint64_t apic_base,
			  uint64_t tsc_deadline)
{
	struct lapic *l = &chip->lapic[vcpu];

	atomic_store(&l->apic_base, apic_base);
	l->timer_deadline = tsc_deadline;
}

static void restore_sets(struct lapic *l, const uint8_t *page)
{
	for (unsigned i = 0; i < 4; i++) {
		uint32_t off = i * 0x20;

		l->isr[i] = get_reg(page, REG_ISR + off) |
			    (uint64_t)get_reg(page, REG_ISR + off + 0x10) << 32;
		atomic_store(&l->tmr[i], get_reg(page, REG_TMR + off) |
					 (uint64_t)get_reg(page, REG_TMR + off + 0x10) << 32);
		atomic_store(&l->irr[i], get_reg(page, REG_IRR + off) |
					 (uint64_t)get_reg(page, REG_IRR + off + 0x10) << 32);
	}
}

void irqchip_restore_lapic(struct irqchip *chip, unsigned vcpu,
			   const uint8_t page[LAPIC_PAGE_SIZE])
{
	struct lapic *l = &chip->lapic[vcpu];

	restore_sets(l, page);
	atomic_store(&l->tpr, get_reg(page, REG_TPR) & 0xff);
	atomic_store(&l->ldr, get_reg(page, REG_LDR));
	atomic_store(&l->dfr, get_reg(page, REG_DFR) | 0x0fffffffu);
	atomic_store(&l->svr, get_reg(page, REG_SVR) & 0x3ff);
	atomic_store(&l->lvt_error, get_reg(page, REG_LVT_ERROR));
	for (unsigned i = 0; i < LVT_COUNT; i++)
		l->lvt[i] = get_reg(page, REG_LVT_TIMER + i * 0x10);
	l->esr = get_reg(page, REG_ESR);
	l->icr = get_reg(page, REG_ICR) | (uint64_t)get_reg(page, REG_ICR2) << 32;
	l->timer_initial = get_reg(page, REG_TIMER_INITIAL);
	l->timer_divide = get_reg(page, REG_TIMER_DIVIDE) & 0xb;

	timer_resume(chip, l, get_reg(page, REG_TIMER_CURRENT));
	if (irqchip_pending(chip, vcpu))
		kick(chip, l);
}

void irqchip_save_ioapic(const struct irqchip *chip, struct ioapic_state *ret_state)
{
	memset(ret_state, 0, sizeof(*ret_state));
	for (unsigned i = 0; i < IOAPIC_PINS; i++)
		ret_state->redir[i] = atomic_load(&chip->redir[i]);
	ret_state->lines = atomic_load(&chip->lines);
	ret_state->id = atomic_load(&chip->ioapic_id);
	ret_state->ioregsel = atomic_load(&chip->ioregsel);
}

void irqchip_restore_ioapic(struct irqchip *chip, const struct ioapic_state *state)
{
	for (unsigned i = 0; i < IOAPIC_PINS; i++)
		atomic_store(&chip->redir[i], state->redir[i] & (REDIR_WRITABLE | REDIR_READ_ONLY));
	atomic_store(&chip->lines, state->lines);
	atomic_store(&chip->ioapic_id, state->id);
	atomic_store(&chip->ioregsel, state->ioregsel);
	for (unsigned i = 0; i < IOAPIC_PINS; i++)
		service_level(chip, i);
}
