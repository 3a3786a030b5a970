/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory accesses that the software TLB cannot answer: device memory, operands
 * that cross a page, and writes to pages that hold translated code or that the
 * dirty log watches.
 *
 * A copied instruction runs in a BLOCK_SLOW block on a host address given here:
 * the real bytes where they are one piece of RAM, else cpu->bounce, which is
 * filled before and written back by slow_commit() after.  Stack and branch
 * instructions are interpreted instead.
 *
 * Where the guest may not access an operand, or the part of it in one page, and
 * something else may come before that fault (struct insn.mem_careful), the host
 * decides what does.  The instruction runs on the guard pages
 *
 *	no access | no access | bounce page | no access
 *
 * at the same offset in the page, and the pieces that the guest may not access
 * are where the host may not access either.
 */
#include "engine/dbt/run.h"

#include "vmm/irqchip.h"
#include "vmm/vm.h"

/* ------------------------------------------------------------------- devices */

struct io_job {
	uint64_t addr, value;
	unsigned size;
	bool write, port;
};

static void run_io(struct cpu *cpu, void *arg)
{
	struct io_job *j = arg;
	const struct bus *bus = j->port ? &cpu->vm->vm->pio : &cpu->vm->vm->mmio;

	if (j->write)
		(void)bus_write(bus, j->addr, j->size, j->value);
	else
		(void)bus_read(bus, j->addr, j->size, &j->value);
	if (atomic_load(&cpu->vm->vm->request) != VM_REQUEST_NONE)
		ask_to_exit(cpu);
}

/* Accesses, taken for ones of 32 bits, to the interrupt controllers' pages: true when @gpa is theirs. */
static bool irq_mmio(struct cpu *cpu, gpa_t gpa, bool write, uint64_t *value)
{
	struct irqchip *chip = cpu->vm->irqchip;
	uint32_t off = (uint32_t)gpa & 0xfff;
	bool local = (gpa & PAGE_MASK) == LAPIC_MMIO_BASE;

	if (!local && (gpa & PAGE_MASK) != IOAPIC_MMIO_BASE)
		return false;
	if (write)
		cpu->exit_self = 1;	/* EOI or a lower task priority may free an interrupt */
	if (write && local)
		irqchip_lapic_write(chip, cpu->index, off, (uint32_t)*value);
	else if (write)
		irqchip_ioapic_write(chip, off, (uint32_t)*value);
	else
		*value = local ? irqchip_lapic_read(chip, cpu->index, off) : irqchip_ioapic_read(chip, off);
	return true;
}

static uint64_t mmio_piece(struct cpu *cpu, gpa_t gpa, unsigned size, bool write, uint64_t value)
{
	struct io_job j = { .addr = gpa, .value = value, .size = size, .write = write };

	if (irq_mmio(cpu, gpa, write, &j.value))
		return j.value;
	cpu_heavy(cpu, run_io, &j);
	return j.value;
}

uint64_t mmio_read(struct cpu *cpu, gpa_t gpa, unsigned size)
{
	return mmio_piece(cpu, gpa, size, false, 0);
}

void mmio_write(struct cpu *cpu, gpa_t gpa, unsigned size, uint64_t value)
{
	(void)mmio_piece(cpu, gpa, size, true, value);
}

int port_access(struct cpu *cpu, uint16_t port, unsigned size, bool write, uint32_t *value)
{
	struct io_job j = { .addr = port, .value = *value, .size = size, .write = write, .port = true };

	if (cpu->debug.port)
		debug_port(cpu, port, size);
	cpu_heavy(cpu, run_io, &j);
	if (!write)
		*value = (uint32_t)j.value;
	return 0;
}

/* Moves a device operand of any size in natural pieces. */
static void mmio_move(struct cpu *cpu, gpa_t gpa, uint8_t *buf, unsigned size, bool write)
{
	while (size) {
		unsigned n = size >= 8 ? 8 : size >= 4 ? 4 : size >= 2 ? 2 : 1;
		uint64_t v = 0;

		if (write) {
			copy_bytes(&v, buf, n);
			mmio_write(cpu, gpa, n, v);
		} else {
			v = mmio_read(cpu, gpa, n);
			copy_bytes(buf, &v, n);
		}
		gpa += n;
		buf += n;
		size -= n;
	}
}

/* --------------------------------------------------------- writes to RAM */

void page_written(struct cpu *cpu, gpa_t gpa, uint64_t len)
{
	dbt_wrote(cpu->vm, gpa, len);
}

static void note_dirty(struct dbt_vm *dv, uint64_t page)
{
	if (dv->dirty)
		atomic_fetch_or(&dv->dirty[page / 64], 1ull << (page % 64));
}

void dbt_wrote(void *ctx, gpa_t gpa, uint64_t len)
{
	struct dbt_vm *dv = ctx;
	struct code_cache *cc = dv->cc;

	/* What was written must be seen by who translates it, or its mark on the page be seen here. */
	atomic_thread_fence(memory_order_seq_cst);
	for (gpa_t page = gpa & PAGE_MASK; page < gpa + len; page += PAGE_SIZE) {
		uint64_t i = code_page_index(cc, page), from = page > gpa ? page : gpa;
		uint64_t to = page + PAGE_SIZE < gpa + len ? page + PAGE_SIZE : gpa + len;
		uint8_t flags;

		if (i == ~0ull)
			continue;
		flags = atomic_load(&cc->page_flags[i]);
		if (flags & PAGE_CLEAN || dv->dirty) {
			note_dirty(dv, i);
			atomic_fetch_and(&cc->page_flags[i], (uint8_t)~PAGE_CLEAN);
		}
		if (flags & PAGE_HAS_CODE) {
			lock_take(&cc->lock);
			(void)code_invalidate(cc, from, to - from);
			lock_drop(&cc->lock);
		}
	}
}

/* ------------------------------------------------------------ slow accesses */

static uint64_t piece_address(const struct cpu *cpu, uint64_t off)
{
	uint64_t va = cpu->slow.ea + off;

	return cpu->mode & BLOCK_32 ? (uint32_t)va : va;
}

/* Fills in all of cpu->slow but the data. */
static void translate_pieces(struct cpu *cpu, const struct insn *in, uint64_t ea, unsigned size, unsigned rw, bool user)
{
	unsigned first = (unsigned)(PAGE_SIZE - (ea & 4095));

	cpu->slow.ea = ea;
	cpu->slow.size = size;
	cpu->slow.split = first < size ? first : size;
	cpu->slow.rw = (uint8_t)rw;
	cpu->slow.through_rdi = in->mem_implicit;
	for (unsigned k = 0; k < 2; k++) {
		struct translation tr = { 0 };
		int vector = 0;

		if (k == 0 || first < size)
			vector = mmu_walk(cpu, piece_address(cpu, k ? first : 0), rw, user, &tr, &cpu->slow.error[k]);
		cpu->slow.vector[k] = (uint8_t)(vector == VEC_GP && through_stack_segment(in) ? VEC_SS : vector);
		cpu->slow.host[k] = vector ? NULL : tr.host;
		cpu->slow.gpa[k] = tr.gpa;
	}
}

static void raise_piece(struct cpu *cpu, unsigned k, uint64_t va)
{
	raise_access(cpu, cpu->slow.vector[k], va, cpu->slow.error[k]);
}

void slow_raise(struct cpu *cpu, uint64_t at)
{
	uint64_t off = at - cpu->slow_host;
	unsigned k = off >= cpu->slow.split;

	if (cpu->slow.through_rdi)
		cpu->gpr[RDI] = cpu->tmp[1];
	raise_piece(cpu, k, piece_address(cpu, off));
}

static void move_piece(struct cpu *cpu, unsigned k, uint8_t *buf, unsigned size, bool write)
{
	uint64_t active = k && cpu->slow.split < 64 ? cpu->slow.active >> cpu->slow.split : cpu->slow.active;
	uint8_t *host = cpu->slow.host[k];

	if (!host) {
		mmio_move(cpu, cpu->slow.gpa[k], buf, size, write);
	} else if (write) {
		/* Bytes that a mask left out belong to others: never write them back. */
		for (unsigned i = 0; i < size; i++)
			if (i >= 64 || active >> i & 1)
				host[i] = buf[i];
		page_written(cpu, cpu->slow.gpa[k], size);
	} else {
		copy_bytes(buf, host, size);
	}
}

/* Where in the guard pages the operand goes so that the forbidden pieces cannot be accessed. */
static uint64_t guarded_place(const struct cpu *cpu, bool crosses)
{
	unsigned page = 0;

	if (crosses && !cpu->slow.vector[0])
		page = GUARD_OPEN;
	else if (crosses && !cpu->slow.vector[1])
		page = GUARD_OPEN - 1;
	return cpu->guard + page * PAGE_SIZE + (cpu->slow.ea & 4095);
}

static uint64_t start_copy(struct cpu *cpu, const struct insn *in, uint64_t ea, unsigned size, unsigned rw, bool user)
{
	bool crosses, forbidden;

	translate_pieces(cpu, in, ea, size, rw, user);
	crosses = cpu->slow.split < size;
	forbidden = cpu->slow.vector[0] || cpu->slow.vector[1];
	if (forbidden && insn_fault_is_sure(in->mem_careful, ea)) {
		unsigned k = !cpu->slow.vector[0];

		raise_piece(cpu, k, piece_address(cpu, k ? cpu->slow.split : 0));
		return dispatch(cpu);
	}
	cpu->slow.active = in->mem_masked && rw & MEM_WRITE && crosses ? active_bytes(cpu, in, size) : ~0ull;
	cpu->slow.direct = cpu->slow.host[0] &&
		(!crosses || cpu->slow.host[1] == cpu->slow.host[0] + cpu->slow.split);
	if (cpu->slow.direct)
		cpu->slow_host = (uint64_t)(uintptr_t)cpu->slow.host[0];
	else if (forbidden)
		cpu->slow_host = guarded_place(cpu, crosses);
	else
		cpu->slow_host = (uint64_t)(uintptr_t)(cpu->bounce + (ea & 63));
	if (!cpu->slow.direct) {
		uint8_t *buf = (uint8_t *)(uintptr_t)cpu->slow_host;

		/* RAM is always read: the instruction may write only part of it. */
		if (!cpu->slow.vector[0] && (rw & MEM_READ || cpu->slow.host[0]))
			move_piece(cpu, 0, buf, cpu->slow.split, false);
		if (crosses && !cpu->slow.vector[1] && (rw & MEM_READ || cpu->slow.host[1]))
			move_piece(cpu, 1, buf + cpu->slow.split, size - cpu->slow.split, false);
	}
	return dispatch_slow(cpu);
}

void slow_commit(struct cpu *cpu)
{
	unsigned split = cpu->slow.split, rest = cpu->slow.size - split;
	uint8_t *buf = (uint8_t *)(uintptr_t)cpu->slow_host;

	if (cpu->debug.data)
		debug_accessed(cpu, cpu->slow.ea, cpu->slow.size, cpu->slow.rw);
	if (!(cpu->slow.rw & MEM_WRITE))
		return;
	if (cpu->slow.direct) {
		page_written(cpu, cpu->slow.gpa[0], split);
		if (rest)
			page_written(cpu, cpu->slow.gpa[1], rest);
		return;
	}
	if (!cpu->slow.vector[0])
		move_piece(cpu, 0, buf, split, true);
	if (rest && !cpu->slow.vector[1])
		move_piece(cpu, 1, buf + split, rest, true);
}

struct decode_job {
	struct insn insn;
	uint8_t bytes[2 * FETCHED];
	unsigned avail;
};

static void run_decode(struct cpu *cpu, void *arg)
{
	struct decode_job *j = arg;

	if (insn_decode(j->bytes, j->avail, !(cpu->mode & BLOCK_32), &j->insn) < 0)
		j->insn.op = INSN_UD;
}

static bool fetch_insn(struct cpu *cpu, struct decode_job *j)
{
	unsigned first = (unsigned)(PAGE_SIZE - (cpu->rip & 4095));
	struct translation tr;
	uint32_t error;

	if (first > INSN_LEN_MAX)
		first = INSN_LEN_MAX;
	if (mmu_walk(cpu, cpu->rip, ACCESS_EXEC | ACCESS_PROBE, cpu->cpl == 3, &tr, &error) || !tr.host)
		return false;
	fetch_code(j->bytes, tr.host, first);
	j->avail = first;
	if (first < INSN_LEN_MAX &&
	    mmu_walk(cpu, cpu->rip + first, ACCESS_EXEC | ACCESS_PROBE, cpu->cpl == 3, &tr, &error) == 0 && tr.host) {
		fetch_code(j->bytes + first, tr.host, INSN_LEN_MAX - first);
		j->avail = INSN_LEN_MAX;
	}
	cpu_heavy(cpu, run_decode, j);
	return true;
}

/* Whether there is one for the instruction at cpu->rip, which needs a closer look only if not @ret_sure and it faults at @ea. */
static bool slow_block_exists(struct cpu *cpu, uint64_t ea, bool *ret_sure)
{
	struct code_cache *cc = cpu->vm->cc;
	struct translation tr;
	struct block *b;
	uint32_t error;
	bool simple;

	if (mmu_walk(cpu, cpu->rip, ACCESS_EXEC | ACCESS_PROBE, cpu->cpl == 3, &tr, &error))
		return false;
	lock_take(&cc->lock);
	b = block_find(cc, tr.gpa, cpu->mode | BLOCK_SLOW, cpu->rip);
	simple = b && !b->peculiar && b->pa2 == ~0ull;
	*ret_sure = simple && insn_fault_is_sure(b->careful, ea);
	lock_drop(&cc->lock);
	return simple;
}

static bool pieces_allowed(struct cpu *cpu, const struct insn *in, uint64_t ea, unsigned size, unsigned rw, bool user)
{
	translate_pieces(cpu, in, ea, size, rw, user);
	return !cpu->slow.vector[0] && !cpu->slow.vector[1];
}

uint64_t slow_start(struct cpu *cpu, uint64_t ea, unsigned size, unsigned rw, bool user)
{
	static const struct insn plain = { .mem_seg = INSN_REG_NONE, .mem_base = INSN_REG_NONE };
	struct decode_job j;
	bool sure;

	/* A slow block that exists already tells all there is to know of a plain instruction. */
	if (canonical(ea) && slow_block_exists(cpu, ea, &sure) &&
	    (sure || pieces_allowed(cpu, &plain, ea, size, rw, user)))
		return start_copy(cpu, &plain, ea, size, rw, user);
	if (!fetch_insn(cpu, &j))
		return dispatch(cpu);	/* the mapping went away: fetch again and fault */
	if (j.insn.op == INSN_COPY)
		return start_copy(cpu, &j.insn, ea, size, rw, user);
	interpret(cpu, &j.insn);
	return dispatch(cpu);
}
