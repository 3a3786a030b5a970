/* SPDX-License-Identifier: Apache-2.0 */
/*
 * String instructions.  A run inside one source and one destination page is done
 * by the host's own string instruction on host addresses, which gives the exact
 * result for overlapping operands too.  Registers are up to date after every
 * run, so faults and interrupts in the middle leave a restartable state.
 */
#include "engine/dbt/run.h"

#define CHUNK_BYTES 256u

struct string {
	struct cpu *cpu;
	const struct insn *in;
	unsigned size;	/* bytes an element */
	int64_t step;	/* +size or -size */
	uint64_t mask;	/* of the address size */
	uint64_t src_base;	/* segment override of the source */
	uint64_t linear;	/* of a linear address */
	bool user;
};

static uint64_t src_address(const struct string *s)
{
	return ((s->cpu->gpr[RSI] & s->mask) + s->src_base) & s->linear;
}

static uint64_t dst_address(const struct string *s)
{
	return s->cpu->gpr[RDI] & s->mask & s->linear;
}

/* Registers of the address size: writing 32 bits clears the upper half. */
static void advance(const struct string *s, unsigned reg, uint64_t elements)
{
	uint64_t v = s->cpu->gpr[reg] + (uint64_t)(s->step * (int64_t)elements);

	write_gpr(s->cpu, reg, s->in->addrsize, v);
}

static uint64_t count_left(const struct string *s)
{
	return s->in->rep ? s->cpu->gpr[RCX] & s->mask : 1;
}

static void count_down(const struct string *s, uint64_t n)
{
	if (s->in->rep)
		write_gpr(s->cpu, RCX, s->in->addrsize, s->cpu->gpr[RCX] - n);
}

/* Elements from @va to the end of its page, going up; 0 when the first one crosses. */
static uint64_t room(const struct string *s, uint64_t va)
{
	return (PAGE_SIZE - (va & 4095)) / s->size;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static bool fail(const struct string *s, int vector, const uint32_t *error)
{
	if (!vector)
		return false;
	raise_access(s->cpu, vector, s->cpu->fault_va, *error);
	return true;
}

static void host_movs(void *dst, const void *src, uint64_t n, unsigned size)
{
	switch (size) {
	case 1: __asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory"); break;
	case 2: __asm__ volatile("rep movsw" : "+D"(dst), "+S"(src), "+c"(n) : : "memory"); break;
	case 4: __asm__ volatile("rep movsl" : "+D"(dst), "+S"(src), "+c"(n) : : "memory"); break;
	default: __asm__ volatile("rep movsq" : "+D"(dst), "+S"(src), "+c"(n) : : "memory"); break;
	}
}

static void host_stos(void *dst, uint64_t value, uint64_t n, unsigned size)
{
	switch (size) {
	case 1: __asm__ volatile("rep stosb" : "+D"(dst), "+c"(n) : "a"(value) : "memory"); break;
	case 2: __asm__ volatile("rep stosw" : "+D"(dst), "+c"(n) : "a"(value) : "memory"); break;
	case 4: __asm__ volatile("rep stosl" : "+D"(dst), "+c"(n) : "a"(value) : "memory"); break;
	default: __asm__ volatile("rep stosq" : "+D"(dst), "+c"(n) : "a"(value) : "memory"); break;
	}
}

/*
 * Where @n elements at @dst may be stored many at a time although they may not be written in place, as in
 * pages with code: the address for comparing, or NULL.
 */
static const uint8_t *chunk_at(const struct string *s, uint64_t dst, uint64_t n)
{
	if (s->step < 0 || n < 2 || s->cpu->debug.data || s->cpu->stepping)
		return NULL;
	return mmu_host(s->cpu, dst, MEM_READ, s->user);
}

/* One run of MOVS; the number of elements done, 0 with an exception pending. */
static uint64_t movs_run(const struct string *s, uint64_t left)
{
	uint64_t src = src_address(s), dst = dst_address(s), n = least(least(room(s, src), room(s, dst)), left);
	uint8_t *from, *to, buf[CHUNK_BYTES];
	const uint8_t *at;
	uint32_t error = 0;

	if (s->step > 0 && n > 0) {
		mmu_hold(s->cpu);
		from = mmu_host(s->cpu, src, MEM_READ, s->user);
		to = from ? mmu_host(s->cpu, dst, MEM_WRITE, s->user) : NULL;
		if (from && to)
			host_movs(to, from, n, s->size);
		mmu_drop(s->cpu);
		if (from && to) {
			advance(s, RSI, n);
			advance(s, RDI, n);
			return n;
		}
	}
	n = least(n, sizeof(buf) / s->size);
	at = chunk_at(s, dst, n);
	from = at ? mmu_host(s->cpu, src, MEM_READ, s->user) : NULL;
	/* What reads its own results goes element by element. */
	if (!from || (from < at + n * s->size && at < from + n * s->size))
		n = 1;
	if (fail(s, mem_load(s->cpu, src, buf, (unsigned)n * s->size, s->user, &error), &error) ||
	    fail(s, mem_store(s->cpu, dst, buf, (unsigned)n * s->size, s->user, &error), &error))
		return 0;
	advance(s, RSI, n);
	advance(s, RDI, n);
	return n;
}

static uint64_t stos_run(const struct string *s, uint64_t left)
{
	uint64_t dst = dst_address(s), n = least(room(s, dst), left), value = s->cpu->gpr[RAX];
	uint8_t *to, buf[CHUNK_BYTES];
	uint32_t error = 0;

	if (s->step > 0 && n > 0) {
		mmu_hold(s->cpu);
		to = mmu_host(s->cpu, dst, MEM_WRITE, s->user);
		if (to)
			host_stos(to, value, n, s->size);
		mmu_drop(s->cpu);
		if (to) {
			advance(s, RDI, n);
			return n;
		}
	}
	n = least(n, sizeof(buf) / s->size);
	if (!chunk_at(s, dst, n))
		n = 1;
	host_stos(buf, value, n, s->size);
	if (fail(s, mem_store(s->cpu, dst, buf, (unsigned)n * s->size, s->user, &error), &error))
		return 0;
	advance(s, RDI, n);
	return n;
}

static uint64_t lods_run(const struct string *s)
{
	uint64_t v = 0;
	uint32_t error = 0;

	if (fail(s, mem_load(s->cpu, src_address(s), &v, s->size, s->user, &error), &error))
		return 0;
	write_gpr(s->cpu, RAX, s->size, v);
	advance(s, RSI, 1);
	return 1;
}

/* Flags of a - b in @size bytes, as CMP sets them. */
static uint64_t compare_flags(uint64_t a, uint64_t b, unsigned size)
{
	uint64_t f;

	switch (size) {
	case 1: __asm__("cmpb %b2, %b1\n\tpushfq\n\tpopq %0" : "=r"(f) : "q"(a), "q"(b) : "cc"); break;
	case 2: __asm__("cmpw %w2, %w1\n\tpushfq\n\tpopq %0" : "=r"(f) : "r"(a), "r"(b) : "cc"); break;
	case 4: __asm__("cmpl %k2, %k1\n\tpushfq\n\tpopq %0" : "=r"(f) : "r"(a), "r"(b) : "cc"); break;
	default: __asm__("cmpq %2, %1\n\tpushfq\n\tpopq %0" : "=r"(f) : "r"(a), "r"(b) : "cc"); break;
	}
	return (f & FLAGS_ARITH) | 2;
}

/* One element of SCAS or CMPS; sets flags.  0 with an exception pending. */
static uint64_t compare_one(const struct string *s)
{
	bool scas = s->in->op == INSN_SCAS;
	uint64_t a = 0, b = 0;
	uint32_t error = 0;

	if (scas)
		a = read_gpr(s->cpu, RAX, s->size);
	else if (fail(s, mem_load(s->cpu, src_address(s), &a, s->size, s->user, &error), &error))
		return 0;
	if (fail(s, mem_load(s->cpu, dst_address(s), &b, s->size, s->user, &error), &error))
		return 0;
	s->cpu->flags = compare_flags(a, b, s->size);
	if (!scas)
		advance(s, RSI, 1);
	advance(s, RDI, 1);
	return 1;
}

static uint64_t port_run(const struct string *s)
{
	uint16_t port = (uint16_t)s->cpu->gpr[RDX];
	uint32_t v = 0, error = 0;

	if (s->in->op == INSN_OUTS) {
		if (fail(s, mem_load(s->cpu, src_address(s), &v, s->size, s->user, &error), &error))
			return 0;
		(void)port_access(s->cpu, port, s->size, true, &v);
		advance(s, RSI, 1);
		return 1;
	}
	/* The store must not fail after the device gave its data. */
	if (fail(s, mem_probe(s->cpu, dst_address(s), s->size, MEM_WRITE, s->user, &error), &error))
		return 0;
	(void)port_access(s->cpu, port, s->size, false, &v);
	if (fail(s, mem_store(s->cpu, dst_address(s), &v, s->size, s->user, &error), &error))
		return 0;
	advance(s, RDI, 1);
	return 1;
}

static uint64_t run(const struct string *s, uint64_t left)
{
	switch ((int)s->in->op) {
	case INSN_MOVS: return movs_run(s, left);
	case INSN_STOS: return stos_run(s, left);
	case INSN_LODS: return lods_run(s);
	case INSN_SCAS:
	case INSN_CMPS: return compare_one(s);
	default: return port_run(s);
	}
}

/* REPE and REPNE stop on ZF. */
static bool stop_on_flag(const struct string *s)
{
	bool zf = s->cpu->flags & FLAG_ZF;

	if (s->in->op != INSN_SCAS && s->in->op != INSN_CMPS)
		return false;
	return s->in->rep == REP_REP ? !zf : zf;
}

void string_insn(struct cpu *cpu, const struct insn *in)
{
	struct string s = {
		.cpu = cpu, .in = in, .user = cpu->cpl == 3,
		.size = in->opcode & 1 ? in->opsize : 1,
		.src_base = segment_base(cpu, in),
		.mask = in->addrsize == 8 ? ~0ull : in->addrsize == 4 ? 0xffffffff : 0xffff,
		.linear = cpu->mode & BLOCK_32 ? 0xffffffff : ~0ull,
	};
	uint64_t left = count_left(&s), next = cpu->rip + in->len;

	if (in->op == INSN_INS || in->op == INSN_OUTS) {
		if (s.size == 8)
			s.size = 4;
		if (!port_allowed(cpu, (uint16_t)cpu->gpr[RDX], s.size)) {	/* even with a count of zero */
			raise_error(cpu, VEC_GP, 0);
			return;
		}
	}
	s.step = cpu->direction ? -(int64_t)s.size : (int64_t)s.size;
	while (left) {
		uint64_t n = run(&s, cpu->stepping ? 1 : left);

		if (!n)
			return;	/* exception; the instruction restarts with what is left */
		count_down(&s, n);
		left -= n;
		if (in->rep && stop_on_flag(&s))
			break;
		if (left && (cpu->stepping || atomic_load_explicit(&cpu->exit_request, memory_order_relaxed)))
			return;	/* interruptible, and traps after each element when stepped: rip still points here */
	}
	cpu->rip = cpu->mode & BLOCK_32 ? (uint32_t)next : next;
}
