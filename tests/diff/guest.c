/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The translator's side: one VM for all items.  A small resident kernel
 * (kernel.S) takes a job from memory, starts it at CPL 3, saves the state at the
 * exception that ends it and writes DONE_PORT, whose device kicks the vCPU out
 * of vcpu_run().  So a run costs neither get_state() nor set_state(), which
 * flush everything.
 */
#include "tests/diff/diff.h"
#include "tests/diff/layout.h"

#include "engine/dbt/engine_dbt.h"
#include "isa/paging.h"
#include "os/err.h"
#include "vmm/vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RAM_BYTES (4ull << 20)
#define TABLES_PA 0x10000ull	/* page tables, from here up */
#define FRAMES_PA 0x200000ull	/* of diff_pages[] */
#define FRAME_BYTES 56	/* what an exception and kernel.S push: vector, error, RIP, CS, RFLAGS, RSP, SS */
#define VEC_PF 14

struct guest_save {
	uint64_t gpr[GPR_COUNT];
	uint64_t cr2, fs, gs;
};

struct guest_job {
	uint64_t gpr[GPR_COUNT];
	uint64_t frame[5];
	uint64_t fs, gs;
	uint32_t data_sel, flush, single;
};

_Static_assert(offsetof(struct guest_save, cr2) == SAVE_CR2, "assembly");
_Static_assert(offsetof(struct guest_save, gs) == SAVE_GS, "assembly");
_Static_assert(offsetof(struct guest_job, frame) == JOB_FRAME, "assembly");
_Static_assert(offsetof(struct guest_job, gs) == JOB_GS, "assembly");
_Static_assert(offsetof(struct guest_job, data_sel) == JOB_DATA_SEL, "assembly");
_Static_assert(offsetof(struct guest_job, flush) == JOB_FLUSH, "assembly");
_Static_assert(offsetof(struct guest_job, single) == JOB_SINGLE, "assembly");

extern const uint8_t kernel_begin[], kernel_end[];

static struct vm *vm;
static struct mem *mem;
static struct vcpu_state boot_state;
static volatile bool done, running;
static uint64_t tables_end = TABLES_PA;

static uint64_t port_read(void *dev, uint64_t off, unsigned size)
{
	(void)dev, (void)off, (void)size;
	return 0;
}

static void port_write(void *dev, uint64_t off, unsigned size, uint64_t value)
{
	(void)dev, (void)off, (void)size, (void)value;
	done = true;
	vm->engine->vcpu_kick(&vm->vcpu[0]);
}

static const struct bus_ops port_ops = { port_read, port_write };

static void *kernel_at(unsigned off)
{
	return mem_at(mem, KERNEL_PA + off, 8);
}

static uint64_t new_table(void)
{
	uint64_t at = tables_end;

	tables_end += PAGE;
	return at;
}

static void map_page(uint64_t root, uint64_t va, uint64_t pa, uint64_t bits)
{
	uint64_t table = root;

	for (unsigned shift = 39; shift > 12; shift -= 9) {
		uint64_t *entry = (uint64_t *)mem_at(mem, table, PAGE) + (va >> shift & 511);

		if (!(*entry & PTE_P))
			*entry = new_table() | PTE_P | PTE_W | PTE_U;
		table = *entry & ~0xfffull;
	}
	((uint64_t *)mem_at(mem, table, PAGE))[va >> 12 & 511] = pa | bits | PTE_P;
}

static uint64_t frame_pa(unsigned page)
{
	return FRAMES_PA + (uint64_t)diff_pages[page].frame * PAGE;
}

static uint64_t make_page_tables(void)
{
	uint64_t root = new_table();

	for (unsigned i = 0; i < K_PAGES; i++)
		map_page(root, KERNEL_VA + (uint64_t)i * PAGE, KERNEL_PA + (uint64_t)i * PAGE, PTE_W);
	for (unsigned i = 0; i < DIFF_PAGES; i++)
		map_page(root, diff_pages[i].va, frame_pa(i),
			 PTE_U | (diff_pages[i].prot & DIFF_WRITE ? PTE_W : 0) |
			 (diff_pages[i].prot & DIFF_EXEC ? 0 : PTE_NX));
	return root;
}

static void make_descriptors(void)
{
	uint64_t *gdt = kernel_at(K_GDT), *idt = kernel_at(K_IDT);
	uint64_t tss = KERNEL_VA + K_TSS, rsp0 = KERNEL_VA + K_STACK_TOP;
	uint16_t no_ports = 104;

	gdt[SEL_KERNEL_CODE / 8] = 0x00af9b000000ffff;
	gdt[SEL_KERNEL_DATA / 8] = 0x00cf93000000ffff;
	gdt[SEL_USER_CODE32 / 8] = 0x00cffb000000ffff;
	gdt[SEL_USER_DATA / 8] = 0x00cff3000000ffff;
	gdt[SEL_USER_CODE64 / 8] = 0x00affb000000ffff;
	gdt[SEL_TSS / 8] = 0x0000890000000067 | (tss & 0xffffff) << 16 | (tss >> 24 & 0xff) << 56;
	gdt[SEL_TSS / 8 + 1] = tss >> 32;
	memcpy((uint8_t *)kernel_at(K_TSS) + 4, &rsp0, 8);
	memcpy((uint8_t *)kernel_at(K_TSS) + 102, &no_ports, 2);
	for (unsigned v = 0; v < VECTORS; v++) {
		uint64_t stub = KERNEL_VA + K_STUBS + 16ull * v;
		uint64_t dpl = v == 3 || v == 4 ? 3 : 0;

		idt[2 * v] = (stub & 0xffff) | SEL_KERNEL_CODE << 16 | (0x8eull | dpl << 5) << 40 |
			(stub >> 16 & 0xffff) << 48;
		idt[2 * v + 1] = stub >> 32;
	}
}

static struct seg_reg flat(uint16_t sel, uint16_t attr)
{
	return (struct seg_reg){ .limit = 0xffffffff, .sel = sel, .attr = attr };
}

static void make_boot_state(uint64_t root)
{
	struct vcpu_state *st = &boot_state;

	vm->engine->get_state(&vm->vcpu[0], st, NULL);
	st->rip = KERNEL_VA;
	st->rflags = 2;
	st->gpr[RSP] = KERNEL_VA + K_STACK_TOP;
	st->cr0 = 0x80010033;	/* PG WP NE ET MP PE */
	st->cr3 = root;
	st->cr4 = 0x506a0;	/* OSXSAVE FSGSBASE OSXMMEXCPT OSFXSR PGE PAE */
	st->efer = 0xd01;	/* NXE LMA LME SCE */
	st->xcr0 = diff_xcr0;
	for (unsigned s = 0; s < SEG_COUNT; s++)
		st->seg[s] = flat(SEL_KERNEL_DATA, 0xc93);
	st->seg[SEG_CS] = flat(SEL_KERNEL_CODE, 0xa9b);
	st->tr = (struct seg_reg){ .base = KERNEL_VA + K_TSS, .limit = 103, .sel = SEL_TSS, .attr = 0x8b };
	st->ldtr = (struct seg_reg){ .attr = 1u << 15 };
	st->gdtr = (struct desc_table){ .base = KERNEL_VA + K_GDT, .limit = 0xff };
	st->idtr = (struct desc_table){ .base = KERNEL_VA + K_IDT, .limit = 16 * VECTORS - 1 };
	st->mp_state = MP_RUNNABLE;
	st->tsc = 0;
}

/* To where the kernel waits for its first job; again after the engine gave up. */
static int guest_boot(struct err *err)
{
	int res = vm->engine->set_state(&vm->vcpu[0], &boot_state, err);

	done = false;
	if (res == 0 && (vm->engine->vcpu_run(&vm->vcpu[0], err) != VCPU_EXIT_KICKED || !done))
		res = err_set(err, -EIO, "the guest does not start");
	return res;
}

int guest_create(struct err *err)
{
	struct bus_range port = { DONE_PORT, 1, &port_ops, NULL, "end of an item" };
	uint64_t root;
	int res = mem_create(RAM_BYTES, &mem, err);

	if (res == 0)
		res = vm_create(&dbt_engine, mem, 1, &vm, err);
	if (res == 0)
		res = bus_add(&vm->pio, &port, err);
	if (res < 0)
		return res;
	diff_xcr0 = cpuid_xcr0_mask(&vm->cpuid) & 0xe7;
	memcpy(kernel_at(K_TEXT), kernel_begin, (size_t)(kernel_end - kernel_begin));
	root = make_page_tables();
	make_descriptors();
	make_boot_state(root);
	return guest_boot(err);
}

static void fill_job(const struct item *item, const struct regs *regs, const struct guest_options *options)
{
	struct guest_job *job = kernel_at(K_JOB);

	memcpy(job->gpr, regs->gpr, sizeof(job->gpr));
	job->frame[0] = regs->rip;
	job->frame[1] = item->code32 ? SEL_USER_CODE32 : SEL_USER_CODE64;
	job->frame[2] = regs->rflags | (options->single ? 0x100 : 0);
	job->frame[3] = regs->gpr[RSP];
	job->frame[4] = SEL_USER_DATA;
	job->fs = regs->fs_base;
	job->gs = regs->gs_base;
	job->data_sel = item->code32 ? SEL_USER_DATA : 0;
	job->flush = options->flush;
	job->single = options->single;
	memcpy(kernel_at(K_JOB_XSAVE), regs->xsave, VCPU_XSAVE_MAX);
}

static void take_state(struct outcome *out)
{
	const struct guest_save *save = kernel_at(K_SAVE);
	uint64_t frame[FRAME_BYTES / 8];

	memcpy(frame, kernel_at(K_STACK_TOP - FRAME_BYTES), sizeof(frame));
	memcpy(out->regs.gpr, save->gpr, sizeof(save->gpr));
	out->vector = (int)frame[0];
	out->error = (uint32_t)frame[1];
	out->regs.rip = frame[2];
	out->regs.rflags = frame[4];
	out->regs.gpr[RSP] = frame[5];
	out->regs.fs_base = save->fs;
	out->regs.gs_base = save->gs;
	out->cr2 = save->cr2;
	memcpy(out->regs.xsave, kernel_at(K_SAVE_XSAVE), VCPU_XSAVE_MAX);
	if ((frame[3] & 3) != 3) {
		out->vector = OUTCOME_BROKEN;
		(void)snprintf(out->why, sizeof(out->why), "exception in the guest's kernel");
	}
}

void guest_run(const struct item *item, const struct regs *regs, const uint8_t *pages,
	       const struct guest_options *options, struct outcome *ret_outcome)
{
	struct err err = { 0 };
	enum vcpu_exit end;

	for (unsigned i = 0; i < DIFF_PAGES; i++)	/* only code pages can hold translations */
		if (diff_pages[i].prot & DIFF_EXEC)
			(void)mem_write(mem, frame_pa(i), pages + (size_t)i * PAGE, PAGE);
		else
			memcpy(mem_at(mem, frame_pa(i), PAGE), pages + (size_t)i * PAGE, PAGE);
	fill_job(item, regs, options);
	dbt_use_loop(!options->slow_loop);
	done = false;
	running = true;
	end = vm->engine->vcpu_run(&vm->vcpu[0], &err);
	running = false;
	if (end == VCPU_EXIT_KICKED && done) {
		take_state(ret_outcome);
		return;
	}
	ret_outcome->vector = end == VCPU_EXIT_KICKED ? OUTCOME_HANG : OUTCOME_BROKEN;
	if (end == VCPU_EXIT_SHUTDOWN)
		(void)snprintf(ret_outcome->why, sizeof(ret_outcome->why), "triple fault");
	else
		(void)snprintf(ret_outcome->why, sizeof(ret_outcome->why), "%s", err.msg);
	if (guest_boot(&err) < 0)
		abort();	/* nothing more can be tested */
}

const uint8_t *guest_page(unsigned page)
{
	return mem_at(mem, frame_pa(page), PAGE);
}

void guest_stop(void)
{
	if (running)
		vm->engine->vcpu_kick(&vm->vcpu[0]);
}
