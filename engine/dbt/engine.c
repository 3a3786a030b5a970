/* SPDX-License-Identifier: Apache-2.0 */
/* engine_ops of the binary translator: VMs, their vCPUs, and what is asked of them from outside. */
#include "engine/dbt/engine_dbt.h"

#include "base/checked.h"
#include "engine/dbt/run.h"
#include "engine/dbt/vcpu.h"
#include "os/err.h"
#include "vmm/irqchip.h"
#include "vmm/vm.h"

#include <cpuid.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define HWCAP2_FSGSBASE 2u

/* ------------------------------------------------------------ making vCPUs */

static uint64_t host_xcr0(void)
{
	uint32_t lo, hi;

	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return (uint64_t)hi << 32 | lo;
}

/* Window 0 .. n-1, each the shared pages and then its own; behind them the guard pages, one more, and the stack of returns.c. */
static int map_windows(struct dbt_vcpu *dv, struct err *err)
{
	size_t own = WINDOW_SIZE - WINDOW_SHARED;
	uint8_t *guard, *returns;

	dv->area_size = WINDOW_SIZE * DBT_CONTEXTS + (GUARD_PAGES + 1 + RETURN_PAGES) * PAGE_SIZE;
	dv->fd = memfd_create("roux-vcpu", MFD_CLOEXEC);
	dv->area = mmap(NULL, dv->area_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (dv->fd < 0 || dv->area == MAP_FAILED ||
	    ftruncate(dv->fd, (off_t)(WINDOW_SHARED + own * DBT_CONTEXTS)) < 0)
		goto fail;
	for (unsigned i = 0; i < DBT_CONTEXTS; i++) {
		uint8_t *at = (uint8_t *)dv->area + i * WINDOW_SIZE;

		if (mmap(at, WINDOW_SHARED, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, dv->fd, 0) == MAP_FAILED ||
		    mmap(at + WINDOW_SHARED, own, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, dv->fd,
			 (off_t)(WINDOW_SHARED + own * i)) == MAP_FAILED)
			goto fail;
	}
	guard = (uint8_t *)dv->area + WINDOW_SIZE * DBT_CONTEXTS;
	returns = guard + (GUARD_PAGES + 1) * PAGE_SIZE;
	if (mprotect(guard + GUARD_OPEN * PAGE_SIZE, PAGE_SIZE, PROT_READ | PROT_WRITE) < 0 ||
	    mprotect(returns, RETURN_PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE) < 0)
		goto fail;
	dv->cpu = dv->area;
	dv->cpu->guard = (uint64_t)(uintptr_t)guard;
	dv->cpu->returns_empty = (uint64_t)(uintptr_t)returns + RETURN_PAGES * PAGE_SIZE - 8;
	return 0;

fail:
	return err_set(err, -ENOMEM, "cannot map vCPU memory: %s", strerror(errno));
}

static void vcpu_free(struct dbt_vcpu *dv)
{
	if (dv->has_timer)
		(void)timer_delete(dv->timer);
	if (dv->area && dv->area != MAP_FAILED)
		(void)munmap(dv->area, dv->area_size);
	if (dv->fd >= 0)
		(void)close(dv->fd);
	free(dv->alt_stack);
	free(dv);
}

/* SDM vol. 1, 11.6.6: 0 stands for 0xffbf. */
static uint32_t host_mxcsr_mask(void)
{
	_Alignas(16) uint8_t image[512] = { 0 };
	uint32_t mask;

	__asm__ volatile("fxsave64 %0" : "+m"(image));
	memcpy(&mask, image + 28, sizeof(mask));
	return mask ? mask : 0xffbf;
}

/* To what it finds in its VM's code cache. */
static void bind_cpu(struct dbt_vm *vm, struct cpu *cpu)
{
	if (vm->cc->mem->bank[0].base == 0) {
		cpu->ram = vm->cc->mem->bank[0].host;
		cpu->ram_size = vm->cc->mem->bank[0].size;
		cpu->ram_flags = vm->cc->page_flags;
	}
	thunks_bind(vm, cpu);
}

static int dbt_vcpu_create(struct vcpu *vcpu, struct err *err)
{
	struct dbt_vm *vm = vcpu->vm->engine_data;
	struct dbt_vcpu *dv = calloc(1, sizeof(*dv));
	struct cpu *cpu;
	uint32_t mxcsr = 0x1f80;
	uint16_t fcw = 0x37f;
	int r;

	if (!dv)
		return err_set(err, -ENOMEM, "out of host memory");
	dv->fd = -1;
	dv->alt_stack = malloc(ALT_STACK_BYTES);
	r = map_windows(dv, err);
	if (r < 0 || !dv->alt_stack) {
		vcpu_free(dv);
		return r < 0 ? r : err_set(err, -ENOMEM, "out of host memory");
	}
	cpu = dv->cpu;
	cpu->self = (uint64_t)(uintptr_t)cpu;
	cpu->windows = dv->area;
	cpu->vm = vm;
	cpu->vcpu = vcpu;
	cpu->index = vcpu->index;
	cpu->xsave_area = (uint64_t)(uintptr_t)cpu->xsave;
	vm->xcr0_mask = cpuid_xcr0_mask(vm->cpuid);	/* which is final now */
	cpu->xcr0_host = host_xcr0() & vm->xcr0_mask;
	cpu->default_mxcsr = mxcsr;
	cpu->mxcsr_mask = host_mxcsr_mask();
	memcpy(cpu->xsave, &fcw, 2);
	memcpy(cpu->xsave + XSAVE_MXCSR, &mxcsr, 4);
	cpu->flags = 2;
	cpu->xcr0 = 1;
	cpu->xsave_size = cpuid_xsave_size(vm->cpuid, 1);
	cpu->pat = 0x0007040600070406ull;
	cpu->dr[6] = 0xffff0ff0;
	cpu->dr[7] = 0x400;
	cpu->misc_enable = 1;
	cpu->wait_for_sipi = vcpu->index != 0;
	bind_cpu(vm, cpu);
	vcpu->engine_data = dv;
	vm->cpu[vcpu->index] = cpu;
	vm->ncpus = vcpu->index + 1 > vm->ncpus ? vcpu->index + 1 : vm->ncpus;
	mmu_init(cpu);
	return 0;
}

static void dbt_vcpu_destroy(struct vcpu *vcpu)
{
	struct dbt_vm *vm = vcpu->vm->engine_data;

	if (!vcpu->engine_data)
		return;
	vm->cpu[vcpu->index] = NULL;
	vcpu_free(vcpu->engine_data);
	vcpu->engine_data = NULL;
}

/* --------------------------------------------------------------- interrupts */

static void chip_kick(void *ctx, unsigned index)
{
	struct dbt_vm *vm = ctx;

	if (index < vm->ncpus && vm->cpu[index])
		wake_cpu(vm->cpu[index]);
}

static uint64_t chip_tsc(void *ctx, unsigned index)
{
	struct dbt_vm *vm = ctx;

	return guest_tsc(vm->cpu[index]);
}

/* On the vCPU's thread, possibly with guest vector state live: raw system calls only. */
static void chip_timer_set(void *ctx, unsigned index, uint64_t tsc)
{
	dbt_timer_set(((struct dbt_vm *)ctx)->cpu[index], tsc);
}

static const struct irqchip_ops chip_ops = { .kick = chip_kick, .timer_set = chip_timer_set, .tsc = chip_tsc };

static void dbt_irq_set(struct vm *vm, unsigned gsi, bool level)
{
	irqchip_line_set(((struct dbt_vm *)vm->engine_data)->irqchip, gsi, level);
}

static void dbt_msi_send(struct vm *vm, uint64_t addr, uint32_t data)
{
	irqchip_msi(((struct dbt_vm *)vm->engine_data)->irqchip, addr, data);
}

/* -------------------------------------------------------------- making VMs */

bool loop_is_quick;

/* On AMD's, and Hygon's, which are AMD's. */
static bool host_loop_is_quick(void)
{
	unsigned a, b, c, d;

	return __get_cpuid(0, &a, &b, &c, &d) && (b == signature_AMD_ebx || b == 0x6f677948u /* "Hygo" */);
}

void dbt_use_loop(bool quick)
{
	loop_is_quick = quick;
}

int check_host(struct err *err)
{
	unsigned a, b = 0, c = 0, d;

	if (!(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE))
		return err_set(err, -ENOTSUP, "this host does not let programs set the GS base (kernel 5.9 or newer needed)");
	if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & 1u << 8))
		return err_set(err, -ENOTSUP, "this CPU has no BMI2 instructions (Haswell, Zen or newer needed)");
	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & 1u << 27))
		return err_set(err, -ENOTSUP, "this CPU or kernel has no XSAVE");
	return 0;
}

static void block_dropped(void *ctx, const struct block *b)
{
	struct dbt_vm *vm = ctx;

	for (unsigned i = 0; i < vm->ncpus; i++)
		if (vm->cpu[i])
			jc_forget(vm->cpu[i], b);
}

static void page_misplaced(void *ctx, uint32_t number)
{
	struct dbt_vm *vm = ctx;

	for (unsigned i = 0; i < vm->ncpus; i++)
		if (vm->cpu[i])
			user_code_misplace(vm->cpu[i], number);
}

static void dbt_vm_destroy(struct vm *vm)
{
	struct dbt_vm *dv = vm->engine_data;

	if (!dv)
		return;
	irqchip_destroy(dv->irqchip);
	dbt_drop_kept(dv);
	code_cache_destroy(dv->cc);
	free((void *)(uintptr_t)dv->dirty);
	free(dv);
	vm->engine_data = NULL;
}

/*
 * SERIALIZE costs nothing here, while what Linux does without it (IRET to
 * itself, a hundred thousand times while it patches its own code) does.
 */
static void offer_cheap_features(struct cpuid_table *table)
{
	struct cpuid_entry *features = cpuid_find(table, 7, 0);

	if (features)
		features->reg[CPUID_EDX] |= 1u << 14;
}

void dbt_use_code_cache(struct vm *vm, struct code_cache *cc)
{
	struct dbt_vm *dv = vm->engine_data;

	dv->cc = cc;
	/* The thunks lie in front of translated code and survive its resets. */
	thunks_emit(dv, cc->rw, cc->rx);
	for (unsigned i = 0; i < dv->ncpus; i++) {
		bind_cpu(dv, dv->cpu[i]);
		mmu_init(dv->cpu[i]);
	}
}

int dbt_new_code_cache(struct vm *vm, struct err *err)
{
	struct dbt_vm *dv = vm->engine_data;
	struct code_cache *cc;
	int r = code_cache_create(vm->mem, &cc, err);

	if (r < 0)
		return r;
	cc->base_used = THUNK_BYTES;
	cc->used = THUNK_BYTES;
	cc->on_drop = block_dropped;
	cc->on_misplace = page_misplaced;
	cc->ctx = dv;
	code_cache_destroy(dv->cc);
	dbt_use_code_cache(vm, cc);
	return 0;
}

static int dbt_vm_create(struct vm *vm, struct err *err)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct timespec now;
	struct dbt_vm *dv;
	int r = check_host(err);

	if (r < 0)
		return r;
	(void)pthread_once(&once, install_handlers);
	insn_begin();	/* before the jail */
	dbt_use_loop(host_loop_is_quick());
	dv = calloc(1, sizeof(*dv));
	if (!dv)
		return err_set(err, -ENOMEM, "out of host memory");
	vm->engine_data = dv;
	dv->vm = vm;
	dv->tsc_khz = vm->tsc_khz;
	offer_cheap_features(&vm->cpuid);
	dv->cpuid = &vm->cpuid;
	(void)clock_gettime(CLOCK_BOOTTIME, &now);
	kvmclock_init(&dv->clock, vm->mem, dv->tsc_khz, __builtin_ia32_rdtsc(),
		      0);
	r = dbt_new_code_cache(vm, err);
	if (r == 0)
		r = irqchip_create(vm->nvcpus, dv->tsc_khz, &chip_ops, dv, &dv->irqchip, err);
	if (r < 0) {
		dbt_vm_destroy(vm);
		return r;
	}
	dbt_note_program(dv);
	vm->mem->watch = (struct mem_watch){ .wrote = dbt_wrote, .ctx = dv };
	return 0;
}

/* ----------------------------------------------------------------- counters */

static unsigned dbt_counters(struct vm *vm, struct engine_counter *ret_counters, unsigned max)
{
	static const struct {
		const char *name;
		size_t at;	/* in struct dbt_stats */
	} fields[] = {
#define FIELD(name) { #name, offsetof(struct dbt_stats, name) }
		FIELD(blocks), FIELD(woken), FIELD(links), FIELD(exits), FIELD(strays), FIELD(jc_miss), FIELD(tlb_miss), FIELD(tlb_flush),
		FIELD(slow), FIELD(helpers), FIELD(exceptions), FIELD(interrupts), FIELD(heavy),
#undef FIELD
	};
	const struct dbt_vm *dv = vm->engine_data;
	unsigned n = 0;

	for (; n < ARRAY_SIZE(fields) && n < max; n++) {
		uint64_t sum = 0, value;

		for (unsigned i = 0; i < dv->ncpus; i++) {
			memcpy(&value, (const char *)&dv->cpu[i]->stats + fields[n].at, sizeof(value));
			sum += value;
		}
		ret_counters[n] = (struct engine_counter){ fields[n].name, sum };
	}
	if (n < max)
		ret_counters[n++] = (struct engine_counter){ "code_bytes", dv->cc->used + dv->cc->cold - COLD_START };
	if (n < max)
		ret_counters[n++] = (struct engine_counter){ "code_resets", dv->cc->generation };
	return n;
}

/* --------------------------------------------------------------- dirty log */

static void watch_clean_pages(struct dbt_vm *dv)
{
	for (uint64_t i = 0; i < dv->cc->npages; i++)
		if (dv->dirty)
			atomic_fetch_or(&dv->cc->page_flags[i], PAGE_CLEAN);
		else
			atomic_fetch_and(&dv->cc->page_flags[i], (uint8_t)~PAGE_CLEAN);
	for (unsigned i = 0; i < dv->ncpus; i++)
		if (dv->cpu[i])
			mmu_flush_all(dv->cpu[i]);
}

static int dbt_dirty_log_set(struct vm *vm, bool on, struct err *err)
{
	struct dbt_vm *dv = vm->engine_data;

	free((void *)(uintptr_t)dv->dirty);
	dv->dirty = NULL;
	if (on) {
		dv->dirty = calloc((dv->cc->npages + 63) / 64, sizeof(uint64_t));
		if (!dv->dirty)
			return err_set(err, -ENOMEM, "out of host memory");
	}
	watch_clean_pages(dv);
	return 0;
}

static int dbt_dirty_log_get(struct vm *vm, uint64_t *bitmap, struct err *err)
{
	struct dbt_vm *dv = vm->engine_data;

	if (!dv->dirty)
		return err_set(err, -EINVAL, "the dirty log is off");
	for (uint64_t i = 0; i < (dv->cc->npages + 63) / 64; i++)
		bitmap[i] |= atomic_exchange(&dv->dirty[i], 0);
	watch_clean_pages(dv);
	return 0;
}

const struct engine_ops dbt_engine = {
	.name = "dbt",
	.probe = dbt_probe,
	.vm_create = dbt_vm_create,
	.vm_destroy = dbt_vm_destroy,
	.vcpu_create = dbt_vcpu_create,
	.vcpu_destroy = dbt_vcpu_destroy,
	.vcpu_run = dbt_vcpu_run,
	.vcpu_kick = dbt_vcpu_kick,
	.get_state = dbt_get_state,
	.set_state = dbt_set_state,
	.debug = dbt_debug,
	.get_vm_state = dbt_get_vm_state,
	.set_vm_state = dbt_set_vm_state,
	.skip_time = dbt_skip_time,
	.irq_set = dbt_irq_set,
	.msi_send = dbt_msi_send,
	.dirty_log_set = dbt_dirty_log_set,
	.counters = dbt_counters,
	.record = dbt_record,
	.forget = dbt_forget,
	.set_aside = dbt_set_aside,
	.learned = dbt_learned,
	.kept_bytes = dbt_kept_bytes,
	.keep = dbt_keep,
	.take_kept = dbt_take_kept,
	.dirty_log_get = dbt_dirty_log_get,
};
