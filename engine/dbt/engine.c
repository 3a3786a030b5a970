/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine_ops of the binary translator: memory of vCPUs, the run loop, HLT,
 * timers, and the signals by which the host CPU reports faults of guest code.
 *
 * Signals: SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGTRAP are taken process-wide
 * when the first VM is made; outside translated code they go to whoever had them
 * before.  They run on an alternate stack, because RSP may hold anything while
 * guest code runs.  vCPU threads block every other signal but the timer's.
 */
#include "engine/dbt/engine_dbt.h"

#include "base/checked.h"
#include "engine/dbt/run.h"
#include "os/err.h"
#include "os/log.h"
#include "vmm/boot.h"
#include "vmm/irqchip.h"
#include "vmm/vm.h"

#include <cpuid.h>
#include <errno.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define ALT_STACK_BYTES 65536u
#define HWCAP2_FSGSBASE 2u
#define XSAVE_MXCSR 24u	/* byte of a vector state image, SDM vol. 1, 13.4 */
#define XSAVE_HEADER 512u
#define XSAVE_HEADER_BYTES 64u
#define TIMER_SIGNAL (SIGRTMIN + 1)

/* What vcpu->engine_data points to. */
struct dbt_vcpu {
	struct cpu *cpu;
	int fd;	/* memory of the windows */
	void *area;
	size_t area_size;
	timer_t timer;
	bool has_timer, entered;
	void *alt_stack;
};

static __thread struct cpu *current_cpu;
static struct sigaction previous[NSIG];

/* ------------------------------------------------------------------ signals */

static bool is_fault_in_code(const struct cpu *cpu, uint64_t pc)
{
	const struct code_cache *cc = cpu->vm->cc;

	return pc >= (uint64_t)(uintptr_t)cc->rx && pc < (uint64_t)(uintptr_t)cc->rx + cc->size;
}

/* Whether the stack of returns.c is full: what is pushed would lie in the page in front of it. */
static bool is_below_returns(const struct cpu *cpu, uint64_t address)
{
	return address - (cpu->guard + GUARD_PAGES * PAGE_SIZE) < PAGE_SIZE;
}

static void pass_on(int sig, siginfo_t *info, void *context)
{
	const struct sigaction *old = &previous[sig];

	if (old->sa_flags & SA_SIGINFO && old->sa_sigaction) {
		old->sa_sigaction(sig, info, context);
	} else if (old->sa_handler != SIG_DFL && old->sa_handler != SIG_IGN) {
		old->sa_handler(sig);
	} else {
		/* Let the instruction fault again with the default action. */
		(void)sigaction(sig, &(struct sigaction){ .sa_handler = SIG_DFL }, NULL);
	}
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
	static const int order[] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
				     REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };
	ucontext_t *uc = context;
	greg_t *g = uc->uc_mcontext.gregs;
	struct cpu *cpu = current_cpu;

	if (!cpu || !is_fault_in_code(cpu, (uint64_t)g[REG_RIP])) {
		pass_on(sig, info, context);
		return;
	}
	if (g[REG_TRAPNO] == VEC_PF && is_below_returns(cpu, (uint64_t)g[REG_CR2])) {
		g[REG_RSP] = (greg_t)cpu->returns_empty;	/* and once more */
		return;
	}
	for (unsigned r = 0; r < ARRAY_SIZE(order); r++) {
		if (is_scratch(r))
			cpu->scratch[r - T0] = (uint64_t)g[order[r]];
		else
			cpu->gpr[r] = (uint64_t)g[order[r]];
	}
	cpu->flags = (uint64_t)g[REG_EFL];
	cpu->in_code = 0;
	cpu->fault.pc = (uint64_t)g[REG_RIP];
	cpu->fault.vector = (uint8_t)g[REG_TRAPNO];
	if (sig == SIGBUS && g[REG_TRAPNO] != VEC_AC)
		cpu->fatal = "the host has no memory left for the guest; give it less with --memory, or free some";
	else if (g[REG_TRAPNO] == VEC_PF && (uint64_t)g[REG_CR2] - cpu->guard < GUARD_PAGES * PAGE_SIZE)
		cpu->fault.address = (uint64_t)g[REG_CR2];
	else if (g[REG_TRAPNO] == VEC_PF)
		cpu->fatal = "translated code made a wild access (please report this)";
	if (cpu->fatal)
		cpu->leave = LEAVE_ERROR;
	g[REG_RIP] = (greg_t)thunk_fault_entry(cpu->vm);
	g[REG_RSP] = (greg_t)cpu->host_rsp;
	g[REG_EFL] &= ~(greg_t)(FLAG_DF | FLAG_TF | FLAG_AC);
}

static void wake_cpu(struct cpu *cpu)
{
	ask_to_exit(cpu);
	atomic_fetch_add(&cpu->wake, 1);
	futex_wake(&cpu->wake, 1);
}

static void on_timer(int sig, siginfo_t *info, void *context)
{
	struct cpu *cpu = info->si_value.sival_ptr;

	(void)sig;
	(void)context;
	atomic_store(&cpu->timer_fired, true);
	wake_cpu(cpu);
}

static void install_handlers(void)
{
	static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };
	struct sigaction sa = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	(void)sigfillset(&sa.sa_mask);
	for (unsigned i = 0; i < ARRAY_SIZE(faults); i++)
		(void)sigaction(faults[i], &sa, &previous[faults[i]]);
	sa.sa_sigaction = on_timer;
	sa.sa_flags |= SA_RESTART;
	(void)sigaction(TIMER_SIGNAL, &sa, &previous[TIMER_SIGNAL]);
	(void)syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);	/* for claim_page() */
}

/* Once per vCPU thread. */
static int enter_thread(struct dbt_vcpu *dv, struct err *err)
{
	struct sigevent ev = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = TIMER_SIGNAL };
	sigset_t block;

	current_cpu = dv->cpu;
	if (dv->entered)
		return 0;
	(void)sigfillset(&block);
	(void)sigdelset(&block, SIGSEGV);
	(void)sigdelset(&block, SIGBUS);
	(void)sigdelset(&block, SIGFPE);
	(void)sigdelset(&block, SIGILL);
	(void)sigdelset(&block, SIGTRAP);
	(void)sigdelset(&block, TIMER_SIGNAL);
	(void)pthread_sigmask(SIG_SETMASK, &block, NULL);
	ev.sigev_value.sival_ptr = dv->cpu;
	ev._sigev_un._tid = gettid();
	if (timer_create(CLOCK_MONOTONIC, &ev, &dv->timer) < 0)
		return err_set(err, -errno, "cannot create a timer: %s", strerror(errno));
	dv->has_timer = true;
	dv->cpu->timer_id = (int)(intptr_t)dv->timer;
	dv->entered = true;
	dv->cpu->timer_ready = true;
	dbt_timer_set(dv->cpu, dv->cpu->timer_tsc);
	return 0;
}

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

/* -------------------------------------------------------------- making VMs */

static int check_host(struct err *err)
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
	r = code_cache_create(vm->mem, &dv->cc, err);
	if (r == 0)
		r = irqchip_create(vm->nvcpus, dv->tsc_khz, &chip_ops, dv, &dv->irqchip, err);
	if (r < 0) {
		dbt_vm_destroy(vm);
		return r;
	}
	dv->cc->base_used = THUNK_BYTES;
	dv->cc->used = THUNK_BYTES;
	dv->cc->on_drop = block_dropped;
	dv->cc->on_misplace = page_misplaced;
	dv->cc->ctx = dv;
	dbt_use_code_cache(vm, dv->cc);
	dbt_note_program(dv);
	vm->mem->watch = (struct mem_watch){ .wrote = dbt_wrote, .ctx = dv };
	return 0;
}

/* ----------------------------------------------------------------- running */

#define HALT_POLL_NS 50000u
#define REST_MS 1000u

/* A guest whose processes have done nothing for a while gives back what they fill again sooner than anybody notices. */
static void rest(struct cpu *cpu)
{
	uint64_t now = __builtin_ia32_rdtsc();

	if (cpu->rest.age != cpu->ctx_age) {
		cpu->rest.age = cpu->ctx_age;
		cpu->rest.since = now;
		cpu->rest.done = false;
	} else if (!cpu->rest.done && now - cpu->rest.since > (uint64_t)REST_MS * cpu->vm->tsc_khz) {
		mmu_give_back(cpu);
		cpu->rest.done = true;
	}
}

/*
 * Sleeps until cpu->wake is no longer @seen.  An answer to what the guest just
 * asked a device for is often microseconds away, so it looks for a while first;
 * after polls in vain for ever shorter, so that an idle guest costs nothing.
 */
static void sleep_halted(struct cpu *cpu, uint32_t seen)
{
	/* A little later than rest() asks for. */
	static const struct timespec until_rest = { .tv_sec = (REST_MS + 50) / 1000, .tv_nsec = (REST_MS + 50) % 1000 * 1000000 };
	uint64_t ticks = (uint64_t)cpu->halt_poll_ns * cpu->vm->tsc_khz / 1000000, start = __builtin_ia32_rdtsc();

	while (__builtin_ia32_rdtsc() - start < ticks) {
		if (atomic_load_explicit(&cpu->wake, memory_order_acquire) != seen) {
			cpu->halt_poll_ns = HALT_POLL_NS;
			return;
		}
		__builtin_ia32_pause();
	}
	rest(cpu);
	start = __builtin_ia32_rdtsc();
	futex_wait(&cpu->wake, seen, cpu->rest.done ? NULL : &until_rest);	/* the guest itself may sleep for a minute */
	if (__builtin_ia32_rdtsc() - start < HALT_POLL_NS * (uint64_t)cpu->vm->tsc_khz / 1000000)
		cpu->halt_poll_ns = HALT_POLL_NS;	/* would have paid */
	else
		cpu->halt_poll_ns /= 2;
}

/* Waits for an interrupt, a kick or a request. */
static void wait_halted(struct cpu *cpu)
{
	for (;;) {
		uint32_t seen = atomic_load(&cpu->wake);

		if (atomic_exchange(&cpu->timer_fired, false))
			irqchip_timer_expired(cpu->vm->irqchip, cpu->index);
		if ((cpu->intr_enabled && irqchip_pending(cpu->vm->irqchip, cpu->index)) ||
		    (!cpu->nmi_masked && irqchip_nmi_pending(cpu->vm->irqchip, cpu->index)) ||
		    atomic_load(&cpu->kicked) || atomic_load(&cpu->vm->stop_wanted) ||
		    atomic_load(&cpu->vm->vm->request) != VM_REQUEST_NONE)
			break;
		sleep_halted(cpu, seen);
	}
	ask_to_exit(cpu);
}

static void wait_while_stopped(struct dbt_vm *vm)
{
	uint32_t seen;

	while ((seen = atomic_load(&vm->stop_wanted)) != 0)
		futex_wait(&vm->stop_wanted, seen, NULL);
}

/* Empties the code cache while every other vCPU is outside translated code. */
static void flush_code(struct cpu *cpu)
{
	struct dbt_vm *vm = cpu->vm;
	uint32_t nobody = 0;

	if (!atomic_compare_exchange_strong(&vm->stop_wanted, &nobody, 1)) {	/* somebody else is at it */
		wait_while_stopped(vm);
		return;
	}
	for (unsigned i = 0; i < vm->ncpus; i++) {
		if (vm->cpu[i] == cpu || !vm->cpu[i])
			continue;
		wake_cpu(vm->cpu[i]);
		while (atomic_load(&vm->cpu[i]->inside))
			(void)sched_yield();
	}
	if (code_cache_full(vm->cc)) {
		code_cache_reset(vm->cc);
		for (unsigned i = 0; i < vm->ncpus; i++)
			if (vm->cpu[i])
				mmu_init(vm->cpu[i]);
	}
	atomic_store(&vm->stop_wanted, 0);
	futex_wake(&vm->stop_wanted, VCPUS_MAX);
}

static void run_guest(struct cpu *cpu)
{
	uint64_t code;

	cpu->leave = LEAVE_NONE;
	atomic_store(&cpu->inside, 1);
	if (atomic_load(&cpu->vm->stop_wanted)) {
		cpu->leave = LEAVE_STOP;
	} else {
		code = dispatch(cpu);
		cpu->vectors_live = true;
		if (code)
			(void)cpu->vm->enter(cpu, code);
		cpu->vectors_live = false;
	}
	atomic_store(&cpu->inside, 0);
}

static enum vcpu_exit requested(const struct vm *vm)
{
	return atomic_load(&vm->request) == VM_REQUEST_RESET ? VCPU_EXIT_RESET : VCPU_EXIT_POWEROFF;
}

static void log_shutdown(const struct cpu *cpu)
{
	for (unsigned i = 0; i < cpu->nchain; i++)
		log_msg(LOG_LEVEL_WARN, "dbt",
			"vCPU %u: exception %u (error 0x%x) at 0x%llx, ring %u, rsp 0x%llx, cr2 0x%llx", cpu->index,
			cpu->chain[i].vector, cpu->chain[i].error, (unsigned long long)cpu->chain[i].rip,
			cpu->chain[i].cpl, (unsigned long long)cpu->chain[i].rsp,
			(unsigned long long)cpu->chain[i].cr2);
}

static enum vcpu_exit run_until_exit(struct vcpu *vcpu, struct cpu *cpu, struct err *err)
{
	char at[64];

	for (;;) {
		if (atomic_exchange(&cpu->kicked, false))
			return VCPU_EXIT_KICKED;
		if (atomic_load(&cpu->vm->stop_wanted))
			wait_while_stopped(cpu->vm);
		if (cpu->wait_for_sipi || cpu->halted) {
			wait_halted(cpu);
			if (cpu->wait_for_sipi)
				continue;
			if (atomic_load(&cpu->kicked))
				continue;
		}
		run_guest(cpu);
		switch ((enum leave)cpu->leave) {
		case LEAVE_REQUEST:
			return requested(vcpu->vm);
		case LEAVE_SHUTDOWN:
			log_shutdown(cpu);
			return VCPU_EXIT_SHUTDOWN;
		case LEAVE_ERROR:
			(void)snprintf(at, sizeof(at), " (at guest address 0x%llx)", (unsigned long long)cpu->rip);
			(void)err_set(err, -EIO, "vCPU %u: %s%s", cpu->index, cpu->fatal, at);
			return VCPU_EXIT_ERROR;
		case LEAVE_FLUSH:
			flush_code(cpu);
			break;
		case LEAVE_DEBUG:
			vcpu->stop = cpu->debug.stop;
			return VCPU_EXIT_DEBUG;
		case LEAVE_NONE:
		case LEAVE_KICKED:
		case LEAVE_HALT:
		case LEAVE_STOP:
			break;
		}
	}
}

static enum vcpu_exit dbt_vcpu_run(struct vcpu *vcpu, struct err *err)
{
	struct dbt_vcpu *dv = vcpu->engine_data;
	stack_t stack = { .ss_sp = dv->alt_stack, .ss_size = ALT_STACK_BYTES,
			  .ss_flags = (int)(1u << 31) /* SS_AUTODISARM: RSP may point anywhere, even into it */ };
	stack_t before;
	enum vcpu_exit exit;

	if (enter_thread(dv, err) < 0)
		return VCPU_EXIT_ERROR;
	if (sigaltstack(&stack, &before) < 0) {
		(void)err_set(err, -errno, "cannot set the signal stack: %s", strerror(errno));
		return VCPU_EXIT_ERROR;
	}
	exit = run_until_exit(vcpu, dv->cpu, err);
	(void)sigaltstack(&before, NULL);
	return exit;
}

static void dbt_vcpu_kick(struct vcpu *vcpu)
{
	struct dbt_vcpu *dv = vcpu->engine_data;

	atomic_store(&dv->cpu->kicked, true);
	wake_cpu(dv->cpu);
}

/* ------------------------------------------------------------------- state */

/* MSRs of vcpu_state.msr[], beyond those with a field of their own. */
static const uint32_t state_msrs[] = {
	0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000102, 0xc0000103, 0x174, 0x175, 0x176,
	0x277, 0x1a0, 0x2ff, 0x6e0, MSR_KVM_SYSTEM_TIME_NEW, MSR_KVM_WALL_CLOCK_NEW,
};

static int dbt_get_state(struct vcpu *vcpu, struct vcpu_state *st, struct err *err)
{
	struct dbt_vcpu *dv = vcpu->engine_data;
	struct cpu *cpu = dv->cpu;

	(void)err;
	/* An expiry that nobody has looked at yet must be in the IRR, where it is saved. */
	irqchip_timer_expired(cpu->vm->irqchip, cpu->index);
	memset(st, 0, sizeof(*st));
	memcpy(st->gpr, cpu->gpr, sizeof(st->gpr));
	st->rip = cpu->rip;
	st->rflags = cpu_rflags(cpu);
	st->cr0 = cpu->cr0;
	st->cr2 = cpu->cr2;
	st->cr3 = cpu->cr3;
	st->cr4 = cpu->cr4;
	st->cr8 = irqchip_cr8(cpu->vm->irqchip, cpu->index);
	st->xcr0 = cpu->xcr0;
	st->efer = cpu->efer;
	memcpy(st->dr, cpu->dr, sizeof(st->dr));
	memcpy(st->seg, cpu->seg, sizeof(st->seg));
	st->seg[SEG_FS].base = cpu->fs_base;
	st->seg[SEG_GS].base = cpu->gs_base;
	st->ldtr = cpu->ldtr;
	st->tr = cpu->tr;
	st->gdtr = cpu->gdtr;
	st->idtr = cpu->idtr;
	(void)irqchip_msr_read(cpu->vm->irqchip, cpu->index, 0x1b, &st->apic_base);
	st->tsc = guest_tsc(cpu);
	st->mp_state = cpu->wait_for_sipi ? MP_WAIT_FOR_SIPI : cpu->halted ? MP_HALTED : MP_RUNNABLE;
	for (unsigned i = 0; i < ARRAY_SIZE(state_msrs); i++) {
		uint64_t v;

		if (msr_read(cpu, state_msrs[i], &v) == 0)
			st->msr[st->nmsrs++] = (struct vcpu_msr){ .index = state_msrs[i], .value = v };
	}
	st->exception_pending = cpu->has_pending;
	st->exception_vector = cpu->pending.vector;
	st->exception_has_error = cpu->pending.has_error;
	st->exception_error = cpu->pending.error;
	/* Ours may also be of an IRET, which hardware does not know, nor one without IF (SDM vol. 3, 26.3.1.5). */
	st->interrupt_shadow = cpu->intr_shadow && cpu->intr_enabled;
	st->nmi_masked = cpu->nmi_masked;
	st->nmi_pending = irqchip_nmi_pending(cpu->vm->irqchip, cpu->index);
	irqchip_save_lapic(cpu->vm->irqchip, cpu->index, st->lapic);
	memcpy(st->xsave, cpu->xsave, sizeof(st->xsave));
	return 0;
}

/*
 * Vector state may be of another engine, and somebody may have changed it: what XRSTOR would
 * fault at is left out (SDM vol. 1, 13.8.1).
 */
static void take_xsave(struct cpu *cpu, const uint8_t image[VCPU_XSAVE_MAX])
{
	uint64_t components;
	uint32_t mxcsr;

	memcpy(cpu->xsave, image, VCPU_XSAVE_MAX);
	memcpy(&mxcsr, cpu->xsave + XSAVE_MXCSR, sizeof(mxcsr));
	memcpy(&components, cpu->xsave + XSAVE_HEADER, sizeof(components));
	mxcsr &= cpu->mxcsr_mask;
	components &= cpu->xcr0_host;
	memcpy(cpu->xsave + XSAVE_MXCSR, &mxcsr, sizeof(mxcsr));
	memset(cpu->xsave + XSAVE_HEADER, 0, XSAVE_HEADER_BYTES);
	memcpy(cpu->xsave + XSAVE_HEADER, &components, sizeof(components));
}

static int dbt_set_state(struct vcpu *vcpu, const struct vcpu_state *st, struct err *err)
{
	struct dbt_vcpu *dv = vcpu->engine_data;
	struct cpu *cpu = dv->cpu;
	uint64_t deadline = 0;

	if (st->nmsrs > VCPU_MSRS_MAX)
		return err_set(err, -EINVAL, "vCPU state names too many MSRs");
	memcpy(cpu->gpr, st->gpr, sizeof(cpu->gpr));
	cpu->rip = st->rip;
	cpu->cr0 = st->cr0;
	cpu->cr2 = st->cr2;
	cpu->cr4 = st->cr4;
	cpu->xcr0 = (st->xcr0 & cpu->vm->xcr0_mask) | 1;
	cpu->xsave_size = cpuid_xsave_size(cpu->vm->cpuid, cpu->xcr0);
	cpu->efer = st->efer;
	cpu->syscall_ready = 0;
	memcpy(cpu->dr, st->dr, sizeof(cpu->dr));
	memcpy(cpu->seg, st->seg, sizeof(cpu->seg));
	cpu->fs_base = st->seg[SEG_FS].base;
	cpu->gs_base = st->seg[SEG_GS].base;
	cpu->ldtr = st->ldtr;
	cpu->tr = st->tr;
	cpu->gdtr = st->gdtr;
	cpu->idtr = st->idtr;
	mmu_init(cpu);
	mmu_load_cr3(cpu, st->cr3, false);
	cpu->stepping = 0;
	cpu->debug.hits = 0;
	debug_update(cpu);
	cpu->cpl = (uint8_t)(st->seg[SEG_SS].attr >> 5 & 3);
	if (st->seg[SEG_CS].attr & ATTR_L)
		cpu->cpl = (uint8_t)(st->seg[SEG_CS].sel & 3);
	cpu_set_rflags(cpu, st->rflags, ~0ull);
	for (unsigned i = 0; i < st->nmsrs; i++) {
		if (st->msr[i].index == 0x6e0)
			deadline = st->msr[i].value;
		else
			(void)msr_write(cpu, st->msr[i].index, st->msr[i].value);
	}
	irqchip_restore_msrs(cpu->vm->irqchip, cpu->index, st->apic_base, deadline);
	irqchip_restore_lapic(cpu->vm->irqchip, cpu->index, st->lapic);
	irqchip_set_cr8(cpu->vm->irqchip, cpu->index, (uint8_t)st->cr8);
	cpu->wait_for_sipi = st->mp_state == MP_WAIT_FOR_SIPI;
	cpu->halted = st->mp_state == MP_HALTED;
	cpu->has_pending = st->exception_pending;
	cpu->pending = (struct event){ .vector = st->exception_vector, .kind = EVENT_FAULT,
		.has_error = st->exception_has_error, .error = st->exception_error };
	cpu->intr_shadow = st->interrupt_shadow;
	cpu->nmi_masked = st->nmi_masked;
	if (st->nmi_pending)	/* the local APIC has forgotten it with the rest */
		irqchip_nmi(cpu->vm->irqchip, cpu->index);
	take_xsave(cpu, st->xsave);
	cpu->fatal = NULL;
	cpu->leave = LEAVE_NONE;
	if (!cpu->wait_for_sipi)
		cpu_update_mode(cpu);
	if (cpu->fatal)
		return err_set(err, -ENOTSUP, "%s", cpu->fatal);
	dbt_take_jumps(vcpu->vm->engine_data, cpu);
	return 0;
}

static int dbt_debug(struct vcpu *vcpu, const struct vcpu_debug *debug, struct err *err)
{
	struct cpu *cpu = ((struct dbt_vcpu *)vcpu->engine_data)->cpu;

	(void)err;
	cpu->debug.outside = *debug;
	if (debug->inject_int3)
		software_interrupt(cpu, VEC_BP, cpu->rip + 1);
	cpu->debug.outside.inject_int3 = false;
	debug_update(cpu);
	if (!debug->single_step) {
		cpu->stepping &= STEP_TF;
		ask_to_exit(cpu);	/* interrupts may have waited for the step */
	}
	return 0;
}

static int dbt_get_vm_state(struct vm *vm, struct vm_state *ret_state, struct err *err)
{
	struct dbt_vm *dv = vm->engine_data;

	(void)err;
	memset(ret_state, 0, sizeof(*ret_state));
	irqchip_save_ioapic(dv->irqchip, &ret_state->ioapic);
	ret_state->tsc = guest_tsc(dv->cpu[0]);
	ret_state->clock_ns = kvmclock_ns(&dv->clock, ret_state->tsc);
	return 0;
}

static int dbt_set_vm_state(struct vm *vm, const struct vm_state *state, struct err *err)
{
	uint64_t offset = state->tsc - __builtin_ia32_rdtsc();
	struct dbt_vm *dv = vm->engine_data;

	(void)err;
	irqchip_restore_ioapic(dv->irqchip, &state->ioapic);
	/* Time stood still for the guest: it goes on where it was. */
	for (unsigned i = 0; i < dv->ncpus; i++)
		dv->cpu[i]->tsc_offset = offset;
	kvmclock_init(&dv->clock, vm->mem, dv->tsc_khz, state->tsc, state->clock_ns);
	return 0;
}

static int64_t dbt_skip_time(struct vm *vm, uint64_t most)
{
	const struct dbt_vm *dv = vm->engine_data;
	uint64_t ticks = UINT64_MAX, ns;

	for (unsigned i = 0; i < dv->ncpus; i++) {
		uint64_t now = guest_tsc(dv->cpu[i]), timer = dv->cpu[i]->timer_tsc;

		if (timer && timer <= now)
			return -EAGAIN;
		if (timer && timer - now < ticks)
			ticks = timer - now;
	}
	ns = (uint64_t)((unsigned __int128)ticks * 1000000 / dv->tsc_khz);
	if (ticks == UINT64_MAX || ns > most)
		return 0;
	for (unsigned i = 0; i < dv->ncpus; i++) {
		dv->cpu[i]->tsc_offset += ticks;
		dbt_timer_set(dv->cpu[i], dv->cpu[i]->timer_tsc);
	}
	return ns ? (int64_t)ns : 1;
}

static void dbt_irq_set(struct vm *vm, unsigned gsi, bool level)
{
	irqchip_line_set(((struct dbt_vm *)vm->engine_data)->irqchip, gsi, level);
}

static void dbt_msi_send(struct vm *vm, uint64_t addr, uint32_t data)
{
	irqchip_msi(((struct dbt_vm *)vm->engine_data)->irqchip, addr, data);
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

/* ------------------------------------------------------------------- probe */

#define PROBE_PORT 0x42u
#define PROBE_CODE 0x10000ull
#define PROBE_ANSWER 42u

/* Integer, stack, branch and SSE: 6 * 7 computed as doubles, told through a port. */
static const uint8_t probe_code[] = {
	0xbc, 0x00, 0x80, 0x01, 0x00,	/* mov esp, 0x18000 */
	0xb8, 0x06, 0x00, 0x00, 0x00,	/* mov eax, 6 */
	0xe8, 0x0a, 0x00, 0x00, 0x00,	/* call +10 */
	0xf2, 0x0f, 0x2c, 0xc0,	/* cvttsd2si eax, xmm0 */
	0xe6, PROBE_PORT,	/* out PROBE_PORT, al */
	0xf4,	/* hlt */
	0xeb, 0xfd,	/* jmp hlt */
	0x90,
	0xf2, 0x0f, 0x2a, 0xc0,	/* cvtsi2sd xmm0, eax */
	0xff, 0xc0,	/* inc eax */
	0xf2, 0x0f, 0x2a, 0xc8,	/* cvtsi2sd xmm1, eax */
	0xf2, 0x0f, 0x59, 0xc1,	/* mulsd xmm0, xmm1 */
	0xc3,	/* ret */
};

struct probe {
	struct vm *vm;
	uint64_t answer;
	sem_t ended;
};

static uint64_t probe_read(void *dev, uint64_t off, unsigned size)
{
	(void)dev;
	(void)off;
	(void)size;
	return 0;
}

static void probe_write(void *dev, uint64_t off, unsigned size, uint64_t value)
{
	struct probe *p = dev;

	(void)off;
	(void)size;
	p->answer = value;
	vm_request(p->vm, VM_REQUEST_POWEROFF);
}

static void probe_ended(void *ctx, const struct vm_end *end)
{
	(void)end;
	(void)sem_post(&((struct probe *)ctx)->ended);
}

static int run_probe(struct probe *p, struct mem *mem, struct err *err)
{
	static const struct bus_ops ops = { probe_read, probe_write };
	struct bus_range range = { .base = PROBE_PORT, .size = 1, .ops = &ops, .dev = p, .name = "probe" };
	struct vcpu_state state;
	struct timespec limit;
	int r = vm_create(&dbt_engine, mem, 1, &p->vm, err);

	if (r < 0)
		return r;
	p->vm->ended = probe_ended;
	p->vm->ended_ctx = p;
	r = bus_add(&p->vm->pio, &range, err);
	if (r == 0)
		r = boot_tables(mem, err);
	if (r == 0)
		r = mem_write(mem, PROBE_CODE, probe_code, sizeof(probe_code));
	boot_long_mode_state(0, PROBE_CODE, 0, &state);
	state.cr4 |= 3u << 9;	/* OSFXSR, OSXMMEXCPT */
	if (r == 0)
		r = dbt_set_state(&p->vm->vcpu[0], &state, err);
	if (r == 0)
		r = vm_start(p->vm, err);
	if (r == 0) {
		(void)clock_gettime(CLOCK_MONOTONIC, &limit);	/* somebody may set the other */
		limit.tv_sec += 5;
		if (sem_clockwait(&p->ended, CLOCK_MONOTONIC, &limit) < 0 || p->answer != PROBE_ANSWER)
			r = err_set(err, -EIO, "the probe guest did not compute 6 * 7 (please report this)");
	}
	vm_destroy(p->vm);
	return r;
}

static int dbt_probe(struct err *err)
{
	struct probe p = { .answer = 0 };
	struct mem *mem;
	int r = check_host(err);

	if (r == 0)
		r = mem_create(2ull << 20, &mem, err);
	if (r < 0)
		return r;
	(void)sem_init(&p.ended, 0, 0);
	r = run_probe(&p, mem, err);
	(void)sem_destroy(&p.ended);
	mem_destroy(mem);
	return r;
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
